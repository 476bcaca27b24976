"""Correlation at stride 1 with few channels on one side: whole images are shifted, and no windows are gathered.

On a padded image laid out flat, the pixel that tap (k, l) sees lies k * width + l places behind the position. A side of
few channels is therefore spread over taps by copying it once a tap, shifted, as rows as long as the batch (planes); a
side of many channels is never copied for each tap. Positions in the border are computed too and left out in the end.
Worth it at up to 4 channels (the first layer on images, the last of an image-to-image network): `benchmarks/conv.py`.
"""

from __future__ import annotations

from types import ModuleType

from ..backend import Array
from .gather import Phase, image_rows, with_border
from .geometry import Pair
from .scratch import scratch
from .tiles import Tile, cut, for_each_tile

MOST_CHANNELS = 4


def is_narrow(n_source: int, n_target: int, taps: Pair, stride: Pair) -> bool:
    """Whether this way beats gathering windows; a single tap gathers without copying."""
    return stride == (1, 1) and min(n_source, n_target) <= MOST_CHANNELS and taps != (1, 1)


def narrow_tiles(
    xp: ModuleType, n_images: int, positions: Pair, n_source: int, n_target: int, taps: Pair, itemsize: int
) -> tuple[Tile, ...]:
    """Tiles whose planes and pixels stay in cache."""
    depth = max(taps[0] * taps[1] * min(n_source, n_target), n_source, n_target)
    return cut(xp, n_images, positions, depth, min(n_source, n_target), itemsize)


def correlate_narrow(xp: ModuleType, source: Array, phase: Phase, target: Array) -> None:
    """Fill target (B, ., ., N) from source (B, ., ., C) by one phase of step 1; C or N is small."""
    n_source, n_target = source.shape[3], target.shape[3]
    tiles = narrow_tiles(
        xp, source.shape[0], phase.counts, n_source, n_target, phase.taps, target.dtype.itemsize
    )
    work = _from_planes if n_source < n_target else _to_planes
    for_each_tile(
        xp, lambda tile: work(xp, _seen_by(xp, source, phase, target, tile), phase, target, tile), tiles
    )


def narrow_window_product(
    xp: ModuleType, narrow: Array, wide: Array, taps: Pair, padding: Pair, tile: Tile, product: Array
) -> None:
    """product (taps * C, N) = sum over positions i in a tile of narrow[i + tap - padding] (C,) times wide[i] (N,)."""
    start, stop = tile.rows.start, tile.rows.stop
    count_w = wide.shape[2]
    lowest = (start - padding[0], -padding[1])
    highest = (stop - 1 - padding[0] + taps[0], count_w - 1 - padding[1] + taps[1])
    padded = with_border(xp, narrow[tile.images], lowest, highest, product.dtype)
    size = padded.shape[1:3]
    planes = _shifted(xp, padded, taps)
    placed = with_border(xp, wide[tile.images, tile.rows], (0, 0), size, product.dtype)
    xp.matmul(planes, image_rows(xp, placed, product.dtype), out=product)


def _seen_by(xp: ModuleType, source: Array, phase: Phase, target: Array, tile: Tile) -> Array:
    """The part of the source, with border, that the positions of a tile see: (n, rows + taps - 1, ., C)."""
    lowest = (tile.rows.start + phase.offset[0], phase.offset[1])
    highest = (
        tile.rows.stop - 1 + phase.offset[0] + phase.taps[0],
        phase.counts[1] - 1 + phase.offset[1] + phase.taps[1],
    )
    return with_border(xp, source[tile.images], lowest, highest, target.dtype)


def _from_planes(xp: ModuleType, padded: Array, phase: Phase, target: Array, tile: Tile) -> None:
    """Few channels in: the planes of all taps times the matrix."""
    planes = _shifted(xp, padded, phase.taps)
    product = scratch(xp, "product", (planes.shape[1], target.shape[3]), target.dtype)
    xp.matmul(planes.T, phase.matrix, out=product)
    grid = product.reshape(*padded.shape[:3], target.shape[3])
    n_rows = tile.rows.stop - tile.rows.start
    target[tile.images, tile.rows] = grid[:, :n_rows, : phase.counts[1]]


def _to_planes(xp: ModuleType, padded: Array, phase: Phase, target: Array, tile: Tile) -> None:
    """Few channels out: a plane of products for each tap, added up where they meet."""
    (taps_h, taps_w), width, n_target = phase.taps, padded.shape[2], target.shape[3]
    pixels = image_rows(xp, padded, target.dtype)
    n_pixels, n_source = pixels.shape
    by_tap = phase.matrix.reshape(taps_h * taps_w, n_source, n_target).transpose(0, 2, 1)
    products = scratch(xp, "planes", (taps_h * taps_w, n_target, n_pixels), target.dtype)
    xp.matmul(by_tap.reshape(-1, n_source), pixels.T, out=products.reshape(-1, n_pixels))
    total = scratch(xp, "product", (n_target, n_pixels), target.dtype)
    reach = n_pixels - (taps_h - 1) * width - (taps_w - 1)  # behind it no tap is left of the end
    sums = total[:, :reach]
    sums[...] = products[0, :, :reach]
    for tap in range(1, taps_h * taps_w):
        shift = tap // taps_w * width + tap % taps_w
        xp.add(sums, products[tap, :, shift : shift + reach], out=sums)
    grid = total.reshape(n_target, *padded.shape[:3])
    n_rows = tile.rows.stop - tile.rows.start
    target[tile.images, tile.rows] = grid[:, :, :n_rows, : phase.counts[1]].transpose(1, 2, 3, 0)


def _shifted(xp: ModuleType, padded: Array, taps: Pair) -> Array:
    """(taps * C, pixels): for each tap the pixels it sees, flat; zeros where it sees past the end."""
    width, channels = padded.shape[2:]
    n_pixels = padded.size // channels
    planes = scratch(xp, "planes", (taps[0] * taps[1], channels, n_pixels), padded.dtype)
    planes[0].reshape(channels, *padded.shape[:3])[...] = padded.transpose(3, 0, 1, 2)
    for tap in range(1, taps[0] * taps[1]):
        shift = min(tap // taps[1] * width + tap % taps[1], n_pixels)
        planes[tap, :, : n_pixels - shift] = planes[0, :, shift:]
        planes[tap, :, n_pixels - shift :] = 0
    return planes.reshape(-1, n_pixels)
