"""A wheel built from the tree holds the library and nothing else, and works outside the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ("engine", "solvers", "layers", "train")
NOT_COPIED = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "shared", "tests", "benchmarks"
)
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
OPTIONAL = (
    "numba",
    "llvmlite",
    "torch",
    "torchdiffeq",
    "jax",
    "diffrax",
    "equinox",
)  # of the extras jit and peers
needs_setuptools = pytest.mark.skipif(
    int(version("setuptools").split(".")[0]) < 77,
    reason="building needs setuptools >= 77: pip install 'odegrad[test]'",
)
pytestmark = needs_setuptools


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed; its messages are shown if it does not."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built without network from a copy of the tree with tests and benchmarks as decoys."""
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "tree"
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
    for decoy in ("tests", "benchmarks"):
        (copy / decoy).mkdir()
        (copy / decoy / "__init__.py").write_text("")
        (copy / decoy / "decoy.py").write_text("")
    run(
        *PIP,
        "wheel",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        place,
        copy,
        cwd=place,
    )
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel's contents and its console command, as pip installs them."""
    target = tmp_path_factory.mktemp("installed")
    run(*PIP, "install", "--no-index", "--no-deps", "--target", target, wheel, cwd=target)
    return target


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def expected_modules() -> set[str]:
    files = [*ROOT.glob("*.py"), *(file for folder in LIBRARY for file in (ROOT / folder).rglob("*.py"))]
    return {f"odegrad/{file.relative_to(ROOT).as_posix()}" for file in files}


def test_every_module_of_the_library_is_in_the_wheel_and_no_other(names):
    assert {name for name in names if name.endswith(".py")} == expected_modules()


def test_every_data_file_is_in_the_wheel(names):
    ignored = {".py", ".pyc"}
    data = {
        f"odegrad/{file.relative_to(ROOT).as_posix()}"
        for folder in LIBRARY
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and file.suffix not in ignored
    }
    assert data | {"odegrad/py.typed"} <= names


def test_the_license_is_in_the_wheel(names):
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_every_module_imports_outside_the_checkout(installed, tmp_path):
    code = (
        "import importlib, pkgutil, odegrad\n"
        f"optional = {OPTIONAL}\n"
        "for module in pkgutil.walk_packages(odegrad.__path__, 'odegrad.'):\n"
        "    if not module.name.endswith('.__main__'):\n"
        "        try:\n"
        "            importlib.import_module(module.name)\n"
        "        except ModuleNotFoundError as error:\n"
        "            assert error.name in optional, error\n"
        "print(odegrad.__file__)\n"
    )
    where = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(where.strip()) == installed / "odegrad" / "__init__.py"


@pytest.mark.skipif(not (ROOT / "train" / "cli.py").exists(), reason="the tree has no command line")
def test_the_command_runs_outside_the_checkout(installed, tmp_path):
    output = run(installed / "bin" / "odegrad", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "train" in output
