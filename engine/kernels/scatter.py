"""The input gradient of a convolution with few input channels: one product, then each tap is added where it came from.

Gathering copies kh kw Cout values for a pixel that has only Cin channels; scattering adds kh kw Cin values instead.
Two to four times faster at Cin <= 4 (the first layer on images, the last of an image-to-image network).
"""

from __future__ import annotations

from types import ModuleType

from ..backend import Array
from .gather import image_rows
from .geometry import Pair
from .scratch import scratch
from .tiles import Tile, cut, for_each_tile

_MOST_CHANNELS = 4


def is_worthwhile(w_shape: tuple[int, ...]) -> bool:
    """Whether scattering beats gathering for this kernel; a 1x1 kernel gathers without copying."""
    kernel_height, kernel_width, n_in, _ = w_shape
    return n_in <= _MOST_CHANNELS and kernel_height * kernel_width > 1


def scatter_product(xp: ModuleType, ybar: Array, w: Array, xbar: Array, stride: Pair, padding: Pair) -> None:
    """Fill xbar (B, H, W, Cin) = sum over taps (k, l) of ybar @ w[k, l]^T at stride * position + tap - padding."""
    kernel_height, kernel_width, n_in, n_out = w.shape
    matrix = w.astype(xbar.dtype, copy=False).reshape(-1, n_out).T
    depth = max(n_out, matrix.shape[1])
    tiles = cut(xp, ybar.shape[0], (1, ybar.shape[1] * ybar.shape[2]), depth, depth, xbar.dtype.itemsize)

    def work(tile: Tile) -> None:
        pixels = image_rows(xp, ybar[tile.images], xbar.dtype)
        product = scratch(xp, "product", (pixels.shape[0], matrix.shape[1]), xbar.dtype)
        xp.matmul(pixels, matrix, out=product)
        by_tap = product.reshape(-1, *ybar.shape[1:3], kernel_height, kernel_width, n_in)
        _add_taps(xp, by_tap, xbar[tile.images], stride, padding)

    for_each_tile(xp, work, tiles)


def _add_taps(xp: ModuleType, by_tap: Array, xbar: Array, stride: Pair, padding: Pair) -> None:
    """xbar (n, H, W, C) = by_tap (n, Ho, Wo, kh, kw, C), each tap added at its positions.

    The sum is made in planes, channels first, so that the innermost loop runs along a row of pixels and not over
    few channels, and with the border, so that no tap needs an exception.
    """
    n, rows, columns, kernel_height, kernel_width, channels = by_tap.shape
    height, width = xbar.shape[1:3]
    span_h, span_w = (rows - 1) * stride[0] + 1, (columns - 1) * stride[1] + 1
    padded_h = max(padding[0] + height, span_h + kernel_height - 1)
    padded_w = max(padding[1] + width, span_w + kernel_width - 1)
    planes = scratch(xp, "planes", (channels, n, padded_h, padded_w), xbar.dtype)
    planes[...] = 0
    taps_first = by_tap.transpose(3, 4, 5, 0, 1, 2)
    for k in range(kernel_height):
        for l in range(kernel_width):
            reached = planes[:, :, k : k + span_h : stride[0], l : l + span_w : stride[1]]
            xp.add(reached, taps_first[k, l], out=reached)
    inside = planes[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
    xbar[...] = inside.transpose(1, 2, 3, 0)
