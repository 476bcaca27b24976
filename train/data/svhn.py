"""SVHN's cropped digits: MATLAB 5 files with X uint8 (32, 32, 3, N) and y (N, 1), where 10 is the digit 0.

Source: Netzer, Wang, Coates, Bissacco, Wu & Ng (2011), Reading Digits in Natural Images with Unsupervised
Feature Learning, and the page of the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...engine.errors import DataError
from .classes import DIGITS
from .dataset import Dataset, LabelledImages, check_labelled
from .files import MIB, parsing, read_bytes
from .mat5 import read_mat5

_FILE_LIMIT = 512 * MIB  # train_32x32.mat is 174 MiB, packed
_VARIABLE_LIMIT = 512 * MIB  # X of the training part is 215 MiB
_EXPECTED = "a MATLAB 5 file with X uint8 (32, 32, 3, N) and y (N, 1)"


def read_svhn(paths: Sequence[Path]) -> Dataset:
    """The data set from train_32x32.mat and test_32x32.mat. DataError."""
    train, test = (_read_part(path) for path in paths)
    return Dataset("svhn", *train, *test, DIGITS, allows_flip=False)


def _read_part(path: Path) -> LabelledImages:
    content = read_bytes(path, _EXPECTED, _FILE_LIMIT)
    with parsing(path, _EXPECTED):
        variables = read_mat5(content, ("X", "y"), _VARIABLE_LIMIT)
    pixels, codes = variables.get("X"), variables.get("y")
    if pixels is None or codes is None or pixels.dtype != np.uint8 or pixels.shape[:3] != (32, 32, 3):
        found = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in variables.items())
        raise DataError(f"{path}: expected {_EXPECTED}; got {found or 'no array of numbers'}", path=path)
    codes = codes.reshape(-1)
    wrong = np.flatnonzero(~np.isin(codes, np.arange(1, 11)))  # NaN is in no set
    if wrong.size:
        raise DataError(
            f"{path}: labels must be whole numbers from 1 to 10; got {codes[wrong[0]]} at index {wrong[0]}"
        )
    images = np.ascontiguousarray(pixels.reshape(32, 32, 3, -1).transpose(3, 0, 1, 2))
    return check_labelled(images, codes.astype(np.int64) % 10, len(DIGITS), str(path))
