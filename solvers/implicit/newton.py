"""The simplified Newton iteration that solves one implicit stage, and the test that stops such iterations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from ...engine.backend import Array
from ..method import Norm
from ..stages import Stages
from ..stats import Stats
from .linear_solvers import LinearSolver

MAX_ITERATIONS = 10
STOP = 3e-2  # error left in a stage, in units of the tolerances


def round_off_size(norm: Norm, y: Array) -> float:
    """The size of the changes that rounding makes to an iterate near y, in units of the tolerances."""
    return 100.0 * norm(float(np.finfo(y.dtype).eps) * abs(y), y, y)


class Contraction:
    """The stopping test of simplified Newton iterations, fed with the sizes of their changes.

    With contraction rate theta = |change| / |change before|, theta / (1 - theta) |change| bounds the error
    left; the iteration stops when that is below `stop`, and fails when theta says that it will not be in
    `MAX_ITERATIONS`. The first change is judged by the rate of the iteration before, if it is no larger than
    the tolerances: a rate met elsewhere says little about a guess that is far off.
    Source: Hairer & Wanner (1996), Solving ODEs II, section IV.8, equations (8.10) and (8.11).

    Attributes:
        slowest: the largest theta since it was last set to 0.
        failure: why the latest iteration that failed did so; empty where f was NaN or infinite.
    """

    def __init__(self, stop: float = STOP) -> None:
        self._stop = stop
        self._factor = 1.0  # theta / (1 - theta) of the iteration before
        self._before, self._count = 0.0, 0
        self.slowest, self.failure = 0.0, ""

    def begin(self) -> None:
        """A new iteration starts."""
        self._factor = max(self._factor, 1e-16) ** 0.8
        self._before, self._count, self.failure = 0.0, 0, ""

    def judge(self, size: float, t: float, round_off: Callable[[], float]) -> bool | None:
        """Whether the latest change, of this size, ends the iteration: True solved, False failed,
        None not yet.

        Args:
            size: norm of the change in units of the tolerances.
            t: where, for the message.
            round_off: the size of changes that rounding makes,
                asked for where the iteration seems to stagnate.
        """
        self._count += 1
        if not math.isfinite(size):
            return False
        if size == 0.0:
            return True
        if self._count > 1:
            theta = size / self._before
            self.slowest = max(self.slowest, theta)
            if theta >= 1.0 or theta ** (MAX_ITERATIONS - self._count) / (1.0 - theta) * size > self._stop:
                self.failure = (
                    f"iteration {self._count} at t={t:.6g} changed the state by {size:.1e} tolerances, {theta:.2g} times "
                    "the change before"
                )
                return size <= round_off()
            self._factor = theta / (1.0 - theta)
        self._before = size
        is_small = self._factor * size <= self._stop and (self._count > 1 or size <= 1.0)
        return True if is_small else None


class Newton:
    """Solves Y = base + alpha f(t, Y) by iterations Y <- Y + (I - alpha J)**-1 (base + alpha f(t, Y) - Y),
    J held fixed.

    `contraction` says how they converged.
    """

    def __init__(self, stages: Stages, solver: LinearSolver, norm: Norm, stats: Stats) -> None:
        self._stages, self._solver, self._norm, self._stats = stages, solver, norm, stats
        self._residual = stages.xp.empty(stages.rows.shape[1], stages.rows.dtype)
        self.contraction = Contraction()

    @property
    def failure(self) -> str:
        """Why the latest stage could not be solved; empty where f was NaN or infinite."""
        return self._solver.problem or self.contraction.failure

    def solve(self, index: int, t: float, alpha: float, base: Array) -> bool:
        """Solve stage `index` from the guess in its input, which becomes Y; whether that succeeded.

        Cost: an evaluation of f and a linear solve an iteration.
        """
        y, start = self._stages.input(index), self._stages.rows[0]
        round_off = partial(round_off_size, self._norm, start)
        self.contraction.begin()
        while True:
            change = self._change(index, t, alpha, base)
            size = self._norm(change, start, y)
            y += change
            verdict = self.contraction.judge(size, t, round_off)
            if verdict is not None:
                return verdict

    def _change(self, index: int, t: float, alpha: float, base: Array) -> Array:
        """(I - alpha J)**-1 (base + alpha f(t, Y) - Y)."""
        stages, residual = self._stages, self._residual
        stages.evaluate(index, t)
        self._stats.n_newton += 1
        stages.xp.multiply(stages.rows[index + 1], residual.dtype.type(alpha), out=residual)
        residual += base
        residual -= stages.input(index)
        return self._solver.solve(residual)
