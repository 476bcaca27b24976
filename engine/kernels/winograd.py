"""3x3 correlation at stride 1 by Winograd's minimal filtering F(4x4, 3x3):
36 products where plain sums take 144.

A 4x4 block of outputs sees a 6x6 block of the source. Both blocks and the kernel are taken to a space where
the correlation is a product of each of the 36 entries with its own (C, N) matrix, and back:
    y = A^T [ sum_c (G w_c G^T) * (B^T d_c B) ] A
The transforms are machine code where numba is installed (`engine/compiled_winograd.py`), else small products
of matrices (`winograd_numpy`); the 36 products of a tile are BLAS's either way.

The weight gradient is the same with other parts played: 3x3 outputs (the taps) of a 4x4 kernel (a block of
ybar), summed over all blocks before it is brought back.

The price is round-off: entries of B and A up to 8 magnify it, so that results are off by up to `ROUND_OFF`
times the machine epsilon of their largest entry. It is used where `precision.accepting` allows that much.
Source: Lavin & Gray (2016), Fast algorithms for convolutional neural networks, CVPR;
    section 4.3 has the matrices.
Measured by `benchmarks/conv.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from . import winograd_numpy
from .gather import Phase
from .geometry import Pair
from .precision import accepted_error
from .products import SMALL
from .scratch import scratch
from .threads import one_blas_thread
from .tiles import Tile, for_each_tile
from .winograd_limits import BLOCK, SEEN, Limits

ROUND_OFF = 256.0  # machine epsilons; met: 61 with 64 channels, 116 with 256
_AT_LEAST = 8  # tiles, to divide a small batch evenly over threads
_SMALLEST_TILE = 4  # times smaller than a whole one, however small the batch
_FEWEST_IN_TILE = 24
_BLOCKS_IN_TILE = 64  # instead, where fewer than those would not be worth reading all 36 matrices

_compiled: ModuleType | None = None

SumOverTiles = Callable[[Sequence[Tile], Callable[[Tile, np.ndarray], None], np.ndarray], None]


def in_machine_code(transforms: ModuleType) -> None:
    """Register transforms that go before NumPy's where they are available:
    a module with the functions of `winograd_numpy`.

    Its `is_available()` tells whether it has what it needs,
    `is_fit(*images)` whether it can read and write these as well.
    """
    global _compiled
    assert _compiled is None, "two kinds of machine code"
    _compiled = transforms


def is_winograd(
    w_shape: tuple[int, int, int, int], stride: Pair, outputs: tuple[int, int, int], dtype: Any
) -> bool:
    """Whether this way is allowed by the accepted error and pays for `outputs` (images, rows, columns)."""
    accepted = accepted_error()
    if accepted == 0.0 or w_shape[:2] != (3, 3) or stride != (1, 1) or np.dtype(dtype).kind != "f":
        return False
    if ROUND_OFF * float(np.finfo(dtype).eps) > accepted:
        return False
    channels = min(w_shape[2:])
    if _compiled is not None and _pays(channels, outputs, _compiled.LIMITS) and _compiled.is_available():
        return True  # asked in this order: who has small convolutions only need not import numba
    return _pays(channels, outputs, winograd_numpy.LIMITS)


def _pays(channels: int, outputs: tuple[int, int, int], limits: Limits) -> bool:
    """Whether transforms pay for `outputs`; `channels` is the smaller number of in and out."""
    n_images, rows, columns = outputs
    n_blocks = n_blocks_along(rows) * n_blocks_along(columns)
    is_enough = channels >= limits.channels and n_images * n_blocks * channels >= limits.values
    least = limits.filled if channels >= limits.few_channels else limits.filled_of_few
    return is_enough and rows * columns >= least * BLOCK**2 * n_blocks


def correlate_winograd(source: np.ndarray, phase: Phase, target: np.ndarray) -> None:
    """Fill target (B, ., ., N) from source (B, ., ., C) by one phase of step 1 with 3x3 taps, on the host."""
    n_source, n_target = source.shape[3], target.shape[3]
    transforms = _transforms(source, target)
    tiles = cut_blocks(source.shape[0], phase.counts, n_source, n_target, transforms.LIMITS.tile)
    with one_blas_thread():  # a thread of BLAS that has helped with the kernel would spin beside ours
        kernel = transforms.kernel_spectrum(phase.matrix.reshape(3, 3, n_source, n_target))
        work = partial(_correlate_tile, transforms, source, phase, kernel, target)
        for_each_tile(np, work, tiles)


def _correlate_tile(
    transforms: ModuleType,
    source: np.ndarray,
    phase: Phase,
    kernel: np.ndarray,
    target: np.ndarray,
    tile: Tile,
) -> None:
    start, stop = tile.rows.start, tile.rows.stop
    down, across = n_blocks_along(stop - start), n_blocks_along(phase.counts[1])
    corner = (start + phase.offset[0], phase.offset[1])
    spectrum = transforms.source_spectrum(source[tile.images], corner, down, across, target.dtype)
    products = transforms.product_buffer(spectrum.shape[1], kernel.shape[2], target.dtype)
    np.matmul(spectrum, kernel, out=products)
    transforms.write_outputs(products, target[tile.images, start:stop], down, across)


def winograd_weight_grad(
    x: np.ndarray, ybar: np.ndarray, padding: Pair, sum_over_tiles: SumOverTiles, wbar: np.ndarray
) -> None:
    """Fill wbar (3, 3, C, N) from images x (B, ., ., C) and cotangents ybar (B, ., ., N), on the host.

    `sum_over_tiles(tiles, multiply, total)` adds up what `multiply(tile, product)` writes.
    """
    n_source, n_target = x.shape[3], ybar.shape[3]
    transforms = _transforms(x, ybar)
    total = scratch(np, "spectra", (SEEN, SEEN, n_source, n_target), wbar.dtype)

    def multiply(tile: Tile, product: np.ndarray) -> None:
        start, stop = tile.rows.start, tile.rows.stop
        down, across = n_blocks_along(stop - start), n_blocks_along(ybar.shape[2])
        corner = (start - padding[0], -padding[1])
        spectrum = transforms.source_spectrum(x[tile.images], corner, down, across, wbar.dtype)
        cotangent = transforms.cotangent_spectrum(ybar[tile.images, start:stop], down, across, wbar.dtype)
        np.matmul(spectrum.transpose(0, 2, 1), cotangent, out=product.reshape(SEEN**2, n_source, n_target))

    positions = (ybar.shape[1], ybar.shape[2])
    tiles = cut_blocks(x.shape[0], positions, n_source, n_target, transforms.LIMITS.tile)
    with one_blas_thread():  # also of the products in `write_taps`
        sum_over_tiles(tiles, multiply, total)
        transforms.write_taps(total, wbar)


def _transforms(*images: np.ndarray) -> ModuleType:
    """The module whose transforms work on these images: machine code where there is some."""
    return _compiled if _compiled is not None and _compiled.is_fit(*images) else winograd_numpy


def n_blocks_along(n_outputs: int) -> int:
    """How many blocks cover an axis."""
    return -(-n_outputs // BLOCK)


@lru_cache(maxsize=512)
def cut_blocks(n_images: int, positions: Pair, n_source: int, n_target: int, tile: int) -> tuple[Tile, ...]:
    """Whole images, or rows of blocks of one image: about `tile` values of the wider side.

    They are fewer where the products would not be small ones of BLAS (see `products`).
    """
    down, across = n_blocks_along(positions[0]), n_blocks_along(positions[1])
    n_blocks = min(tile // max(n_source, n_target), SMALL // (n_source * n_target))
    n_blocks = n_blocks if n_blocks >= _FEWEST_IN_TILE else _BLOCKS_IN_TILE
    if down * across > n_blocks:
        step = BLOCK * max(1, n_blocks // across)
        return tuple(
            Tile(slice(image, image + 1), slice(row, min(row + step, positions[0])))
            for image in range(n_images)
            for row in range(0, positions[0], step)
        )
    fewest = n_blocks // _SMALLEST_TILE // (down * across)
    per_tile = max(1, min(n_blocks // (down * across), max(-(-n_images // _AT_LEAST), fewest)))
    return tuple(
        Tile(slice(image, min(image + per_tile, n_images)), slice(0, positions[0]))
        for image in range(0, n_images, per_tile)
    )
