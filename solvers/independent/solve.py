"""The loop over sweeps: one attempted step of every row that has not finished."""

from __future__ import annotations

import math

import numpy as np

from ...engine.backend import to_host
from ...engine.errors import ArgumentError, SolveError
from ...engine.trace import Var
from ...engine.tree import leaves
from ..controllers import controller_for
from ..dynamics import Dynamics
from ..first_step import first_step, probe_step
from ..options import Options
from ..solution import Solution
from ..stats import RowStats
from .active import Active
from .batch import Batch
from .control import control_of_rows
from .outputs import Outputs
from .step import RowsStep, row_norms
from .trouble import FailingRow
from .uncoupled import check_uncoupled


def solve_independent(
    dynamics: Dynamics, options: Options, times: np.ndarray, *, is_traced: bool = False
) -> Solution:
    """Solve every row of a batch with its own steps; `is_traced`: whether the output times were,
    which is refused.

    Each row makes the steps that it would make alone, and leaves the batch when it has reached the end.
    Raises: ArgumentError for dynamics whose rows are coupled; a SolveError that names the `row` that failed,
        with the partial solution (NaN where a row has not arrived).
    Cost: nfe of a row as in `odeint` of it alone; six calls of f more to check that rows do not depend on
        each other.
    """
    check_supported(dynamics, options, is_traced)
    with np.errstate(all="ignore"):
        solve = IndependentSolve(dynamics, options, times)
        try:
            solve.run()
        except BaseException as error:  # Ctrl-C and what f raises too
            error.__dict__["solution"] = solve.solution(type(error).__name__)
            if not isinstance(error, SolveError):
                error.add_note("What odeint (independent=True) had reached is `.solution` of this exception.")
            raise
    return solve.solution()


def check_supported(dynamics: Dynamics, options: Options, is_traced: bool) -> None:
    """ArgumentError for what independent steps cannot do."""
    method, found = options.method, []
    if not options.is_tableau or not method.is_adaptive or not method.interpolates:
        found.append(f"an explicit adaptive method with dense output (dopri5), not {method.name!r}")
    if options.grid is not None:
        found.append("no `grid`: rows choose their own")
    if options.callback is not None:
        found.append("no `callback`: a step belongs to one row")
    if options.save != "ts" or options.dense:
        found.append("output at `ts`, not save='steps' or dense=True: rows have different steps")
    if np.ndim(options.rtol) or np.ndim(options.atol) or options.norm != "rms":
        found.append("numbers as `rtol` and `atol`, and norm='rms' (over the values of a row)")
    if options.breakpoints or options.jump_ts:
        found.append("neither `breakpoints` nor `jump_ts`")
    if dynamics.has_aux:
        found.append("has_aux=False")
    given = (*leaves(dynamics.y0), *dynamics.params_leaves, *dynamics.hidden)
    if is_traced or any(type(value) is Var for value in given):
        found.append("arrays and times that are not traced: there is no derivative")
    if found:
        raise ArgumentError(f"independent=True needs {'; '.join(found)}")


class IndependentSolve:
    """One solve: what is left of the batch, and what has been written down."""

    def __init__(self, dynamics: Dynamics, options: Options, times: np.ndarray) -> None:
        self.options, self.times = options, times
        self.min_step = options.min_step or 0.0
        self.t1 = float(times[-1])
        self.batch = batch = Batch(dynamics)
        self.direction = math.copysign(1.0, self.t1 - times[0])
        rows = batch.join(dynamics.y0_leaves)
        n_rows = batch.size
        self.stats = RowStats.of(n_rows)
        self.stats.n_checks = check_uncoupled(batch, float(times[0]), rows)
        slope = batch.join(dynamics.layout.split(dynamics.slope0))
        self.step = RowsStep(batch, options.tableau, rows, slope)
        self.outputs = Outputs(times, rows, self.step)
        self.active = Active.of(n_rows, float(times[0]))
        order = options.method.error_order
        assert order is not None
        self.control = control_of_rows(controller_for(options.controller, order), n_rows)

    def run(self) -> None:
        """From the first steps to the last row's end."""
        self._refuse_non_finite_start()
        self._choose_first_steps()
        while len(self.active.row):
            self._sweep()

    def solution(self, status: str = "finished") -> Solution:
        """What was reached, NaN elsewhere."""
        self._write_counts()
        ys = self.batch.tree(self.outputs.ys)
        return Solution(self.times.copy(), ys, np.empty(0), self.stats, status=status)

    def _sweep(self) -> None:
        """One attempt of every row."""
        active, step, options = self.active, self.step, self.options
        if active.needs_slope.any():
            step.evaluate_start(active.t, active.needs_slope)
            active.nfe += active.needs_slope
        t_next = self._targets()
        self._check_limits(t_next)
        h = active.h_tried = t_next - active.t
        step.advance(active.t, t_next)
        active.nfe += step.n_evaluations
        active.error = step.error_norms(h, options.rtol, options.atol)
        is_accepted, next_h = self.control.judge(active.error, h)
        active.n_accepted += is_accepted
        active.n_rejected += ~is_accepted
        self._refuse_below_min_step(h, is_accepted)
        self.outputs.write(active, is_accepted, t_next)
        step.accept(is_accepted)
        active.t = np.where(is_accepted, t_next, active.t)
        active.h = self.direction * np.minimum(np.maximum(abs(next_h), self.min_step), options.max_step)
        active.needs_slope = is_accepted if not options.method.fsal else active.needs_slope
        active.first_h = np.where(is_accepted, active.h, active.first_h)
        has_finished = active.t == self.t1
        if has_finished.any():
            self._drop(has_finished)

    def _refuse_non_finite_start(self) -> None:
        bad = ~to_host(self.batch.xp.isfinite(self.step.first_slopes()).all(axis=1))
        if bad.any():
            raise self._failing(int(bad.argmax()), float(self.times[0])).non_finite_start()

    def _choose_first_steps(self) -> None:
        """As for a single row: by one probing evaluation of f, or `first_step`."""
        active, options, interval = self.active, self.options, self.t1 - float(self.times[0])
        sizes = np.full(len(active.row), min(options.first_step or math.inf, abs(interval)))
        if options.first_step is None and len(active.row):
            sizes = abs(self._probed_steps(interval))
        sizes = np.minimum(np.maximum(sizes, self.min_step), options.max_step)
        active.h = active.first_h = self.direction * sizes

    def _probed_steps(self, interval: float) -> np.ndarray:
        """Hairer's first steps (A,)."""
        step, batch, active, options = self.step, self.batch, self.active, self.options
        slope, scale = step.first_slopes(), step.scale(options.rtol, options.atol)
        f_norms, y_norms = row_norms(slope, scale), row_norms(step.y, scale)
        h0 = np.array(
            [probe_step(*norms, interval) for norms in zip(y_norms.tolist(), f_norms.tolist(), strict=True)]
        )
        probed = batch.slope(active.t + h0, step.y + step.column(h0) * slope)
        active.nfe += 1
        changes = row_norms(probed - slope, scale) / abs(h0)
        order = options.method.error_order
        assert order is not None
        known = zip(h0.tolist(), f_norms.tolist(), changes.tolist(), strict=True)
        return np.array([first_step(h, f_norm, change, order, interval) for h, f_norm, change in known])

    def _check_limits(self, t_next: np.ndarray) -> None:
        active = self.active
        attempts = active.n_accepted + active.n_rejected
        if attempts.max() >= self.options.max_steps:
            place = int(attempts.argmax())
            raise self._failing(place, t_next[place]).too_many_steps()
        size = abs(t_next - active.t)
        is_short = size < 10.0 * np.spacing(np.maximum(abs(active.t), abs(t_next)))
        if is_short.any():
            is_short &= (t_next != self.t1) | (t_next == active.t)
            if is_short.any():
                place = int(is_short.argmax())
                raise self._failing(place, t_next[place]).underflow(float(t_next[place]))

    def _refuse_below_min_step(self, h: np.ndarray, is_accepted: np.ndarray) -> None:
        if self.min_step == 0.0:
            return
        tried = np.minimum(abs(h), abs(self.active.h))  # h = (t + h) - t may be larger by its rounding
        is_stuck = ~is_accepted & (tried <= self.min_step)
        if is_stuck.any():
            place = int(is_stuck.argmax())
            raise self._failing(place, self.active.t[place] + h[place]).below_min_step()

    def _failing(self, place: int, t_next: float) -> FailingRow:
        """The row at `place` among those that are left, which ends the solve."""
        self._write_counts()
        interval = float(self.times[0]), self.t1
        return FailingRow(self.step, self.active, self.options, self.stats, interval, place, float(t_next))

    def _targets(self) -> np.ndarray:
        """Where the steps end; the last ones land on the end exactly,
        and no sliver is left for further ones.
        """
        t_next = self.active.t + self.active.h
        rest = (self.t1 - t_next) * self.direction
        return np.where(rest <= 1e-10 * abs(self.active.h), self.t1, t_next)

    def _drop(self, has_finished: np.ndarray) -> None:
        """Finished rows leave, so that they cost nothing."""
        self._write_counts()
        left = ~has_finished
        for part in (self.active, self.step, self.control):
            part.keep(left)

    def _write_counts(self) -> None:
        active = self.active
        self.stats.write(active.row, active.nfe, active.n_accepted, active.n_rejected)
