"""Convolution, channels last: forward, input gradient and weight gradient as matrix products over tiles of the batch.

One idea serves the three. A *correlation* gathers the windows of a tile of images into rows ("columns" of the usual
im2col, taps and channels side by side) and multiplies them with the kernel as a matrix:

- forward: the windows of x, at stride s, times w;
- input gradient: the input positions fall into s x s phases (position mod s). Each phase is a correlation at stride 1
  of ybar with the taps that reach it, flipped: no product with an inserted zero is ever computed;
- weight gradient: the windows of x, transposed, times ybar, summed over the tiles.

A tile is small enough for its windows to stay in cache, and tiles are spread over threads, each with BLAS at one
thread. Tiles do not depend on the number of threads, so neither do the bits of the forward and the input gradient; the
weight gradient adds one partial sum a thread, in order, and repeats its bits for a given number of threads.
Complex arrays are multiplied without conjugation: the gradients are transposes.

Measured by `benchmarks/conv.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import Array
from ..errors import ArgumentError
from .geometry import Pair, as_pair, check_inexact, check_ndim, result_buffer, window_count
from .scratch import scratch
from .threads import one_blas_thread, run_shares

_TILE_BYTES_HOST = 1 << 21  # windows of one tile: they share the caches with the kernel and the result
_TILE_BYTES_DEVICE = 1 << 28  # a device wants few, large products
_TILES_AT_LEAST = 8  # enough to divide a small batch evenly over threads
_FLOPS_A_TILE = 4e6  # about 40 us: below, handing a tile to a thread costs more than it saves


def conv2d_output_shape(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: int | Pair = 1, padding: int | Pair = 0
) -> tuple[int, int, int, int]:
    """(B, Ho, Wo, Cout) of `conv2d`; ArgumentError if the shapes do not go together."""
    return _geometry(x_shape, w_shape, stride, padding).y_shape


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

    y[b, i, j, d] = sum over k, l, c of x[b, i * stride + k - padding, j * stride + l - padding, c] * w[k, l, c, d]

    Args:
        x: images (B, H, W, Cin), any float dtype, any strides.
        w: kernel (kh, kw, Cin, Cout).
        stride, padding: one integer or (rows, columns).
        out: where the result is written, shape and dtype of the result; must not overlap x or w.
    Returns: (B, Ho, Wo, Cout) with Ho = (H + 2 padding - kh) // stride + 1, in the common dtype of x and w.
    Raises: ArgumentError, ArgumentTypeError.
    Cost: 2 B Ho Wo kh kw Cin Cout flops; nothing but the result is allocated when called again.
    """
    geometry = _geometry(x.shape, w.shape, stride, padding)
    dtype = check_inexact(xp, x=x, w=w)
    y = result_buffer(xp, out, geometry.y_shape, dtype)
    _correlate(xp, x, [_forward_phase(xp, w, geometry, dtype)], y, geometry.stride)
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

    It is the forward of the transposed convolution as well; `input_shape` says which of the sizes that `conv2d` would
    map to ybar's is meant, e.g. (8, 8) or (7, 7) for ybar of (4, 4), kernel 3, stride 2, padding 1.

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
    geometry = _geometry(x_shape, w.shape, stride, padding)
    _check_cotangent(ybar, geometry)
    dtype = check_inexact(xp, ybar=ybar, w=w)
    xbar = result_buffer(xp, out, x_shape, dtype)
    if xbar.size == 0:
        return xbar
    phases = _input_grad_phases(xp, w, geometry, dtype)
    if len(phases) < geometry.stride[0] * geometry.stride[1]:
        xbar[...] = 0  # positions that no tap reaches
    _correlate(xp, ybar, phases, xbar, (1, 1))
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
    geometry = _geometry(x.shape, w_shape, stride, padding)
    _check_cotangent(ybar, geometry)
    dtype = check_inexact(xp, x=x, ybar=ybar)
    wbar = result_buffer(xp, out, w_shape, dtype)
    _sum_window_products(xp, x, ybar, geometry, wbar)
    return wbar


@dataclass(frozen=True)
class _Geometry:
    """The sizes of one convolution, checked."""

    x_shape: tuple[int, int, int, int]
    w_shape: tuple[int, int, int, int]
    y_shape: tuple[int, int, int, int]
    stride: Pair
    padding: Pair


def _geometry(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: int | Pair, padding: int | Pair
) -> _Geometry:
    if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != w_shape[2]:
        raise ArgumentError(
            "convolution expects images (B, H, W, Cin) and a kernel (kh, kw, Cin, Cout) of the same Cin; "
            f"got {tuple(x_shape)} and {tuple(w_shape)}"
        )
    n_images, height, width, n_in = x_shape
    kernel_height, kernel_width, _, n_out = w_shape
    steps, border = as_pair(stride, "stride", 1), as_pair(padding, "padding", 0)
    rows, columns = window_count((height, width), (kernel_height, kernel_width), steps, border)
    return _Geometry(
        (n_images, height, width, n_in),
        (kernel_height, kernel_width, n_in, n_out),
        (n_images, rows, columns, n_out),
        steps,
        border,
    )


def _check_cotangent(ybar: Array, geometry: _Geometry) -> None:
    if ybar.shape != geometry.y_shape:
        raise ArgumentError(
            f"`ybar` must have the shape of the convolution, {geometry.y_shape} (images {geometry.x_shape}, kernel "
            f"{geometry.w_shape}, stride {geometry.stride}, padding {geometry.padding}); got {ybar.shape}"
        )


@dataclass(frozen=True)
class _Phase:
    """dst[first + step * q] = sum over taps j of src[stride * q + offset + j] @ matrix[j], for q < count, per axis."""

    matrix: Array  # (taps * channels of src, channels of dst)
    taps: Pair
    offset: Pair
    first: Pair
    step: Pair
    count: Pair


def _forward_phase(xp: ModuleType, w: Array, geometry: _Geometry, dtype: Any) -> _Phase:
    kernel = xp.ascontiguousarray(w, dtype=dtype)
    return _Phase(
        matrix=kernel.reshape(-1, geometry.w_shape[3]),
        taps=geometry.w_shape[:2],
        offset=(-geometry.padding[0], -geometry.padding[1]),
        first=(0, 0),
        step=(1, 1),
        count=geometry.y_shape[1:3],
    )


def _input_grad_phases(xp: ModuleType, w: Array, geometry: _Geometry, dtype: Any) -> list[_Phase]:
    """One phase for each residue (position mod stride) that at least one tap reaches.

    x position i = first + s q meets tap k at the output position (i + p - k) / s. Those taps are k = k0 + s j with
    k0 = (first + p) mod s, and the output position is q + (first + p) // s - j: a correlation with reversed taps.
    """
    (stride_h, stride_w), (padding_h, padding_w) = geometry.stride, geometry.padding
    _, height, width, n_in = geometry.x_shape
    phases = []
    for first_h in range(min(stride_h, height)):
        base_h, k_h = divmod(first_h + padding_h, stride_h)
        for first_w in range(min(stride_w, width)):
            base_w, k_w = divmod(first_w + padding_w, stride_w)
            reaching = w[k_h::stride_h, k_w::stride_w]
            taps = reaching.shape[:2]
            if 0 in taps:
                continue
            reversed_taps = reaching[::-1, ::-1].transpose(0, 1, 3, 2)
            phases.append(
                _Phase(
                    matrix=xp.ascontiguousarray(reversed_taps, dtype=dtype).reshape(-1, n_in),
                    taps=taps,
                    offset=(base_h - taps[0] + 1, base_w - taps[1] + 1),
                    first=(first_h, first_w),
                    step=geometry.stride,
                    count=(-((first_h - height) // stride_h), -((first_w - width) // stride_w)),
                )
            )
    return phases


def _correlate(xp: ModuleType, source: Array, phases: list[_Phase], target: Array, stride: Pair) -> None:
    """target (B, ., ., N) = the phases of source (B, ., ., C)."""
    if target.size == 0 or not phases:
        return
    if source.shape[3] == 0:
        target[...] = 0
        return
    rows, columns = (max(phase.count[axis] for phase in phases) for axis in (0, 1))
    depth = max(phase.matrix.shape[0] for phase in phases)
    tiles = _tiles(xp, source.shape[0], rows, columns, depth * target.dtype.itemsize, depth * target.shape[3])

    def work(_: int, start: int, stop: int) -> None:
        for tile in tiles[start:stop]:
            _correlate_tile(xp, source, phases, target, stride, tile)

    _spread(xp, work, len(tiles))


@dataclass(frozen=True)
class _Tile:
    """Images and window rows that are gathered together."""

    images: slice
    rows: slice


def _tiles(
    xp: ModuleType, n_images: int, rows: int, columns: int, row_bytes: int, row_multiplies: int
) -> list[_Tile]:
    """Cut (images, rows) into tiles whose windows fill the cache; a tile is whole images or rows of one image."""
    budget = _TILE_BYTES_HOST if xp is np else _TILE_BYTES_DEVICE
    n_windows = max(1, budget // max(1, row_bytes))
    if n_windows < rows * columns:
        n_rows = max(1, n_windows // columns)
        return [
            _Tile(slice(image, image + 1), slice(row, min(row + n_rows, rows)))
            for image in range(n_images)
            for row in range(0, rows, n_rows)
        ]
    per_tile = n_windows // (rows * columns)
    if xp is np:
        worth_a_tile = int(_FLOPS_A_TILE / (2 * rows * columns * max(1, row_multiplies))) + 1
        per_tile = min(per_tile, max(worth_a_tile, -(-n_images // _TILES_AT_LEAST)))
    everything = slice(0, rows)
    return [
        _Tile(slice(image, min(image + per_tile, n_images)), everything)
        for image in range(0, n_images, per_tile)
    ]


def _spread(xp: ModuleType, work: Any, n_tiles: int) -> None:
    """Run work(share, start, stop) over the tiles: on the host by all threads of BLAS, on a device in order."""
    if xp is not np:
        work(0, 0, n_tiles)
        return
    with one_blas_thread() as n_threads:
        run_shares(work, n_tiles, min(n_threads, n_tiles))


def _correlate_tile(
    xp: ModuleType, source: Array, phases: list[_Phase], target: Array, stride: Pair, tile: _Tile
) -> None:
    lowest, highest = _reach(phases, stride, tile)
    padded = _with_border(xp, source[tile.images], lowest, highest, target.dtype)
    for phase in phases:
        stop = min(tile.rows.stop, phase.count[0])
        if stop <= tile.rows.start:
            continue
        count = (stop - tile.rows.start, phase.count[1])
        corner = (
            tile.rows.start * stride[0] + phase.offset[0] - lowest[0],
            phase.offset[1] - lowest[1],
        )
        rows = _window_rows(xp, padded, corner, count, phase.taps, stride)
        (first_h, first_w), (step_h, step_w) = phase.first, phase.step
        begin = first_h + step_h * tile.rows.start
        end = first_h + step_h * (stop - 1) + 1
        _product_into(xp, rows, phase.matrix, target[tile.images, begin:end:step_h, first_w::step_w])


def _reach(phases: list[_Phase], stride: Pair, tile: _Tile) -> tuple[Pair, Pair]:
    """The source positions [lowest, highest) that the windows of a tile touch, borders included."""
    lowest = (
        tile.rows.start * stride[0] + min(phase.offset[0] for phase in phases),
        min(phase.offset[1] for phase in phases),
    )
    highest = (
        max((tile.rows.stop - 1) * stride[0] + phase.offset[0] + phase.taps[0] for phase in phases),
        max((phase.count[1] - 1) * stride[1] + phase.offset[1] + phase.taps[1] for phase in phases),
    )
    return lowest, highest


def _with_border(xp: ModuleType, images: Array, lowest: Pair, highest: Pair, dtype: Any) -> Array:
    """images[:, lowest[0]:highest[0], lowest[1]:highest[1]] with zeros outside; a view where nothing lies outside."""
    n, height, width, channels = images.shape
    (top, left), (bottom, right) = lowest, highest
    inside_h = slice(max(top, 0), max(min(bottom, height), 0))
    inside_w = slice(max(left, 0), max(min(right, width), 0))
    if top >= 0 and left >= 0 and bottom <= height and right <= width and images.dtype == dtype:
        return images[:, inside_h, inside_w]
    padded = scratch(xp, "padded", (n, bottom - top, right - left, channels), dtype)
    to_h = slice(inside_h.start - top, max(inside_h.stop, inside_h.start) - top)
    to_w = slice(inside_w.start - left, max(inside_w.stop, inside_w.start) - left)
    padded[:, : to_h.start] = 0
    padded[:, to_h.stop :] = 0
    padded[:, to_h, : to_w.start] = 0
    padded[:, to_h, to_w.stop :] = 0
    padded[:, to_h, to_w] = images[:, inside_h, inside_w]
    return padded


def _window_rows(xp: ModuleType, padded: Array, corner: Pair, count: Pair, taps: Pair, stride: Pair) -> Array:
    """(n * count_h * count_w, taps_h * taps_w * C): the windows as rows; a view where they lie side by side."""
    n, channels = padded.shape[0], padded.shape[3]
    step_n, step_h, step_w, step_c = padded.strides
    windows = xp.lib.stride_tricks.as_strided(
        padded[:, corner[0] :, corner[1] :],
        shape=(n, *count, *taps, channels),
        strides=(step_n, step_h * stride[0], step_w * stride[1], step_h, step_w, step_c),
    )
    n_rows, depth = n * count[0] * count[1], taps[0] * taps[1] * channels
    if windows.flags.c_contiguous:
        return windows.reshape(n_rows, depth)
    rows = scratch(xp, "windows", (n_rows, depth), padded.dtype)
    rows.reshape(windows.shape)[...] = windows
    return rows


def _product_into(xp: ModuleType, rows: Array, matrix: Array, target: Array) -> None:
    """target (n, h, w, N), any strides, = rows (n h w, K) @ matrix (K, N)."""
    shape = (rows.shape[0], matrix.shape[1])
    if target.flags.c_contiguous:
        xp.matmul(rows, matrix, out=target.reshape(shape))
    else:
        product = scratch(xp, "product", shape, target.dtype)
        xp.matmul(rows, matrix, out=product)
        target[...] = product.reshape(target.shape)


def _sum_window_products(xp: ModuleType, x: Array, ybar: Array, geometry: _Geometry, wbar: Array) -> None:
    """wbar (kh, kw, Cin, Cout) = sum over tiles of (windows of x)^T (rows of ybar)."""
    n_images, rows, columns, n_out = geometry.y_shape
    depth = geometry.w_shape[0] * geometry.w_shape[1] * geometry.w_shape[2]
    if x.size == 0 or ybar.size == 0:
        wbar[...] = 0
        return
    tiles = _tiles(xp, n_images, rows, columns, depth * wbar.dtype.itemsize, depth * n_out)

    def work(share: int, start: int, stop: int) -> None:
        total = totals[share]
        for tile in tiles[start:stop]:
            product = total if tile is tiles[start] else scratch(xp, "product", (depth, n_out), wbar.dtype)
            _window_product(xp, x, ybar, geometry, tile, product)
            if product is not total:
                xp.add(total, product, out=total)

    if xp is not np:
        totals = xp.empty((1, depth, n_out), dtype=wbar.dtype)
        work(0, 0, len(tiles))
    else:
        with one_blas_thread() as n_threads:
            n_shares = min(n_threads, len(tiles))
            totals = scratch(xp, "totals", (n_shares, depth, n_out), wbar.dtype)
            run_shares(work, len(tiles), n_shares)
    wbar[...] = totals.sum(axis=0).reshape(wbar.shape)


def _window_product(
    xp: ModuleType, x: Array, ybar: Array, geometry: _Geometry, tile: _Tile, product: Array
) -> None:
    """product (kh kw Cin, Cout) = (windows of x in a tile)^T (the same rows of ybar)."""
    stride, taps = geometry.stride, geometry.w_shape[:2]
    count = (tile.rows.stop - tile.rows.start, geometry.y_shape[2])
    lowest = (tile.rows.start * stride[0] - geometry.padding[0], -geometry.padding[1])
    highest = (
        lowest[0] + (count[0] - 1) * stride[0] + taps[0],
        lowest[1] + (count[1] - 1) * stride[1] + taps[1],
    )
    padded = _with_border(xp, x[tile.images], lowest, highest, product.dtype)
    rows = _window_rows(xp, padded, (0, 0), count, taps, stride)
    cotangent = ybar[tile.images, tile.rows]
    if not cotangent.flags.c_contiguous or cotangent.dtype != product.dtype:
        packed = scratch(xp, "cotangent", cotangent.shape, product.dtype)
        packed[...] = cotangent
        cotangent = packed
    xp.matmul(rows.T, cotangent.reshape(rows.shape[0], -1), out=product)
