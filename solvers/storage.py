"""Solutions in HDF5 files: arrays and a JSON header, written beside the old file and moved into place.

The file is plain HDF5, so that any tool reads it: `ts`, `grid`, `ys/0`, ... (the leaves of the state in
order, dict keys sorted), `aux/ts`, `aux/0`, ..., of each event `events/0/ts`, `events/0/ys/0`, ..., and for
dense output `dense/0/times`, `dense/0/blocks` (rows, n) with `rows` of them a step, one group a piece. The
JSON text `header` says how the leaves form trees. No code runs from a file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.atomic import replace_file
from ..engine.errors import ArgumentTypeError, SolutionFileError
from ..engine.tree import Tree

SCHEMA, KIND = 1, "odegrad solution"
_KINDS = "biufc"  # what an array may hold


def described(tree: Tree) -> Any:
    """The structure of a tree as JSON: a dict, list or tuple of such, None,
    or the number of a leaf in order.
    """
    count = iter(range(10**9))

    def walk(node: Tree) -> Any:
        if node is None:
            return None
        if isinstance(node, dict):
            if not all(isinstance(key, str) for key in node):
                raise ArgumentTypeError(f"a saved state has text as keys of its dicts; got {list(node)!r}")
            children = {key: walk(node[key]) for key in sorted(node)}
            return {"dict": {key: children[key] for key in node}}
        if isinstance(node, (list, tuple)):
            return {"list" if isinstance(node, list) else "tuple": [walk(child) for child in node]}
        return next(count)

    return walk(tree)


def rebuilt(description: Any, leaves: list[Any]) -> Tree:
    """The tree that `described` describes; a named tuple comes back as a plain one.
    ValueError for another thing.
    """
    if description is None:
        return None
    if isinstance(description, int) and not isinstance(description, bool):
        if not 0 <= description < len(leaves):
            raise ValueError(f"leaf {description} of {len(leaves)}")
        return leaves[description]
    if isinstance(description, dict) and len(description) == 1:
        kind, children = next(iter(description.items()))
        if kind == "dict" and isinstance(children, dict):
            return {key: rebuilt(child, leaves) for key, child in children.items()}
        if kind in ("list", "tuple") and isinstance(children, list):
            found = [rebuilt(child, leaves) for child in children]
            return found if kind == "list" else tuple(found)
    raise ValueError(f"{description!r} describes no tree")


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Write the file, or leave the one at `path` as it is. OSError as the operating system gives it."""
    import h5py  # takes 0.1 s, so only here

    text = json.dumps({"kind": KIND, "schema": SCHEMA, "sha256": _digest(arrays), **header}).encode()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("header", data=np.frombuffer(text, np.uint8))
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    replace_file(path, [buffer.getbuffer()])


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name, and the header. SolutionFileError if the file is missing, truncated, or no solution."""
    import h5py

    name = os.fspath(path)
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise SolutionFileError(f"{name}: no solution there ({error.strerror})", path=name) from error
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            arrays: dict[str, np.ndarray] = {}

            def visit(key: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    arrays[key] = _plain(item, len(data))

            file.visititems(visit)
        header = json.loads(arrays.pop("header").tobytes())
        if not isinstance(header, dict) or header.get("kind") != KIND:
            raise ValueError("its header is not that of a solution")
        if header.get("schema") == SCHEMA and header.pop("sha256", None) != _digest(arrays):
            raise ValueError("its numbers are not those that were written")
    except Exception as error:  # whatever h5py and json make of bytes that are no file of ours
        raise SolutionFileError(
            f"{name}: truncated, damaged, or no solution written by `sol.save` ({len(data)} bytes): {error}",
            path=name,
        ) from error
    if header.get("schema") != SCHEMA:
        raise SolutionFileError(
            f"{name}: a solution of schema {header.get('schema')!r}; this version reads {SCHEMA}", path=name
        )
    return arrays, header


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {arrays[name].shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _plain(dataset: Any, n_bytes: int) -> np.ndarray:
    """The values of a dataset of numbers that lies in the file,
    so that a header cannot claim more than there is.
    """
    if dataset.dtype.kind not in _KINDS:
        raise ValueError(f"{dataset.name} holds {dataset.dtype}, not numbers")
    if dataset.is_virtual or dataset.external or dataset.compression or dataset.nbytes > n_bytes:
        raise ValueError(f"{dataset.name} does not lie in the file as it is")
    return np.asarray(dataset[()])
