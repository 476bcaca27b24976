"""3x3 correlation at stride 1 by Winograd's minimal filtering F(4x4, 3x3): 36 products where plain sums take 144.

A 4x4 block of outputs sees a 6x6 block of the source. Both blocks and the kernel are taken to a space where the correlation
is a product of each of the 36 entries with its own (C, N) matrix, and back:
    y = A^T [ sum_c (G w_c G^T) * (B^T d_c B) ] A
Each side of a transform is one small matrix product for all blocks and channels of a tile together.

The weight gradient is the same with other parts played: 3x3 outputs (the taps) of a 4x4 kernel (a block of ybar), summed over
all blocks before it is brought back.

The price is round-off: entries of B and A up to 8 magnify it, so that results are off by up to `ROUND_OFF` times the machine
epsilon of their largest entry. It is used where `precision.accepting` allows that much.
Source: Lavin & Gray (2016), Fast algorithms for convolutional neural networks, CVPR; section 4.3 has the matrices.
Measured by `benchmarks/conv.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .gather import Phase, copy_pixels, with_border
from .geometry import Pair
from .precision import accepted_error
from .scratch import scratch
from .tiles import Tile, for_each_tile

ROUND_OFF = 256.0  # machine epsilons; met: 61 with 64 channels, 116 with 256
_BLOCK = 4  # outputs a side
_SEEN = 6  # source pixels a side that a block sees
_FEWEST_CHANNELS = 16  # below, the transforms cost more than they save
_BLOCKS_IN_TILE = 64
_FEWEST_IN_TILE = 24
_SMALL_TILE = 1 << 12  # blocks times channels: its products are small ones of BLAS (see `products`)
_FEWEST_BLOCKS = 128  # below, the transform of the kernel is not worth it
_LEAST_FILLED = 0.55  # of the outputs that the blocks cover, the part that is wanted
_FEW_CHANNELS, _LEAST_FILLED_OF_FEW = 24, 0.85  # below so many channels the transforms are most of the time

SumOverTiles = Callable[[Sequence[Tile], Callable[[Tile, np.ndarray], None], np.ndarray], None]

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


def is_winograd(
    w_shape: tuple[int, int, int, int], stride: Pair, outputs: tuple[int, int, int], dtype: Any
) -> bool:
    """Whether this way is allowed by the accepted error and pays for `outputs` (images, rows, columns)."""
    accepted = accepted_error()
    if accepted == 0.0 or w_shape[:2] != (3, 3) or stride != (1, 1) or min(w_shape[2:]) < _FEWEST_CHANNELS:
        return False
    n_images, rows, columns = outputs
    n_blocks = _n_blocks(rows) * _n_blocks(columns)
    least = _LEAST_FILLED if min(w_shape[2:]) >= _FEW_CHANNELS else _LEAST_FILLED_OF_FEW
    is_filled = rows * columns >= least * _BLOCK**2 * n_blocks and n_images * n_blocks >= _FEWEST_BLOCKS
    is_real = np.dtype(dtype).kind == "f"
    return is_real and is_filled and ROUND_OFF * float(np.finfo(dtype).eps) <= accepted


def correlate_winograd(source: np.ndarray, phase: Phase, target: np.ndarray) -> None:
    """Fill target (B, ., ., N) from source (B, ., ., C) by one phase of step 1 with 3x3 taps, on the host."""
    dtype = target.dtype
    n_source, n_target = source.shape[3], target.shape[3]
    by_tap = phase.matrix.reshape(9, n_source * n_target)
    kernel = np.matmul(_kernel_transform(dtype), by_tap).reshape(_SEEN**2, n_source, n_target)
    tiles = _cut(source.shape[0], phase.counts, max(n_source, n_target))
    for_each_tile(np, lambda tile: _correlate_tile(source, phase, kernel, target, tile), tiles)


def winograd_weight_grad(
    x: np.ndarray, ybar: np.ndarray, padding: Pair, sum_over_tiles: SumOverTiles, wbar: np.ndarray
) -> None:
    """Fill wbar (3, 3, C, N) from images x (B, ., ., C) and cotangents ybar (B, ., ., N), on the host.

    `sum_over_tiles(tiles, multiply, total)` adds up what `multiply(tile, product)` writes.
    """
    n_source, n_target = x.shape[3], ybar.shape[3]
    total = scratch(np, "spectra", (_SEEN, _SEEN, n_source, n_target), wbar.dtype)

    def multiply(tile: Tile, product: np.ndarray) -> None:
        start, stop = tile.rows.start, tile.rows.stop
        down, across = _n_blocks(stop - start), _n_blocks(ybar.shape[2])
        lowest = (start - padding[0], -padding[1])
        highest = (lowest[0] + _BLOCK * down + 2, lowest[1] + _BLOCK * across + 2)
        seen = with_border(np, x[tile.images], lowest, highest, wbar.dtype)
        spectrum = _source_spectrum(seen, down, across)
        whole = with_border(
            np, ybar[tile.images, start:stop], (0, 0), (_BLOCK * down, _BLOCK * across), wbar.dtype
        )
        cotangent = _cotangent_spectrum(whole, down, across)
        shape = (_SEEN**2, n_source, n_target)
        np.matmul(spectrum.transpose(0, 2, 1), cotangent, out=product.reshape(shape))

    tiles = _cut(x.shape[0], (ybar.shape[1], ybar.shape[2]), max(n_source, n_target))
    sum_over_tiles(tiles, multiply, total)
    back = np.kron(_A_TRANSPOSED_TO_3, _A_TRANSPOSED_TO_3).astype(wbar.dtype)
    wbar[...] = np.matmul(back, total.reshape(_SEEN**2, -1)).reshape(wbar.shape)


def _cotangent_spectrum(whole: np.ndarray, down: int, across: int) -> np.ndarray:
    """(36, blocks, N) = G b G^T for every block b of the cotangents (n, 4 down, 4 across, N)."""
    n, _, _, channels = whole.shape
    size = n * down * across * channels
    gathered = scratch(np, "blocks", (_BLOCK, _BLOCK, n, down, across, channels), whole.dtype)
    blocks = whole.reshape(n, down, _BLOCK, across, _BLOCK, channels)
    copy_pixels(blocks.transpose(2, 4, 0, 1, 3, 5), gathered)
    half = scratch(np, "planes", (_SEEN, _BLOCK * size), whole.dtype)
    matrix = _matrix(_G_OF_4, whole.dtype)
    np.matmul(matrix, gathered.reshape(_BLOCK, -1), out=half)
    spectrum = scratch(np, "products", (_SEEN, _SEEN, size), whole.dtype)
    np.matmul(matrix, half.reshape(_SEEN, _BLOCK, size), out=spectrum)
    return spectrum.reshape(_SEEN**2, n * down * across, channels)


def _correlate_tile(
    source: np.ndarray, phase: Phase, kernel: np.ndarray, target: np.ndarray, tile: Tile
) -> None:
    start, stop = tile.rows.start, tile.rows.stop
    down, across = _n_blocks(stop - start), _n_blocks(phase.counts[1])
    lowest = (start + phase.offset[0], phase.offset[1])
    highest = (lowest[0] + _BLOCK * down + 2, lowest[1] + _BLOCK * across + 2)
    padded = with_border(np, source[tile.images], lowest, highest, target.dtype)
    spectrum = _source_spectrum(padded, down, across)
    n_blocks, n_target = spectrum.shape[1], kernel.shape[2]
    products = scratch(np, "products", (_SEEN**2, n_blocks, n_target), target.dtype)
    np.matmul(spectrum, kernel, out=products)
    blocks = _from_products(products).reshape(_BLOCK, _BLOCK, len(padded), down, across, n_target)
    _write_blocks(blocks, target[tile.images, start:stop])


def _source_spectrum(padded: np.ndarray, down: int, across: int) -> np.ndarray:
    """(36, blocks, C) = B^T d B for every block d of the padded source (n, 4 down + 2, 4 across + 2, C)."""
    n, _, _, channels = padded.shape
    step_n, step_h, step_w, step_c = padded.strides
    seen = np.lib.stride_tricks.as_strided(
        padded,
        (_SEEN, _SEEN, n, down, across, channels),
        (step_h, step_w, step_n, _BLOCK * step_h, _BLOCK * step_w, step_c),
    )
    gathered = scratch(np, "windows", seen.shape, padded.dtype)
    copy_pixels(seen, gathered)
    size = n * down * across * channels
    half = scratch(np, "planes", (_SEEN, _SEEN * size), padded.dtype)
    matrix = _matrix(_B_TRANSPOSED, padded.dtype)
    np.matmul(matrix, gathered.reshape(_SEEN, -1), out=half)
    whole = gathered.reshape(_SEEN, _SEEN, size)  # its values are in `half` now
    np.matmul(matrix, half.reshape(_SEEN, _SEEN, size), out=whole)
    return whole.reshape(_SEEN**2, n * down * across, channels)


def _from_products(products: np.ndarray) -> np.ndarray:
    """(4, 4, blocks * N) = A^T m A for the products m (36, blocks, N)."""
    size = products.shape[1] * products.shape[2]
    matrix = _matrix(_A_TRANSPOSED, products.dtype)
    half = scratch(np, "planes", (_BLOCK, _SEEN * size), products.dtype)
    np.matmul(matrix, products.reshape(_SEEN, -1), out=half)
    outputs = scratch(np, "windows", (_BLOCK, _BLOCK, size), products.dtype)
    np.matmul(matrix, half.reshape(_BLOCK, _SEEN, size), out=outputs)
    return outputs


def _write_blocks(blocks: np.ndarray, target: np.ndarray) -> None:
    """target (n, rows, columns, N), any strides, from blocks (4, 4, n, down, across, N), cropped."""
    _, _, n, down, across, n_target = blocks.shape
    rows, columns = target.shape[1:3]
    if rows == _BLOCK * down and columns == _BLOCK * across:
        step_n, step_h, step_w, step_c = target.strides
        shape = (_BLOCK, _BLOCK, n, down, across, n_target)
        strides = (step_h, step_w, step_n, _BLOCK * step_h, _BLOCK * step_w, step_c)
        np.lib.stride_tricks.as_strided(target, shape, strides)[...] = blocks
        return
    whole = scratch(np, "product", (n, down, _BLOCK, across, _BLOCK, n_target), target.dtype)
    whole.transpose(2, 4, 0, 1, 3, 5)[...] = blocks
    target[...] = whole.reshape(n, _BLOCK * down, _BLOCK * across, n_target)[:, :rows, :columns]


def _n_blocks(n_outputs: int) -> int:
    return -(-n_outputs // _BLOCK)


def _blocks_in_tile(channels: int) -> int:
    """The fewer, the more channels; but where few blocks would not be worth reading all 36 matrices, more again."""
    n_blocks = _SMALL_TILE // channels
    return n_blocks if n_blocks >= _FEWEST_IN_TILE else _BLOCKS_IN_TILE


@lru_cache(maxsize=512)
def _cut(n_images: int, positions: Pair, channels: int) -> tuple[Tile, ...]:
    """Tiles of about `_blocks_in_tile(channels)` blocks: whole images, or rows of blocks of one image."""
    n_blocks = _blocks_in_tile(channels)
    down, across = _n_blocks(positions[0]), _n_blocks(positions[1])
    if down * across > n_blocks:
        step = _BLOCK * max(1, n_blocks // across)
        return tuple(
            Tile(slice(image, image + 1), slice(row, min(row + step, positions[0])))
            for image in range(n_images)
            for row in range(0, positions[0], step)
        )
    per_tile = max(1, min(n_blocks // (down * across), -(-n_images // 8)))
    return tuple(
        Tile(slice(image, min(image + per_tile, n_images)), slice(0, positions[0]))
        for image in range(0, n_images, per_tile)
    )


@lru_cache(maxsize=16)
def _matrix(rows: tuple[tuple[float, ...], ...], dtype: np.dtype[Any]) -> np.ndarray:
    return np.array(rows, dtype)


@lru_cache(maxsize=4)
def _kernel_transform(dtype: np.dtype[Any]) -> np.ndarray:
    """(36, 9): G w G^T of a 3x3 kernel, flat."""
    return np.kron(_G, _G).astype(dtype)
