"""What is said when a row cannot go on: the failures of a single solve, with the row named."""

from __future__ import annotations

import math

import numpy as np

from ...engine.backend import to_host, to_number
from ...engine.errors import SolveError
from ..failures import (
    Standing,
    below_min_step,
    below_the_spacing,
    component_name,
    non_finite,
    too_many_steps,
)
from ..options import Options
from ..stats import Stats
from .active import Active
from .step import RowsStep


class FailingRow:
    """A row that cannot make the step to `t_next`, taken out of its batch; its latest attempt is made again,
    to see where it fails.

    `place` is that among the rows that are left; `interval` the ends (t0, t1) of the solve.
    """

    def __init__(
        self,
        step: RowsStep,
        active: Active,
        options: Options,
        stats: Stats,
        interval: tuple[float, float],
        place: int,
        t_next: float,
    ) -> None:
        self.step, self.options, self.stats, self.interval = step, options, stats, interval
        self.row, self.t = int(active.row[place]), float(active.t[place])
        self.next_h, self.h = float(active.h[place]), t_next - self.t
        self.first_h, self.error_norm = float(active.first_h[place]), float(active.error[place])
        step.keep(np.arange(len(active.row)) == place)
        self._tried = float(active.h_tried[place])
        if self._tried:
            step.advance(np.array([self.t]), np.array([self.t + self._tried]))

    def non_finite_start(self) -> SolveError:
        """f(t0, y0) is not finite."""
        return self._named(self._non_finite())

    def too_many_steps(self) -> SolveError:
        """`max_steps` attempts did not reach the end."""
        return self._named(too_many_steps(self._standing(self.h, self._worst()), self.options.max_steps))

    def underflow(self, t_next: float) -> SolveError:
        """The error test asks for a step that the numbers at t cannot express."""
        spacing = float(np.spacing(max(abs(self.t), abs(t_next))))
        return self._named(below_the_spacing(self._standing(self.next_h, self._worst()), spacing))

    def below_min_step(self) -> SolveError:
        """The error test asks for a step that the caller forbids."""
        return self._named(
            below_min_step(self._standing(self.h, self._worst()), self.options.min_step or 0.0)
        )

    def _named(self, error: SolveError) -> SolveError:
        """The error, or that of NaN and infinity where the latest attempt met them,
        with the row as a number.
        """
        if not math.isfinite(self.error_norm):
            error = self._non_finite()
        error.__dict__["row"] = self.row
        return error

    def _non_finite(self) -> SolveError:
        stages = self.options.tableau.stages
        masks = [bad[0] for bad in self.step.bad_values()][: None if self._tried else 1]
        counts = [int(bad.sum()) for bad in masks]
        first = next((i for i, n_bad in enumerate(counts) if n_bad), len(counts) - 1)
        index = int(masks[first].argmax()) if counts[first] else None
        return non_finite(
            self._standing(self.h, index), stage=first if first < stages else None, stages=stages,
            n_bad=counts[first], first_h=self.first_h,
        )  # fmt: skip

    def _worst(self) -> int | None:
        """The value of the row with the largest scaled error,
        the first that is not finite if there is one.
        """
        if not self._tried:
            return None
        scaled = self.step.scaled_errors(np.array([self._tried]), self.options.rtol, self.options.atol)
        errors = to_host(scaled)[0]
        return int(np.where(np.isnan(errors), math.inf, errors).argmax())

    def _standing(self, h: float, index: int | None) -> Standing:
        y, layout = self.step.y[0].copy(), self.step.batch.row_layout
        return Standing(
            name=f"odeint (independent=True), row {self.row}", t0=self.interval[0], t1=self.interval[1], t=self.t, h=h,
            error_norm=self.error_norm, component="" if index is None else component_name(layout, index), index=index,
            y=layout.unflatten(y), y_max=float(to_number(abs(y).max())), size=len(y), dtype=y.dtype, stats=self.stats,
        )  # fmt: skip
