"""Correlation by gathering: the windows of a tile become the rows of a matrix,
multiplied with the kernel as a matrix.

Forward, input gradient and weight gradient of a convolution all come down to the functions here (see `conv`).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from .geometry import Pair
from .products import rows_times
from .scratch import scratch
from .tiles import Tile, cut, for_each_tile

_LARGE = 1 << 16  # bytes from which copying a row of taps at once pays for making the views


class Phase(NamedTuple):
    """target[first + step * q] = sum over taps j of source[stride * q + offset + j] @ matrix[j], q < counts,
    per axis.

    The positions of the target that are `first` modulo `step`; a plain correlation is one phase with step 1.
    """

    matrix: Array  # (taps * channels of the source, channels of the target)
    taps: Pair
    offset: Pair
    first: Pair
    step: Pair
    counts: Pair


def correlate(xp: ModuleType, source: Array, phases: list[Phase], target: Array, stride: Pair) -> None:
    """Fill target (B, ., ., N) from source (B, ., ., C), in the dtype of target;
    positions in no phase are kept.
    """
    positions = (max(phase.counts[0] for phase in phases), max(phase.counts[1] for phase in phases))
    depth = max(phase.matrix.shape[0] for phase in phases)
    tiles = cut(xp, source.shape[0], positions, depth, target.shape[3], target.dtype.itemsize)
    for_each_tile(xp, lambda tile: _correlate_tile(xp, source, phases, target, stride, tile), tiles)


def _correlate_tile(
    xp: ModuleType, source: Array, phases: list[Phase], target: Array, stride: Pair, tile: Tile
) -> None:
    start = tile.rows.start
    lowest = (
        start * stride[0] + min(phase.offset[0] for phase in phases),
        min(phase.offset[1] for phase in phases),
    )
    highest = (
        max((tile.rows.stop - 1) * stride[0] + phase.offset[0] + phase.taps[0] for phase in phases),
        max((phase.counts[1] - 1) * stride[1] + phase.offset[1] + phase.taps[1] for phase in phases),
    )
    padded = with_border(xp, source[tile.images], lowest, highest, target.dtype)
    for phase in phases:
        stop = min(tile.rows.stop, phase.counts[0])
        if stop <= start:
            continue
        corner = (start * stride[0] + phase.offset[0] - lowest[0], phase.offset[1] - lowest[1])
        rows = window_rows(xp, padded, corner, (stop - start, phase.counts[1]), phase.taps, stride)
        (first_h, first_w), (step_h, step_w) = phase.first, phase.step
        target_rows = slice(first_h + step_h * start, first_h + step_h * (stop - 1) + 1, step_h)
        _product_into(xp, rows, phase.matrix, target[tile.images, target_rows, first_w::step_w])


def with_border(xp: ModuleType, images: Array, lowest: Pair, highest: Pair, dtype: Any) -> Array:
    """images[:, lowest[0]:highest[0], lowest[1]:highest[1]] with zeros outside;
    a view where nothing lies outside.
    """
    n, height, width, channels = images.shape
    (top, left), (bottom, right) = lowest, highest
    inside_h = slice(max(top, 0), max(min(bottom, height), top, 0))
    inside_w = slice(max(left, 0), max(min(right, width), left, 0))
    if top >= 0 and left >= 0 and bottom <= height and right <= width and images.dtype == dtype:
        return images[:, inside_h, inside_w]
    padded = scratch(xp, "padded", (n, bottom - top, right - left, channels), dtype)
    to_h = slice(inside_h.start - top, inside_h.stop - top)
    to_w = slice(inside_w.start - left, inside_w.stop - left)
    padded[:, : to_h.start] = 0
    padded[:, to_h.stop :] = 0
    padded[:, to_h, : to_w.start] = 0
    padded[:, to_h, to_w.stop :] = 0
    if inside_h.stop <= height and inside_w.stop <= width:  # else the region lies wholly in the border
        padded[:, to_h, to_w] = images[:, inside_h, inside_w]
    return padded


def window_rows(xp: ModuleType, padded: Array, corner: Pair, count: Pair, taps: Pair, stride: Pair) -> Array:
    """(n * count_h * count_w, taps_h * taps_w * C): the windows as rows;
    a view where they lie side by side.
    """
    n, channels = padded.shape[0], padded.shape[3]
    step_n, step_h, step_w, step_c = padded.strides
    shape = (n, *count, *taps, channels)
    strides = (step_n, step_h * stride[0], step_w * stride[1], step_h, step_w, step_c)
    windows = overlapping(xp, padded, corner, shape, strides)
    n_rows, depth = n * count[0] * count[1], taps[0] * taps[1] * channels
    if windows.flags.c_contiguous:
        return windows.reshape(n_rows, depth)
    rows = scratch(xp, "windows", (n_rows, depth), padded.dtype)
    if xp is np and padded.flags.c_contiguous and rows.nbytes >= _LARGE:
        # a row of taps as one item: NumPy copies that in three quarters of the time of its numbers
        item = np.dtype((np.void, taps[1] * channels * padded.itemsize))
        start = corner[0] * step_h + corner[1] * step_w
        np.ndarray(shape[:4], item, rows)[...] = np.ndarray(shape[:4], item, padded, start, strides[:4])
    else:
        rows.reshape(windows.shape)[...] = windows
    return rows


def overlapping(
    xp: ModuleType, padded: Array, corner: Pair, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Array:
    """A view of images (n, ., ., C) from the pixel `corner` on,
    with this shape and these strides in bytes.
    """
    if xp is np and padded.flags.c_contiguous:  # the constructor takes a tenth of the time of as_strided
        start = corner[0] * padded.strides[1] + corner[1] * padded.strides[2]
        return np.ndarray(shape, padded.dtype, padded, start, strides)
    return xp.lib.stride_tricks.as_strided(padded[:, corner[0] :, corner[1] :], shape, strides)


def copy_pixels(source: np.ndarray, target: np.ndarray) -> None:
    """target (..., C) = source on the host. NumPy copies whole pixels, as items,
    faster than short runs of numbers.
    """
    if source.strides[-1] == target.strides[-1] == source.itemsize and source.dtype == target.dtype:
        pixel = np.dtype((np.void, source.shape[-1] * source.itemsize))
        source, target = source.view(pixel), target.view(pixel)
    target[...] = source


def image_rows(xp: ModuleType, images: Array, dtype: Any) -> Array:
    """(n * h * w, C): the pixels as rows in `dtype`;
    a view where `images` is contiguous and of this dtype.
    """
    if not images.flags.c_contiguous or images.dtype != dtype:
        packed = scratch(xp, "pixels", images.shape, dtype)
        packed[...] = images
        images = packed
    return images.reshape(-1, images.shape[3])


def _product_into(xp: ModuleType, rows: Array, matrix: Array, target: Array) -> None:
    """target (n, h, w, N), any strides, = rows (n h w, K) @ matrix (K, N)."""
    shape = (rows.shape[0], matrix.shape[1])
    if target.flags.c_contiguous:
        rows_times(xp, rows, matrix, target.reshape(shape))
    else:
        product = scratch(xp, "product", shape, target.dtype)
        rows_times(xp, rows, matrix, product)
        target[...] = product.reshape(target.shape)
