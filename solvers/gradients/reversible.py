"""`reversible`: the derivative of the reversible step of `reversible_steps.py`, exact for the steps taken
(accepted grid held fixed) where the reconstruction drift is small; O(1) memory, whatever the number of steps.

From the last step to the first, (y0, z0) is computed from (y1, z1)
by the two lines of the step solved for it,
    z0 = z1 + Psi_{-h}(t1, y1)
    y0 = (y1 - (1 - lam) z0 - Psi_h(t0, z0)) / lam
and the cotangents go through the very stages that these lines evaluate:
    ybar1 -= (dPsi_{-h}/dy)^T zbar1
    zbar0 = zbar1 + (1 - lam) ybar1 + (dPsi_h/dz)^T ybar1,   ybar0 = lam ybar1
Kept are the accepted times and the pair (y, z) at the output times, where the reconstructed pair is compared
with it and replaced by it: round-off grows on the way back, by a factor of about exp(|a| h) / lam a step
along a rate a of the equation, and beyond `drift_limit` that is an error.

Cost: 2 evaluations and 2 pull-backs for each stage that the method sums. Source: McCallum & Foster (2024).
"""

from __future__ import annotations

import numpy as np

from ...engine.backend import Array, to_xp
from ...engine.product_precision import plain_dot
from ..norms import inner
from ..options import Options
from ..reversible_steps import ReversibleStep
from ..stages import ForwardStages
from ..stats import Stats
from ..trajectory import Trajectory
from .discrete import Cotangents, adjoint_weights
from .drift import DriftGuard, units_allowed


class ReversibleAdjoint:
    """The way back over the accepted steps of one trajectory, with the cotangents (ybar, zbar)
    of the pair.
    """

    def __init__(
        self, stages: ForwardStages, options: Options, trajectory: Trajectory, stats: Stats, *, time: bool
    ) -> None:
        self.stages, self.tableau, self.stats, self.trajectory = stages, options.tableau, stats, trajectory
        self.grid = np.array(trajectory.grid)
        self.step = ReversibleStep(stages, options.tableau, options.coupling)
        self.guard = DriftGuard(
            "reversible", options.rtol, options.atol, units_allowed(options.drift_limit, options.rtol),
            "Make fewer steps (looser rtol) or bring `coupling` closer to 1", stats,
        )  # fmt: skip
        self.wants_time = time
        self.ts_bar = np.zeros(len(trajectory.ts))
        self.y_bar, self.z_bar = stages.xp.zeros_like(stages.bars[0]), stages.xp.zeros_like(stages.bars[0])
        self.nodes = np.flatnonzero(np.isin(self.grid, trajectory.ts)).tolist()  # where the output times lie
        self._weights = adjoint_weights(options.tableau)

    def run(self, ys_bar: Array) -> Cotangents:
        """Pull the cotangents (T, n) of the outputs back;
        DriftError where the way back has left the forward states.
        """
        ts, ys, partners = self.trajectory.ts, self.trajectory.ys, self.trajectory.partners
        assert partners is not None
        for i in range(len(ts) - 1, 0, -1):
            y, z = ys[i], partners[i]
            self.y_bar += ys_bar[i]
            for n in range(self.nodes[i] - 1, self.nodes[i - 1] - 1, -1):
                z = self._second_half_back(n, y, z)
                if n == self.nodes[i] - 1 and n < len(self.grid) - 2:
                    self.ts_bar[i] = self._moving(ys_bar[i])
                y = self._first_half_back(n, y, z)
            self.guard.check(float(ts[i - 1]), y, ys[i - 1])
            self.guard.check(float(ts[i - 1]), z, partners[i - 1])
        params = [bar.copy() for bar in self.stages.param_bars]
        return Cotangents(self.y_bar + self.z_bar + ys_bar[0], self.ts_bar, params)

    def _second_half_back(self, n: int, y: Array, z: Array) -> Array:
        """z0 of step n from (y1, z1), and ybar1 with what z1 gave to it."""
        t, t_next = float(self.grid[n]), float(self.grid[n + 1])
        z_start = z + self.step.increment(y, t_next, t)
        self.y_bar += self._pull(-self.z_bar, n, t_next, t)
        return z_start

    def _first_half_back(self, n: int, y: Array, z: Array) -> Array:
        """y0 of step n from (y1, z0), and the cotangents of the pair at its start."""
        t, t_next, lam = float(self.grid[n]), float(self.grid[n + 1]), self.step.coupling
        y_start = (y - self.step.towards_y(z, self.step.increment(z, t, t_next))) / lam
        self.z_bar += (1.0 - lam) * self.y_bar + self._pull(self.y_bar, n, t, t_next)
        self.y_bar *= lam
        return y_start

    def _moving(self, y_bar: Array) -> float:
        """Cotangent of an inner output time: the solution moves along its slope,
        which the second half starts with.
        """
        return inner(y_bar, self.stages.rows[1]) if self.wants_time else 0.0

    def _pull(self, bar: Array, n: int, start: float, end: float) -> Array:
        """(dPsi/dx)^T bar for the increment just made from x (n,) in step n,
        parameters and times collecting theirs.
        """
        stages, n_sums = self.stages, self.step.n_sums
        stages.bars[0] = bar
        weights = to_xp(stages.xp, (self._weights * (end - start)).astype(bar.dtype))
        dot = plain_dot(stages.xp)
        for i in range(n_sums - 1, -1, -1):
            dot(weights[i, : n_sums - i], stages.bars[: n_sums - i], out=stages.seeds[i])
            stages.pull(i, self.step.stage_time(i, start, end))
        self.stats.nfe_backward += n_sums
        self.stats.n_vjp_state += n_sums
        self.stats.n_vjp_params += n_sums * bool(stages.param_bars)
        if self.wants_time and n in (0, len(self.grid) - 2):
            self._stretch(n, start, end)
        return stages.xp.sum(stages.bars[1 : n_sums + 1], axis=0)

    def _stretch(self, n: int, start: float, end: float) -> None:
        """Cotangents of the ends of the increment just pulled back,
        where they are the first or the last output time.

        With d = end - start as a variable of its own:
            dbar = <bar, sum_i b_i k_i> + sum_i <xbar_i, sum_j a_ij k_j>,   stage times start + c_i d
        """
        stages, weights = self.stages, self.tableau.as_floats()
        size_bar = self._along(stages.bars[0], weights.b[: self.step.n_sums])
        bars = {start: 0.0, end: 0.0}
        for i in range(self.step.n_sums):
            size_bar += self._along(stages.bars[stages.bar_row(i)], weights.a[i])
            time_bar = float(np.real(stages.time_bar(i, self.step.stage_time(i, start, end))))
            bars[start] += (1.0 - float(weights.c[i])) * time_bar
            bars[end] += float(weights.c[i]) * time_bar
        bars[start] -= size_bar
        bars[end] += size_bar
        if n == 0:
            self.ts_bar[0] += bars[float(self.grid[0])]
        if n == len(self.grid) - 2:
            self.ts_bar[-1] += bars[float(self.grid[-1])]

    def _along(self, bar: Array, weights: np.ndarray) -> float:
        """<bar, sum_i weights_i k_i>."""
        if not len(weights):
            return 0.0
        xp, slopes = self.stages.xp, self.stages.rows[1 : len(weights) + 1]
        return inner(bar, plain_dot(xp)(to_xp(xp, weights.astype(slopes.dtype)), slopes))
