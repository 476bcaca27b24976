"""What makes a `Var` usable in ordinary NumPy code: operators, methods, `__array_ufunc__`,
`__array_function__`.

CuPy's elementwise functions ask their arguments for `__cupy_override_elementwise_kernel__`, and its arrays
those beside them for `__array_ufunc__`: so dynamics may be written with either module.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from . import ops
from .errors import TracedAttributeError, TracedValueError
from .numpy_functions import FUNCTIONS, REDUCTIONS, UFUNCS, unknown_operation
from .primitive import Primitive
from .trace import Var, user_line


def _array_ufunc(self: Var, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """np.tanh(var) and the like. `out=` would write into an array that the trace does not see."""
    if kwargs.get("out") is not None:
        raise TracedValueError(
            f"np.{ufunc.__name__} at {user_line()} writes in place (out= or an operator such as +=); write y = y + ..."
        )
    if method == "reduce" and ufunc in REDUCTIONS and set(kwargs) <= {"axis", "keepdims"}:
        return REDUCTIONS[ufunc](*inputs, **{"axis": 0, **kwargs})
    if method != "__call__" or ufunc not in UFUNCS or kwargs:
        raise unknown_operation(
            f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}"), kwargs
        )
    return UFUNCS[ufunc](*inputs)


def _device_function(self: Var, kernel: Any, *inputs: Any, **kwargs: Any) -> Any:
    """cupy.tanh(var) and the like, by the names of CuPy's kernels;
    what NumPy calls otherwise is `where` alone.
    """
    name = kernel.name.partition("_")[2]
    if name == "where" and not kwargs:
        return ops.where(*inputs)
    ufunc = getattr(np, name, None)
    if not isinstance(ufunc, np.ufunc):
        raise unknown_operation(f"the device's kernel {kernel.name}", kwargs)
    return _array_ufunc(self, ufunc, "__call__", *inputs, **kwargs)


def _array_function(self: Var, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """np.concatenate([var, ...]) and the like."""
    if function not in FUNCTIONS:
        raise unknown_operation(f"np.{function.__name__}", {})
    return _named(f"np.{function.__name__}", FUNCTIONS[function], args, kwargs)


def _named(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """function(*args, **kwargs); arguments that it does not take are refused with the name the caller
    knows.
    """
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        if not _fits(function, args, kwargs):
            raise unknown_operation(name, kwargs) from error
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


def _refused(symbol: str) -> Callable[[Var, Any], Any]:
    def refuse(self: Var, other: Any) -> Any:
        raise unknown_operation(f"the operator `{symbol}`", {})

    return refuse


def _in_place(symbol: str) -> Callable[[Var, Any], Any]:
    def refuse(self: Var, other: Any) -> Any:
        raise TracedValueError(
            f"in-place `{symbol}=` on a traced value at {user_line()}; write y = y {symbol} ..., which leaves the "
            "argument as it was"
        )

    return refuse


def _clip_method(a: Any, min: Any = None, max: Any = None) -> Any:
    return ops.clip(a, min, max)


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
    "argmax": FUNCTIONS[np.argmax],
    "cumsum": FUNCTIONS[np.cumsum],
    "reshape": ops.reshape,
    "ravel": lambda x: ops.reshape(x, -1),
    "flatten": lambda x: ops.reshape(x, -1),
    "transpose": lambda x, *axes: ops.transpose(x, axes[0] if len(axes) == 1 else axes or None),
    "swapaxes": ops.swapaxes,
    "squeeze": ops.squeeze,
    "clip": _clip_method,
    "dot": ops.dot,
    "take": FUNCTIONS[np.take],
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
    raise TracedAttributeError(str(unknown_operation(f"the attribute `{name}`", {})))


def install() -> None:
    """Attach the protocols to `Var`. It cannot import the operations itself:
    they are made of primitives that know it.
    """
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
