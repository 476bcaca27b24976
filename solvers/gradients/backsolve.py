"""`backsolve`: the continuous adjoint, solved backwards together with the state; O(1) memory. Never exact: its error
falls as rtol and atol fall.

    y' = f,   a' = -(df/dy)^T a,   params_bar = integral of (df/dparams)^T a dt  from t0 to t1
State and adjoint are one system under error control; at each output time the state is re-anchored to the stored one
(where the drift is measured) and the adjoint jumps by that output's cotangent. The parameter cotangent feeds back into
nothing, so it is no state but a quadrature: summed with the step's own weights b over accepted steps, outside the error
norm; stages with b_i = 0 cost no pull-back to the parameters.
The adjoint is linear: its absolute tolerance is atol times the size of the cotangents that enter, so that scaling the
loss scales the gradient and changes nothing else.

Source: Chen, Rubanova, Bettencourt & Duvenaud (2018), Neural ordinary differential equations, appendix B; the
quadrature is treated as one as in Kidger, Chen & Lyons (2021), "Hey, that's not an ODE".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...engine.backend import Array, to_host
from ...engine.replay import StageSet, Workspace
from ...engine.trace import shape_of
from ...engine.transforms import vjp
from ..compiled import Compiled, Purpose
from ..dynamics import Dynamics
from ..loop import Control, Integrator
from ..norms import inner
from ..solution import Stats
from ..stages import Stages
from ..tableau import Tableau
from ..trajectory import Trajectory
from .discrete import Cotangents
from .drift import DriftGuard


class _AdjointStages(Stages):
    """Stages of the system [y, a] (2 n,), with the parameter quadrature of the step in hand.

    The slope at the end of a step serves the next step as its first one: its evaluation is kept in a buffer of its own
    (`_first`, `_last`), and `shift` exchanges the two.
    """

    def __init__(self, xp: Any, size: int, dtype: Any, tableau: Tableau) -> None:
        self.xp, self.size, self.fsal = xp, size, tableau.fsal
        self.n_stages = tableau.stages
        self.rows = xp.empty((tableau.stages + 1, 2 * size), dtype)
        self._weights = tableau.as_floats().b

    def _add_params(self, index: int, t: float, weight: float) -> None:
        raise NotImplementedError

    def add_quadrature(self, times: list[float], h: float) -> int:
        """param_bars -= h sum_i b_i (df/dparams)^T a_i over the accepted step (h < 0 when t falls); pull-backs made."""
        chosen = [i for i in range(self.n_stages) if self._weights[i] != 0.0]
        for i in chosen:
            self._add_params(i, times[i], -h * float(self._weights[i]))
        return len(chosen)


class ReplayAdjointStages(_AdjointStages):
    """`_AdjointStages` that replay a compiled program."""

    def __init__(self, compiled: Compiled, dynamics: Dynamics, tableau: Tableau) -> None:
        layout = dynamics.layout
        super().__init__(np, layout.size, layout.dtype, tableau)
        self.compiled = compiled
        self.pool_key: object = None
        self.workspace = Workspace(compiled.plan)
        metas = compiled.plan.program.metas
        self.param_bars = [
            np.zeros(metas[s].shape, metas[s].dtype or np.float64) for s in compiled.param_bars
        ]
        self._weight = np.zeros(
            (), layout.dtype
        ).real.copy()  # real: it may scale the cotangent of a real parameter
        self._order = list(range(self.n_stages))
        self._states = [np.empty(2 * layout.size, layout.dtype) for _ in range(self.n_stages)]
        self._slopes = [np.empty(2 * layout.size, layout.dtype) for _ in range(self.n_stages)]
        self._sets = [self._bind(k, layout) for k in range(self.n_stages)]

    def _bind(self, k: int, layout: Any) -> StageSet:
        compiled, n = self.compiled, self.size
        inputs = dict(zip(compiled.state, layout.views(self._states[k][:n]), strict=True))
        inputs.update(zip(compiled.seeds, layout.views(self._states[k][n:]), strict=True))
        targets = {
            "slope": [*zip(compiled.slopes, layout.views(self._slopes[k][:n]), strict=True)],
            "state": [*zip(compiled.state_bars, layout.views(self._slopes[k][n:]), strict=True)],
        }
        accumulate = {"params": [*zip(compiled.param_bars, self.param_bars, strict=True)]}
        return StageSet(self.workspace, inputs, targets, accumulate, self._weight)

    def load(self, dynamics: Dynamics) -> None:
        self.workspace.load(dict(zip(self.compiled.constants, dynamics.constants(), strict=True)))
        for bar in self.param_bars:
            bar.fill(0)

    @property
    def nbytes(self) -> int:
        """All memory that these stages hold."""
        own = [self.rows, *self._states, *self._slopes, *self.param_bars]
        return self.workspace.nbytes + sum(array.nbytes for array in own) + sum(s.nbytes for s in self._sets)

    def input(self, index: int) -> Array:
        return self._states[self._order[index]]

    def evaluate(self, index: int, t: float) -> None:
        k = self._order[index]
        self._sets[k].run["slope"](t)
        self._sets[k].run["state"](t)
        n = self.size
        self.rows[index + 1, :n] = self._slopes[k][:n]
        np.negative(self._slopes[k][n:], out=self.rows[index + 1, n:])

    def shift(self) -> None:
        self._order[0], self._order[-1] = self._order[-1], self._order[0]

    def _add_params(self, index: int, t: float, weight: float) -> None:
        self._weight[()] = weight
        self._sets[self._order[index]].run["params"](t)


class EagerAdjointStages(_AdjointStages):
    """`_AdjointStages` that trace f anew at each evaluation, on arrays of any module."""

    def __init__(self, dynamics: Dynamics, purpose: Purpose, tableau: Tableau) -> None:
        layout = dynamics.layout
        super().__init__(dynamics.xp, layout.size, layout.dtype, tableau)
        self.dynamics, self.purpose = dynamics, purpose
        self._constants = dynamics.constants()
        self._wanted = [self._constants[position] for position in purpose.wanted]
        self.param_bars = [
            self.xp.zeros(shape_of(value), getattr(value, "dtype", layout.dtype)) for value in self._wanted
        ]
        self._states = [self.xp.empty(2 * layout.size, layout.dtype) for _ in range(self.n_stages)]
        self._found: list[list[Any]] = [[] for _ in range(self.n_stages)]

    def input(self, index: int) -> Array:
        return self._states[index]

    def evaluate(self, index: int, t: float) -> None:
        dynamics, n, n_params = self.dynamics, self.size, len(self.dynamics.param_values)
        z = self._states[index]

        def slope(y: Any, wanted: Any) -> Any:
            constants = list(self._constants)
            for position, value in zip(self.purpose.wanted, wanted, strict=True):
                constants[position] = value
            return dynamics.slope(float(t), y, constants[:n_params], constants[n_params:]) + 0.0 * y

        value, pull_back = vjp(slope, z[:n], self._wanted)
        y_bar, self._found[index] = pull_back(z[n:])
        self.rows[index + 1, :n] = value
        self.rows[index + 1, n:] = -y_bar

    def shift(self) -> None:
        for kept in (self._states, self._found):
            kept[0], kept[-1] = kept[-1], kept[0]

    def _add_params(self, index: int, t: float, weight: float) -> None:
        for total, bar in zip(self.param_bars, self._found[index], strict=True):
            total += weight * bar


def backsolve(
    stages: ReplayAdjointStages | EagerAdjointStages,
    dynamics: Dynamics,
    tableau: Tableau,
    control: Control,
    trajectory: Trajectory,
    stats: Stats,
    ys_bar: Array,
    guard: DriftGuard,
) -> Cotangents:
    """Cotangents of y0, ts and the wanted parameters, given those (T, n) of the outputs."""
    xp, n, ts = stages.xp, stages.size, trajectory.ts
    ts_bar = np.zeros(len(ts))
    sizes = [_rms(ys_bar[i]) for i in range(len(ts))]
    a = ys_bar[-1].copy()
    if max(sizes) == 0.0:
        return Cotangents(a, ts_bar, stages.param_bars)
    scale = xp.ones(2 * n, stages.rows.dtype)
    scale[n:] = max(sizes)
    control = replace(control, atol=control.atol * scale)
    for i in range(len(ts) - 1, 0, -1):
        stages.rows[0, :n], stages.rows[0, n:] = trajectory.ys[i], a
        integrator = _interval(stages, tableau, control, trajectory, stats, i)
        ts_bar[i] = inner(ys_bar[i], stages.rows[1, :n])
        integrator.start()
        while not integrator.is_done:
            integrator.advance()
            times = [
                integrator.step.stage_time(k, integrator.t_start, integrator.t)
                for k in range(stages.n_stages)
            ]
            stats.n_vjp_params += stages.add_quadrature(times, integrator.t - integrator.t_start)
        y, a = integrator.y[:n], integrator.y[n:].copy()
        guard.check(float(ts[i - 1]), y, trajectory.ys[i - 1])
        control = replace(control, first_step=abs(integrator.h) or None)
        if i == 1:
            ts_bar[0] = -inner(a, dynamics.slope0)
        a += ys_bar[i - 1]
    return Cotangents(a, ts_bar, stages.param_bars)


def _interval(
    stages: Any, tableau: Tableau, control: Control, trajectory: Trajectory, stats: Stats, i: int
) -> Integrator:
    """The backward integrator from ts[i] to ts[i - 1], its first slope evaluated."""
    start, end = float(trajectory.ts[i]), float(trajectory.ts[i - 1])
    own = Stats()
    grid = None
    if not tableau.is_adaptive:
        times = np.array(trajectory.grid)
        inside = (times >= min(start, end)) & (times <= max(start, end))
        grid = times[inside][::-1]
    integrator = _CountingIntegrator(stages, tableau, control, start, end, own, grid=grid, name="backsolve")
    integrator.total = stats
    integrator.step.evaluate_start(start)
    own.nfe += 1
    return integrator


class _CountingIntegrator(Integrator):
    """Adds its counts to the backward half of a solve's statistics."""

    total: Stats

    def advance(self) -> None:
        try:
            super().advance()
        finally:
            self.total.nfe_backward += self.stats.nfe
            self.total.n_vjp_state += self.stats.nfe
            self.total.n_accepted_backward += self.stats.n_accepted
            self.total.n_rejected_backward += self.stats.n_rejected
            self.stats.nfe = self.stats.n_accepted = self.stats.n_rejected = 0


def _rms(x: Array) -> float:
    return float(np.sqrt(abs(to_host((abs(x) ** 2).sum()).item()) / max(1, x.size)))
