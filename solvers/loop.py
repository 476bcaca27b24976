"""The loop: attempts steps until the end is reached, keeps the books, and says clearly why it could not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.backend import Array
from ..engine.errors import NonFiniteDynamics, StepSizeUnderflow, TooManySteps
from .controller import PIController, Verdict
from .first_step import first_step, probe_step
from .method import AnyStep, Method
from .solution import Stats
from .stages import Stages
from .stepping import ErrorNorm, RowStep
from .tableau import Tableau


@dataclass(frozen=True)
class Control:
    """How steps are chosen: tolerances, limits, and what to start with."""

    rtol: float
    atol: Any  # a number, or an array that broadcasts against the state
    max_steps: int
    max_step: float = math.inf
    first_step: float | None = None
    controller: PIController | None = None


class Integrator:
    """Walks from t0 to t1, a step at a time.

    `step` is made for a tableau; another method gives its own (`Method.step_on`).
    `grid` None: adaptive steps under `control`. Otherwise exactly these times, without an error test.
    After `advance()` the step lies between `t_start` and `t`; the stages still hold it: y and the slopes in
    `stages.rows`, the new state in `y`, its scaled error in `error_norm` (0 on a given grid). The next `advance()` moves
    on from there.
    """

    def __init__(
        self,
        stages: Stages,
        method: Tableau | Method,
        control: Control,
        t0: float,
        t1: float,
        stats: Stats,
        *,
        grid: np.ndarray | None = None,
        name: str = "odeint",
        on_attempt: Callable[[float, float, float, bool, Array], None] | None = None,
        step: AnyStep | None = None,
    ) -> None:
        self.stages, self.method, self.control, self.stats = stages, method, control, stats
        self.step = step or _row_step(stages, method)
        self.t0, self.t1 = t0, t1
        self.stop = t1  # no step goes beyond it
        self.t_start = self.t = t0
        self.h = 0.0
        self.error_norm = 0.0
        self.name = name
        self._direction = math.copysign(1.0, t1 - t0)
        self._grid = None if grid is None else grid.tolist()
        self._position = 0
        self._verdict: Verdict | None = None
        self._on_attempt = on_attempt
        self._attempts = 0
        self._has_slope = True
        if grid is None:
            rows = stages.rows
            self._norm = ErrorNorm(rows.shape[1], rows.dtype, stages.xp, control.rtol, control.atol)
            assert method.error_order is not None
            self._controller = control.controller or PIController(order=method.error_order)

    @property
    def y(self) -> Array:
        """The state at t, flat (n,)."""
        return self.step.y_new if self.t != self.t_start else self.stages.rows[0]

    @property
    def is_done(self) -> bool:
        return self.t == self.t1

    def start(self) -> None:
        """Choose the first step; rows 0 and 1 hold the state and its slope at t0."""
        rows, control = self.stages.rows, self.control
        if not bool(self.stages.xp.isfinite(rows[1]).all()):
            raise self._non_finite(self.t0, 0.0, 0.0)
        if self._grid is not None:
            return
        interval = self.t1 - self.t0
        if control.first_step is not None:
            h = math.copysign(min(control.first_step, abs(interval)), interval)
        else:
            h = self._chosen_first_step(interval)
        self.h = math.copysign(min(abs(h), control.max_step), interval)

    def _chosen_first_step(self, interval: float) -> float:
        """Hairer's first step: one probing evaluation of f."""
        y, slope = self.stages.rows[0], self.stages.rows[1]
        f_norm = self._norm(slope, y, y)
        h0 = probe_step(self._norm(y, y, y), f_norm, interval)
        self.stages.input(1)[...] = y + y.dtype.type(h0) * slope
        self.stages.evaluate(1, self.t0 + h0)
        self.stats.nfe += 1
        change = self._norm(self.stages.rows[2] - slope, y, y) / abs(h0)
        assert self.method.error_order is not None
        return first_step(h0, f_norm, change, self.method.error_order, interval)

    def advance(self) -> None:
        """Make one accepted step. Raises NonFiniteDynamics, StepSizeUnderflow or TooManySteps."""
        if self.t != self.t_start:
            self.step.shift()
            self.t_start = self.t
            if not self.method.fsal:
                self._has_slope = False
        if not self._has_slope:
            self.step.evaluate_start(self.t)
            self.stats.nfe += 1
            self._has_slope = True
        if self._grid is not None:
            self._walk()
        else:
            self._attempt_until_accepted()

    def _walk(self) -> None:
        """One step to the next time of the given grid."""
        assert self._grid is not None
        self._position += 1
        t_next = self._grid[self._position]
        self._attempt(t_next, t_next - self.t)
        if not self._is_finite(t_next):
            raise self._non_finite(self.t, t_next - self.t, t_next - self.t)
        self._accept(t_next, 0.0)

    def _attempt_until_accepted(self) -> None:
        first_h = self.h
        while True:
            t_next = self._target()
            self._check_limits(t_next, first_h)
            self._attempt(t_next, first_h)
            error = self._scaled_error(t_next)
            verdict = self._controller.judge(error, t_next - self.t, self._verdict)
            self._verdict = verdict
            self.h = self._direction * min(abs(verdict.next_h), self.control.max_step)
            if verdict.is_accepted:
                self._accept(t_next, error)
                return
            self.stats.n_rejected += 1
            if self._on_attempt is not None:
                self._on_attempt(self.t, t_next - self.t, error, False, self.step.y_new)

    def _scaled_error(self, t_next: float) -> float:
        """The scaled error estimate of the step attempted."""
        return self._norm(self.step.error_estimate(), self.stages.rows[0], self.step.y_new)

    def _is_finite(self, t_next: float) -> bool:
        """Whether the step attempted ends in a finite state."""
        return bool(self.stages.xp.isfinite(self.step.y_new).all())

    def _target(self) -> float:
        """Where the step ends; the last one lands on `stop` exactly, and no sliver is left for a further one."""
        t_next = self.t + self.h
        rest = (self.stop - t_next) * self._direction
        return self.stop if rest <= 1e-10 * abs(self.h) else t_next

    def _attempt(self, t_next: float, first_h: float) -> None:
        if self._attempts >= self.control.max_steps:
            if self._was_non_finite:
                raise self._non_finite(self.t, t_next - self.t, first_h)
            raise TooManySteps(
                f"{self.name}: {self.control.max_steps} steps (`max_steps`) reached t={self.t:.6g} of the interval "
                f"[{self.t0:g}, {self.t1:g}], the last with h={self.h:.1e}; {self.stats}. Loosen rtol or atol, raise "
                "`max_steps`, or, if the steps stay small where the solution is smooth, use an implicit method: the "
                "problem is stiff.",
                t=self.t, h=self.h, stats=self.stats,
            )  # fmt: skip
        self._attempts += 1
        self.step.advance(self.t, t_next)
        self.stats.nfe += self.step.n_evaluations

    def _accept(self, t_next: float, error: float) -> None:
        if self._on_attempt is not None:
            self._on_attempt(self.t, t_next - self.t, error, True, self.step.y_new)
        self.stats.n_accepted += 1
        self.t, self.error_norm = t_next, error

    def _check_limits(self, t_next: float, first_h: float) -> None:
        smallest = 10.0 * np.spacing(max(abs(self.t), abs(t_next)))
        if abs(t_next - self.t) >= smallest or t_next == self.stop and t_next != self.t:
            return
        if self._was_non_finite:
            raise self._non_finite(self.t, t_next - self.t, first_h)
        raise StepSizeUnderflow(
            f"{self.name}: the error test asks for a step of {self.h:.1e} at t={self.t:.6g}, below the spacing of "
            f"numbers there ({smallest / 10:.1e}); interval [{self.t0:g}, {self.t1:g}], {self.stats}. The solution may "
            "blow up or jump here: end the interval before it; or rtol and atol are below what the dtype of the state "
            f"({self.stages.rows.dtype}) can resolve.",
            t=self.t, h=self.h, stats=self.stats,
        )  # fmt: skip

    @property
    def _was_non_finite(self) -> bool:
        """Whether the latest attempt met NaN or infinity."""
        return self._verdict is not None and not math.isfinite(self._verdict.error_norm)

    def _non_finite(self, t: float, h: float, first_h: float) -> NonFiniteDynamics:
        rows, xp = self.stages.rows, self.stages.xp
        finite = [xp.isfinite(rows[i + 1]) for i in range(self.method.stages)]
        counts = [int(row.size - row.sum()) for row in finite]
        if t == self.t0 and h == 0.0:
            where, n_bad, shrunk = f"f(t0, y0) is non-finite at t={t:.6g}", counts[0], ""
        else:
            stage = next((i for i, n in enumerate(counts) if n), None)
            if stage is None:
                n_bad = int(rows.shape[1] - xp.isfinite(self.step.y_new).sum())
                where = f"the state after the step from t={t:.6g} stayed non-finite"
            else:
                n_bad = counts[stage]
                where = f"f(t, y) stayed non-finite at t={t:.6g} (stage {stage + 1} of {self.method.stages})"
            shrunk = (
                f" while h shrank from {abs(first_h):.1e} to {abs(h):.1e}"
                if first_h != h
                else f" with h={h:.1e}"
            )
        y_max = float(abs(rows[0]).max()) if rows.shape[1] else 0.0
        return NonFiniteDynamics(
            f"{self.name}: {where}{shrunk}: {n_bad} of {rows.shape[1]} values; interval [{self.t0:g}, {self.t1:g}], "
            f"{self.stats}. The state before the step has max |y| = {y_max:.3e}. Look for overflow, log, sqrt or "
            "division near this state.",
            t=t, h=h, stats=self.stats, n_bad=n_bad,
        )  # fmt: skip


def _row_step(stages: Stages, method: Tableau | Method) -> AnyStep:
    assert isinstance(method, Tableau)
    return RowStep(stages, method)
