"""CIFAR-10 and CIFAR-100 as published: Python or binary batches, in a folder or in a .tar.gz.

Binary: records of label bytes (CIFAR-100: coarse, then fine) and 3,072 pixel bytes. Python: pickled dicts
with an array `data` (N, 3072) and lists of labels. In both an image is its red, green and blue plane, 32
rows of 32.
Source: Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images; the page of the data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.errors import DataError
from .classes import CIFAR10, CIFAR100
from .dataset import Dataset, LabelledImages, check_labelled
from .files import MIB, parsing, read_bytes, tar_members
from .plain_pickle import load_plain_dict

_PIXELS = 3 * 32 * 32
_LIMIT = 256 * MIB  # the published archives unpack to 177 MiB


@dataclass(frozen=True)
class CifarFormat:
    """One of the four published forms: its archive, or its folder of files;
    the last file is the test part.
    """

    name: str
    archive: str
    folder: str
    files: tuple[str, ...]
    classes: tuple[str, ...]
    content: str  # what a file holds, in messages
    decode: Callable[[bytes, str], LabelledImages]  # takes the bytes of a file and its name in messages

    def read_folder(self, paths: Sequence[Path]) -> Dataset:
        """The data set from the extracted files `paths`, in the order of `files`. DataError."""
        return self._assemble({str(path): read_bytes(path, self.content, _LIMIT) for path in paths})

    def read_archive(self, paths: Sequence[Path]) -> Dataset:
        """The data set from the .tar.gz `paths[0]`, which is never extracted to disk. DataError."""
        names = [f"{self.folder}/{file}" for file in self.files]
        members = tar_members(paths[0], names, f"a .tar.gz with {', '.join(names)}", _LIMIT)
        return self._assemble({f"{paths[0]}, {name}": members[name] for name in names})

    def _assemble(self, contents: dict[str, bytes]) -> Dataset:
        """The data set from the contents of its files by their names in messages."""
        n_classes = len(self.classes)
        *training, test = [
            check_labelled(*self.decode(content, where), n_classes, where)
            for where, content in contents.items()
        ]
        sizes = [len(part.labels) for part in training]
        if len(set(sizes)) > 1:  # a binary file cut between two records looks whole by itself
            raise DataError(
                f"{next(iter(contents))} and its sisters: expected batches of one size; got {sizes} images"
            )
        images, labels = (np.concatenate(column) for column in zip(*training, strict=True))
        return Dataset(self.name, images, labels, test.images, test.labels, self.classes, allows_flip=True)


def _channels_last(planes: np.ndarray) -> np.ndarray:
    """(N, 3072) planes -> (N, 32, 32, 3), contiguous."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _decode_binary(content: bytes, where: str, *, n_label_bytes: int) -> LabelledImages:
    """Records of `n_label_bytes` and the pixels; the last label byte is the (fine) label."""
    record = n_label_bytes + _PIXELS
    if not content or len(content) % record:
        raise DataError(
            f"{where}: expected one or more whole records of {record} bytes; got {len(content)} bytes"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = records[:, n_label_bytes - 1].astype(np.int64)
    return LabelledImages(_channels_last(records[:, n_label_bytes:]), labels)


def _decode_python(content: bytes, where: str, *, key: str) -> LabelledImages:
    """A pickled dict with `data` and a list of labels under `key`."""
    with parsing(where, "a pickled dict of plain data, as published (nothing in it is ever executed)"):
        batch = load_plain_dict(content)
    planes, labels = batch.get("data"), batch.get(key)
    if not isinstance(planes, np.ndarray) or planes.dtype != np.uint8 or planes.shape[1:] != (_PIXELS,):
        raise DataError(
            f"{where}: expected an array `data` of uint8 (N, {_PIXELS}); got {_described(planes)}"
        )
    if not _is_list_of_integers(labels):
        raise DataError(f"{where}: expected a list `{key}` of integers below 2**63; got {_described(labels)}")
    return LabelledImages(_channels_last(planes), np.array(labels, dtype=np.int64))


def _is_list_of_integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and abs(item) < 1 << 63 for item in value)


def _described(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_BINARY = "a CIFAR binary batch"
_PYTHON = "a CIFAR Python batch"
CIFAR10_PYTHON = CifarFormat(
    "cifar10",
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py",
    _BATCHES,
    CIFAR10,
    _PYTHON,
    partial(_decode_python, key="labels"),
)
CIFAR10_BINARY = CifarFormat(
    "cifar10",
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    tuple(f"{name}.bin" for name in _BATCHES),
    CIFAR10,
    _BINARY,
    partial(_decode_binary, n_label_bytes=1),
)
CIFAR100_PYTHON = CifarFormat(
    "cifar100",
    "cifar-100-python.tar.gz",
    "cifar-100-python",
    ("train", "test"),
    CIFAR100,
    _PYTHON,
    partial(_decode_python, key="fine_labels"),
)
CIFAR100_BINARY = CifarFormat(
    "cifar100",
    "cifar-100-binary.tar.gz",
    "cifar-100-binary",
    ("train.bin", "test.bin"),
    CIFAR100,
    _BINARY,
    partial(_decode_binary, n_label_bytes=2),
)
