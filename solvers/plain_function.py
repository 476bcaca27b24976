"""Dynamics that are called as they are: one operation of a program, whatever Python they consist of.

A function written for SciPy may branch on values, fill arrays in place, count its calls or return a list. It
is therefore never traced: the program of its solve has one operation, which calls the function of the solve
that is running. All such solves of one size share that program. Its derivative, which implicit methods need,
is a Jacobian that the user gives, or differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import is_device_array, namespace_of, to_xp
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.primitive import Primitive

ROOT_EPS = float(np.sqrt(np.finfo(np.float64).eps))
SMALLEST = 1e-3  # of the largest |y|: components below it are shifted as if they were that large


class PlainFunction:
    """fun(t, y) -> slope, for t a float and y an array (n,) of its own, and what is known of its derivative.

    Args:
        fun: returns n numbers in an array or a list. With `is_vectorized` it takes and returns (n, k).
        jac: None (differences: n calls of fun, or one that is vectorized), a matrix (n, n),
            or jac(t, y) -> one.
        scale: numbers below which a component of y is not distinguished from zero, as atol.
    """

    def __init__(self, fun: Callable[..., Any], *, is_vectorized: bool, jac: Any, scale: Any) -> None:
        self.fun, self.is_vectorized, self.jac, self.scale = fun, is_vectorized, jac, scale
        self._known: tuple[float, bytes, np.ndarray] | None = None

    def slope(self, t: float, y: np.ndarray) -> np.ndarray:
        """(n,), of the dtype and the module of y."""
        result = self.fun(t, y[:, None].copy() if self.is_vectorized else y.copy())
        xp = namespace_of(y)
        if xp is not np and not is_device_array(result):
            if isinstance(result, np.ndarray):
                raise ArgumentTypeError(
                    "`fun` must return an array on the device, where y is; got one of numpy"
                )
            result = to_xp(xp, result)
        slope = xp.asarray(result, dtype=y.dtype)
        if slope.size != y.size:
            raise ArgumentError(
                f"`fun` must return as many numbers as y has, shape {y.shape}; got shape {slope.shape} at t={t:g}"
            )
        return slope.reshape(y.shape)

    def jacobian(self, t: float, y: np.ndarray) -> np.ndarray:
        """d slope / dy (n, n); the latest is remembered, since each of its rows is asked for."""
        place = (t, y.tobytes())
        if self._known is None or self._known[:2] != place:
            matrix = self._differences(t, y) if self.jac is None else self._given(t, y)
            self._known = (*place, matrix)
        return self._known[2]

    def rate(self, t: float, y: np.ndarray) -> np.ndarray:
        """d slope / dt (n,), by differences."""
        h = ROOT_EPS * max(abs(t), 1.0)
        return (self.slope(t + h, y) - self.slope(t - h, y)) / (2.0 * h)

    def _given(self, t: float, y: np.ndarray) -> np.ndarray:
        found = self.jac(t, y.copy()) if callable(self.jac) else self.jac
        matrix = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=y.dtype)
        if matrix.shape != (y.size, y.size):
            raise ArgumentError(
                f"`jac` must be a matrix of shape {(y.size, y.size)}, or a function (t, y) that returns one; got shape "
                f"{matrix.shape}"
            )
        return matrix

    def _differences(self, t: float, y: np.ndarray) -> np.ndarray:
        size = np.abs(y)
        shifts = ROOT_EPS * np.maximum(np.maximum(size, SMALLEST * size.max(initial=0.0)), self.scale)
        moved = y[:, None] + np.diag(shifts).astype(y.dtype)
        shifts = np.diag(moved) - y  # as they were rounded
        if self.is_vectorized:
            slopes = np.asarray(self.fun(t, moved), dtype=y.dtype)
        else:
            slopes = np.stack([self.slope(t, column) for column in moved.T], axis=1)
        return (slopes - self.slope(t, y)[:, None]) / shifts


_running: ContextVar[PlainFunction] = ContextVar("running")


@contextmanager
def running(function: PlainFunction) -> Iterator[None]:
    """`call_running` is this function as long as the context lasts, in this thread."""
    token = _running.set(function)
    try:
        yield
    finally:
        _running.reset(token)


def _operation(name: str, forward: Callable[..., Any]) -> Primitive:
    """It holds nothing, so that programs of it are remembered."""
    operation = Primitive(name, forward, is_flat=False, may_view=False)
    operation.is_shared = True
    return operation


# a program gives t as a number in the dtype of the result, so that it may be complex
_jacobian = _operation("jacobian", lambda xp, t, y: _running.get().jacobian(float(t.real), y))
_rate = _operation("rate", lambda xp, t, y: _running.get().rate(float(t.real), y))


def _slope_forward(xp: Any, t: float, y: np.ndarray) -> np.ndarray:
    """The slope (n,) of the function that is running."""
    return _running.get().slope(float(t.real), y)


call_running = _operation("fun", _slope_forward)


@call_running.vjp(saves=("t", "y"))
def call_running_vjp(ybar: Any, t: Any, y: Any, *, needs: tuple[bool, ...]) -> tuple[Any, Any]:
    """tbar = ybar . df/dt and ybar df/dy."""
    return (
        ops.sum(ybar * _rate(t, y)) if needs[0] else None,
        ops.matmul(ybar, _jacobian(t, y)) if needs[1] else None,
    )
