"""NumPy's ufuncs and functions as operations: what each does to a traced value, with NumPy's signature."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from . import ops
from .errors import TracedValueError
from .ops.shaping import checked_axis
from .trace import describe, dtype_of, user_line


def unknown_operation(name: str, kwargs: dict[str, Any]) -> TracedValueError:
    """The error for what traced values do not support, by the name that the caller knows,
    with the caller's line.
    """
    options = f" with {', '.join(f'{key}={value!r}' for key, value in kwargs.items())}" if kwargs else ""
    return TracedValueError(
        f"{name}{options} of a traced value at {user_line()} is not among the operations that odegrad can "
        "differentiate; see odegrad.ops for those there are"
    )


def _of_masks(name: str, op: Callable[..., Any]) -> Callable[..., Any]:
    """`&`, `|`, `~` of masks; of integers they would mean bits."""

    def masked(*masks: Any) -> Any:
        if any(dtype_of(mask).kind != "b" for mask in masks):
            raise unknown_operation(f"np.{name} of {', '.join(describe(mask) for mask in masks)}", {})
        return op(*masks)

    return masked


UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: ops.add,
    np.subtract: ops.sub,
    np.multiply: ops.mul,
    np.true_divide: ops.div,
    np.negative: ops.neg,
    np.positive: lambda x: x,
    np.power: ops.power,
    np.float_power: ops.power,
    np.square: ops.square,
    np.sqrt: ops.sqrt,
    np.reciprocal: lambda x: 1.0 / x,
    np.exp: ops.exp,
    np.expm1: ops.expm1,
    np.log: ops.log,
    np.log1p: ops.log1p,
    np.log2: lambda x: ops.log(x) * (1.0 / math.log(2.0)),
    np.log10: lambda x: ops.log(x) * (1.0 / math.log(10.0)),
    np.sin: ops.sin,
    np.cos: ops.cos,
    np.tan: ops.tan,
    np.arctan: ops.arctan,
    np.sinh: ops.sinh,
    np.cosh: ops.cosh,
    np.tanh: ops.tanh,
    np.absolute: ops.absolute,
    np.conjugate: ops.conj,
    np.fabs: ops.absolute,
    np.sign: ops.sign,
    np.floor: ops.floor,
    np.ceil: ops.ceil,
    np.rint: ops.rint,
    np.maximum: ops.maximum,
    np.minimum: ops.minimum,
    np.greater: ops.greater,
    np.greater_equal: ops.greater_equal,
    np.less: ops.less,
    np.less_equal: ops.less_equal,
    np.equal: ops.equal,
    np.not_equal: ops.not_equal,
    np.logical_and: ops.logical_and,
    np.logical_or: ops.logical_or,
    np.logical_not: ops.logical_not,
    np.bitwise_and: _of_masks("bitwise_and", ops.logical_and),
    np.bitwise_or: _of_masks("bitwise_or", ops.logical_or),
    np.invert: _of_masks("invert", ops.logical_not),
    np.isnan: ops.isnan,
    np.isfinite: ops.isfinite,
    np.matmul: ops.matmul,
}


# NumPy's functions with NumPy's signatures, where these differ from those of the operations.


def _along(op: Callable[..., Any]) -> Callable[..., Any]:
    """`op` along an axis, or along the flattened array."""

    def along(x: Any, axis: int | None = None) -> Any:
        return op(ops.reshape(x, -1), axis=0) if axis is None else op(x, axis=axis)

    return along


_argmax = _along(ops.argmax)
_cumsum = _along(ops.cumsum)


def _take(a: Any, indices: Any, axis: int | None = None) -> Any:
    return ops.take(ops.reshape(a, -1), indices) if axis is None else ops.take(a, indices, axis)


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord is not None:
        raise unknown_operation("np.linalg.norm", {"ord": ord})
    return ops.norm(x, axis, keepdims)


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return ops.clip(a, a_min if min is None else min, a_max if max is None else max)


def _flip(m: Any, axis: Any = None) -> Any:
    for one in range(len(m.shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,):
        m = ops.flip(m, one)
    return m


def _roll(a: Any, shift: int, axis: int | None = None) -> Any:
    if axis is None:
        return ops.reshape(_roll(ops.reshape(a, -1), shift, 0), a.shape)
    axis = checked_axis(axis, len(a.shape))
    cut = -shift % max(1, a.shape[axis])
    before = (slice(None),) * axis
    return ops.concatenate([a[(*before, slice(cut, None))], a[(*before, slice(None, cut))]], axis)


def _diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    before = (slice(None),) * checked_axis(axis, len(a.shape))
    for _ in range(n):
        a = a[(*before, slice(1, None))] - a[(*before, slice(None, -1))]
    return a


def _full_like(a: Any, fill_value: Any) -> Any:
    return ops.astype(ops.zeros_like(a) + fill_value, dtype_of(a))


def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    if isinstance(indices_or_sections, int):
        return ops.split(ary, indices_or_sections, axis)
    bounds = [None, *indices_or_sections, None]
    before = (slice(None),) * checked_axis(axis, len(ary.shape))
    return [ary[(*before, slice(*pair))] for pair in pairwise(bounds)]


def _pad(array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    if mode != "constant" or np.ndim(constant_values) or constant_values != 0:
        raise unknown_operation("np.pad", {"mode": mode, "constant_values": constant_values})
    return ops.pad(array, pad_width)


def _hstack(tup: Any) -> Any:
    return ops.concatenate(tup, axis=0 if np.ndim(tup[0]) == 1 else 1)


def _vstack(tup: Any) -> Any:
    return ops.concatenate([ops.reshape(part, (1, -1)) if np.ndim(part) == 1 else part for part in tup])


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: ops.sum,
    np.mean: ops.mean,
    np.var: ops.var,
    np.std: ops.std,
    np.max: ops.max,
    np.min: ops.min,
    np.amax: ops.max,
    np.amin: ops.min,
    np.argmax: _argmax,
    np.cumsum: _cumsum,
    np.linalg.norm: _norm,
    np.reshape: ops.reshape,
    np.ravel: lambda x: ops.reshape(x, -1),
    np.transpose: ops.transpose,
    np.swapaxes: ops.swapaxes,
    np.moveaxis: ops.moveaxis,
    np.squeeze: ops.squeeze,
    np.expand_dims: ops.expand_dims,
    np.broadcast_to: ops.broadcast_to,
    np.concatenate: ops.concatenate,
    np.stack: ops.stack,
    np.hstack: _hstack,
    np.vstack: _vstack,
    np.split: _split,
    np.roll: _roll,
    np.diff: _diff,
    np.pad: _pad,
    np.flip: _flip,
    np.where: ops.where,
    np.clip: _clip,
    np.dot: ops.dot,
    np.outer: ops.outer,
    np.einsum: ops.einsum,
    np.real: ops.real,
    np.copy: ops.copy,
    np.take: _take,
    np.zeros_like: ops.zeros_like,
    np.ones_like: ops.ones_like,
    np.full_like: _full_like,
    np.ndim: lambda x: x.ndim,
    np.shape: lambda x: x.shape,
    np.size: lambda x: x.size,
}


REDUCTIONS: dict[Any, Callable[..., Any]] = {np.add: ops.sum, np.maximum: ops.max, np.minimum: ops.min}
