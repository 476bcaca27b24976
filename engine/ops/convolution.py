"""Convolution and pooling of channels-last images, each derivative again one of these operations."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import kernels
from ..primitive import primitive
from ..trace import shape_of

Size = int | tuple[int, int]  # the same for rows and columns, or (rows, columns)


@primitive("conv2d")
def conv2d_arrays(xp, x, w, *, stride, padding):
    """Cross-correlation of x (B, H, W, Cin) with w (kh, kw, Cin, Cout)."""
    return kernels.conv2d(xp, x, w, stride=stride, padding=padding)


@conv2d_arrays.vjp(saves=("x", "w"))
def conv2d_vjp(ybar, x, w, *, stride, padding, needs):
    """xbar is the transposed convolution of ybar with w; wbar correlates x with ybar."""
    size, kernel = shape_of(x)[1:3], shape_of(w)[:2]
    return (
        conv2d_input_grad(ybar, w, size=size, stride=stride, padding=padding) if needs[0] else None,
        conv2d_weight_grad(x, ybar, kernel=kernel, stride=stride, padding=padding) if needs[1] else None,
    )


@conv2d_arrays.writes_into
def conv2d_into(out, x, w, *, stride, padding):
    """The kernel takes `out`."""
    return [(_conv2d_host, (x, w), {"stride": stride, "padding": padding, "out": out})]


@primitive("conv2d_input_grad")
def conv2d_input_grad(xp, y, w, *, size, stride, padding):
    """The adjoint of conv2d in x: y (B, Ho, Wo, Cout) -> (B, *size, Cin)."""
    return kernels.conv2d_input_grad(xp, y, w, input_shape=size, stride=stride, padding=padding)


@conv2d_input_grad.vjp(saves=("y", "w"))
def conv2d_input_grad_vjp(xbar, y, w, *, size, stride, padding, needs):
    """ybar = conv2d(xbar, w); wbar correlates xbar with y."""
    return (
        conv2d_arrays(xbar, w, stride=stride, padding=padding) if needs[0] else None,
        conv2d_weight_grad(xbar, y, kernel=shape_of(w)[:2], stride=stride, padding=padding)
        if needs[1]
        else None,
    )


@conv2d_input_grad.writes_into
def conv2d_input_grad_into(out, y, w, *, size, stride, padding):
    """The kernel takes `out`."""
    static = {"input_shape": size, "stride": stride, "padding": padding, "out": out}
    return [(_conv2d_input_grad_host, (y, w), static)]


@primitive("conv2d_weight_grad")
def conv2d_weight_grad(xp, x, y, *, kernel, stride, padding):
    """The adjoint of conv2d in w: x (B, H, W, Cin), y (B, Ho, Wo, Cout) -> (*kernel, Cin, Cout)."""
    return kernels.conv2d_weight_grad(xp, x, y, kernel_shape=kernel, stride=stride, padding=padding)


@conv2d_weight_grad.vjp(saves=("x", "y"))
def conv2d_weight_grad_vjp(wbar, x, y, *, kernel, stride, padding, needs):
    """xbar is the transposed convolution of y with wbar; ybar = conv2d(x, wbar)."""
    return (
        conv2d_input_grad(y, wbar, size=shape_of(x)[1:3], stride=stride, padding=padding)
        if needs[0]
        else None,
        conv2d_arrays(x, wbar, stride=stride, padding=padding) if needs[1] else None,
    )


@conv2d_weight_grad.writes_into
def conv2d_weight_grad_into(out, x, y, *, kernel, stride, padding):
    """The kernel takes `out`."""
    static = {"kernel_shape": kernel, "stride": stride, "padding": padding, "out": out}
    return [(_conv2d_weight_grad_host, (x, y), static)]


def conv2d(x: Any, w: Any, *, stride: int = 1, padding: int = 0) -> Any:
    """x (B, H, W, Cin), w (kh, kw, Cin, Cout) -> (B, Ho, Wo, Cout), with
    Ho = (H + 2 padding - kh) // stride + 1.
    """
    return conv2d_arrays(x, w, stride=stride, padding=padding)


def conv_transpose2d(x: Any, w: Any, *, size: tuple[int, int], stride: int = 1, padding: int = 0) -> Any:
    """The adjoint of conv2d: x (B, H, W, Cin), w (kh, kw, Cout, Cin) -> (B, *size, Cout).

    `size` is given because several input sizes of a strided convolution share one output size: a network that
    goes down 28, 14, 7, 4 must be told to come back to 7.
    """
    return conv2d_input_grad(x, w, size=tuple(size), stride=stride, padding=padding)


@primitive("max_pool")
def max_pool_windows(xp, x, *, size, stride, padding):
    """The maximum over each window of x (B, H, W, C)."""
    return kernels.max_pool(xp, x, size, stride, padding)


@max_pool_windows.vjp(saves=("x", "y"))
def max_pool_vjp(ybar, x, y, *, size, stride, padding):
    """ybar goes to the maximum of its window; at a tie to the first one in row-major order."""
    return (max_pool_grad(ybar, x, y, size=size, stride=stride, padding=padding),)


@max_pool_windows.writes_into
def max_pool_into(out, x, *, size, stride, padding):
    """The kernel takes `out`."""
    return [(_max_pool_host, (x, size, stride, padding), {"out": out})]


@primitive("max_pool_grad")
def max_pool_grad(xp, ybar, x, y, *, size, stride, padding):
    """The transpose, in ybar, of picking the maxima of x."""
    return kernels.max_pool_grad(xp, ybar, x, y, size, stride, padding)


@max_pool_grad.vjp(saves=("x", "y"))
def max_pool_grad_vjp(xbar, x, y, *, size, stride, padding):
    """The values of xbar at the maxima; where they lie is piecewise constant in x."""
    return max_pool_pick(xbar, x, y, size=size, stride=stride, padding=padding), None, None


@max_pool_grad.writes_into
def max_pool_grad_into(out, ybar, x, y, *, size, stride, padding):
    """The kernel takes `out`."""
    return [(_max_pool_grad_host, (ybar, x, y, size, stride, padding), {"out": out})]


@primitive("max_pool_pick")
def max_pool_pick(xp, z, x, y, *, size, stride, padding):
    """z at the place of the maximum of each window of x: (B, H, W, C) -> (B, Ho, Wo, C)."""
    return kernels.max_pool_pick(xp, z, x, y, size, stride, padding)


@max_pool_pick.vjp(saves=("x", "y"))
def max_pool_pick_vjp(ybar, x, y, *, size, stride, padding):
    """zbar: ybar placed at the maxima."""
    return max_pool_grad(ybar, x, y, size=size, stride=stride, padding=padding), None, None


@primitive("avg_pool")
def avg_pool_windows(xp, x, *, size, stride, padding):
    """The mean over each window of x (B, H, W, C); the border counts as zeros."""
    return kernels.avg_pool(xp, x, size, stride, padding)


@avg_pool_windows.vjp(saves=("x.shape",))
def avg_pool_vjp(ybar, x_shape, *, size, stride, padding):
    """Each window spreads its ybar evenly."""
    return (avg_pool_grad(ybar, size=size, stride=stride, padding=padding, input_shape=x_shape[1:3]),)


@avg_pool_windows.writes_into
def avg_pool_into(out, x, *, size, stride, padding):
    """The kernel takes `out`."""
    return [(_avg_pool_host, (x, size, stride, padding), {"out": out})]


@primitive("avg_pool_grad")
def avg_pool_grad(xp, ybar, *, size, stride, padding, input_shape):
    """The transpose of avg_pool."""
    return kernels.avg_pool_grad(xp, ybar, size, stride, padding, input_shape=input_shape)


@avg_pool_grad.vjp()
def avg_pool_grad_vjp(xbar, *, size, stride, padding, input_shape):
    """ybar = avg_pool(xbar)."""
    return (avg_pool_windows(xbar, size=size, stride=stride, padding=padding),)


@avg_pool_grad.writes_into
def avg_pool_grad_into(out, ybar, *, size, stride, padding, input_shape):
    """The kernel takes `out`."""
    return [(_avg_pool_grad_host, (ybar, size, stride, padding), {"input_shape": input_shape, "out": out})]


def max_pool(x: Any, size: Size, stride: Size | None = None, padding: Size = 0) -> Any:
    """The maximum over size x size windows of x (B, H, W, C); `stride` defaults to `size`."""
    return max_pool_windows(x, size=size, stride=size if stride is None else stride, padding=padding)


def avg_pool(x: Any, size: Size, stride: Size | None = None, padding: Size = 0) -> Any:
    """The mean over size x size windows of x (B, H, W, C); `stride` defaults to `size`."""
    return avg_pool_windows(x, size=size, stride=size if stride is None else stride, padding=padding)


def _host(kernel: Any) -> Any:
    """A kernel with NumPy bound as its module, for replay."""
    return functools.partial(kernel, np)


_conv2d_host = _host(kernels.conv2d)
_conv2d_input_grad_host = _host(kernels.conv2d_input_grad)
_conv2d_weight_grad_host = _host(kernels.conv2d_weight_grad)
_max_pool_host = _host(kernels.max_pool)
_max_pool_grad_host = _host(kernels.max_pool_grad)
_avg_pool_host = _host(kernels.avg_pool)
_avg_pool_grad_host = _host(kernels.avg_pool_grad)
