"""SVHN's cropped digits: MATLAB 5 files with X uint8 (32, 32, 3, N) and y (N, 1), which writes the digit 0 as 10.

Source: Netzer, Wang, Coates, Bissacco, Wu & Ng (2011), Reading Digits in Natural Images with Unsupervised Feature
Learning, and the page of the data set.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.errors import DataError
from .classes import DIGITS
from .dataset import Dataset, LabelledImages, check_labelled
from .files import MIB, parsing, read_bytes

_FILE_LIMIT = 512 * MIB  # train_32x32.mat is 174 MiB, packed
_MAX_IMAGES = 150_000  # the training part has 73,257; 150,000 take 440 MiB
_EXPECTED = "a MATLAB 5 file with X uint8 (32, 32, 3, N) and y (N, 1)"
_NUMERIC = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def read_svhn(paths: Sequence[Path]) -> Dataset:
    """The data set from train_32x32.mat and test_32x32.mat. DataError."""
    train, test = (_read_part(path) for path in paths)
    return Dataset("svhn", *train, *test, DIGITS, allows_flip=False)


def _read_part(path: Path) -> LabelledImages:
    content = read_bytes(path, _EXPECTED, _FILE_LIMIT)
    with parsing(path, _EXPECTED):
        variables = _load_variables(content)
    pixels, codes = variables.get("X"), variables.get("y")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[:3] != (32, 32, 3):
        raise DataError(f"{path}: expected {_EXPECTED}; got another X", path=path)
    if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "uif":
        raise DataError(f"{path}: expected {_EXPECTED}; got a y that is not numbers", path=path)
    codes = codes.reshape(-1)
    wrong = np.flatnonzero(~np.isin(codes, np.arange(1, 11)))  # NaN is in no set
    if wrong.size:
        raise DataError(
            f"{path}: labels must be whole numbers from 1 to 10; got {codes[wrong[0]]} at index {wrong[0]}"
        )
    images = np.ascontiguousarray(pixels.reshape(32, 32, 3, -1).transpose(3, 0, 1, 2))
    return check_labelled(images, codes.astype(np.int64) % 10, len(DIGITS), str(path))


def _load_variables(content: bytes) -> dict[str, Any]:
    """X and y, once the headers of the file have shown that they are small numeric arrays."""
    from scipy.io import loadmat, whosmat  # takes 0.1 s, so only here

    stream: Any = io.BytesIO(content)  # both take a stream, though the published type hints know paths only
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # SciPy only warns of a variable that is there twice
        headers = {name: (tuple(shape), kind) for name, shape, kind in whosmat(stream)}
        for name, axes, per_image in (("X", 4, 32 * 32 * 3), ("y", 2, 1)):
            if name not in headers:
                raise ValueError(f"no variable {name}; it has {sorted(headers)}")
            shape, kind = headers[name]
            size = 1
            for n in shape:
                size *= int(n)
            if kind not in _NUMERIC or len(shape) > axes or not 0 < size <= _MAX_IMAGES * per_image:
                raise ValueError(f"{name} is {kind} {shape}")
        stream.seek(0)
        return loadmat(stream, variable_names=["X", "y"])
