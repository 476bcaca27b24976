"""The input gradient of a strided convolution with few input channels: one product,
then each tap is added where it came from.

Gathering copies kh kw Cout values for a pixel that has only Cin channels; here the kh kw Cin values of its
product are laid out in planes, one a tap and channel, with zeros around each image. A phase of the result
(position mod stride) is the sum of the planes of its taps, each shifted as a whole, and is written to its
pixels once. Two to four times faster at Cin <= 4 (the last layer of a network that leads back to images).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from ..backend import Array
from .gather import image_rows
from .geometry import Pair
from .phases import Place
from .products import rows_times
from .scratch import scratch
from .tiles import Tile, cut, for_each_tile

_MOST_CHANNELS = 4


def is_worthwhile(w_shape: tuple[int, ...]) -> bool:
    """Whether scattering beats gathering for this kernel; a 1x1 kernel gathers without copying."""
    kernel_height, kernel_width, n_in, _ = w_shape
    return n_in <= _MOST_CHANNELS and kernel_height * kernel_width > 1


def scatter_product(xp: ModuleType, ybar: Array, w: Array, xbar: Array, places: Sequence[Place]) -> None:
    """Fill the phases at `places` of xbar (B, H, W, Cin) from ybar (B, ., ., Cout)
    and w (kh, kw, Cin, Cout).
    """
    matrix = xp.ascontiguousarray(w.reshape(-1, w.shape[3]).T, dtype=xbar.dtype)
    depth = max(matrix.shape)
    tiles = cut(xp, ybar.shape[0], (1, ybar.shape[1] * ybar.shape[2]), depth, depth, xbar.dtype.itemsize)
    lowest = (min(place.offset[0] for place in places), min(place.offset[1] for place in places))
    highest = (
        max(place.offset[0] + place.taps[0] + place.counts[0] for place in places) - 1,
        max(place.offset[1] + place.taps[1] + place.counts[1] for place in places) - 1,
    )

    def work(tile: Tile) -> None:
        pixels = image_rows(xp, ybar[tile.images], xbar.dtype)
        product = scratch(xp, "product", (pixels.shape[0], matrix.shape[1]), xbar.dtype)
        rows_times(xp, pixels, matrix, product)
        planes = _planes(xp, product.reshape(-1, *ybar.shape[1:3], matrix.shape[1]), lowest, highest)
        by_tap = planes.reshape(*w.shape[:3], *planes.shape[1:])
        for place in places:
            _add_up(xp, by_tap, place, lowest, xbar[tile.images])

    for_each_tile(xp, work, tiles)


def _planes(xp: ModuleType, product: Array, lowest: Pair, highest: Pair) -> Array:
    """(M, n, ., .) from (n, Ho, Wo, M): the positions from `lowest` to `highest`,
    zeros where there is no image.
    """
    n, rows, columns, depth = product.shape
    (top, left), (bottom, right) = lowest, highest
    planes = scratch(xp, "planes", (depth, n, bottom - top, right - left), product.dtype)
    planes[...] = 0
    inside = product[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    from_h, from_w = max(-top, 0), max(-left, 0)
    to = planes[:, :, from_h : from_h + inside.shape[1], from_w : from_w + inside.shape[2]]
    to[...] = inside.transpose(3, 0, 1, 2)
    return planes


def _add_up(xp: ModuleType, by_tap: Array, place: Place, lowest: Pair, xbar: Array) -> None:
    """One phase of xbar (n, H, W, C) from the planes (kh, kw, C, n, ., .)."""
    channels, _, _, width = by_tap.shape[2:]
    (taps_h, taps_w), (count_h, count_w) = place.taps, place.counts
    flat = by_tap[place.reaching][::-1, ::-1].reshape(taps_h, taps_w, channels, -1)
    total = scratch(xp, "total", by_tap.shape[2:], xbar.dtype)
    start = (place.offset[0] - lowest[0]) * width + place.offset[1] - lowest[1]
    reach = flat.shape[3] - start - (taps_h - 1) * width - (taps_w - 1)  # behind it nothing is wanted
    sums = total.reshape(channels, -1)[:, :reach]
    sums[...] = flat[0, 0, :, start : start + reach]
    for tap in range(1, taps_h * taps_w):
        row, column = divmod(tap, taps_w)
        shift = start + row * width + column
        xp.add(sums, flat[row, column, :, shift : shift + reach], out=sums)
    (first_h, first_w), (step_h, step_w) = place.first, place.step
    xbar[:, first_h::step_h, first_w::step_w] = total[:, :, :count_h, :count_w].transpose(1, 2, 3, 0)
