"""Operations that move values without computing: shapes, axes, joins, slices, padding, dtypes."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..backend import device_of, module_for_device, namespace_of, to_host, to_number, to_xp
from ..errors import ArgumentError, TracedValueError
from ..primitive import primitive
from ..trace import Var, base_value, dtype_of, is_weak, shape_of, user_line
from .joins import join_calls
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


@primitive("concatenate")
def concatenate_arrays(xp, *parts, axis):
    """The parts joined along an axis that exists."""
    return xp.concatenate(parts, axis=axis)


@concatenate_arrays.vjp(saves=("parts.shape",))
def concatenate_vjp(ybar, shapes, *, axis):
    """Each part gets its slice of ybar."""
    bars, start = [], 0
    for shape in shapes:
        window = [slice(None)] * len(shape)
        window[axis] = slice(start, start + shape[axis])
        bars.append(getitem(ybar, tuple(window)))
        start += shape[axis]
    return bars


@concatenate_arrays.writes_into
def concatenate_into(out, *parts, axis):
    """Parts that were not computed in place are copied there."""
    return join_calls(out, parts, axis)


def concatenate(parts: Any, axis: int = 0) -> Any:
    """The arrays of a sequence joined along `axis`."""
    parts = tuple(parts)
    if not parts:
        raise ArgumentError("`concatenate` needs at least one array")
    if any(isinstance(part, list) for part in parts):
        xp = namespace_of(*map(base_value, parts))
        parts = tuple(xp.asarray(part) if isinstance(part, list) else part for part in parts)
    return concatenate_arrays(*parts, axis=checked_axis(axis, len(shape_of(parts[0]))))


def stack(parts: Any, axis: int = 0) -> Any:
    """The arrays of a sequence joined along a new axis."""
    return concatenate([expand_dims(part, axis) for part in parts], axis=axis)


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
    """The index that `_freeze` described. The ellipsis keeps a full integer index an array instead of a scalar."""
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


@primitive("astype")
def astype_to(xp, x, *, dtype):
    """x in another float or complex dtype."""
    return xp.asarray(x).astype(dtype)


@astype_to.vjp(saves=("x",))
def astype_vjp(ybar, x, *, dtype):
    """xbar = ybar in the dtype of x; its real part for a real x."""
    return (cotangent_like(ybar, x),)


@primitive("astype_discrete", is_flat=True)
def astype_discrete(xp, x, *, dtype):
    """x cut to integers, or to whether it is not zero."""
    return xp.asarray(x).astype(dtype)


@astype_to.writes_into
@astype_discrete.writes_into
def astype_into(out, x, *, dtype):
    """A casting copy."""
    return [(np.copyto, (out, x), {"casting": "unsafe"})]


def astype(x: Any, dtype: Any) -> Any:
    """x in the given dtype; x itself where it has it already."""
    wanted = np.dtype(dtype)
    if not is_weak(x) and dtype_of(x) == wanted:
        return x
    if dtype_of(x).kind == "c" and wanted.kind != "c":
        raise ArgumentError(
            f"astype from {dtype_of(x)} to {wanted} would drop the imaginary part; use real(x)"
        )
    return (astype_to if wanted.kind in "fc" else astype_discrete)(x, dtype=wanted.name)


@primitive("real")
def real(xp, x):
    """The real part."""
    return xp.real(x)


@real.vjp(saves=("x",))
def real_vjp(ybar, x):
    """xbar = Re(ybar), in the dtype of x."""
    return (astype(real(ybar) if dtype_of(ybar).kind == "c" else ybar, dtype_of(x)),)


def cotangent_like(ybar: Any, x: Any) -> Any:
    """ybar in the dtype of the value x that it belongs to; of a real value only the real part counts."""
    if dtype_of(x).kind != "c" and dtype_of(ybar).kind == "c":
        ybar = real(ybar)
    return astype(ybar, dtype_of(x))


@primitive("copy")
def copy(xp, x):
    """A copy of x."""
    return x if is_weak(x) else x.copy()


@copy.vjp()
def copy_vjp(ybar):
    """xbar = ybar."""
    return (ybar,)


@copy.writes_into
def copy_into(out, x):
    """One copy."""
    return [(np.copyto, (out, x), {})]


@primitive("as_number")
def as_number(xp, x):
    """A 0-d array as a Python number: a weak scalar, like the time of an ODE."""
    return to_number(x)


@as_number.vjp(saves=("x",))
def as_number_vjp(ybar, x):
    """xbar = ybar as an array where x is; its real part for a real x."""
    xbar, device = cotangent_like(ybar, x), device_of(base_value(x))
    return (xbar if device_of(base_value(xbar)) == device else on_device(xbar, device=device),)


@primitive("on_device")
def on_device(xp, x, *, device):
    """x on the host ("cpu") or the device ("cuda"): the cotangent of a number that came from there."""
    return x.copy() if device_of(x) == device else to_xp(module_for_device(device), to_host(x))


@on_device.vjp(saves=("x",))
def on_device_vjp(ybar, x, *, device):
    """xbar = ybar where x is."""
    return (on_device(ybar, device=device_of(base_value(x))),)
