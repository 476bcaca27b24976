"""`discrete`: the same derivative as `tape`, by the hand-written adjoint of the Runge-Kutta step.

For a step y1 = y + h sum_i b_i k_i, k_i = f(t + c_i h, Y_i), Y_i = y + h sum_j a_ij k_j,
with the cotangent lam of y1:
    kbar_i = h (b_i lam + sum_{j > i} a_ji Ybar_j),   Ybar_i = (df/dy)^T kbar_i,   ybar = lam + sum_i Ybar_i
from the last stage to the first (`adjoint_step.py`), parameters collecting (df/dparams)^T kbar_i. Every stage
with a cotangent needs its pull-back, also one with b_i = 0.

The slope at an accepted time serves the step that ends there (first same as last, dense output) and the one
that begins there: its cotangent is collected from both and pulled back once.
Memory: the accepted states, or checkpoints of them (`checkpoints.py`), and the residuals of the stages while
they fit; the other steps evaluate their stages again, which is the extra cost and gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.backend import Array, to_xp
from ...engine.product_precision import plain_dot
from ..checkpoints import Checkpoints
from ..device_adjoint import adjoint_step
from ..device_step import row_step
from ..norms import inner
from ..stages import ForwardStages
from ..stats import Stats
from ..tableau import Tableau
from ..trajectory import Trajectory, locate


@dataclass
class Cotangents:
    """What a gradient method returns: cotangents of y0 (n,), of ts (T,),
    and of the wanted parameters in order.
    """

    y0: Array
    ts: np.ndarray
    params: list[Array]


class DiscreteAdjoint:
    """The sweep over the accepted steps of one trajectory, from the last to the first."""

    def __init__(
        self,
        stages: ForwardStages,
        tableau: Tableau,
        trajectory: Trajectory,
        slope0: Array,
        stats: Stats,
        *,
        time: bool,
    ) -> None:
        assert trajectory.states is not None
        self.slope0 = slope0  # f(t0, y0) as the forward solve had it
        self.stages, self.tableau, self.stats = stages, tableau, stats
        self.trajectory, self.states = trajectory, trajectory.states
        self.grid = np.array(trajectory.grid)
        self.n_steps = len(self.grid) - 1
        self.step, self.dot = row_step(stages, tableau), plain_dot(stages.xp)
        self.n_sums = tableau.stages - 1 if tableau.fsal else tableau.stages  # stages that y1 is summed from
        self.ends = _Ends(self) if time else None
        steps, self.thetas = locate(trajectory.ts, self.grid)
        self._first_outputs = steps.searchsorted(np.arange(self.n_steps + 1)).tolist()
        self.adjoint = adjoint_step(stages, self.step, adjoint_weights(tableau))
        self._is_held = False  # whether the stages in hand are those the forward solve kept

    def run(self, ys_bar: Array) -> Cotangents:
        """Pull the cotangents (T, n) of the outputs back."""
        stages = self.stages
        self.ys_bar = ys_bar
        lam, carry = stages.bars[0], self.adjoint.carry
        lam[...] = 0
        last = self.n_steps - 1
        self._load(last, with_end=True)
        dense = self._dense(last)
        lam += self._outputs_at_end(last)
        if dense is not None and self.tableau.fsal:
            carry += dense[self.tableau.stages]
            self._pull_slope(carry, self.tableau.stages - 1, self.n_steps)
        for n in range(last, -1, -1):
            self._sweep(n, dense)
            dense = self._move_back(n, carry)
            if n:
                lam += self._outputs_at_end(n - 1)
        lam += ys_bar[0]
        ts_bar = self.ends.ts_bar if self.ends is not None else np.zeros(len(self.trajectory.ts))
        return Cotangents(lam.copy(), ts_bar, [bar.copy() for bar in stages.param_bars])

    def _sweep(self, n: int, dense: Array | None) -> None:
        """Through step n: lam from its end to its start, except for the slope there,
        whose cotangent is carried on.
        """
        t, t_next = float(self.grid[n]), float(self.grid[n + 1])
        self.adjoint.pull_stages(t, t_next, dense)
        self._count_pulls(self.n_sums - 1)
        if self.ends is not None:
            self.ends.add_step(n, t, t_next)
        self.adjoint.move_to_start(dense)

    def _move_back(self, n: int, carry: Array) -> Array | None:
        """Pull the slope at grid[n] back and bring the stages of step n - 1 to hand;
        `_dense` of that step.
        """
        s = self.tableau.stages
        if n == 0 or not self.tableau.fsal:
            self._pull_node(n, carry)
            return self._dense(n - 1) if n else None
        has_extra = bool(self.tableau.extra_c) and len(self.outputs(n - 1, at_end=False)) > 0
        if has_extra:  # they depend on the slope at grid[n], as outputs do
            self._load(n - 1, with_end=True)
        dense = self._dense(n - 1)
        if dense is not None:
            carry += dense[s]
        if has_extra:
            self._pull_slope(carry, s - 1, n)
        else:
            self._pull_node(n, carry)
        return dense

    def _pull_node(self, n: int, carry: Array) -> None:
        """Pull the slope at grid[n] back and bring the stages of step n - 1 to hand."""
        is_saved_before = n > 0 and self.tableau.fsal and self._held(n - 1) is not None
        if is_saved_before:
            self._load(n - 1)
            self._pull_slope(carry, self.tableau.stages - 1, n)
            return
        if self._is_held and (self.tableau.fsal or n == 0):
            self._evaluate_node(n)  # the forward solve kept the slope, but not its residuals
        self._pull_slope(carry, 0, n)
        if n > 0:
            self._load(n - 1)

    def _pull_slope(self, cotangent: Array, index: int, n: int) -> None:
        """lam += (df/dy)^T cotangent, at grid[n], from the stage `index` that holds this evaluation."""
        self.stages.seeds[index] = cotangent
        self._pull(index, float(self.grid[n]))
        if self.ends is not None and n in (0, self.n_steps):
            self.ends.add_node(n, self.stages.time_bar(index, float(self.grid[n])))
        self.stages.bars[0] += self.stages.bars[self.stages.bar_row(index)]

    def _pull(self, index: int, t: float) -> None:
        self.stages.pull(index, t)
        self._count_pulls(1)

    def _count_pulls(self, n: int) -> None:
        self.stats.n_vjp_state += n
        self.stats.n_vjp_params += n * bool(self.stages.param_bars)

    def _held(self, n: int) -> Any:
        """The buffers kept from step n; the steps at the ends are evaluated again where times are
        differentiated.
        """
        return None if self._stretches(n) else self.trajectory.held[n]

    def _stretches(self, n: int) -> bool:
        """Whether the size of step n is differentiated."""
        return self.ends is not None and n in (0, self.n_steps - 1)

    def _load(self, n: int, *, with_end: bool = False) -> None:
        """Bring the stages of step n to hand: kept ones,
        or evaluated again (the slope at the end only if asked).
        """
        held = self._held(n)
        self._is_held = held is not None
        if held is not None:
            self.stages.use(held)
            self.trajectory.held[n] = None
            return
        self._evaluate_node(n)
        with_end |= self._stretches(n)
        self.step.advance(float(self.grid[n]), float(self.grid[n + 1]), with_end=with_end)
        self.stats.nfe_backward += (self.tableau.stages if with_end else self.n_sums) - 1

    def _evaluate_node(self, n: int) -> None:
        self.stages.rows[0] = self._state(n)
        self.step.evaluate_start(float(self.grid[n]))
        self.stats.nfe_backward += 1

    def _state(self, n: int) -> Array:
        """The state (n,) at grid[n], stored or computed again."""
        if not isinstance(self.states, Checkpoints):
            return self.states[n]
        state = self.states.restore(n, self._walk)
        self.stats.peak_saved_bytes = max(self.stats.peak_saved_bytes, self.states.nbytes)
        return state

    def _walk(self, n: int, y: Array, stops: Sequence[int]) -> Iterator[Array]:
        """The states at the accepted times `stops`, by the very steps that the forward solve made from y at
        grid[n].
        """
        rows = self.stages.rows
        rows[0] = y
        if n == 0:
            rows[1] = self.slope0
        has_slope = n == 0
        for m in range(n, max(stops, default=n)):
            has_slope = self._repeat(m, has_slope=has_slope, with_end=self.tableau.fsal and m + 1 < stops[-1])
            if m + 1 in stops:
                yield rows[0]

    def _repeat(self, n: int, *, has_slope: bool, with_end: bool) -> bool:
        """Make step n again from its start in row 0, and move to its end;
        whether the slope there is in row 1.
        """
        step, rows = self.step, self.stages.rows
        t, t_next = float(self.grid[n]), float(self.grid[n + 1])
        if not has_slope:
            step.evaluate_start(t)
        step.advance(t, t_next, with_end=with_end)
        self.stats.nfe_backward += (not has_slope) + self.n_sums - 1 + with_end
        self.stats.n_recomputed += 1
        rows[0] = step.y_new if with_end else step.end_state()
        if with_end:
            rows[1] = rows[self.tableau.stages]
        return with_end

    def _outputs_at_end(self, n: int) -> Array:
        """Cotangents of the outputs at grid[n + 1]."""
        at = self.outputs(n, at_end=True)
        return self.ys_bar[at[0]] if at else 0.0

    def outputs(self, n: int, *, at_end: bool) -> range:
        """Output times of step n: at its end, or before it. The first one of all is y0 itself,
        and in no step.
        """
        first, end = max(1, self._first_outputs[n]), self._first_outputs[n + 1]
        inner_end = end - (end > first and self.thetas[end - 1] == 1.0)
        return range(inner_end, end) if at_end else range(first, inner_end)

    def _dense(self, n: int) -> Array | None:
        """Cotangents (s + 1, n) that the outputs inside step n give to [y, k_1, ..., k_s].

        Where the interpolant has extra stages they are pulled back here:
        the stages of step n must be at hand.
        """
        inside = self.outputs(n, at_end=False)
        if not inside:
            return None
        h = float(self.grid[n + 1] - self.grid[n])
        mine = slice(inside.start, inside.stop)
        weights = self.step.interpolation_weights(self.thetas[mine], h).astype(self.stages.rows.dtype)
        bars = self.dot(to_xp(self.stages.xp, weights.T), self.ys_bar[mine])
        self._pull_extra(n, bars)
        return bars[: self.tableau.stages + 1]

    def _pull_extra(self, n: int, bars: Array) -> None:
        """Pull the extra stages of step n back: from their rows of `bars` (s + e + 1, n) to those before."""
        stages, tableau = self.stages, self.tableau
        if tableau.extra_c and not self._is_held:
            self.step.evaluate_extra()
            self.stats.nfe_backward += len(tableau.extra_c)
        t, t_next = float(self.grid[n]), float(self.grid[n + 1])
        rows = list(enumerate(tableau.as_floats().extra_a, start=tableau.stages))
        for i, a_i in reversed(rows):
            stages.seeds[i] = bars[i + 1]
            self._pull(i, self.stage_time(i, t, t_next))
            state_bar = stages.bars[stages.bar_row(i)]
            bars[0] += state_bar
            weights = to_xp(stages.xp, ((t_next - t) * a_i).astype(bars.dtype))
            bars[1 : i + 1] += weights[:, None] * state_bar

    def stage_time(self, i: int, t: float, t_next: float) -> float:
        """t_i, bit for bit as in the forward solve."""
        return self.step.stage_time(i, t, t_next)


class _Ends:
    """Cotangents of the output times: the first and the last step stretch,
    interior outputs move along the interpolant.

    For the step from t to t + h, with h as a variable of its own:
        hbar = <lam, sum_i b_i k_i> + sum_i <Ybar_i, sum_j a_ij k_j>
               + sum_out <ybar_out, sum_i b_i(theta) k_i - theta out'>
    """

    def __init__(self, adjoint: DiscreteAdjoint) -> None:
        self.adjoint = adjoint
        trajectory = adjoint.trajectory
        self.ts_bar = np.zeros(len(trajectory.ts))
        self._moved = False

    def add_node(self, n: int, time_bar: float) -> None:
        self.ts_bar[0 if n == 0 else -1] += np.real(time_bar)

    def add_step(self, n: int, t: float, t_next: float) -> None:
        """After the stages of step n were pulled back, with lam still that of its end."""
        adjoint, stages = self.adjoint, self.adjoint.stages
        self._move_interior_outputs()
        if n not in (0, adjoint.n_steps - 1):
            return
        weights, slopes = adjoint.tableau.as_floats(), stages.rows[1:]
        h_bar = self._along(stages.bars[0], weights.b, slopes)
        inside = adjoint.outputs(n, at_end=False)
        stepped = range(1, adjoint.n_sums)
        extra = range(adjoint.tableau.stages, adjoint.tableau.n_slopes) if inside else ()
        nodes, rows = (*weights.c, *weights.extra_c), (*weights.a, *weights.extra_a)
        for i in (*stepped, *extra):
            c_i, a_i = float(nodes[i]), rows[i]
            h_bar += self._along(stages.bars[stages.bar_row(i)], a_i, slopes)
            time_bar = np.real(stages.time_bar(i, adjoint.stage_time(i, t, t_next)))
            if n == 0:
                self.ts_bar[0] += (1.0 - c_i) * time_bar
            if n == adjoint.n_steps - 1:
                self.ts_bar[-1] += c_i * time_bar
        moved = 0.0
        assert adjoint.trajectory.slopes is not None
        for i in inside:
            to_output = adjoint.step.interpolation_weights(adjoint.thetas[i : i + 1], 1.0)[0, 1:]
            along = inner(adjoint.ys_bar[i], adjoint.trajectory.slopes[i])
            h_bar += self._along(adjoint.ys_bar[i], to_output, slopes) - adjoint.thetas[i] * along
            moved += along
        if n == 0:
            self.ts_bar[0] -= moved + h_bar
        if n == adjoint.n_steps - 1:
            self.ts_bar[-1] += h_bar

    def _along(self, bar: Array, weights: np.ndarray, slopes: Array) -> float:
        """<bar, sum_i weights_i k_i>."""
        on_device = to_xp(self.adjoint.stages.xp, weights.astype(slopes.dtype))
        return inner(bar, self.adjoint.dot(on_device, slopes[: len(weights)]))

    def _move_interior_outputs(self) -> None:
        if self._moved:
            return
        self._moved = True
        slopes = self.adjoint.trajectory.slopes
        assert slopes is not None
        for i in range(1, len(self.ts_bar) - 1):
            self.ts_bar[i] += inner(self.adjoint.ys_bar[i], slopes[i])


def adjoint_weights(tableau: Tableau) -> np.ndarray:
    """Row i: the weights of [lam, Ybar_last, ..., Ybar_(i + 1)] in kbar_i / h."""
    numbers = tableau.as_floats()
    n = tableau.stages - 1 if tableau.fsal else tableau.stages
    weights = np.zeros((n, n))
    for i in range(n):
        weights[i, 0] = numbers.b[i]
        for j in range(i + 1, n):
            weights[i, n - j] = numbers.a[j][i]
    return weights
