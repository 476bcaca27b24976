"""Checkpoints: arrays by name and a JSON header in one HDF5 file whose digest is verified before HDF5 reads a
byte.

The file is an HDF5 file (any HDF5 tool opens it) followed by a trailer of 48 bytes: a mark and the SHA-256 of
all that stands before it. File and digest are one, so that they move into place together.
No code runs from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.atomic import replace_file
from ..engine.backend import namespace_of, to_host, to_xp
from ..engine.errors import ArgumentError, ArgumentTypeError, CheckpointError
from ..engine.tree import Tree, leaves, leaves_with_paths, path_name, unflatten

SCHEMA = 1
_MARK = b"odegrad sha-256\n"
_TRAILER = len(_MARK) + hashlib.sha256().digest_size
_KINDS = "biufc"  # what an array may hold: truth values, integers, real and complex numbers

ShapeAndDtype = tuple[tuple[int, ...], Any]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """arrays by name (native byte order, writable) and the header that was saved with them."""

    arrays: dict[str, np.ndarray]
    header: dict[str, Any]


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Write a checkpoint, or leave the one at `path` as it is. Equal contents give equal bytes.

    Args:
        arrays: name -> array of numbers; a name is made of parts joined by "/", which become HDF5 groups.
        header: what JSON can hold, without NaN and infinity.
    Raises: ArgumentError, ArgumentTypeError for what the file cannot hold; OSError,
        for instance of a full disk.
    Cost: memory for two copies of the arrays.
    """
    contents = _to_hdf5(arrays, _header_bytes(header))
    digest = hashlib.sha256(contents).digest()
    replace_file(path, (contents, _MARK, digest))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises: CheckpointError if the file is missing, truncated, changed, no checkpoint, or of another schema;
        it says which. Other failures to read are OSError.
    """
    name = os.fspath(path)
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CheckpointError(f"{name}: no checkpoint there ({error.strerror})", path=name) from error
    contents = _verified(data, name)
    try:
        arrays, header = _from_hdf5(contents)
    except (
        OSError,
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # the reactions of h5py and json
        raise CheckpointError(
            f"{name}: its digest is right but it is no checkpoint: {error}", path=name
        ) from error
    return Checkpoint(arrays, _of_this_schema(header, name))


def match(arrays: Mapping[str, np.ndarray], expected: Mapping[str, ShapeAndDtype]) -> None:
    """CheckpointError that lists every array that is missing, too many, or of another shape or dtype."""
    problems = [f"{name} is missing" for name in expected if name not in arrays]
    problems += [f"{name} is not expected" for name in arrays if name not in expected]
    for name in expected.keys() & arrays.keys():
        shape, dtype = expected[name]
        got = arrays[name]
        if got.shape != tuple(shape) or got.dtype != np.dtype(dtype):
            wanted = f"{np.dtype(dtype)} {tuple(shape)}"
            problems.append(f"{name}: expected {wanted}, got {got.dtype} {got.shape}")
    if problems:
        raise CheckpointError(
            f"the checkpoint is of another architecture; {len(problems)} of its arrays do not fit: "
            + "; ".join(sorted(problems))
            + ". Load it with the configuration it was trained with.",
            problems=tuple(sorted(problems)),
        )


def named_arrays(tree: Tree, prefix: str) -> dict[str, np.ndarray]:
    """The leaves of `tree` on the host, named prefix/path: what `save` takes."""
    named = {_leaf_name(prefix, path): to_host(leaf) for path, leaf in leaves_with_paths(tree)}
    if len(named) != len(leaves(tree)):
        raise ArgumentError(f"two leaves of the tree {prefix!r} have the same name, since a key holds '/'")
    return named


def restored_tree(like: Tree, arrays: Mapping[str, np.ndarray], prefix: str) -> Tree:
    """A tree of the structure, shapes, dtypes and device of `like` with the values named prefix/path.

    Raises: CheckpointError lists everything under `prefix` that does not fit.
    """
    named = {_leaf_name(prefix, path): leaf for path, leaf in leaves_with_paths(like)}
    own = {name: arrays[name] for name in arrays if name == prefix or name.startswith(prefix + "/")}
    match(own, {name: (leaf.shape, leaf.dtype) for name, leaf in named.items()})
    return unflatten(like, (to_xp(namespace_of(leaf), own[name]) for name, leaf in named.items()))


def _leaf_name(prefix: str, path: tuple[str | int, ...]) -> str:
    return f"{prefix}/{path_name(path)}" if path else prefix


def _header_bytes(header: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(
            {"schema": SCHEMA, "header": dict(header)}, sort_keys=True, allow_nan=False
        ).encode()
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"`header` must hold what JSON can hold: {error}") from error


def _to_hdf5(arrays: Mapping[str, np.ndarray], header: bytes) -> memoryview:
    """The bytes of an HDF5 file with the group `arrays` and the JSON text `header`."""
    import h5py  # takes 0.1 s, so only here

    _check_names(arrays)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("header", data=np.frombuffer(header, np.uint8))
        group = file.create_group("arrays")
        for name in sorted(arrays):
            array = arrays[name]
            if not isinstance(array, np.ndarray) or array.dtype.kind not in _KINDS:
                got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise ArgumentTypeError(f"`arrays`: {name} must be a NumPy array of numbers; got {got}")
            group.create_dataset(name, data=array)
    return buffer.getbuffer()


def _check_names(arrays: Mapping[str, np.ndarray]) -> None:
    """Each name must be a path of HDF5, and none may be a folder of another."""
    bad = [name for name in arrays if {"", ".", ".."} & set(name.split("/")) or "\0" in name]
    parts = sorted(name.split("/") for name in arrays)
    bad += ["/".join(first) for first, second in pairwise(parts) if second[: len(first)] == first]
    if bad:
        raise ArgumentError(
            f"`arrays`: names must be parts joined by '/', none the beginning of another; got {sorted(bad)}"
        )


def _verified(data: bytes, name: str) -> memoryview:
    """The HDF5 bytes of a checkpoint file, once mark and digest have been found right."""
    view = memoryview(data)
    contents, trailer = view[:-_TRAILER], bytes(view[-_TRAILER:])
    if not trailer.startswith(_MARK):
        kind = (
            "truncated or not finished" if data.startswith(b"\x89HDF\r\n\x1a\n") else "no odegrad checkpoint"
        )
        raise CheckpointError(f"{name}: {kind} ({len(data)} bytes without the closing digest)", path=name)
    if hashlib.sha256(contents).digest() != trailer[len(_MARK) :]:
        raise CheckpointError(
            f"{name}: damaged: the SHA-256 of its {len(contents)} bytes is not the one written with them. "
            "Use the other checkpoint of the run, or a copy.",
            path=name,
        )
    return contents


def _from_hdf5(contents: memoryview) -> tuple[dict[str, np.ndarray], Any]:
    """(arrays, JSON object) of verified bytes; links are not followed and no other file is opened."""
    import h5py

    arrays: dict[str, np.ndarray] = {}
    with h5py.File(io.BytesIO(contents), "r") as file:

        def read(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                arrays[name] = _plain_array(item)

        file["arrays"].visititems(read)
        header = json.loads(_plain_array(file["header"]).tobytes())
    return arrays, header


def _plain_array(dataset: Any) -> np.ndarray:
    """The values of a dataset that lies whole in the file,
    so that a header cannot claim more than there is.
    """
    if dataset.dtype.kind not in _KINDS:
        raise ValueError(f"{dataset.name} holds {dataset.dtype}, not numbers")
    if dataset.external or dataset.id.get_storage_size() != dataset.nbytes:
        raise ValueError(f"{dataset.name} is not stored plainly")
    array = np.empty(dataset.shape, dataset.dtype.newbyteorder("="))
    if array.size:
        dataset.read_direct(array)
    return array


def _of_this_schema(header: Any, name: str) -> dict[str, Any]:
    schema = header.get("schema") if isinstance(header, dict) else None
    if schema != SCHEMA or not isinstance(header.get("header"), dict):
        raise CheckpointError(
            f"{name}: written in schema {schema!r}, and this version of odegrad reads schema {SCHEMA}. "
            "Use the version that wrote it.",
            path=name,
            schema=schema,
        )
    return header["header"]
