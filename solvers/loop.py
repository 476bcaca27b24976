"""The loop: attempts steps until the end is reached, keeps the books, and says clearly why it could not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.backend import Array, to_number
from ..engine.errors import SolveError
from ..engine.tree import Tree
from .controller import Controller, Verdict
from .controllers import controller_for
from .dynamics import StateLayout
from .failures import (
    Standing,
    below_min_step,
    below_the_spacing,
    component_name,
    first_bad,
    non_finite,
    not_converged,
    too_many_steps,
)
from .first_step import first_step, probe_step
from .method import AnyStep, Method, SolvingStep
from .norms import norm_of
from .stages import Stages
from .stats import Stats
from .stepping import RowStep, combined_error
from .stiffness import EVERY, StiffnessWatch
from .tableau import Tableau


@dataclass(frozen=True)
class Control:
    """How steps are chosen: tolerances, limits, and what to start with.

    rtol, atol are numbers, or arrays (n,) like the flat state, which `layout` describes. A step ends at each
    of the `breakpoints` that lies inside of the interval.
    """

    rtol: Any
    atol: Any
    max_steps: int
    max_step: float = math.inf
    first_step: float | None = None
    controller: Controller | None = None
    min_step: float = 0.0
    norm: str | Callable[[Tree], float] = "rms"
    layout: StateLayout | None = None
    breakpoints: tuple[float, ...] = ()
    warns_stiff: bool = False


class Integrator:
    """Walks from t0 to t1, a step at a time.

    `step` is made for a tableau; another method gives its own (`Method.step_on`).
    `grid` None: adaptive steps under `control`, which end at each of `stops` too. Otherwise exactly these
    times, without an error test.
    After `advance()` the step lies between `t_start` and `t`; the stages still hold it: y and the slopes in
    `stages.rows`, the new state in `y`, its scaled error in `error_norm` (0 on a given grid). The next
    `advance()` moves on from there.
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
        stops: Iterable[float] = (),
    ) -> None:
        self.stages, self.method, self.control, self.stats = stages, method, control, stats
        self.step = step or _row_step(stages, method)
        self.t0, self.t1 = t0, t1
        self._stops = iter(_inside({*stops, *control.breakpoints}, t0, t1))
        self.stop = next(self._stops)  # no step goes beyond it
        self.t_start = self.t = t0
        self.h = 0.0
        self.error_norm = 0.0
        self.name = name
        self._direction = math.copysign(1.0, t1 - t0)
        self._grid = None if grid is None else grid.tolist()
        self._position = 0
        self._verdict: Verdict | None = None
        self._on_attempt = on_attempt
        self._attempts = stats.n_accepted + stats.n_rejected  # of earlier pieces of the solve
        self._has_slope = True
        self._measured_error = getattr(self.step, "measured_error", None)  # of steps that measure themselves
        self._has_coarse = isinstance(method, Tableau) and method.coarse_order is not None
        self._uncut_h = 0.0
        self._watch: StiffnessWatch | None = None
        self._next_look: float = EVERY if control.warns_stiff and grid is None else math.inf
        if grid is None:
            self._norm = norm_of(
                control.norm, control.layout, stages.rows, stages.xp, control.rtol, control.atol
            )
            assert method.error_order is not None
            self._controller = controller_for(control.controller, method.error_order)

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
        if not to_number(self.stages.xp.isfinite(rows[1]).all()):
            raise self._non_finite(self.t0, 0.0, 0.0)
        if self._grid is not None:
            return
        interval = self.t1 - self.t0
        if control.first_step is not None:
            h = math.copysign(min(control.first_step, abs(interval)), interval)
        else:
            h = self._chosen_first_step(interval)
        self.h = math.copysign(min(max(abs(h), control.min_step), control.max_step), interval)

    def _chosen_first_step(self, interval: float) -> float:
        """Hairer's first step: one probing evaluation of f."""
        y, slope = self.stages.rows[0], self.stages.rows[1]
        f_norm = self._norm(slope, y, y)
        h0 = probe_step(self._norm(y, y, y), f_norm, self.stop - self.t0)
        self.stages.input(1)[...] = y + y.dtype.type(h0) * slope
        is_beyond = (self.stop - (self.t0 + h0)) * self._direction < 0  # by rounding
        self.stages.evaluate(1, self.stop if is_beyond else self.t0 + h0)
        self.stats.nfe += 1
        change = self._norm(self.stages.rows[2] - slope, y, y) / abs(h0)
        assert self.method.error_order is not None
        h = first_step(h0, f_norm, change, self.method.error_order, interval)
        # t may be so large that 1e-6 is nothing
        resolved = 16.0 * np.spacing(max(abs(self.t0), abs(self.t1)))
        return math.copysign(min(max(abs(h), resolved), abs(interval)), interval)

    def advance(self) -> None:
        """Make one accepted step. Raises NonFiniteDynamics, NonConvergence,
        StepSizeUnderflow or TooManySteps.
        """
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
            self._choose(verdict, t_next)
            if verdict.is_accepted:
                self._accept(t_next, error)
                return
            self.stats.n_rejected += 1
            if self._on_attempt is not None:
                self._on_attempt(self.t, t_next - self.t, error, False, self.step.y_new)
            self._refuse_shorter(verdict, t_next)

    def _choose(self, verdict: Verdict, t_next: float) -> None:
        """The size of the step that is tried next."""
        size = abs(verdict.next_h)
        if verdict.is_accepted and t_next == self.stop and abs(self._uncut_h) > size:
            size = abs(self._uncut_h)  # the step was cut to end there; the next one need not be
        self.h = self._direction * min(max(size, self.control.min_step), self.control.max_step)

    def _refuse_shorter(self, verdict: Verdict, t_next: float) -> None:
        """The error where the step just rejected cannot become shorter: `min_step` forbids it."""
        tried = abs(t_next - self.t)
        # (t + h) - t may be larger than h, by its rounding
        if min(tried, abs(self._uncut_h)) > self.control.min_step:
            return
        if self._was_non_finite:
            raise self._non_finite(self.t, tried * self._direction, tried * self._direction)
        raise below_min_step(self._standing(self.t, verdict.next_h), self.control.min_step)

    def _scaled_error(self, t_next: float) -> float:
        """The scaled error estimate of the step attempted."""
        if self._measured_error is not None and (measured := self._measured_error()) is not None:
            return measured
        step, y = self.step, self.stages.rows[0]
        error = self._norm(step.error_estimate(), y, step.y_new)
        if not self._has_coarse:
            return error
        assert isinstance(step, RowStep)
        return combined_error(error, self._norm(step.coarse_error_estimate(), y, step.y_new))

    def _is_finite(self, t_next: float) -> bool:
        """Whether the step attempted ends in a finite state."""
        return to_number(self.stages.xp.isfinite(self.step.y_new).all())

    def _target(self) -> float:
        """Where the step ends; the last one lands on `stop` exactly,
        and no sliver is left for a further one.
        """
        self._uncut_h = self.h
        t_next = self.t + self.h
        rest = (self.stop - t_next) * self._direction
        return self.stop if rest <= 1e-10 * abs(self.h) else t_next

    def _attempt(self, t_next: float, first_h: float) -> None:
        if self._attempts >= self.control.max_steps:
            if self._was_non_finite:
                raise self._non_finite(self.t, t_next - self.t, first_h)
            raise too_many_steps(self._standing(self.t, self.h), self.control.max_steps)
        self._attempts += 1
        self.step.advance(self.t, t_next)
        self.stats.nfe += self.step.n_evaluations

    def _accept(self, t_next: float, error: float) -> None:
        if self._on_attempt is not None:
            self._on_attempt(self.t, t_next - self.t, error, True, self.step.y_new)
        self.stats.n_accepted += 1
        self.t, self.error_norm = t_next, error
        if t_next == self.stop:
            self.stop = next(self._stops, self.t1)
        if self.stats.n_accepted >= self._next_look:
            self._look_for_stiffness()

    def _look_for_stiffness(self) -> None:
        """Rarely: whether it is stability that holds the steps."""
        watch = self._watch = self._watch or StiffnessWatch.of(self.method)
        if watch is None:
            self._next_look = math.inf
            return
        h = self.t - self.t_start
        is_stiff = watch.look(self.stats.n_accepted, h, self.stages.rows, self.stages.xp)
        self._next_look = watch.next_look
        if is_stiff:
            watch.warn(self.name, self.t, h)

    def _check_limits(self, t_next: float, first_h: float) -> None:
        smallest = 10.0 * math.ulp(max(abs(self.t), abs(t_next)))
        if abs(t_next - self.t) >= smallest or t_next == self.stop and t_next != self.t:
            return
        if self._was_non_finite:
            raise self._non_finite(self.t, t_next - self.t, first_h)
        raise below_the_spacing(self._standing(self.t, self.h), smallest / 10)

    @property
    def _was_non_finite(self) -> bool:
        """Whether the latest attempt met NaN or infinity."""
        return self._verdict is not None and not math.isfinite(self._verdict.error_norm)

    def _non_finite(self, t: float, h: float, first_h: float) -> SolveError:
        rows, xp = self.stages.rows, self.stages.xp
        if isinstance(self.step, SolvingStep) and self.step.failure:
            return not_converged(self._standing(t, h), self.step.failure, first_h)
        n_slopes = 1 if h == 0.0 else self.method.stages
        found = [first_bad(xp, rows[i + 1]) for i in range(n_slopes)]
        stage = next((i for i, (n_bad, _) in enumerate(found) if n_bad), None)
        n_bad, index = first_bad(xp, self.step.y_new) if stage is None else found[stage]
        return non_finite(
            self._standing(t, h, index),
            stage=stage, stages=self.method.stages, n_bad=n_bad, first_h=first_h,
        )  # fmt: skip

    def _standing(self, t: float, h: float, index: int | None = None) -> Standing:
        """Where the solve stands; `index`: the component at fault,
        by default that with the largest scaled error.
        """
        row, layout = self.stages.rows[0], self.control.layout
        verdict, size = self._verdict, self.stages.rows.shape[1]
        if index is None and verdict is not None and not verdict.is_accepted and size:
            index = self._worst()
        y = row.copy()
        return Standing(
            name=self.name, t0=self.t0, t1=self.t1, t=t, h=h,
            error_norm=math.nan if verdict is None else verdict.error_norm,
            component="" if index is None else component_name(layout, index), index=index,
            y=y if layout is None else layout.unflatten(y),
            y_max=to_number(abs(row).max()) if size else 0.0, size=size, dtype=row.dtype, stats=self.stats,
        )  # fmt: skip

    def _worst(self) -> int:
        """The component with the largest scaled error of the step rejected, the first that is not finite if
        there is one.
        """
        y, y_new, control = self.stages.rows[0], self.step.y_new, self.control
        xp = self.stages.xp
        scale = xp.asarray(control.atol) + xp.asarray(control.rtol) * xp.maximum(abs(y), abs(y_new))
        ratio = abs((self.step.error_estimate() + 0.0 * y_new) / scale)
        return to_number(xp.where(xp.isnan(ratio), math.inf, ratio).argmax())


def _inside(times: set[float], t0: float, t1: float) -> list[float]:
    """Those strictly between t0 and t1 in the direction of time, then t1."""
    low, high = min(t0, t1), max(t0, t1)
    return [*sorted((t for t in times if low < t < high), reverse=t1 < t0), t1]


def _row_step(stages: Stages, method: Tableau | Method) -> AnyStep:
    assert isinstance(method, Tableau)
    return RowStep(stages, method)
