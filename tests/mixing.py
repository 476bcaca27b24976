"""Arrays of a device as the tests use them: what a test does with them may mix with NumPy, what the package does may not.

CuPy refuses every array of NumPy and every silent conversion, and so does its stand-in. For tests that were written
with NumPy alone `Mixing` makes an exception: where the code that asks is not of the package, an array of NumPy that
meets one of the device goes there, and what CuPy does not know, or wants on the host (SciPy, `np.testing`,
`pytest.approx`), is computed on the host. What the package asks for is refused as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

_TWO_SIDED = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
OPERATORS = [
    f"__{prefix}{name}__"
    for name in _TWO_SIDED
    for prefix in ("", "r", "i")
    if (prefix, name) != ("i", "matmul")
] + [f"__{name}__" for name in "eq ne lt le gt ge divmod rdivmod".split()]
NOT_ASKING = {"numpy", "scipy", "cupy", "fake_cupy", "placing", __name__}  # who computes for another
REFUSALS = (TypeError, AttributeError, NotImplementedError, ValueError)


def is_asked_by_package() -> bool:
    """Whether the innermost code that computes for itself is the package's."""
    frame = sys._getframe(1)
    while frame is not None:
        root = frame.f_globals.get("__name__", "").partition(".")[0]
        if root not in NOT_ASKING:
            return root == "odegrad"
        frame = frame.f_back  # type: ignore[assignment]
    return False


def mapped(change: Callable[[Any], Any], kind: type, value: Any) -> Any:
    """`value` with every array of class `kind` in it changed, in tuples, lists and dicts too."""
    if isinstance(value, kind):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(mapped(change, kind, part) for part in value)
    if type(value) is dict:
        return {key: mapped(change, kind, part) for key, part in value.items()}
    return value


def holds(kind: Any, value: Any) -> bool:
    """Whether there is an array of class `kind` in `value`."""
    if type(value) in (tuple, list):
        return any(holds(kind, part) for part in value)
    if type(value) is dict:
        return any(holds(kind, part) for part in value.values())
    return isinstance(value, kind)


def places(array: Any) -> bool:
    """Whether an array goes to the device: it can have the dtype, and images (uint8) are given to the package on the host."""
    return array.dtype.kind in "biufc" and array.dtype not in (np.uint8, np.longdouble, np.clongdouble)


class Mixing:
    """The methods that stand in for those of a device's class of arrays."""

    def __init__(self, xp: ModuleType) -> None:
        self.xp, self.kind = xp, xp.ndarray
        self.own: dict[str, Any] = {}

    def on_device(self, value: Any) -> Any:
        """The arrays of NumPy in `value` on the device, as far as it has their dtypes."""
        return mapped(lambda array: self.xp.asarray(array) if places(array) else array, np.ndarray, value)

    def on_host(self, value: Any) -> Any:
        return mapped(lambda array: array.get(), self.kind, value)

    def install(self) -> None:
        """Take the place of the methods."""
        for name in OPERATORS:
            if hasattr(self.kind, name):
                self._replace(name, self._operator(getattr(self.kind, name)))
        self._replace("__array_ufunc__", self._of_ufuncs(self.kind.__array_ufunc__))
        self._replace("__array_function__", self._of_functions(self.kind.__array_function__))
        self._replace("__array__", self._conversion(self.kind.__array__))
        self._replace("__getitem__", self._operator(self.kind.__getitem__))
        self._replace("__setitem__", self._operator(self.kind.__setitem__))

    def remove(self) -> None:
        """Give the methods back."""
        for name, own in self.own.items():
            if own is None:
                delattr(self.kind, name)
            else:
                setattr(self.kind, name, own)
        self.own.clear()

    def _replace(self, name: str, method: Any) -> None:
        self.own[name] = vars(self.kind).get(name)
        setattr(self.kind, name, method)

    def _operator(self, own: Any) -> Any:
        def operate(array: Any, *others: Any) -> Any:
            if holds(np.ndarray, others) and not is_asked_by_package():
                others = self.on_device(others)
            return own(array, *others)

        return operate

    def _of_ufuncs(self, own: Any) -> Any:
        def call(array: Any, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
            if not self._is_known((*inputs, options)) or is_asked_by_package():
                return own(array, ufunc, method, *inputs, **options)
            if holds(np.ndarray, options.get("out")):  # as in `host += device`
                return getattr(ufunc, method)(*self.on_host(inputs), **self.on_host(options))
            try:
                found = own(array, ufunc, method, *self.on_device(inputs), **self.on_device(options))
            except REFUSALS:
                found = NotImplemented
            if found is NotImplemented:
                found = self.on_device(getattr(ufunc, method)(*self.on_host(inputs), **self.on_host(options)))
            return found

        return call

    def _of_functions(self, own: Any) -> Any:
        def call(array: Any, function: Any, types: Any, args: Any, options: Any) -> Any:
            if not set(types) <= {self.kind, np.ndarray} or is_asked_by_package():
                return own(array, function, types, args, options)
            try:
                found = own(array, function, types, self.on_device(args), self.on_device(options))
            except REFUSALS:
                found = NotImplemented
            if found is NotImplemented:
                found = self.on_device(function(*self.on_host(args), **self.on_host(options)))
            return found

        return call

    def _conversion(self, own: Any) -> Any:
        def convert(array: Any, dtype: Any = None, copy: Any = None) -> Any:
            return own(array, dtype) if is_asked_by_package() else np.asarray(array.get(), dtype)

        return convert

    def _is_known(self, value: Any) -> bool:
        """Whether there is nothing but arrays and numbers: what is traced is for its own class to judge."""
        if type(value) in (tuple, list):
            return all(map(self._is_known, value))
        if type(value) is dict:
            return all(map(self._is_known, value.values()))
        return not hasattr(value, "__array_ufunc__") or isinstance(value, (self.kind, np.ndarray, np.generic))
