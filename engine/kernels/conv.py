"""Convolution, channels last: forward, input gradient and weight gradient as matrix products over tiles of
the batch.

One idea serves the three. A *correlation* gathers the windows of a tile of images into rows ("columns" of the
usual im2col, taps and channels side by side) and multiplies them with the kernel as a matrix:

- forward: the windows of x, at stride s, times w;
- input gradient: the input positions fall into s x s phases (position mod s). Each phase is a correlation at
  stride 1 of ybar with the taps that reach it, flipped: no product with an inserted zero is ever computed. At
  stride 2 the four phases of a 3x3 kernel share what is gathered (`cells`),
  and with few input channels one product is scattered (`scatter`);
- weight gradient: the windows of x, transposed, times ybar, summed over the tiles.

Kernels of 3x3 with many channels take fewer products where the caller accepts their round-off (`winograd`,
and at stride 2 `winograd_strided`); few channels on one side are spread over taps as whole images (`narrow`).

A tile is small enough for its windows to stay in cache, and tiles are dealt out to threads, each with BLAS at
one thread. The bits of forward and input gradient do not depend on the number of threads; the weight gradient
adds one partial sum a thread, in order, and repeats its bits for a given number of threads.
Complex arrays are multiplied without conjugation: the gradients are transposes.

Measured by `benchmarks/conv.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType

import numpy as np

from ..backend import Array
from .cells import correlate_cells, is_cells
from .gather import correlate, image_rows, window_rows, with_border
from .geometry import (
    Geometry,
    Pair,
    as_pair,
    check_cotangent,
    check_inexact,
    check_ndim,
    geometry_of,
    result_buffer,
)
from .narrow import correlate_narrow, is_narrow, narrow_tiles, narrow_window_product
from .phases import Place, forward_phase, input_grad_phases, phase_places, reversed_kernel
from .products import summed_over_rows
from .scatter import is_worthwhile, scatter_product
from .scratch import scratch
from .threads import one_blas_thread, run_shares
from .tiles import Tile, cut
from .winograd import correlate_winograd, is_winograd, winograd_weight_grad
from .winograd_strided import (
    forward_strided,
    input_grad_strided,
    is_strided_winograd,
    weight_grad_strided,
)


def conv2d_output_shape(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: int | Pair = 1, padding: int | Pair = 0
) -> tuple[int, int, int, int]:
    """(B, Ho, Wo, Cout) of `conv2d`; ArgumentError if the shapes do not go together."""
    return geometry_of(x_shape, w_shape, stride, padding).y_shape


def conv2d(
    xp: ModuleType,
    x: Array,
    w: Array,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    out: Array | None = None,
) -> Array:
    """Cross-correlation of images with a kernel, symmetric zero padding.

    y[b, i, j, d] = sum over k, l, c of x[b, i * stride + k - padding, j * stride + l - padding, c] * w[k, l,
    c, d]

    Args:
        x: images (B, H, W, Cin), any float dtype, any strides.
        w: kernel (kh, kw, Cin, Cout).
        stride, padding: one integer or (rows, columns).
        out: where the result is written, shape and dtype of the result; must not overlap x or w.
    Returns: (B, Ho, Wo, Cout) with Ho = (H + 2 padding - kh) // stride + 1, in the common dtype of x and w.
    Raises: ArgumentError, ArgumentTypeError.
    Cost: 2 B Ho Wo kh kw Cin Cout flops; nothing but the result is allocated when called again.
    """
    geometry = geometry_of(x.shape, w.shape, stride, padding)
    dtype = check_inexact(xp, x=x, w=w)
    y = result_buffer(xp, out, geometry.y_shape, dtype)
    if x.size == 0 or y.size == 0:
        y[...] = 0  # a sum over no channels
    else:
        phase = forward_phase(xp, w, geometry, dtype)
        if _is_narrow(geometry):
            correlate_narrow(xp, x, phase, y, geometry.stride)
        elif xp is np and is_winograd(geometry.w_shape, geometry.stride, geometry.y_shape[:3], dtype):
            correlate_winograd(x, phase, y)
        elif xp is np and is_strided_winograd(geometry, y, x):
            forward_strided(x, phase.matrix.reshape(w.shape), geometry.padding[0], y)
        else:
            correlate(xp, x, [phase], y, geometry.stride)
    return y


def conv2d_input_grad(
    xp: ModuleType,
    ybar: Array,
    w: Array,
    *,
    input_shape: Pair,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    out: Array | None = None,
) -> Array:
    """The transpose of `conv2d` in x: xbar with <xbar, x> = <ybar, conv2d(x, w)>, without conjugation.

    It is the forward of the transposed convolution as well; `input_shape` says which of the sizes that
    `conv2d` would map to ybar's is meant, e.g. (8, 8) or (7, 7) for ybar of (4, 4), kernel 3, stride 2,
    padding 1.

    Args:
        ybar: cotangent (B, Ho, Wo, Cout).
        w: kernel (kh, kw, Cin, Cout), as for `conv2d`.
        input_shape: (H, W) of the result.
        stride, padding, out: as for `conv2d`.
    Returns: (B, H, W, Cin), in the common dtype of ybar and w.
    Raises: ArgumentError if `conv2d` of (H, W) would not have the size of ybar; ArgumentTypeError.
    Cost: 2 B Ho Wo kh kw Cin Cout flops.
    """
    check_ndim(ybar, "ybar", "(B, Ho, Wo, Cout)")
    check_ndim(w, "w", "(kh, kw, Cin, Cout)")
    x_shape = (ybar.shape[0], *as_pair(input_shape, "input_shape", 1), w.shape[2])
    geometry = geometry_of(x_shape, w.shape, stride, padding)
    check_cotangent(ybar, geometry)
    dtype = check_inexact(xp, ybar=ybar, w=w)
    xbar = result_buffer(xp, out, x_shape, dtype)
    if ybar.size == 0 or xbar.size == 0:
        xbar[...] = 0
    elif _is_narrow(geometry) and geometry.stride == (1, 1):
        correlate_narrow(xp, ybar, input_grad_phases(xp, w, phase_places(geometry), dtype)[0], xbar, (1, 1))
    else:
        places = phase_places(geometry)
        if len(places) < geometry.stride[0] * geometry.stride[1]:
            xbar[...] = 0  # positions that no tap reaches
        if places:
            _fill_phases(xp, ybar, w, geometry, places, xbar)
    return xbar


def conv2d_weight_grad(
    xp: ModuleType,
    x: Array,
    ybar: Array,
    *,
    kernel_shape: Pair,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    out: Array | None = None,
) -> Array:
    """The transpose of `conv2d` in w: wbar with <wbar, w> = <ybar, conv2d(x, w)>, without conjugation.

    Args:
        x: images (B, H, W, Cin).
        ybar: cotangent (B, Ho, Wo, Cout).
        kernel_shape: (kh, kw).
        stride, padding, out: as for `conv2d`.
    Returns: (kh, kw, Cin, Cout), in the common dtype of x and ybar; zeros for an empty batch.
    Raises: ArgumentError, ArgumentTypeError.
    Cost: 2 B Ho Wo kh kw Cin Cout flops.
    """
    check_ndim(x, "x", "(B, H, W, Cin)")
    check_ndim(ybar, "ybar", "(B, Ho, Wo, Cout)")
    w_shape = (*as_pair(kernel_shape, "kernel_shape", 1), x.shape[3], ybar.shape[3])
    geometry = geometry_of(x.shape, w_shape, stride, padding)
    check_cotangent(ybar, geometry)
    dtype = check_inexact(xp, x=x, ybar=ybar)
    wbar = result_buffer(xp, out, w_shape, dtype)
    if x.size == 0 or ybar.size == 0:
        wbar[...] = 0
    elif _is_narrow(geometry):
        _narrow_weight_grad(xp, x, ybar, geometry, wbar)
    elif xp is np and is_winograd(geometry.w_shape, geometry.stride, geometry.y_shape[:3], dtype):
        winograd_weight_grad(x, ybar, geometry.padding, partial(_sum_over_tiles, np), wbar)
    elif xp is np and is_strided_winograd(geometry, ybar, x):
        weight_grad_strided(x, ybar, geometry.padding[0], partial(_sum_over_tiles, np), wbar)
    else:
        n_images, *positions, n_out = geometry.y_shape
        depth = wbar.size // n_out
        tiles = cut(xp, n_images, (positions[0], positions[1]), depth, n_out, wbar.dtype.itemsize)
        _sum_over_tiles(xp, tiles, partial(_window_product, xp, x, ybar, geometry), wbar)
    return wbar


def _fill_phases(
    xp: ModuleType, ybar: Array, w: Array, geometry: Geometry, places: Sequence[Place], xbar: Array
) -> None:
    """The positions of xbar that taps reach, in the way that is fastest for this size."""
    if is_worthwhile(geometry.w_shape):
        scatter_product(xp, ybar, w, xbar, places)
        return
    if xp is np and is_strided_winograd(geometry, xbar, ybar):
        input_grad_strided(ybar, reversed_kernel(np, w, xbar.dtype), geometry.padding[0], xbar)
        return
    phases = input_grad_phases(xp, w, places, xbar.dtype)
    if xp is np and is_winograd(geometry.w_shape, geometry.stride, geometry.x_shape[:3], xbar.dtype):
        correlate_winograd(ybar, phases[0], xbar)
    elif xp is np and is_cells(phases, xbar.shape):
        correlate_cells(ybar, phases, xbar)
    else:
        correlate(xp, ybar, phases, xbar, (1, 1))


def _is_narrow(geometry: Geometry) -> bool:
    return is_narrow(*geometry.w_shape[2:], geometry.w_shape[:2], geometry.stride)


def _narrow_weight_grad(xp: ModuleType, x: Array, ybar: Array, geometry: Geometry, wbar: Array) -> None:
    """wbar from the side of few channels, shifted, and the other one;
    for few output channels they change places.

    The pixel of ybar that meets x at i through tap k is i + p - k = i + (kh - 1 - k) - (kh - 1 - p): what is
    summed then is the kernel with its taps reversed and its channels swapped.
    """
    taps, padding = geometry.w_shape[:2], geometry.padding
    n_in, n_out = geometry.w_shape[2:]
    narrow, wide = x, ybar
    if n_out < n_in and geometry.stride == (1, 1):
        narrow, wide = ybar, x
        padding = (taps[0] - 1 - padding[0], taps[1] - 1 - padding[1])
    positions = (wide.shape[1], wide.shape[2])
    tiles = narrow_tiles(xp, wide.shape[0], positions, n_in, n_out, taps, wbar.dtype.itemsize)
    multiply = partial(narrow_window_product, xp, narrow, wide, taps, geometry.stride, padding)
    _sum_over_tiles(xp, tiles, multiply, wbar if narrow is x else wbar[::-1, ::-1].transpose(0, 1, 3, 2))


def _sum_over_tiles(
    xp: ModuleType, tiles: Sequence[Tile], multiply: Callable[[Tile, Array], None], total: Array
) -> None:
    """total (kh, kw, C, N) = sum over the tiles, divided among threads, of the product (kh kw C, N) that
    `multiply(tile, product)` writes."""

    shape = (total.size // total.shape[3], total.shape[3])

    def work(share: int) -> None:
        first, *others = tiles[len(tiles) * share // n_shares : len(tiles) * (share + 1) // n_shares]
        multiply(first, totals[share])
        for tile in others:
            product = scratch(xp, "product", shape, total.dtype)
            multiply(tile, product)
            xp.add(totals[share], product, out=totals[share])

    with one_blas_thread() as n_threads:
        n_shares = min(n_threads, len(tiles)) if xp is np else 1
        totals = scratch(xp, "totals", (n_shares, *shape), total.dtype)
        run_shares(work, n_shares)
    xp.sum(totals.reshape(n_shares, *total.shape), axis=0, out=total)


def _window_product(
    xp: ModuleType, x: Array, ybar: Array, geometry: Geometry, tile: Tile, product: Array
) -> None:
    """product (kh kw Cin, Cout) = (windows of x in a tile)^T (the same pixels of ybar)."""
    stride, padding, taps = geometry.stride, geometry.padding, geometry.w_shape[:2]
    count = (tile.rows.stop - tile.rows.start, geometry.y_shape[2])
    lowest = (tile.rows.start * stride[0] - padding[0], -padding[1])
    highest = (
        lowest[0] + (count[0] - 1) * stride[0] + taps[0],
        lowest[1] + (count[1] - 1) * stride[1] + taps[1],
    )
    padded = with_border(xp, x[tile.images], lowest, highest, product.dtype)
    rows = window_rows(xp, padded, (0, 0), count, taps, stride)
    summed_over_rows(xp, rows, image_rows(xp, ybar[tile.images, tile.rows], product.dtype), product)
