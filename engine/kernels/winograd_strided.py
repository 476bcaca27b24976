"""3x3 convolution at stride 2 by Winograd's minimal filtering: 81 products where plain sums take 144.

Along an axis, outputs y[i] = sum_k x[2 i + k] w[k] see x at every second place from 0 on through the outer
two taps, and at the places between through the middle one. The first is a correlation with two taps at stride
1, F(4, 2): 5 products for 4 outputs (*paired*); the second takes 4 products as it is (*single*). So 9 values
of x give 4 outputs by 9 products, and in two dimensions a block of 4x4 outputs takes 9x9. Singles share their
kernel: it has 6x6 entries.

The input gradient is the same for blocks of 8x8: of two neighbouring values of xbar one is a sum over two
taps, the other one has a single tap. In the weight gradient paired values meet in F(2, 4), and the products
of singles are added up.

    B^T = 2 -1 -2  1  0     G = 1/2    0     A^T = 1  1  1  1  0
          0 -2 -1  1  0        -1/2 -1/2           0  1 -1  2  0
          0  2 -3  1  0        -1/6  1/6           0  1  1  4  0
          0 -1  0  1  0         1/6  1/3           0  1 -1  8  1
          0  2 -1 -2  1           0    1

Entries are small, and so is the round-off: `ROUND_OFF`. The transforms exist as machine code only.
Source: the points 0, 1, -1, 2 and infinity in the construction of Toom and Cook (Blahut 2010, Fast algorithms
for signal processing, section 5.2); Lavin & Gray (2016) nest it over two axes.
Measured by `benchmarks/conv.py`.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

import numpy as np

from .geometry import Geometry
from .precision import accepted_error
from .products import summed_over_rows
from .scratch import scratch
from .threads import one_blas_thread
from .tiles import Tile, for_each_tile
from .winograd import SumOverTiles, cut_blocks, n_blocks_along
from .winograd_limits import BLOCK

ROUND_OFF = 128.0  # machine epsilons; met: 34 with 64 channels, 41 with 256
ENTRIES, KERNEL_ENTRIES = 81, 36
_FEWEST_BLOCKS = 24  # below, the transform of the kernel is not worth it
_LARGEST_KERNEL = 1 << 15  # values a tap: above, 36 of them are more to read than 9 by as much as is saved
_MOST = 0.85  # of the time of plain sums
_TILE = 1 << 13  # blocks times channels

_compiled: ModuleType | None = None


def in_machine_code(transforms: ModuleType) -> None:
    """Register the transforms: a module with the functions that are called here."""
    global _compiled
    assert _compiled is None, "two kinds of machine code"
    _compiled = transforms


def is_strided_winograd(geometry: Geometry, result: np.ndarray, *others: np.ndarray) -> bool:
    """Whether this way is there for these images, allowed by the accepted error, and pays.

    Args:
        result: the images that are computed, or whose gradient is summed up.
        others: the images that are read.
    """
    accepted = accepted_error()
    is_known = geometry.w_shape[:2] == (3, 3) and geometry.stride == (2, 2)
    if accepted == 0.0 or not is_known or geometry.padding[0] != geometry.padding[1] or _compiled is None:
        return False
    if result.dtype.kind != "f" or ROUND_OFF * float(np.finfo(result.dtype).eps) > accepted:
        return False
    return _pays(geometry, result.shape == geometry.x_shape) and _compiled.is_fit(result, *others)


@lru_cache(maxsize=512)
def _pays(geometry: Geometry, is_input_grad: bool) -> bool:
    """Whether there are enough blocks, and the products saved outweigh the transforms.

    The time over that of plain sums is about that of the products, and of 5 values transformed for each input
    and output channel, for all outputs that blocks cover: 0.80 for 32 to 64 channels, 0.68 for 64 to 128.
    """
    (_, _, n_in, n_out), (n_images, *y_size, _) = geometry.w_shape, geometry.y_shape
    size, side = (geometry.x_shape[1:3], 2 * BLOCK) if is_input_grad else (y_size, BLOCK)
    n_blocks = -(-size[0] // side) * -(-size[1] // side)
    filled = size[0] * size[1] / (side**2 * n_blocks)
    time = (81 / 144 + 5 / n_in + 5 / n_out) / filled
    return n_images * n_blocks >= _FEWEST_BLOCKS and n_in * n_out <= _LARGEST_KERNEL and time <= _MOST


def forward_strided(x: np.ndarray, kernel: np.ndarray, padding: int, y: np.ndarray) -> None:
    """Fill y (B, ., ., N) from x (B, ., ., C) and a kernel (3, 3, C, N) without gaps."""
    transforms = _transforms()

    def work(tile: Tile) -> None:
        start, stop = tile.rows.start, tile.rows.stop
        down, across = n_blocks_along(stop - start), n_blocks_along(y.shape[2])
        corner = (2 * start - padding, -padding)
        products = _products(transforms.source_spectrum(x[tile.images], corner, down, across), spectrum)
        transforms.write_sums(products, y[tile.images, start:stop], down, across)

    tiles = cut_blocks(x.shape[0], (y.shape[1], y.shape[2]), *kernel.shape[2:], _TILE)
    with one_blas_thread():
        spectrum = transforms.kernel_spectrum(kernel)
        for_each_tile(np, work, tiles)


def input_grad_strided(ybar: np.ndarray, kernel: np.ndarray, padding: int, xbar: np.ndarray) -> None:
    """Fill xbar (B, ., ., C) from ybar (B, ., ., N) and the `reversed_kernel` (3, 3, N, C).

    Pixel r of xbar sees y through taps r + padding - 2 i: through both outer taps where r + padding is even.
    """
    transforms = _transforms()
    first, lead = (padding - 1) // 2, padding % 2

    def work(tile: Tile) -> None:
        start, stop = tile.rows.start, tile.rows.stop
        down, across = n_blocks_along(stop - start), n_blocks_along(halves[1])
        source = transforms.dense_spectrum(ybar[tile.images], (start + first, first), 1 - lead, down, across)
        part = xbar[tile.images, 2 * start : 2 * stop]
        transforms.write_interleaved(_products(source, spectrum), part, lead, down, across)

    halves = (-(-xbar.shape[1] // 2), -(-xbar.shape[2] // 2))
    tiles = cut_blocks(xbar.shape[0], halves, *kernel.shape[2:], _TILE)
    with one_blas_thread():
        spectrum = transforms.kernel_spectrum(kernel)
        for_each_tile(np, work, tiles)


def weight_grad_strided(
    x: np.ndarray, ybar: np.ndarray, padding: int, sum_over_tiles: SumOverTiles, wbar: np.ndarray
) -> None:
    """Fill wbar (3, 3, C, N) from images x (B, ., ., C) and cotangents ybar (B, ., ., N).

    `sum_over_tiles` as for `winograd_weight_grad`.
    """
    transforms = _transforms()
    n_source, n_target = x.shape[3], ybar.shape[3]
    total = scratch(np, "spectra", (6, 6, n_source, n_target), wbar.dtype)

    def multiply(tile: Tile, product: np.ndarray) -> None:
        start, stop = tile.rows.start, tile.rows.stop
        down, across = n_blocks_along(stop - start), n_blocks_along(ybar.shape[2])
        corner = (2 * start - padding, -padding)
        source = transforms.source_spectrum(x[tile.images], corner, down, across)
        cotangent = transforms.cotangent_spectrum(ybar[tile.images, start:stop], (0, 0), down, across)
        _sums_of_products(source, cotangent, product.reshape(KERNEL_ENTRIES, n_source, n_target))

    tiles = cut_blocks(x.shape[0], (ybar.shape[1], ybar.shape[2]), n_source, n_target, _TILE)
    with one_blas_thread():
        sum_over_tiles(tiles, multiply, total)
        transforms.write_taps(total, wbar)


def _transforms() -> ModuleType:
    assert _compiled is not None  # by `is_strided_winograd`
    return _compiled


# Where one axis is single, four entries share one of the kernel: (of a spectrum, of the kernel).
_MIXED = ((slice(25, 45), slice(25, 30)), (slice(45, 65), slice(30, 35)))


def _products(source: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(81, blocks + 1, N): each entry (blocks + 1, C) of the source times its entry (C, N) of the kernel."""
    _, n_rows, n_source = source.shape
    n_target = kernel.shape[2]
    products = scratch(np, "products", (ENTRIES, n_rows, n_target), source.dtype)
    np.matmul(source[:25], kernel[:25], out=products[:25])
    for of_source, of_kernel in _MIXED:
        fours = source[of_source].reshape(5, 4, n_rows, n_source)
        np.matmul(fours, kernel[of_kernel, None], out=products[of_source].reshape(5, 4, n_rows, n_target))
    np.matmul(source[65:], kernel[35], out=products[65:])
    return products


def _sums_of_products(source: np.ndarray, cotangent: np.ndarray, total: np.ndarray) -> None:
    """total (36, C, N): entries of the source (81, rows, C), transposed, times cotangents (81, rows, N)."""
    n_source, n_target = total.shape[1:]
    np.matmul(source[:25].transpose(0, 2, 1), cotangent[:25], out=total[:25])
    for of_source, of_total in _MIXED:
        rows, others = (
            source[of_source].reshape(5, -1, n_source),
            cotangent[of_source].reshape(5, -1, n_target),
        )
        np.matmul(rows.transpose(0, 2, 1), others, out=total[of_total])
    summed_over_rows(np, source[65:].reshape(-1, n_source), cotangent[65:].reshape(-1, n_target), total[35])
