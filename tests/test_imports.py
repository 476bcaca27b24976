"""Who imports whom: engine <- solvers <- layers <- train, no cycles, CuPy named in one file, heavy modules late."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "solvers", "layers", "train")  # each may import itself and those before it
MAY_NAME_CUPY = "odegrad.engine.backend"
DEVICE = {"cudnn", "cupy", "cupy_backends", "cupyx", "nvidia", "nvmath"}  # of a GPU
LATE = {"PIL", "cupy", "h5py", "llvmlite", "matplotlib", "numba", "pooch", "rich", "scipy", "tyro"}


def modules_of(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the library; the root itself is the package odegrad."""
    files = [*root.glob("*.py"), *(file for folder in FOLDERS for file in (root / folder).rglob("*.py"))]
    return {module_name(file.relative_to(root)): file for file in files}


def module_name(file: Path) -> str:
    parts = ("odegrad", *file.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_imported(module: str, file: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import in a file, wherever it stands; `from x import y` gives x.y."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in {
            "import_module",
            "__import__",
        }:
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def target_of(name: str, modules: dict[str, Path]) -> str:
    """The module of the library that `name` lies in: itself, or what holds it."""
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name


def rank_of(module: str) -> int:
    """Height in the house; the root package and its modules are above all folders."""
    folder = module.split(".")[1] if "." in module else ""
    return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


def violations(root: Path) -> list[str]:
    """Everything that is wrong with the imports of the library under `root`, a line each."""
    modules = modules_of(root)
    arrows: dict[str, set[str]] = {module: set() for module in modules}
    found = []
    for module, file in sorted(modules.items()):
        for line, name in names_imported(module, file):
            where = f"{file.relative_to(root)}:{line}"
            top = name.split(".")[0]
            if top in DEVICE and module != MAY_NAME_CUPY:
                found.append(f"{where} imports {top}")
            if top in ("tests", "benchmarks") or name.startswith(("odegrad.tests", "odegrad.benchmarks")):
                found.append(f"{where} imports {name}, which is not part of the library")
            if top != "odegrad":
                continue
            target = target_of(name, modules)
            if rank_of(target) > rank_of(module):
                found.append(f"{where} imports upward: {target}")
            arrows[module].add(target)
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        found.append("cycle: " + " <- ".join(error.args[1]))
    return found


def test_the_library_keeps_the_rules():
    assert violations(ROOT) == []


def test_the_checker_sees_the_library():
    assert {"odegrad", "odegrad.engine.backend", "odegrad.solvers.tableau"} <= set(modules_of(ROOT))


def test_the_checker_follows_an_import_that_is_there():
    names = [name for _, name in names_imported("odegrad.solvers.tableau", ROOT / "solvers" / "tableau.py")]
    assert "odegrad.engine.errors.ArgumentError" in names


def tree(root: Path, **files: str) -> Path:
    """A library under `root` with an empty module a.py in each folder, and `files` (engine__a="...") over them."""
    contents = {f"{folder}__{stem}": "" for folder in FOLDERS for stem in ("__init__", "a", "b")}
    contents |= {"__init__": ""} | files
    for key, text in contents.items():
        folder, _, stem = key.partition("__") if not key.startswith("__") else ("", "", key)
        file = root / folder / f"{stem}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return root


ALLOWED = {
    "downward": {"train__a": "from ..engine.a import f", "layers__a": "from ..solvers import a"},
    "the same folder": {"engine__a": "from .b import f"},
    "the package re-exports": {"__init__": "from .train.a import f\nfrom .engine import a"},
    "a folder re-exports": {"engine____init__": "from .a import f", "engine__a": "from .b import g"},
    "other libraries": {"engine__a": "import numpy as np\nfrom os import path"},
    "cupy in its place": {"engine__backend": "def f():\n    import cupy"},
}
FORBIDDEN = {
    "upward": ({"engine__a": "from ..solvers.a import f"}, "engine/a.py:1 imports upward: odegrad.solvers.a"),
    "upward, a folder": ({"engine__a": "from ..solvers import f"}, "imports upward: odegrad.solvers"),
    "upward, by the root": ({"layers__a": "from .. import train"}, "imports upward: odegrad.train"),
    "upward, absolute": ({"solvers__a": "import odegrad.layers.a"}, "imports upward: odegrad.layers.a"),
    "upward, the root": ({"engine__a": "from .. import f"}, "engine/a.py:1 imports upward: odegrad"),
    "upward, in a function": (
        {"engine__a": "def f():\n    from ..train.a import g"},
        "engine/a.py:2 imports upward: odegrad.train.a",
    ),
    "upward, from __init__": (
        {"engine____init__": "from ..train import a"},
        "imports upward: odegrad.train.a",
    ),
    "upward, by name": (
        {"engine__a": "import importlib\nimportlib.import_module('odegrad.train.a')"},
        "engine/a.py:2 imports upward: odegrad.train.a",
    ),
    "cycle": ({"engine__a": "from .b import f", "engine__b": "from .a import g"}, "cycle: odegrad.engine."),
    "cycle in a function": (
        {"engine__a": "from . import b", "engine__b": "def f():\n    from . import a"},
        "cycle: odegrad.engine.",
    ),
    "cycle through a folder": (
        {"engine____init__": "from .a import f", "engine__a": "from . import f"},
        "cycle: odegrad.engine",
    ),
    "cupy": ({"layers__a": "import cupy"}, "layers/a.py:1 imports cupy"),
    "cupy, a part of it": ({"engine__a": "from cupy.cuda import Device"}, "engine/a.py:1 imports cupy"),
    "cupy in a function": ({"train__a": "def f():\n    import cupy as cp"}, "train/a.py:2 imports cupy"),
    "cudnn": ({"engine__a": "import cudnn"}, "engine/a.py:1 imports cudnn"),
    "cupy by name": ({"engine__a": "__import__('cupy')"}, "engine/a.py:1 imports cupy"),
    "tests": ({"train__a": "from ..tests.problems import p"}, "which is not part of the library"),
}


@pytest.mark.parametrize("files", ALLOWED.values(), ids=ALLOWED.keys())
def test_the_checker_lets_pass(tmp_path, files):
    assert violations(tree(tmp_path, **files)) == []


@pytest.mark.parametrize(("files", "message"), FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_the_checker_catches(tmp_path, files, message):
    assert any(message in violation for violation in violations(tree(tmp_path, **files)))


def test_importing_the_package_loads_no_heavy_module(tmp_path):
    code = "import sys, json, odegrad; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    fresh = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert LATE & set(json.loads(fresh.stdout)) == set()
