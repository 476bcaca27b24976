"""The scaled norm in which every error of a solve is measured,
and the product of a cotangent with a tangent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ..engine.backend import Array, to_number, to_xp
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.tree import Tree
from .dynamics import StateLayout

NORMS = ("rms", "max", "leaves")
Norm = Callable[[Array, Array, Array], float]  # of (error, y, y_new), in units of the tolerances


def scaled_norm(
    xp: ModuleType,
    error: Array,
    y: Array,
    y_new: Array,
    rtol: float | Array,
    atol: float | Array,
) -> float:
    """Root mean square of error / (atol + rtol max(|y|, |y_new|)) over all values of the state.

    Args:
        xp: array module of the state.
        error: what is measured, shaped like y; real or complex. With y_new = y = y0 it may be y0 or a slope.
        y, y_new: state at both ends of the step.
        rtol, atol: positive numbers, or arrays that broadcast against y.
    Returns: a Python float; NaN or infinity where the values are so (without a warning),
        0.0 for an empty state.
    Cost: one read from the device.
    """
    if error.size == 0:
        return 0.0
    with np.errstate(all="ignore"):  # the loop reports NaN and overflow with their step, as an error
        ratio = error / (atol + rtol * xp.maximum(abs(y), abs(y_new)))
        flat = ratio.reshape(-1)
        mean_square = to_number(xp.vdot(flat, flat).real) / flat.size
    return math.sqrt(mean_square)


class ErrorNorm:
    """`scaled_norm` in buffers of its own for NumPy arrays of real numbers; elsewhere the plain one.

    NaN where y_new has overflowed: an infinite scale would make every error look small.
    """

    def __init__(self, size: int, dtype: Any, xp: Any, rtol: float, atol: Any) -> None:
        self.rtol, self.atol, self.xp = rtol, atol, xp
        self._is_fast = xp is np and np.dtype(dtype).kind == "f" and size > 0
        if self._is_fast:
            self._scale, self._other = np.empty(size, dtype), np.empty(size, dtype)
            self._rtol = np.asarray(rtol, dtype)
            self._atol = np.asarray(atol, dtype)
            self._zeros = np.zeros(size, dtype)
            self._inverse_size = 1.0 / size

    def __call__(self, error: Array, y: Array, y_new: Array) -> float:
        if not self._is_fast:
            return scaled_norm(self.xp, error + 0.0 * y_new, y, y_new, self.rtol, self.atol)
        scale, other = self._scale, self._other
        np.absolute(y, out=scale)
        np.absolute(y_new, out=other)
        np.maximum(scale, other, out=scale)
        np.multiply(scale, self._rtol, out=scale)
        np.add(scale, self._atol, out=scale)
        np.divide(error, scale, out=scale)
        overflow = float(np.dot(y_new, self._zeros))
        return math.sqrt(float(np.dot(scale, scale)) * self._inverse_size) + overflow


class ReducedNorm:
    """Another norm of the scaled errors error / (atol + rtol max(|y|, |y_new|)): `reduce` of the array (n,)
    of them.

    NaN where one of them is, or where y_new has overflowed, whatever `reduce` makes of it.
    """

    def __init__(self, reduce: Callable[[Array], float], xp: ModuleType, rtol: Any, atol: Any) -> None:
        self.reduce, self.xp, self.rtol, self.atol = reduce, xp, rtol, atol

    def __call__(self, error: Array, y: Array, y_new: Array) -> float:
        if error.size == 0:
            return 0.0
        scale = self.atol + self.rtol * self.xp.maximum(abs(y), abs(y_new))
        ratio = (error + 0.0 * y_new) / scale
        return self.reduce(ratio) if to_number(self.xp.isfinite(ratio).all()) else math.nan


def norm_of(
    norm: str | Callable[[Tree], float],
    layout: StateLayout | None,
    rows: Array,
    xp: ModuleType,
    rtol: Any,
    atol: Any,
) -> Norm:
    """The norm called `norm`, or a user's function of the tree of scaled errors, for a state (n,) like the
    last axis of `rows`; rtol and atol are numbers or arrays (n,). `layout` says how its leaves lie in it;
    "rms" needs none.
    """
    rtol, atol = _on_device(rtol, xp, rows), _on_device(atol, xp, rows)
    if norm == "rms":
        return ErrorNorm(rows.shape[-1], rows.dtype, xp, rtol, atol)
    reductions = {"max": lambda ratio: to_number(abs(ratio).max())}
    if isinstance(norm, str) and norm in reductions:
        return ReducedNorm(reductions[norm], xp, rtol, atol)
    assert layout is not None
    reduce = _LargestLeaf(layout) if norm == "leaves" else _UserNorm(layout, norm)
    return ReducedNorm(reduce, xp, rtol, atol)


def _on_device(tolerance: Any, xp: ModuleType, rows: Array) -> Any:
    """A number as it is, an array (n,) where the state is."""
    if type(tolerance) is float or np.ndim(tolerance) == 0:
        return tolerance
    return to_xp(xp, np.asarray(tolerance, rows.real.dtype))


class _LargestLeaf:
    """The largest root mean square of a leaf; an empty leaf has none."""

    def __init__(self, layout: StateLayout) -> None:
        self.layout = layout

    def __call__(self, ratio: Array) -> float:
        parts = [part for part in self.layout.split(ratio) if part.size]
        return max(math.sqrt(to_number((abs(part) ** 2).mean())) for part in parts)


class _UserNorm:
    """A user's function of the tree of scaled errors."""

    def __init__(self, layout: StateLayout, function: Any) -> None:
        self.layout, self.function = layout, function

    def __call__(self, ratio: Array) -> float:
        value = self.function(self.layout.unflatten(ratio))
        try:
            number = float(to_number(value))
        except (TypeError, ValueError) as error:
            raise ArgumentTypeError(
                f"`norm` must return a number; got {type(value).__name__} from a state of finite scaled errors"
            ) from error
        if not number >= 0.0:
            raise ArgumentError(
                f"`norm` must return a number that is not negative; got {number:g} from a state of finite scaled errors"
            )
        return number


def inner(bar: Array, tangent: Array) -> float:
    """Real part of sum(bar * tangent), no conjugate: what a change of the tangent does to the loss;
    one read.
    """
    return float(np.real(to_number((bar * tangent).sum())))
