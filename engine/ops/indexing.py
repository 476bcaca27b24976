"""Windows of arrays, and arrays as windows of larger ones: indices, slices, padding."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..backend import namespace_of
from ..errors import ArgumentError, TracedValueError
from ..primitive import primitive
from ..trace import Var, base_value, dtype_of, is_weak, shape_of, user_line
from .shaping import checked_axis


def _freeze(index: Any) -> tuple[Any, ...]:
    """A hashable description of a basic index (ints, slices, None, Ellipsis)."""
    frozen: list[Any] = []
    for part in index:
        if isinstance(part, slice):
            frozen.append(("slice", part.start, part.stop, part.step))
        elif part is None or part is Ellipsis:
            frozen.append(part)
        else:
            frozen.append(operator.index(part))
    return tuple(frozen)


def _thaw(frozen: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index that `_freeze` described. The ellipsis keeps a full integer index an array instead of a
    scalar.
    """
    index = tuple(slice(*part[1:]) if isinstance(part, tuple) else part for part in frozen)
    return index if Ellipsis in index else (*index, Ellipsis)


@primitive("getitem", may_view=True)
def getitem_basic(xp, x, *, index):
    """x[index] for a basic index: a view."""
    return x[_thaw(index)]


@getitem_basic.vjp(saves=("x.shape",))
def getitem_vjp(ybar, x_shape, *, index):
    """ybar placed in zeros of the shape of x."""
    return (place(ybar, shape=x_shape, index=index),)


@primitive("place")
def place(xp, x, *, shape, index):
    """Zeros of `shape` with x at a basic index: the transpose of getitem."""
    result = xp.zeros(shape, dtype_of(x))
    result[_thaw(index)] = x
    return result


@place.vjp()
def place_vjp(ybar, *, shape, index):
    """xbar = ybar[index]."""
    return (getitem_basic(ybar, index=index),)


@place.writes_into
def place_into(out, x, *, shape, index):
    """Zeros, then the window."""
    return [(out.fill, (0,), {}), (np.copyto, (out[_thaw(index)], x), {})]


@primitive("take")
def take_indices(xp, x, indices, *, axis):
    """x[indices] along one axis, for an integer array of indices."""
    return xp.take(x, indices, axis=axis)


@take_indices.vjp(saves=("x.shape", "indices"))
def take_vjp(ybar, x_shape, indices, *, axis):
    """ybar added up at the indices (repeated ones accumulate)."""
    return place_at(ybar, indices, length=x_shape[axis], axis=axis), None


@primitive("place_at")
def place_at(xp, x, indices, *, length, axis):
    """The transpose of take: slices of x added into zeros at integer indices along one axis."""
    before, after = x.shape[:axis], x.shape[axis + indices.ndim :]
    result = xp.zeros((length, *before, *after), x.dtype)
    slices = xp.moveaxis(x, tuple(range(axis, axis + indices.ndim)), tuple(range(indices.ndim)))
    xp.add.at(result, indices, slices)
    return xp.moveaxis(result, 0, axis)


@place_at.vjp(saves=("indices",))
def place_at_vjp(ybar, indices, *, length, axis):
    """xbar = take(ybar, indices)."""
    return take(ybar, indices, axis=axis), None


def take(x: Any, indices: Any, axis: int = 0) -> Any:
    """x[indices] along one axis, for an integer array or a list of indices; repeated ones are allowed."""
    if not isinstance(indices, Var):
        indices = namespace_of(base_value(x)).asarray(indices)
    if dtype_of(indices).kind not in "iu":
        raise ArgumentError(f"`take` wants integer indices; got dtype {dtype_of(indices)}")
    if is_weak(indices):  # a replay gives a number the dtype of the array beside it
        indices = np.zeros((), np.intp) + indices
    return take_indices(x, indices, axis=checked_axis(axis, len(shape_of(x))))


def getitem(x: Any, index: Any) -> Any:
    """x[index]: ints, slices, None and Ellipsis, or one integer array (or list) among full slices."""
    parts = index if isinstance(index, tuple) else (index,)
    at = [k for k, part in enumerate(parts) if isinstance(part, (Var, list)) or getattr(part, "ndim", 0) > 0]
    if not at and not any(isinstance(part, (bool, np.bool_)) for part in parts):
        return getitem_basic(x, index=_freeze(parts))
    if not at or any(dtype_of(part).kind == "b" for part in parts if hasattr(part, "dtype")):
        raise TracedValueError(
            f"a boolean mask as an index at {user_line()} gives a shape that depends on values; "
            "use where(mask, x, other)"
        )
    if len(at) > 1 or any(k not in at and part != slice(None) for k, part in enumerate(parts)):
        raise TracedValueError(
            f"an index with an array beside other indices at {user_line()}; apply them one after the other: "
            "x[:, array] or take(x, array, axis), then slices"
        )
    return take(x, parts[at[0]], axis=at[0])


@primitive("pad")
def pad_zeros(xp, x, *, widths):
    """x with zeros around it; widths is ((before, after), ...), one pair an axis."""
    return xp.pad(x, widths)


@pad_zeros.vjp(saves=("x.shape",))
def pad_vjp(ybar, x_shape, *, widths):
    """xbar = the window of ybar."""
    return (getitem(ybar, tuple(slice(w[0], w[0] + n) for w, n in zip(widths, x_shape, strict=True))),)


@pad_zeros.writes_into
def pad_into(out, x, *, widths):
    """Zeros, then the window."""
    window = tuple(slice(w[0], w[0] + n) for w, n in zip(widths, x.shape, strict=True))
    return [(out.fill, (0,), {}), (np.copyto, (out[window], x), {})]


def pad(x: Any, widths: Any) -> Any:
    """x with zeros around it; `widths` as in numpy.pad."""
    n = len(shape_of(x))
    pairs = tuple(tuple(int(w) for w in pair) for pair in np.broadcast_to(np.asarray(widths), (n, 2)))
    return pad_zeros(x, widths=pairs)


def flip(x: Any, axis: int) -> Any:
    """x with one axis reversed."""
    index = [slice(None)] * len(shape_of(x))
    index[checked_axis(axis, len(index))] = slice(None, None, -1)
    return getitem(x, tuple(index))


def split(x: Any, n: int, axis: int = -1) -> list[Any]:
    """x in n equal parts along an axis."""
    axis = checked_axis(axis, len(shape_of(x)))
    length = shape_of(x)[axis]
    if n < 1 or length % n:
        raise ArgumentError(f"cannot split axis {axis} of {shape_of(x)} into {n} equal parts")
    index = [slice(None)] * len(shape_of(x))
    parts = []
    for k in range(n):
        index[axis] = slice(k * (length // n), (k + 1) * (length // n))
        parts.append(getitem(x, tuple(index)))
    return parts
