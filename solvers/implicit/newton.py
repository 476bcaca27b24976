"""The simplified Newton iteration that solves one implicit stage."""

from __future__ import annotations

import math

import numpy as np

from ...engine.backend import Array
from ..method import Norm
from ..solution import Stats
from ..stages import Stages
from .linear_solvers import LinearSolver

MAX_ITERATIONS = 10
STOP = 3e-2  # error left in a stage, in units of the tolerances


class Newton:
    """Solves Y = base + alpha f(t, Y) by iterations Y <- Y + (I - alpha J)**-1 (base + alpha f(t, Y) - Y), J held fixed.

    With contraction rate theta = |change| / |change before|, theta / (1 - theta) |change| bounds the error left; the
    iteration stops when that is below `STOP`, and fails when theta says that it will not be in `MAX_ITERATIONS`. The
    first iteration of a stage is judged by the rate of the stage before, if it changed the guess by no more than the
    tolerances: a rate that another stage had says little about a guess that is far off.
    Source: Hairer & Wanner (1996), Solving ODEs II, section IV.8, "Stopping criterion".

    Attributes:
        slowest: the largest theta since it was last set to 0.
        failure: why the latest call that failed did so; empty where f was NaN or infinite.
    """

    def __init__(self, stages: Stages, solver: LinearSolver, norm: Norm, stats: Stats) -> None:
        self._stages, self._solver, self._norm, self._stats = stages, solver, norm, stats
        self._residual = np.empty(stages.rows.shape[1], stages.rows.dtype)
        self._factor = 1.0  # theta / (1 - theta) of the stage before
        self._eps = float(np.finfo(stages.rows.dtype).eps)
        self.slowest = 0.0
        self.failure = ""

    def solve(self, index: int, t: float, alpha: float, base: Array) -> bool:
        """Solve stage `index` from the guess in its input, which becomes Y; whether that succeeded.

        Cost: an evaluation of f and a linear solve an iteration.
        """
        y, start = self._stages.input(index), self._stages.rows[0]
        factor, before = max(self._factor, self._eps) ** 0.8, 0.0
        for iteration in range(MAX_ITERATIONS):
            change = self._change(index, t, alpha, base)
            size = self._norm(change, start, y)
            if not math.isfinite(size):
                self.failure = self._solver.problem
                return False
            if iteration > 0 and size > 0.0:
                theta = size / before
                self.slowest = max(self.slowest, theta)
                rest = MAX_ITERATIONS - 1 - iteration
                if theta >= 1.0 or theta**rest / (1.0 - theta) * size > STOP:
                    if self._is_round_off(size, start, y):
                        return True
                    self.failure = (
                        f"iteration {iteration + 1} at t={t:.6g} changed the state by {size:.1e} tolerances, "
                        f"{theta:.2g} times the change before"
                    )
                    return False
                factor = theta / (1.0 - theta)
            y += change
            if factor * size <= STOP and (iteration > 0 or size <= 1.0):
                self._factor = factor
                return True
            before = size
        self.failure = f"{MAX_ITERATIONS} iterations at t={t:.6g} left a change of {size:.1e} tolerances"
        return False

    def _change(self, index: int, t: float, alpha: float, base: Array) -> Array:
        """(I - alpha J)**-1 (base + alpha f(t, Y) - Y)."""
        stages, residual = self._stages, self._residual
        stages.evaluate(index, t)
        self._stats.n_newton += 1
        np.multiply(stages.rows[index + 1], alpha, out=residual, casting="same_kind")
        residual += base
        residual -= stages.input(index)
        return self._solver.solve(residual)

    def _is_round_off(self, size: float, start: Array, y: Array) -> bool:
        """Whether changes of this size are those that rounding makes."""
        return size <= 100.0 * self._norm(self._eps * abs(y), start, y)
