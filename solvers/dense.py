"""The solution as a function of time, as `odeint(..., dense=True)` returns it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.tree import Tree
from .dense_output import DenseOutput
from .dynamics import StateLayout


class Dense:
    """y(t) for every t of a solve: sol.dense(t) is the state there, sol.dense.derivative(t) its time derivative.

    It reads the interpolant of the method within the accepted steps, whose error is that of the steps or one order
    lower. Nothing of it is differentiated.

    Attributes:
        t0, t1: where it begins and ends; t1 < t0 when time runs backwards.
        grid: the accepted times (N + 1,) between which it is one polynomial.
    """

    def __init__(self, path: DenseOutput, layout: StateLayout) -> None:
        self.path, self.layout = path, layout

    @property
    def t0(self) -> float:
        return self.path.times[0]

    @property
    def t1(self) -> float:
        return self.path.times[-1]

    @property
    def grid(self) -> np.ndarray:
        return np.array(self.path.times)

    def __call__(self, t: Any) -> Tree:
        """The state at a time, or at times (m,), then with a leading axis m: a tree like y0, on arrays of its own.

        At an accepted time it is the state there up to round-off. ArgumentError outside of the solve.
        """
        return self._read(t, derivative=False)

    def derivative(self, t: Any) -> Tree:
        """dy/dt of the interpolant, as `__call__` gives y; at an accepted time that of the step which ends there."""
        return self._read(t, derivative=True)

    def _read(self, t: Any, *, derivative: bool) -> Tree:
        times = self._checked(t)
        rows = self.path.read_many(times.reshape(-1), derivative=derivative)
        return self.layout.unflatten(rows if times.ndim else rows[0], times.shape)

    def _checked(self, t: Any) -> np.ndarray:
        """The times as float64, () or (m,), all within the solve."""
        try:
            times = np.asarray(t).astype(np.float64, casting="same_kind")
        except (TypeError, ValueError) as error:
            raise ArgumentTypeError(f"`t` must be a time or an array of times (m,); got {t!r}") from error
        if times.ndim > 1:
            raise ArgumentError(f"`t` must be a time or an array of times (m,); got shape {times.shape}")
        low, high = sorted((self.t0, self.t1))
        outside = ~((times >= low) & (times <= high))
        if outside.any():
            raise ArgumentError(
                f"`t` must lie in the interval of the solve, [{low:g}, {high:g}]; got {times[outside].flat[0]!s}, and a "
                "polynomial is worth nothing beyond its step. Solve as far as you read"
            )
        return times

    def __repr__(self) -> str:
        return f"Dense([{self.t0:g}, {self.t1:g}], {len(self.path.times) - 1} steps)"
