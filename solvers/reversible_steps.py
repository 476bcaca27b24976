"""The algebraically reversible step over the increment of a Runge-Kutta method, and the loop that makes it.

A second copy z of the state, z0 = y0, goes along. With the increment Psi_d(s, x) = d sum_i b_i k_i of the
method from the state x at time s, a step from t0 to t1 = t0 + h is
    y1 = lam y0 + (1 - lam) z0 + Psi_h(t0, z0)
    z1 = z0 - Psi_{-h}(t1, y1)
and both lines can be solved for what the step began with. The solution is y; its order is that of the method.
Each half evaluates stages of its own: no slope is shared between halves or steps.

The two copies part by what the increments there and back disagree in, and what parted them before is damped:
    y1 - z1 = lam (y0 - z0) + Psi_h(t0, z0) + Psi_{-h}(t1, y1)
Along a rate a of the equation this mode is multiplied by about lam exp(-a h) a step, so that it grows where
h |a| > -log(lam), unseen by the error estimate of Psi_h. Step-size control therefore tests the disagreement
as well; y - z then stays below `LARGEST_DISAGREEMENT` / (1 - lam) tolerances.
Fixed steps are made as they are given.

Source: McCallum & Foster (2024), Efficient, accurate and stable gradients for neural ODEs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..engine.backend import Array, to_number, to_xp
from .loop import Control, Integrator
from .options import Options
from .stages import ForwardStages
from .stats import Stats
from .stepping import RowStep
from .tableau import Tableau
from .times import walking_grid
from .trajectory import Trajectory

# of the two increments of a step, in tolerances: with lam = 0.99 a distance of 10 at most
LARGEST_DISAGREEMENT = 0.1


class ReversibleStep(RowStep):
    """A step of the pair (y, z) in two halves: `advance` leaves y1 in `y_new`,
    then `complete` leaves z1 in `z_new`.

    It begins with y = z = row 0 of the stages; during a half that row holds the state which the half starts
    from.
    """

    def __init__(self, stages: ForwardStages, tableau: Tableau, coupling: float) -> None:
        super().__init__(stages, tableau)
        self.coupling = float(coupling)  # a NumPy scalar would widen float32 states
        self.n_sums = tableau.stages - 1 if tableau.fsal else tableau.stages  # stages that an increment sums
        self.is_complete = False
        self.y, self.z, self.y_new, self.z_new, self.disagreement, self._sum, self._end = (
            stages.rows[0].copy() for _ in range(7)
        )
        self._b = tableau.as_floats().b[: self.n_sums]
        self._summed = stages.rows[1 : self.n_sums + 1]

    def increment(self, x: Array, start: float, end: float) -> Array:
        """Psi_{end - start}(start, x) of the state x (n,), in a buffer of this object;
        `n_sums` evaluations.
        """
        self.stages.rows[0] = x
        self.evaluate_start(start)
        return self._increment(start, end, with_end=False)

    def towards_y(self, z: Array, increment: Array) -> Array:
        """(1 - lam) z + Psi, what the step adds to lam y."""
        return (1.0 - self.coupling) * z + increment

    def advance(self, t: float, t_next: float, *, with_end: bool = True) -> None:
        """The first half, given z and its slope in rows 0 and 1;
        afterwards `error_estimate` is that of Psi_h.
        """
        increment = self._increment(t, t_next, with_end=with_end)
        self.disagreement[...] = increment
        self.y_new[...] = self.coupling * self.y + self.towards_y(self.z, increment)

    def complete(self, t: float, t_next: float) -> None:
        """The second half; the rows hold y1 and its stages afterwards, `disagreement` Psi_h + Psi_{-h}."""
        increment = self.increment(self.y_new, t_next, t)
        self.disagreement += increment
        self.z_new[...] = self.z - increment
        self.is_complete = True

    def restart(self, t: float) -> None:
        """Back to where the step began, after both halves were made; one evaluation."""
        self.stages.rows[0] = self.z
        self.evaluate_start(t)
        self.is_complete = False

    def shift(self) -> None:
        """The pair at the end of the step is that at the start of the next."""
        self.y[...], self.z[...] = self.y_new, self.z_new
        self.stages.rows[0] = self.z
        self.is_complete = False

    def _increment(self, start: float, end: float, *, with_end: bool) -> Array:
        y_new, self.y_new = self.y_new, self._end  # the plain step writes its own end there
        super().advance(start, end, with_end=with_end)
        self.y_new = y_new
        weights = to_xp(self.stages.xp, ((end - start) * self._b).astype(self._sum.dtype))
        return self.dot(weights, self._summed, out=self._sum)


class ReversibleIntegrator(Integrator):
    """`Integrator` of the reversible step: ends a step at each output time exactly,
    since nothing is interpolated.

    The error test is that of Psi_h from z, made before the second half, and then that of the disagreement.
    `observed`: times and values (leaves) of what f returned beside the slope in the stages that the step made
        sums.
    """

    stages: ForwardStages
    step: ReversibleStep

    def __init__(
        self,
        stages: ForwardStages,
        options: Options,
        control: Control,
        trajectory: Trajectory,
        stats: Stats,
        on_attempt: Callable[..., None] | None,
    ) -> None:
        times = trajectory.ts
        super().__init__(
            stages, options.tableau, control, float(times[0]), float(times[-1]), stats,
            grid=walking_grid(options, times), on_attempt=on_attempt, stops=times[1:].tolist(),
        )  # fmt: skip
        self.step = ReversibleStep(stages, options.tableau, options.coupling)
        self.observed: list[tuple[float, list[Any]]] = []
        self._keeps_aux = trajectory.aux_ts is not None

    def advance(self) -> None:
        if self.t != self.t_start:
            self._has_slope = False  # the slope at hand is that of y, and a step begins with that of z
        super().advance()

    def _attempt(self, t_next: float, first_h: float) -> None:
        if self.step.is_complete:
            self.step.restart(self.t)
            self.stats.nfe += 1
        super()._attempt(t_next, first_h)

    def _scaled_error(self, t_next: float) -> float:
        error = super()._scaled_error(t_next)
        if error > 1.0 or math.isnan(error):
            return error
        if not self._is_finite(t_next):
            return math.nan
        disagreement = self._norm(self.step.disagreement, self.step.z, self.step.y_new)
        return max(error, disagreement / LARGEST_DISAGREEMENT)

    def _is_finite(self, t_next: float) -> bool:
        if not super()._is_finite(t_next):
            return False
        self._complete(t_next)
        return to_number(self.stages.xp.isfinite(self.step.z_new).all())

    def _complete(self, t_next: float) -> None:
        """The second half of the step attempted."""
        is_first = self.t == self.t0
        self.observed = []
        self._observe(self.t, t_next, first=1 if is_first else 0)  # recording f was the very first evaluation
        self.step.complete(self.t, t_next)
        self._observe(t_next, self.t, first=0)
        self.stats.nfe += self.step.n_sums

    def _observe(self, start: float, end: float, first: int) -> None:
        if self._keeps_aux:
            self.observed += [
                (
                    self.step.stage_time(i, start, end),
                    [self.stages.xp.array(leaf) for leaf in self.stages.aux(i)],
                )
                for i in range(first, self.step.n_sums)
            ]

    def _accept(self, t_next: float, error: float) -> None:
        if not self.step.is_complete:
            self._complete(t_next)  # a controller of the caller's own accepts what the error test would not
        super()._accept(t_next, error)


def run_reversible(integrator: ReversibleIntegrator, trajectory: Trajectory) -> None:
    """Walk to the last output time; the trajectory gets the pair (y, z) at each."""
    integrator.start()
    partners = trajectory.partners = integrator.stages.xp.empty_like(trajectory.ys)
    partners[0] = trajectory.ys[0]
    integrator.stats.peak_saved_bytes += partners[1:].nbytes
    while not integrator.is_done:
        integrator.advance()
        trajectory.write_step(integrator)
        if integrator.t == trajectory.ts[trajectory.reached]:
            partners[trajectory.reached] = integrator.step.z_new
        trajectory.write_outputs(integrator)
        if trajectory.aux_ts is not None:
            trajectory.aux_ts += [t for t, _ in integrator.observed]
            trajectory.aux += [leaves for _, leaves in integrator.observed]
