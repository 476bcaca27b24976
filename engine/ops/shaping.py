"""Shapes and axes: operations that move values without computing, and the sums that undo broadcasting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..primitive import primitive
from ..trace import shape_of
from .wide import leading_sum


def checked_axis(axis: int, ndim: int) -> int:
    """The axis as a non-negative int."""
    if not -ndim <= axis < ndim:
        raise ArgumentError(f"axis {axis} is out of range for {ndim} dimensions")
    return int(axis) % ndim


@primitive("reshape", may_view=True)
def reshape_to(xp, x, *, shape):
    """x with another shape, in C order."""
    return xp.reshape(x, shape)


@reshape_to.vjp(saves=("x.shape",))
def reshape_vjp(ybar, x_shape, *, shape):
    """xbar = ybar in the shape of x."""
    return (reshape(ybar, x_shape),)


@reshape_to.writes_into
def reshape_into(out, x, *, shape):
    """Only for inputs that cannot be viewed: copy through a view of the output in the input's shape."""
    return [(np.copyto, (out.reshape(x.shape), x), {})]


def reshape(x: Any, *shape: Any) -> Any:
    """x.reshape(shape); one entry may be -1."""
    wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    size = math.prod(shape_of(x))
    if wanted.count(-1) == 1:
        rest = -math.prod(wanted)
        wanted = tuple(size // rest if n == -1 and rest else n for n in wanted)
    if math.prod(wanted) != size or min(wanted, default=0) < 0:
        raise ArgumentError(f"cannot reshape {shape_of(x)} ({size} values) to {shape}")
    return x if wanted == shape_of(x) else reshape_to(x, shape=wanted)


@primitive("transpose", may_view=True)
def transpose_axes(xp, x, *, axes):
    """x with permuted axes."""
    return xp.transpose(x, axes)


@transpose_axes.vjp()
def transpose_vjp(ybar, *, axes):
    """The inverse permutation."""
    return (transpose_axes(ybar, axes=tuple(int(i) for i in np.argsort(axes))),)


def transpose(x: Any, axes: Any = None) -> Any:
    """x with its axes permuted; reversed by default."""
    n = len(shape_of(x))
    order = tuple(range(n))[::-1] if axes is None else tuple(checked_axis(axis, n) for axis in axes)
    if len(order) != n:
        raise ArgumentError(f"transpose: axes {axes} do not fit shape {shape_of(x)}")
    return transpose_axes(x, axes=order) if n > 1 else x


def swapaxes(x: Any, first: int, second: int) -> Any:
    """x with two axes exchanged."""
    order = list(range(len(shape_of(x))))
    order[first], order[second] = order[second], order[first]
    return transpose(x, order)


def moveaxis(x: Any, source: int, destination: int) -> Any:
    """x with one axis moved to another place."""
    n = len(shape_of(x))
    source = checked_axis(source, n)
    order = [axis for axis in range(n) if axis != source]
    order.insert(checked_axis(destination, n), source)
    return transpose(x, order)


def squeeze(x: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    """x without its axes of length one (all of them, or those named)."""
    shape = shape_of(x)
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    gone = {checked_axis(a, len(shape)) for a in axes if axis is not None or shape[a] == 1}
    if any(shape[a] != 1 for a in gone):
        raise ArgumentError(f"cannot squeeze axes {axis} of shape {shape}: not of length one")
    return reshape(x, tuple(n for a, n in enumerate(shape) if a not in gone))


def expand_dims(x: Any, axis: int | tuple[int, ...]) -> Any:
    """x with new axes of length one, at these places of the result."""
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    ndim = len(shape_of(x)) + len(axes)
    added = {checked_axis(a, ndim) for a in axes}
    if len(added) < len(axes):
        raise ArgumentError(f"expand_dims: axes {axis} name a place twice")
    lengths = iter(shape_of(x))
    return reshape(x, tuple(1 if a in added else next(lengths) for a in range(ndim)))


@primitive("broadcast_to", may_view=True)
def broadcast_shape(xp, x, *, shape):
    """x repeated along new axes and axes of length one."""
    return xp.broadcast_to(x, shape)


@broadcast_shape.vjp(saves=("x.shape",))
def broadcast_vjp(ybar, x_shape, *, shape):
    """The sum over what was repeated."""
    return (unbroadcast(ybar, x_shape),)


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    """x broadcast to `shape`."""
    return x if shape_of(x) == tuple(shape) else broadcast_shape(x, shape=tuple(shape))


def _added_axes(given: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of `given` over which an array of `shape` was broadcast."""
    extra = len(given) - len(shape)
    return tuple(range(extra)) + tuple(
        axis + extra for axis, n in enumerate(shape) if n == 1 and given[axis + extra] != 1
    )


@primitive("unbroadcast")
def unbroadcast_sum(xp, x, *, shape):
    """The sum of x over the axes that broadcasting from `shape` added: the transpose of broadcast_to."""
    return xp.sum(x, axis=_added_axes(x.shape, shape)).reshape(shape)


@unbroadcast_sum.vjp(saves=("x.shape",))
def unbroadcast_vjp(ybar, x_shape, *, shape):
    """xbar = ybar, broadcast back."""
    return (broadcast_to(ybar, x_shape),)


@unbroadcast_sum.writes_into
def unbroadcast_into(out, x, *, shape):
    """Most often a sum over leading axes."""
    axes = _added_axes(x.shape, shape)
    if axes == tuple(range(len(axes))) and (calls := leading_sum(out, x)) is not None:
        return calls
    target = out.reshape(tuple(n for axis, n in enumerate(x.shape) if axis not in axes))
    return [(np.add.reduce, (x,), {"axis": axes, "out": target})]


def unbroadcast(x: Any, shape: tuple[int, ...]) -> Any:
    """x summed back to the shape of an operand before broadcasting."""
    return x if shape_of(x) == shape else unbroadcast_sum(x, shape=shape)
