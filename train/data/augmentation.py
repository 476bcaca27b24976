"""Random changes of training images that keep their class: mirror, shift, erase."""

from __future__ import annotations

import math

import numpy as np

from ...engine import random
from ...engine.errors import ArgumentError

_ERASED_AREA = (0.02, 0.33)
_ERASED_ASPECT = (0.3, 1 / 0.3)


def augment(
    images: np.ndarray, key: np.ndarray, *, flip: bool, crop_pad: int = 4, erase: float = 0.5
) -> np.ndarray:
    """Mirror, crop and erase each image of a batch at random.

    Args:
        images: float (N, H, W, C), normalised, so that 0 is the mean colour. Not written to.
        key: uint32 (2,); one key always gives the same changes. Fold epoch and step in.
        flip: mirror each image left to right with probability 1/2.
        crop_pad: pad with this many rows and columns of 0 on each side, then cut H x W out at a random place.
        erase: the probability with which a random rectangle of an image becomes 0; its area is uniform in
            [0.02, 0.33] of the image and its aspect log-uniform in [0.3, 3.3], cut to the image's size.
    Returns: a new array, shape and dtype of `images`.
    Raises: ArgumentError.
    Cost: one gather of the batch and one pass over it.
    Sources: crop and flip as He et al. (2016), Deep residual learning, section 4.2; erasing as Zhong et al.
        (2020), Random erasing data augmentation, algorithm 1, whose retries for a
        rectangle that fits are replaced by a cut.
    """
    if images.ndim != 4 or images.dtype.kind != "f":
        raise ArgumentError(f"`images` must be float (N, H, W, C); got {images.dtype} {images.shape}")
    if crop_pad < 0 or not 0.0 <= erase <= 1.0:
        raise ArgumentError(f"`crop_pad` must be >= 0 and `erase` in [0, 1]; got {crop_pad} and {erase}")
    moved = _flip_and_crop(images, random.fold_in(key, 0), flip, crop_pad)
    if erase > 0:
        moved[_erased(images.shape[:3], random.fold_in(key, 1), erase)] = 0
    return moved


def _flip_and_crop(images: np.ndarray, key: np.ndarray, flip: bool, pad: int) -> np.ndarray:
    """One gather does both: the rows and the columns that each image takes from the padded one."""
    n, height, width, _ = images.shape
    draws = random.uniform(key, (3, n))
    rows = _whole(draws[0], 2 * pad + 1)[:, None] + np.arange(height)
    columns = _whole(draws[1], 2 * pad + 1)[:, None] + np.arange(width)
    if flip:
        is_flipped = draws[2] < 0.5
        columns[is_flipped] = columns[is_flipped, ::-1]
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _erased(shape: tuple[int, ...], key: np.ndarray, probability: float) -> np.ndarray:
    """bool (N, H, W): the pixels to erase, one rectangle in some images."""
    n, height, width = shape
    draws = random.uniform(key, (5, n), np.float64)
    area = height * width * (_ERASED_AREA[0] + draws[0] * (_ERASED_AREA[1] - _ERASED_AREA[0]))
    low, high = map(math.log, _ERASED_ASPECT)
    aspect = np.exp(low + draws[1] * (high - low))
    h = np.clip(np.rint(np.sqrt(area * aspect)), 1, height).astype(np.int64)
    w = np.clip(np.rint(np.sqrt(area / aspect)), 1, width).astype(np.int64)
    in_rows = _within(_whole(draws[2], height - h + 1), h, height)
    in_columns = _within(_whole(draws[3], width - w + 1), w, width)
    is_erased = draws[4] < probability
    return is_erased[:, None, None] & in_rows[:, :, None] & in_columns[:, None, :]


def _within(first: np.ndarray, count: np.ndarray, size: int) -> np.ndarray:
    """bool (N, size): position in [first, first + count)."""
    position = np.arange(size)
    return (position >= first[:, None]) & (position < (first + count)[:, None])


def _whole(unit: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """int64 in [0, n) from uniform numbers in [0, 1), in float64: a float32 product could round up to n."""
    return (unit.astype(np.float64) * n).astype(np.int64)
