"""Reductions over axes: sums, means, extrema, norms, moments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..primitive import primitive
from ..trace import dtype_of, shape_of
from .arithmetic import square
from .casts import astype, real
from .flat import equal, isfinite
from .functions import exp, log, sqrt
from .kinks import where
from .shaping import broadcast_to, checked_axis, reshape, squeeze
from .wide import channel_operand, leading_sum

Axis = int | tuple[int, ...] | None


def normalize_axis(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes as a sorted tuple of non-negative ints; None is all of them."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    return tuple(sorted({checked_axis(a, ndim) for a in axes}))


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a reduction with its axes kept as length one."""
    return tuple(1 if a in axes else n for a, n in enumerate(shape))


@primitive("sum")
def sum_axes(xp, x, *, axes):
    """The sum over `axes`, which are removed."""
    return xp.sum(x, axis=axes)


@sum_axes.vjp(saves=("x.shape",))
def sum_vjp(ybar, x_shape, *, axes):
    """xbar = ybar repeated along the summed axes."""
    return (broadcast_to(reshape(ybar, _kept(x_shape, axes)), x_shape),)


@sum_axes.writes_into
def sum_into(out, x, *, axes):
    """One reduction."""
    return [(np.add.reduce, (x,), {"axis": axes, "out": out})]


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The sum over `axis` (default: all)."""
    axes = normalize_axis(axis, len(shape_of(x)))
    total = sum_axes(x, axes=axes) if axes else x
    return reshape(total, _kept(shape_of(x), axes)) if keepdims else total


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The mean over `axis` (default: all)."""
    axes = normalize_axis(axis, len(shape_of(x)))
    n = math.prod(shape_of(x)[a] for a in axes)
    return sum(x, axes, keepdims) * (1.0 / (n or 1))


def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """The variance over `axis`; divided by n - ddof."""
    axes = normalize_axis(axis, len(shape_of(x)))
    n = math.prod(shape_of(x)[a] for a in axes)
    return sum(square(x - mean(x, axes, keepdims=True)), axes, keepdims) * (1.0 / (n - ddof))


def std(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """The standard deviation over `axis`."""
    return sqrt(var(x, axis, keepdims, ddof))


@primitive("max")
def max_axes(xp, x, *, axes):
    """The largest value over `axes`, which are removed."""
    return xp.max(x, axis=axes)


@max_axes.vjp(saves=("x", "y"))
def max_vjp(ybar, x, y, *, axes):
    """xbar = ybar at the maxima, in equal parts where there are several."""
    return (_share(ybar, x, y, axes),)


@primitive("min")
def min_axes(xp, x, *, axes):
    """The smallest value over `axes`, which are removed."""
    return xp.min(x, axis=axes)


@min_axes.vjp(saves=("x", "y"))
def min_vjp(ybar, x, y, *, axes):
    """xbar = ybar at the minima, in equal parts where there are several."""
    return (_share(ybar, x, y, axes),)


def _share(ybar: Any, x: Any, y: Any, axes: tuple[int, ...]) -> Any:
    kept = _kept(shape_of(x), axes)
    hits = astype(equal(x, reshape(y, kept)), dtype_of(ybar))
    return hits * reshape(ybar / sum(hits, axes), kept)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The maximum over `axis` (default: all)."""
    axes = normalize_axis(axis, len(shape_of(x)))
    largest = max_axes(x, axes=axes) if axes else x
    return reshape(largest, _kept(shape_of(x), axes)) if keepdims else largest


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The minimum over `axis` (default: all)."""
    axes = normalize_axis(axis, len(shape_of(x)))
    smallest = min_axes(x, axes=axes) if axes else x
    return reshape(smallest, _kept(shape_of(x), axes)) if keepdims else smallest


@primitive("argmax", is_flat=True)
def argmax(xp, x, *, axis=-1):
    """The index of the first largest value along an axis."""
    return xp.argmax(x, axis=axis)


@primitive("cumsum")
def cumsum(xp, x, *, axis):
    """Running sums along an axis."""
    return xp.cumsum(x, axis=axis)


@cumsum.vjp()
def cumsum_vjp(ybar, *, axis):
    """xbar = running sums of ybar from the other end."""
    return (reverse_cumsum(ybar, axis=axis),)


@primitive("reverse_cumsum")
def reverse_cumsum(xp, x, *, axis):
    """Running sums along an axis, from its end."""
    return xp.flip(xp.cumsum(xp.flip(x, axis), axis=axis), axis)


@reverse_cumsum.vjp()
def reverse_cumsum_vjp(ybar, *, axis):
    """xbar = running sums of ybar."""
    return (cumsum(ybar, axis=axis),)


def norm(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The Euclidean norm over `axis`; its derivative at 0 is not defined (NaN)."""
    return sqrt(sum(square(x), axis, keepdims))


def logsumexp(x: Any, axis: int = -1, keepdims: bool = False) -> Any:
    """log(sum(exp(x))), shifted by the maximum so that it cannot overflow; -inf, with derivative 0,
    where all x are.
    """
    largest = stop_gradient(max(real(x) if dtype_of(x).kind == "c" else x, axis, keepdims=True))
    shift = where(isfinite(largest), largest, 0.0)
    scaled = sum(exp(x - shift), axis, keepdims=True)
    is_empty = equal(scaled, 0.0)
    total = where(is_empty, -math.inf, log(where(is_empty, 1.0, scaled)) + shift)
    axes = normalize_axis(axis, len(shape_of(x)))
    return total if keepdims else squeeze(total, axes)


@primitive("stop_gradient", is_flat=True)
def stop_gradient(xp, x):
    """x, as a constant for differentiation."""
    return x


@primitive("mean_leading")
def mean_leading(xp, x):
    """The mean over all axes but the last, shape (C,); summed as rows of a matrix."""
    return xp.mean(x.reshape(-1, x.shape[-1]), axis=0)


@mean_leading.vjp(saves=("x.shape",))
def mean_leading_vjp(ybar, x_shape):
    """xbar = ybar / n, repeated."""
    return (broadcast_to(ybar * (1.0 / math.prod(x_shape[:-1])), x_shape),)


@mean_leading.writes_into
def mean_leading_into(out, x):
    """A sum, then a division."""
    calls = leading_sum(out, x)
    n = np.asarray(math.prod(x.shape[:-1]), out.dtype)
    return None if calls is None else [*calls, (np.divide, (out, n), {"out": out})]


@primitive("square_about_mean")
def square_about_mean(xp, x, mean):
    """y = (x - mean)**2, for variances only: `mean` is that of x over rows which are averaged next."""
    return xp.square(x - mean)


@square_about_mean.vjp(saves=("x", "mean"))
def square_about_mean_vjp(ybar, x, mean):
    """xbar = 2 (x - mean) ybar. The cotangent of `mean`, -2 sum((x - mean) ybar), is none: ybar is the same
    in all rows of an average, and deviations from a mean sum to zero. To know this spares a pass over x, and
    x - mean is what `normalize` has made already."""
    return 2.0 * (x - mean) * ybar, None


square_about_mean.chunk_calls = ((np.subtract, ("x0", "x1"), "out"), (np.square, ("out",), "out"))


@square_about_mean.writes_into
def square_about_mean_into(out, x, mean):
    """A difference, squared in place."""
    difference = channel_operand(np.subtract, out, x, mean) or [(np.subtract, (x, mean), {"out": out})]
    return [*difference, (np.square, (out,), {"out": out})]


def moments(x: Any) -> tuple[Any, Any]:
    """Mean and biased variance over all axes but the last, each (C,): of the deviations,
    which cannot cancel.
    """
    if 0 in shape_of(x)[:-1] or not shape_of(x):
        raise ArgumentError(f"moments want x (..., C) with at least one row; got shape {shape_of(x)}")
    mean = mean_leading(x)
    return mean, mean_leading(square_about_mean(x, mean))
