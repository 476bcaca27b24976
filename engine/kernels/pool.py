"""Maximum and average pooling, channels last, one elementwise pass over the result for each tap of the
window.

The border is never looked at: a tap visits only the windows in which it falls inside the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from ..backend import Array
from ..errors import ArgumentError
from .geometry import Pair, as_pair, check_inexact, check_ndim, result_buffer, window_count

Region = tuple[slice, slice, slice]


def pool_output_shape(
    x_shape: tuple[int, ...], size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0
) -> tuple[int, int, int, int]:
    """(B, Ho, Wo, C) of a pooling; `stride` None means windows side by side (stride = size).

    Raises ArgumentError unless x has four axes, a window fits, and padding < size (else a window could lie
    wholly in the border, where it has no maximum).
    """
    window, steps, border = _window(size, stride, padding)
    if len(x_shape) != 4:
        raise ArgumentError(f"pooling expects images (B, H, W, C); got shape {tuple(x_shape)}")
    n_images, height, width, channels = x_shape
    return (n_images, *window_count((height, width), window, steps, border), channels)


def max_pool(
    xp: ModuleType,
    x: Array,
    size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
    out: Array | None = None,
) -> Array:
    """The maximum over each window, (B, H, W, C) -> (B, Ho, Wo, C); a border position is never the maximum.

    Complex numbers compare by their real part, and the first of equals in row-major window order is taken. A
    NaN in a window of real numbers gives NaN.
    Args: size, stride (None: size), padding: one integer or (rows, columns); `out` as for `conv2d`.
    """
    y = result_buffer(xp, out, pool_output_shape(x.shape, size, stride, padding), check_inexact(xp, x=x))
    y[...] = -xp.inf
    for windows, positions in _taps(x.shape, y.shape, *_window(size, stride, padding)):
        best, candidate = y[windows], x[positions]
        if y.dtype.kind == "c":
            best[...] = xp.where(candidate.real > best.real, candidate, best)
        else:
            xp.maximum(best, candidate, out=best)
    return y


def max_pool_grad(
    xp: ModuleType,
    ybar: Array,
    x: Array,
    y: Array,
    size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
    out: Array | None = None,
) -> Array:
    """xbar (B, H, W, C): each ybar goes to the maximum of its window,
    at ties to the first in row-major window order.

    `x` and `y` are the input and the result of `max_pool`. A window whose maximum is NaN passes nothing on.
    """
    _check_cotangent(ybar, x.shape, size, stride, padding)
    if y.shape != ybar.shape:
        raise ArgumentError(f"`y` must have the shape of `ybar`, {ybar.shape}; got {y.shape}")
    xbar = result_buffer(xp, out, x.shape, check_inexact(xp, ybar=ybar, x=x))
    xbar[...] = 0
    nothing = xbar.dtype.type(0)
    for windows, positions, is_maximum in _maxima(xp, x, y, _window(size, stride, padding)):
        xbar[positions] += xp.where(is_maximum, ybar[windows], nothing)
    return xbar


def max_pool_pick(
    xp: ModuleType,
    z: Array,
    x: Array,
    y: Array,
    size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
    out: Array | None = None,
) -> Array:
    """The values of z (B, H, W, C) where x has its maxima: (B, Ho, Wo, C);
    the transpose of `max_pool_grad` in ybar.

    `x` and `y` are the input and the result of `max_pool`. A window whose maximum is NaN gives 0.
    """
    if z.shape != x.shape:
        raise ArgumentError(f"`z` must have the shape of `x`, {x.shape}; got {z.shape}")
    expected = pool_output_shape(x.shape, size, stride, padding)
    if y.shape != expected:
        raise ArgumentError(f"`y` must have the shape of the pooling, {expected}; got {y.shape}")
    picked = result_buffer(xp, out, expected, check_inexact(xp, z=z, x=x))
    picked[...] = 0
    nothing = picked.dtype.type(0)
    for windows, positions, is_maximum in _maxima(xp, x, y, _window(size, stride, padding)):
        picked[windows] += xp.where(is_maximum, z[positions], nothing)
    return picked


def avg_pool(
    xp: ModuleType,
    x: Array,
    size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
    out: Array | None = None,
) -> Array:
    """The mean over each window, (B, H, W, C) -> (B, Ho, Wo, C); border positions count as zeros.

    Every window is divided by the full window size. Args: as for `max_pool`.
    """
    y = result_buffer(xp, out, pool_output_shape(x.shape, size, stride, padding), check_inexact(xp, x=x))
    window, steps, border = _window(size, stride, padding)
    y[...] = 0
    for windows, positions in _taps(x.shape, y.shape, window, steps, border):
        y[windows] += x[positions]
    y *= y.dtype.type(1 / (window[0] * window[1]))
    return y


def avg_pool_grad(
    xp: ModuleType,
    ybar: Array,
    size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
    input_shape: Pair,
    out: Array | None = None,
) -> Array:
    """xbar (B, H, W, C), the transpose of `avg_pool`; `input_shape` is (H, W)."""
    check_ndim(ybar, "ybar", "(B, Ho, Wo, C)")
    x_shape = (ybar.shape[0], *as_pair(input_shape, "input_shape", 1), ybar.shape[3])
    _check_cotangent(ybar, x_shape, size, stride, padding)
    xbar = result_buffer(xp, out, x_shape, check_inexact(xp, ybar=ybar))
    window, steps, border = _window(size, stride, padding)
    share = ybar * xbar.dtype.type(1 / (window[0] * window[1]))
    xbar[...] = 0
    for windows, positions in _taps(x_shape, ybar.shape, window, steps, border):
        xbar[positions] += share[windows]
    return xbar


def _maxima(
    xp: ModuleType, x: Array, y: Array, window: tuple[Pair, Pair, Pair]
) -> Iterator[tuple[Region, Region, Array]]:
    """The taps as `_taps` gives them, each with the truth that it is the first maximum of its window."""
    is_open = xp.ones(y.shape, dtype=bool)  # windows whose maximum was not met yet
    for windows, positions in _taps(x.shape, y.shape, *window):
        is_maximum = (x[positions].real == y[windows].real) & is_open[windows]
        is_open[windows] &= ~is_maximum
        yield windows, positions, is_maximum


def _window(size: int | Pair, stride: int | Pair | None, padding: int | Pair) -> tuple[Pair, Pair, Pair]:
    """(size, stride, padding) as pairs, checked."""
    window = as_pair(size, "size", 1)
    steps = window if stride is None else as_pair(stride, "stride", 1)
    border = as_pair(padding, "padding", 0)
    if border[0] >= window[0] or border[1] >= window[1]:
        raise ArgumentError(f"`padding` must be smaller than `size`; got padding {border} and size {window}")
    return window, steps, border


def _check_cotangent(
    ybar: Array,
    x_shape: tuple[int, ...],
    size: int | Pair,
    stride: int | Pair | None,
    padding: int | Pair,
) -> None:
    expected = pool_output_shape(x_shape, size, stride, padding)
    if ybar.shape != expected:
        raise ArgumentError(
            f"`ybar` must have the shape of the pooling, {expected}; got {ybar.shape} (images {tuple(x_shape)}, "
            f"size {size}, stride {stride}, padding {padding})"
        )


def _taps(
    x_shape: tuple[int, ...], y_shape: tuple[int, ...], window: Pair, stride: Pair, padding: Pair
) -> Iterator[tuple[Region, Region]]:
    """For each tap of the window, in row-major order: the windows in which it is inside,
    and its positions in x.
    """
    by_axis = [
        [
            _tap(x_shape[axis + 1], y_shape[axis + 1], tap, stride[axis], padding[axis])
            for tap in range(window[axis])
        ]
        for axis in (0, 1)
    ]
    every = slice(None)
    for row_windows, row_positions in by_axis[0]:
        for column_windows, column_positions in by_axis[1]:
            yield (every, row_windows, column_windows), (every, row_positions, column_positions)


def _tap(n_in: int, n_out: int, tap: int, stride: int, padding: int) -> tuple[slice, slice]:
    """Windows o with 0 <= o * stride + tap - padding < n_in, and these positions."""
    first = max(0, -((tap - padding) // stride))
    last = min(n_out - 1, (n_in - 1 - tap + padding) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    begin = first * stride + tap - padding
    return slice(first, last + 1), slice(begin, begin + (last - first) * stride + 1, stride)
