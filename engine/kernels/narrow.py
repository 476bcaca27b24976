"""Correlation with few channels on one side: that side is spread over taps, in planes as long as an image.

- Few channels in: what each tap sees of an image becomes one long row (a plane), and the product of the
  planes with the kernel is the result, written where it belongs. The weight gradient multiplies the same
  planes with the cotangent.
- Few channels out, at stride 1: the pixels give a plane of products for each tap, added up where they meet.
  On a padded image laid out flat, the pixel that tap (k, l) sees lies k * width + l places behind the
  position.

The side of many channels is never copied for each tap. Worth it at up to 4 channels (the first layer on
images, the last of an image-to-image network): `benchmarks/conv.py`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ..backend import Array
from .gather import Phase, image_rows, overlapping, with_border
from .geometry import Pair
from .products import matmul_into
from .scratch import scratch
from .tiles import Tile, cut, for_each_tile

MOST_CHANNELS = 4


def is_narrow(n_source: int, n_target: int, taps: Pair, stride: Pair) -> bool:
    """Whether this way beats gathering windows; a single tap gathers without copying."""
    fewest = min(n_source, n_target) if stride == (1, 1) else n_source
    return fewest <= MOST_CHANNELS and taps != (1, 1)


def narrow_tiles(
    xp: ModuleType, n_images: int, positions: Pair, n_source: int, n_target: int, taps: Pair, itemsize: int
) -> tuple[Tile, ...]:
    """Tiles whose planes and pixels stay in cache."""
    depth = max(taps[0] * taps[1] * min(n_source, n_target), n_source, n_target)
    return cut(xp, n_images, positions, depth, min(n_source, n_target), itemsize)


def correlate_narrow(xp: ModuleType, source: Array, phase: Phase, target: Array, stride: Pair) -> None:
    """Fill target (B, ., ., N) from source (B, ., ., C) by one phase of step 1, as `is_narrow` allows."""
    n_source, n_target = source.shape[3], target.shape[3]
    tiles = narrow_tiles(
        xp, source.shape[0], phase.counts, n_source, n_target, phase.taps, target.dtype.itemsize
    )

    def work(tile: Tile) -> None:
        part = target[tile.images, tile.rows]
        count = (part.shape[1], part.shape[2])
        corner = (tile.rows.start * stride[0] + phase.offset[0], phase.offset[1])
        padded = _seen(xp, source[tile.images], corner, count, phase.taps, stride, target.dtype)
        if n_source < n_target or stride != (1, 1):
            _from_planes(xp, padded, phase, part, stride)
        else:
            _to_planes(xp, padded, phase, part)

    for_each_tile(xp, work, tiles)


def narrow_window_product(
    xp: ModuleType,
    narrow: Array,
    wide: Array,
    taps: Pair,
    stride: Pair,
    padding: Pair,
    tile: Tile,
    product: Array,
) -> None:
    """product (taps * C, N) = sum over positions i in a tile of narrow[stride * i + tap - padding] times
    wide[i].
    """
    part = wide[tile.images, tile.rows]
    n, *count, n_wide = part.shape
    corner = (tile.rows.start * stride[0] - padding[0], -padding[1])
    padded = _seen(xp, narrow[tile.images], corner, (count[0], count[1]), taps, stride, product.dtype)
    planes = _planes(xp, padded, (count[0], count[1]), taps, stride)
    pixels = image_rows(xp, part, product.dtype).reshape(n, -1, n_wide)
    terms = scratch(xp, "terms", (n, *product.shape), product.dtype)
    matmul_into(xp, planes, pixels, terms)
    xp.sum(terms, axis=0, out=product)


def _seen(
    xp: ModuleType, images: Array, corner: Pair, count: Pair, taps: Pair, stride: Pair, dtype: Any
) -> Array:
    """What `count` windows from `corner` on see of the images, with border: (n, ., ., C)."""
    last_h = corner[0] + (count[0] - 1) * stride[0] + taps[0]
    last_w = corner[1] + (count[1] - 1) * stride[1] + taps[1]
    return with_border(xp, images, corner, (last_h, last_w), dtype)


def _planes(xp: ModuleType, padded: Array, count: Pair, taps: Pair, stride: Pair) -> Array:
    """(n, taps * C, positions): for each image, tap and channel what the positions see."""
    n, _, _, channels = padded.shape
    step_n, step_h, step_w, step_c = padded.strides
    shape = (n, *taps, channels, *count)
    strides = (step_n, step_h, step_w, step_c, stride[0] * step_h, stride[1] * step_w)
    windows = overlapping(xp, padded, (0, 0), shape, strides)
    planes = scratch(xp, "planes", (n, taps[0] * taps[1] * channels, count[0] * count[1]), padded.dtype)
    planes.reshape(shape)[...] = windows
    return planes


def _from_planes(xp: ModuleType, padded: Array, phase: Phase, target: Array, stride: Pair) -> None:
    """Few channels in: the planes of all taps times the matrix."""
    n, *count, n_target = target.shape
    planes = _planes(xp, padded, (count[0], count[1]), phase.taps, stride)
    shape = (n, planes.shape[2], n_target)
    if target.flags.c_contiguous:
        matmul_into(xp, planes.transpose(0, 2, 1), phase.matrix, target.reshape(shape))
    else:
        product = scratch(xp, "product", shape, target.dtype)
        matmul_into(xp, planes.transpose(0, 2, 1), phase.matrix, product)
        target[...] = product.reshape(target.shape)


def _to_planes(xp: ModuleType, padded: Array, phase: Phase, target: Array) -> None:
    """Few channels out, stride 1: a plane of products for each tap, added up where they meet."""
    (taps_h, taps_w), width, n_target = phase.taps, padded.shape[2], target.shape[3]
    pixels = image_rows(xp, padded, target.dtype)
    n_pixels, n_source = pixels.shape
    by_tap = phase.matrix.reshape(taps_h * taps_w, n_source, n_target).transpose(0, 2, 1)
    products = scratch(xp, "planes", (taps_h * taps_w, n_target, n_pixels), target.dtype)
    matmul_into(xp, by_tap.reshape(-1, n_source), pixels.T, products.reshape(-1, n_pixels))
    total = scratch(xp, "product", (n_target, n_pixels), target.dtype)
    reach = n_pixels - (taps_h - 1) * width - (taps_w - 1)  # behind it no tap is left of the end
    sums = total[:, :reach]
    sums[...] = products[0, :, :reach]
    for tap in range(1, taps_h * taps_w):
        shift = tap // taps_w * width + tap % taps_w
        xp.add(sums, products[tap, :, shift : shift + reach], out=sums)
    grid = total.reshape(n_target, *padded.shape[:3])
    target[...] = grid[:, :, : target.shape[1], : target.shape[2]].transpose(1, 2, 3, 0)
