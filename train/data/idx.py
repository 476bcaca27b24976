"""The idx format of MNIST and Fashion-MNIST, plain or packed with gzip.

Bytes: 0, 0, a type code (8: uint8, the only one accepted), the number of axes; then each axis as a big-endian
uint32; then the values in C order.
Source: LeCun, Cortes & Burges, The MNIST database of handwritten digits, the page's section on file formats.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ...engine.errors import DataError
from .dataset import LabelledImages, check_labelled
from .files import MIB, gunzip, read_bytes

_LIMIT = 256 * MIB  # the largest published file unpacks to 45 MiB
_UINT8 = 8


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array with `ndim` axes in an idx file; a name that ends in .gz is unpacked. DataError."""
    expected = f"an idx file of uint8 with {ndim} axes"
    content = (gunzip if path.suffix == ".gz" else read_bytes)(path, expected, _LIMIT)
    header = 4 + 4 * ndim
    magic = bytes([0, 0, _UINT8, ndim])
    if content[:4] != magic or len(content) < header:
        raise DataError(
            f"{path}: expected {expected}, which begins {magic.hex(' ')}; "
            f"got {content[:4].hex(' ') or 'nothing'} and {len(content)} bytes",
            path=path,
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", ndim, 4))
    if math.prod(shape) != len(content) - header:
        raise DataError(
            f"{path}: expected {math.prod(shape)} values of the shape {shape} in its header; "
            f"got {len(content) - header}",
            path=path,
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_pair(images: Path, labels: Path, n_classes: int) -> LabelledImages:
    """One part of a data set from its file of images (N, H, W) and its file of labels (N,). DataError."""
    pixels = read_idx(images, 3)
    numbers = read_idx(labels, 1).astype(np.int64)
    return check_labelled(pixels[..., None], numbers, n_classes, f"{images} with {labels.name}")
