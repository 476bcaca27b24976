"""Winograd's transforms in NumPy: each side of one is a small matrix product for all blocks and channels of a
tile together.

`winograd.py` has what they are for; `engine/compiled_winograd.py` has the same functions in machine code,
whose oracle these are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .gather import copy_pixels, with_border
from .geometry import Pair
from .scratch import scratch
from .winograd_limits import BLOCK, SEEN, Limits

LIMITS = Limits(channels=16, values=1 << 11, filled=0.55, few_channels=24, filled_of_few=0.85, tile=1 << 12)

_B_TRANSPOSED = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_A_TRANSPOSED = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_G_OF_4 = (
    (1 / 4, 0, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6, 1 / 6),
    (1 / 24, 1 / 12, 1 / 6, 1 / 3),
    (1 / 24, -1 / 12, 1 / 6, -1 / 3),
    (0, 0, 0, 1),
)
_A_TRANSPOSED_TO_3 = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 1))


def kernel_spectrum(kernel: np.ndarray) -> np.ndarray:
    """(36, C, N) = G w G^T of a kernel (3, 3, C, N)."""
    _, _, n_source, n_target = kernel.shape
    spectrum = scratch(np, "kernel", (SEEN**2, n_source, n_target), kernel.dtype)
    by_tap = kernel.reshape(9, n_source * n_target)
    np.matmul(_both_sides(_G, kernel.dtype), by_tap, out=spectrum.reshape(SEEN**2, -1))
    return spectrum


def source_spectrum(
    images: np.ndarray, corner: Pair, down: int, across: int, dtype: np.dtype[Any]
) -> np.ndarray:
    """(36, blocks, C) = B^T d B for every block d; the first one of an image (., ., C)
    begins at the pixel `corner`.
    """
    highest = (corner[0] + BLOCK * down + 2, corner[1] + BLOCK * across + 2)
    padded = with_border(np, images, corner, highest, dtype)
    n, _, _, channels = padded.shape
    step_n, step_h, step_w, step_c = padded.strides
    seen = np.lib.stride_tricks.as_strided(
        padded,
        (SEEN, SEEN, n, down, across, channels),
        (step_h, step_w, step_n, BLOCK * step_h, BLOCK * step_w, step_c),
    )
    gathered = scratch(np, "windows", seen.shape, padded.dtype)
    copy_pixels(seen, gathered)
    size = n * down * across * channels
    half = scratch(np, "planes", (SEEN, SEEN * size), padded.dtype)
    matrix = _matrix(_B_TRANSPOSED, padded.dtype)
    np.matmul(matrix, gathered.reshape(SEEN, -1), out=half)
    whole = gathered.reshape(SEEN, SEEN, size)  # its values are in `half` now
    np.matmul(matrix, half.reshape(SEEN, SEEN, size), out=whole)
    return whole.reshape(SEEN**2, n * down * across, channels)


def cotangent_spectrum(ybar: np.ndarray, down: int, across: int, dtype: np.dtype[Any]) -> np.ndarray:
    """(36, blocks, N) = G b G^T for every block b of the cotangents ybar (n, ., ., N)."""
    whole = with_border(np, ybar, (0, 0), (BLOCK * down, BLOCK * across), dtype)
    n, _, _, channels = whole.shape
    size = n * down * across * channels
    gathered = scratch(np, "blocks", (BLOCK, BLOCK, n, down, across, channels), whole.dtype)
    blocks = whole.reshape(n, down, BLOCK, across, BLOCK, channels)
    copy_pixels(blocks.transpose(2, 4, 0, 1, 3, 5), gathered)
    half = scratch(np, "planes", (SEEN, BLOCK * size), whole.dtype)
    matrix = _matrix(_G_OF_4, whole.dtype)
    np.matmul(matrix, gathered.reshape(BLOCK, -1), out=half)
    spectrum = scratch(np, "cotangents", (SEEN, SEEN, size), whole.dtype)
    np.matmul(matrix, half.reshape(SEEN, BLOCK, size), out=spectrum)
    return spectrum.reshape(SEEN**2, n * down * across, channels)


def product_buffer(n_blocks: int, channels: int, dtype: np.dtype[Any]) -> np.ndarray:
    """(36, blocks, N), for what `write_outputs` reads."""
    return scratch(np, "products", (SEEN**2, n_blocks, channels), dtype)


def write_outputs(products: np.ndarray, target: np.ndarray, down: int, across: int) -> None:
    """target (n, rows, columns, N), any strides, = A^T m A of the products m (36, blocks, N), cropped."""
    n_target = products.shape[2]
    size = products.shape[1] * n_target
    matrix = _matrix(_A_TRANSPOSED, products.dtype)
    half = scratch(np, "planes", (BLOCK, SEEN * size), products.dtype)
    np.matmul(matrix, products.reshape(SEEN, -1), out=half)
    outputs = scratch(np, "windows", (BLOCK, BLOCK, size), products.dtype)
    np.matmul(matrix, half.reshape(BLOCK, SEEN, size), out=outputs)
    _write_blocks(outputs.reshape(BLOCK, BLOCK, len(target), down, across, n_target), target)


def _write_blocks(blocks: np.ndarray, target: np.ndarray) -> None:
    """target (n, rows, columns, N), any strides, from blocks (4, 4, n, down, across, N), cropped."""
    _, _, n, down, across, n_target = blocks.shape
    rows, columns = target.shape[1:3]
    if rows == BLOCK * down and columns == BLOCK * across:
        step_n, step_h, step_w, step_c = target.strides
        shape = (BLOCK, BLOCK, n, down, across, n_target)
        strides = (step_h, step_w, step_n, BLOCK * step_h, BLOCK * step_w, step_c)
        np.lib.stride_tricks.as_strided(target, shape, strides)[...] = blocks
        return
    whole = scratch(np, "product", (n, down, BLOCK, across, BLOCK, n_target), target.dtype)
    whole.transpose(2, 4, 0, 1, 3, 5)[...] = blocks
    target[...] = whole.reshape(n, BLOCK * down, BLOCK * across, n_target)[:, :rows, :columns]


def write_taps(total: np.ndarray, wbar: np.ndarray) -> None:
    """wbar (3, 3, C, N) = A^T m A of the sums m (36, C, N)."""
    back = _both_sides(_A_TRANSPOSED_TO_3, wbar.dtype)
    wbar[...] = np.matmul(back, total.reshape(SEEN**2, -1)).reshape(wbar.shape)


@lru_cache(maxsize=16)
def _matrix(rows: tuple[tuple[float, ...], ...], dtype: np.dtype[Any]) -> np.ndarray:
    return np.array(rows, dtype)


@lru_cache(maxsize=8)
def _both_sides(rows: tuple[tuple[float, ...], ...], dtype: np.dtype[Any]) -> np.ndarray:
    """M w M^T of a square w as one matrix that multiplies its values, flat."""
    return np.kron(rows, rows).astype(dtype)
