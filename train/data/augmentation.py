"""Random changes of training images that keep their class: mirror, shift, erase."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np

from ...engine import random
from ...engine.backend import Array, namespace_of, to_xp
from ...engine.cuda.augment import CHANGES, fits_augment
from ...engine.cuda.augment import augment as cuda_augment
from ...engine.errors import ArgumentError

_ERASED_AREA = (0.02, 0.33)
_ERASED_ASPECT = (0.3, 1 / 0.3)


def augment(images: Array, key: np.ndarray, *, flip: bool, crop_pad: int = 4, erase: float = 0.5) -> Array:
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
    Cost: one gather of the batch and one pass over it; one kernel on the device. The draws are made on the
        host, and both devices give the same images.
    Sources: crop and flip as He et al. (2016), Deep residual learning, section 4.2; erasing as Zhong et al.
        (2020), Random erasing data augmentation, algorithm 1, whose retries for a
        rectangle that fits are replaced by a cut.
    """
    if images.ndim != 4 or images.dtype.kind != "f":
        raise ArgumentError(f"`images` must be float (N, H, W, C); got {images.dtype} {images.shape}")
    if crop_pad < 0 or not 0.0 <= erase <= 1.0:
        raise ArgumentError(f"`crop_pad` must be >= 0 and `erase` in [0, 1]; got {crop_pad} and {erase}")
    changes = draw_changes(images.shape, key, flip=flip, crop_pad=crop_pad, erase=erase)
    xp = namespace_of(images)
    if xp is not np and fits_augment(images):
        return cuda_augment(images, to_xp(xp, changes))
    moved = _flip_and_crop(xp, images, changes, crop_pad)
    if erase > 0:
        moved[to_xp(xp, _erased(images.shape[:3], changes))] = 0
    return moved


def draw_changes(
    shape: tuple[int, ...], key: np.ndarray, *, flip: bool, crop_pad: int, erase: float
) -> np.ndarray:
    """int32 (N, 7) on the host: what `augment` does to each image of a batch (N, H, W, C).

    A row is (down, right, is_mirrored, top, left, height, width): what is seen is moved by (down, right),
    read from the right if mirrored, and erased in the rectangle at (top, left),
    which is empty where nothing is erased.
    """
    n, height, width, _ = shape
    changes = np.zeros((n, CHANGES), np.int32)
    draws = random.uniform(random.fold_in(key, 0), (3, n))
    changes[:, 0] = _whole(draws[0], 2 * crop_pad + 1) - crop_pad
    changes[:, 1] = _whole(draws[1], 2 * crop_pad + 1) - crop_pad
    changes[:, 2] = (draws[2] < 0.5) & flip
    if erase > 0:
        changes[:, 3:] = _draw_rectangles((n, height, width), random.fold_in(key, 1), erase)
    return changes


def _flip_and_crop(xp: ModuleType, images: Array, changes: np.ndarray, pad: int) -> Array:
    """One gather does both: the rows and the columns that each image takes from the padded one."""
    n, height, width, _ = images.shape
    rows = changes[:, 0, None] + pad + np.arange(height)
    columns = changes[:, 1, None] + pad + np.arange(width)
    is_mirrored = changes[:, 2] != 0
    columns[is_mirrored] = columns[is_mirrored, ::-1]
    padded = xp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    index = (np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :])
    return padded[tuple(to_xp(xp, positions) for positions in index)]


def _draw_rectangles(shape: tuple[int, int, int], key: np.ndarray, probability: float) -> np.ndarray:
    """int32 (N, 4): top, left, height and width of what is erased,
    a height of 0 in the images that are left alone.
    """
    n, height, width = shape
    draws = random.uniform(key, (5, n), np.float64)
    area = height * width * (_ERASED_AREA[0] + draws[0] * (_ERASED_AREA[1] - _ERASED_AREA[0]))
    low, high = map(math.log, _ERASED_ASPECT)
    aspect = np.exp(low + draws[1] * (high - low))
    h = np.clip(np.rint(np.sqrt(area * aspect)), 1, height).astype(np.int64)
    w = np.clip(np.rint(np.sqrt(area / aspect)), 1, width).astype(np.int64)
    top, left = _whole(draws[2], height - h + 1), _whole(draws[3], width - w + 1)
    return np.stack([top, left, h * (draws[4] < probability), w], axis=1).astype(np.int32)


def _erased(shape: tuple[int, ...], changes: np.ndarray) -> np.ndarray:
    """bool (N, H, W): the pixels to erase, one rectangle in some images."""
    in_rows = _within(changes[:, 3], changes[:, 5], shape[1])
    in_columns = _within(changes[:, 4], changes[:, 6], shape[2])
    return in_rows[:, :, None] & in_columns[:, None, :]


def _within(first: np.ndarray, count: np.ndarray, size: int) -> np.ndarray:
    """bool (N, size): position in [first, first + count)."""
    position = np.arange(size)
    return (position >= first[:, None]) & (position < (first + count)[:, None])


def _whole(unit: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """int64 in [0, n) from uniform numbers in [0, 1), in float64: a float32 product could round up to n."""
    return (unit.astype(np.float64) * n).astype(np.int64)
