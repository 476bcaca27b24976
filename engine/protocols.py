"""What makes a `Var` usable in ordinary NumPy code: operators, methods, `__array_ufunc__`, `__array_function__`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import ops
from .errors import TracedValueError
from .trace import Var, user_line

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
    np.sin: ops.sin,
    np.cos: ops.cos,
    np.tan: ops.tan,
    np.arctan: ops.arctan,
    np.sinh: ops.sinh,
    np.cosh: ops.cosh,
    np.tanh: ops.tanh,
    np.absolute: ops.absolute,
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
    np.bitwise_and: ops.logical_and,
    np.bitwise_or: ops.logical_or,
    np.invert: ops.logical_not,
    np.isnan: ops.isnan,
    np.isfinite: ops.isfinite,
    np.matmul: ops.matmul,
}

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: ops.sum,
    np.mean: ops.mean,
    np.var: ops.var,
    np.std: ops.std,
    np.max: ops.max,
    np.min: ops.min,
    np.amax: ops.max,
    np.amin: ops.min,
    np.argmax: ops.argmax,
    np.cumsum: lambda x, axis: ops.cumsum(x, axis=axis),
    np.linalg.norm: lambda x, axis=None, keepdims=False: ops.norm(x, axis, keepdims),
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
    np.hstack: lambda parts: ops.concatenate(parts, axis=0 if np.ndim(parts[0]) == 1 else 1),
    np.vstack: lambda parts: ops.concatenate([p.reshape(1, -1) if p.ndim == 1 else p for p in parts]),
    np.split: lambda x, n, axis=0: ops.split(x, n, axis),
    np.pad: ops.pad,
    np.flip: ops.flip,
    np.where: ops.where,
    np.clip: ops.clip,
    np.dot: ops.dot,
    np.outer: ops.outer,
    np.einsum: ops.einsum,
    np.real: ops.real,
    np.copy: ops.copy,
    np.take: lambda x, indices, axis=0: ops.take(x, indices, axis=axis),
    np.zeros_like: ops.zeros_like,
    np.ones_like: ops.ones_like,
    np.ndim: lambda x: x.ndim,
    np.shape: lambda x: x.shape,
    np.size: lambda x: x.size,
}


def _array_ufunc(self: Var, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """np.tanh(var) and the like. `out=` would write into an array that the trace does not see."""
    if kwargs.get("out") is not None:
        raise TracedValueError(
            f"np.{ufunc.__name__} at {user_line()} writes in place (out= or an operator such as +=); write y = y + ..."
        )
    if method == "reduce" and ufunc in (np.add, np.maximum, np.minimum):
        reduce = {np.add: ops.sum, np.maximum: ops.max, np.minimum: ops.min}[ufunc]
        return reduce(*inputs, axis=kwargs.get("axis", 0), keepdims=kwargs.get("keepdims", False))
    if method != "__call__" or ufunc not in UFUNCS or kwargs:
        raise _unknown(f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}"), kwargs)
    return UFUNCS[ufunc](*inputs)


def _array_function(self: Var, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """np.concatenate([var, ...]) and the like."""
    if function not in FUNCTIONS:
        raise _unknown(f"np.{function.__name__}", {})
    try:
        return FUNCTIONS[function](*args, **kwargs)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise _unknown(f"np.{function.__name__}", kwargs) from error
        raise


def _unknown(name: str, kwargs: dict[str, Any]) -> TracedValueError:
    options = f" with {', '.join(kwargs)}" if kwargs else ""
    return TracedValueError(
        f"{name}{options} of a traced value at {user_line()} is not among the operations that odegrad can "
        "differentiate; see odegrad.ops for those there are"
    )


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
    "__and__": lambda a, b: ops.logical_and(a, b),
    "__or__": lambda a, b: ops.logical_or(a, b),
    "__invert__": lambda a: ops.logical_not(a),
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
    "argmax": lambda x, axis=-1: ops.argmax(x, axis=axis),
    "cumsum": lambda x, axis: ops.cumsum(x, axis=axis),
    "reshape": ops.reshape,
    "ravel": lambda x: ops.reshape(x, -1),
    "flatten": lambda x: ops.reshape(x, -1),
    "transpose": lambda x, *axes: ops.transpose(x, axes[0] if len(axes) == 1 else axes or None),
    "swapaxes": ops.swapaxes,
    "squeeze": ops.squeeze,
    "clip": ops.clip,
    "dot": ops.dot,
    "take": lambda x, indices, axis=0: ops.take(x, indices, axis=axis),
    "astype": _astype,
    "copy": lambda x: ops.copy(x),
}


def install() -> None:
    """Attach the protocols to `Var`. It cannot import the operations itself: they are made of primitives that know it."""
    for name, function in {**OPERATORS, **METHODS}.items():
        setattr(Var, name, function)
    for symbol, name in zip(("+", "-", "*", "/", "@", "**"), ("add", "sub", "mul", "truediv", "matmul", "pow"), strict=True):
        setattr(Var, f"__i{name}__", _in_place(symbol))
    Var.T = property(lambda x: ops.transpose(x))  # type: ignore[attr-defined]
    Var.real = property(lambda x: ops.real(x))  # type: ignore[attr-defined]
    Var.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
    Var.__array_function__ = _array_function  # type: ignore[attr-defined]
    Var.__hash__ = object.__hash__  # type: ignore[method-assign]


install()
