"""What makes a `Var` usable in ordinary NumPy code: operators, methods, `__array_ufunc__`, `__array_function__`.

CuPy's elementwise functions ask their arguments for `__cupy_override_elementwise_kernel__`, and its arrays those beside
them for `__array_ufunc__`: so dynamics may be written with either module.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from . import ops
from .errors import TracedAttributeError, TracedValueError
from .ops.shaping import checked_axis
from .primitive import Primitive
from .trace import Var, describe, dtype_of, user_line


def _of_masks(name: str, op: Callable[..., Any]) -> Callable[..., Any]:
    """`&`, `|`, `~` of masks; of integers they would mean bits."""

    def masked(*masks: Any) -> Any:
        if any(dtype_of(mask).kind != "b" for mask in masks):
            raise _unknown(f"np.{name} of {', '.join(describe(mask) for mask in masks)}", {})
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
        raise _unknown("np.linalg.norm", {"ord": ord})
    return ops.norm(x, axis, keepdims)


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return ops.clip(a, a_min if min is None else min, a_max if max is None else max)


def _clip_method(a: Any, min: Any = None, max: Any = None) -> Any:
    return ops.clip(a, min, max)


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
        raise _unknown("np.pad", {"mode": mode, "constant_values": constant_values})
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


def _array_ufunc(self: Var, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """np.tanh(var) and the like. `out=` would write into an array that the trace does not see."""
    if kwargs.get("out") is not None:
        raise TracedValueError(
            f"np.{ufunc.__name__} at {user_line()} writes in place (out= or an operator such as +=); write y = y + ..."
        )
    if method == "reduce" and ufunc in REDUCTIONS and set(kwargs) <= {"axis", "keepdims"}:
        return REDUCTIONS[ufunc](*inputs, **{"axis": 0, **kwargs})
    if method != "__call__" or ufunc not in UFUNCS or kwargs:
        raise _unknown(f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}"), kwargs)
    return UFUNCS[ufunc](*inputs)


def _device_function(self: Var, kernel: Any, *inputs: Any, **kwargs: Any) -> Any:
    """cupy.tanh(var) and the like, by the names of CuPy's kernels; what NumPy calls otherwise is `where` alone."""
    name = kernel.name.partition("_")[2]
    if name == "where" and not kwargs:
        return ops.where(*inputs)
    ufunc = getattr(np, name, None)
    if not isinstance(ufunc, np.ufunc):
        raise _unknown(f"the device's kernel {kernel.name}", kwargs)
    return _array_ufunc(self, ufunc, "__call__", *inputs, **kwargs)


def _array_function(self: Var, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """np.concatenate([var, ...]) and the like."""
    if function not in FUNCTIONS:
        raise _unknown(f"np.{function.__name__}", {})
    return _named(f"np.{function.__name__}", FUNCTIONS[function], args, kwargs)


def _named(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """function(*args, **kwargs); arguments that it does not take are refused with the name the caller knows."""
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        if not _fits(function, args, kwargs):
            raise _unknown(name, kwargs) from error
        raise


def _fits(function: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    """Whether the function takes these arguments."""
    if isinstance(function, Primitive):
        function = functools.partial(function.forward, np)
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _unknown(name: str, kwargs: dict[str, Any]) -> TracedValueError:
    options = f" with {', '.join(f'{key}={value!r}' for key, value in kwargs.items())}" if kwargs else ""
    return TracedValueError(
        f"{name}{options} of a traced value at {user_line()} is not among the operations that odegrad can "
        "differentiate; see odegrad.ops for those there are"
    )


def _refused(symbol: str) -> Callable[[Var, Any], Any]:
    def refuse(self: Var, other: Any) -> Any:
        raise _unknown(f"the operator `{symbol}`", {})

    return refuse


def _in_place(symbol: str) -> Callable[[Var, Any], Any]:
    def refuse(self: Var, other: Any) -> Any:
        raise TracedValueError(
            f"in-place `{symbol}=` on a traced value at {user_line()}; write y = y {symbol} ..., which leaves the "
            "argument as it was"
        )

    return refuse


def _astype(self: Var, dtype: Any, copy: bool = True) -> Any:
    return ops.astype(self, dtype)


OPERATORS: dict[str, Callable[..., Any]] = {
    "__add__": lambda a, b: ops.add(a, b),
    "__radd__": lambda a, b: ops.add(b, a),
    "__sub__": lambda a, b: ops.sub(a, b),
    "__rsub__": lambda a, b: ops.sub(b, a),
    "__mul__": lambda a, b: ops.mul(a, b),
    "__rmul__": lambda a, b: ops.mul(b, a),
    "__truediv__": lambda a, b: ops.div(a, b),
    "__rtruediv__": lambda a, b: ops.div(b, a),
    "__matmul__": lambda a, b: ops.matmul(a, b),
    "__rmatmul__": lambda a, b: ops.matmul(b, a),
    "__pow__": lambda a, b: ops.power(a, b),
    "__rpow__": lambda a, b: ops.power_of(b, a),
    "__neg__": lambda a: ops.neg(a),
    "__pos__": lambda a: a,
    "__abs__": lambda a: ops.absolute(a),
    "__gt__": lambda a, b: ops.greater(a, b),
    "__ge__": lambda a, b: ops.greater_equal(a, b),
    "__lt__": lambda a, b: ops.less(a, b),
    "__le__": lambda a, b: ops.less_equal(a, b),
    "__eq__": lambda a, b: ops.equal(a, b),
    "__ne__": lambda a, b: ops.not_equal(a, b),
    "__and__": lambda a, b: UFUNCS[np.bitwise_and](a, b),
    "__or__": lambda a, b: UFUNCS[np.bitwise_or](a, b),
    "__invert__": lambda a: UFUNCS[np.invert](a),
    "__getitem__": lambda a, index: ops.getitem(a, index),
    "__iter__": lambda a: (a[i] for i in range(len(a))),
}

METHODS: dict[str, Callable[..., Any]] = {
    "sum": ops.sum,
    "mean": ops.mean,
    "var": ops.var,
    "std": ops.std,
    "max": ops.max,
    "min": ops.min,
    "argmax": _argmax,
    "cumsum": _cumsum,
    "reshape": ops.reshape,
    "ravel": lambda x: ops.reshape(x, -1),
    "flatten": lambda x: ops.reshape(x, -1),
    "transpose": lambda x, *axes: ops.transpose(x, axes[0] if len(axes) == 1 else axes or None),
    "swapaxes": ops.swapaxes,
    "squeeze": ops.squeeze,
    "clip": _clip_method,
    "dot": ops.dot,
    "take": _take,
    "astype": _astype,
    "copy": lambda x: ops.copy(x),
    "conj": lambda x: ops.conj(x),
    "conjugate": lambda x: ops.conj(x),
}


def _method(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Var, *args: Any, **kwargs: Any) -> Any:
        return _named(f"the method `{name}`", function, (self, *args), kwargs)

    method.__doc__ = function.__doc__
    return method


def _getattr(self: Var, name: str) -> Any:
    """What arrays have and traced values have not is refused with the caller's line."""
    if name.startswith("__") or not hasattr(np.ndarray, name):
        raise AttributeError(f"a traced value has no attribute {name!r}")
    raise TracedAttributeError(str(_unknown(f"the attribute `{name}`", {})))


def install() -> None:
    """Attach the protocols to `Var`. It cannot import the operations itself: they are made of primitives that know it."""
    for name, function in OPERATORS.items():
        setattr(Var, name, function)
    for name, function in METHODS.items():
        setattr(Var, name, _method(name, function))
    Var.__getattr__ = _getattr  # type: ignore[attr-defined]
    for symbol, name in zip(
        ("+", "-", "*", "/", "@", "**"), ("add", "sub", "mul", "truediv", "matmul", "pow"), strict=True
    ):
        setattr(Var, f"__i{name}__", _in_place(symbol))
    for symbol, name in (("//", "floordiv"), ("%", "mod")):
        setattr(Var, f"__{name}__", _refused(symbol))
        setattr(Var, f"__r{name}__", _refused(symbol))
    Var.T = property(lambda x: ops.transpose(x))  # type: ignore[attr-defined]
    Var.real = property(lambda x: ops.real(x))  # type: ignore[attr-defined]
    Var.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
    Var.__array_function__ = _array_function  # type: ignore[attr-defined]
    Var.__cupy_override_elementwise_kernel__ = _device_function  # type: ignore[attr-defined]
    Var.__hash__ = object.__hash__  # type: ignore[method-assign]


install()
