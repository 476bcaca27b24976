"""What the continuous adjoints have in common: the adjoint solved backwards,
and the quadrature for the parameters.

    y' = f,   a' = -(df/dy)^T a,   params_bar = integral of (df/dparams)^T a dt  from t0 to t1
The adjoint jumps by the cotangent of each output time, where a step ends. The parameter cotangent feeds back
into nothing, so it is no state but a quadrature: summed with the step's own weights b over accepted steps,
outside the error norm; stages with b_i = 0 cost no pull-back to the parameters.
The adjoint is linear: its absolute tolerance is atol times the size of the cotangents that enter, so that
scaling the loss scales the gradient and changes nothing else.

Source: Chen, Rubanova, Bettencourt & Duvenaud (2018), Neural ordinary differential equations, appendix B; the
quadrature is treated as one as in Kidger, Chen & Lyons (2021), "Hey, that's not an ODE".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np

from ...engine.backend import Array, to_host
from ...engine.errors import SolveError
from ..dynamics import Dynamics
from ..loop import Control, Integrator
from ..norms import inner
from ..stages import Stages
from ..stats import Stats
from ..stepping import RowStep
from ..tableau import Tableau
from ..trajectory import Trajectory
from .discrete import Cotangents
from .evaluations import Evaluations


class AdjointStages(Stages, ABC):
    """Stages of a backward system z (m,) whose last n entries are the adjoint a.

    The slope at the end of a step serves the next step as its first one, and its parameter pull-back belongs
    to both: stages are mapped to evaluations by `_order`, which `shift` exchanges.

    Attributes:
        name: the gradient method; note: what to know where its backward solve fails.
        anchors_at_outputs: whether each interval must end at an output time,
            though no cotangent enters there.
    """

    name: str
    note: str
    anchors_at_outputs: bool

    def __init__(self, evaluations: Evaluations, tableau: Tableau, width: int) -> None:
        self.evaluations = evaluations
        self.xp, self.size, self.fsal = evaluations.xp, evaluations.size, tableau.fsal
        self.n_stages = tableau.stages
        self.rows = self.xp.empty((tableau.stages + 1, width), evaluations.dtype)
        self._order = list(range(self.n_stages))
        self._weights = tableau.as_floats().b.tolist()

    @property
    def start_slope(self) -> Array:
        """f (n,) at the start of the step."""
        return self.evaluations.found[self._order[0]][: self.size]

    @abstractmethod
    def begin(self, y: Array, a: Array) -> None:
        """Row 0 at an output time where the stored state is y, (n,) each."""

    @abstractmethod
    def tolerances(self, rtol: Any, atol: Any, size: float) -> tuple[Any, Any]:
        """(rtol, atol) for each entry of z, or all, where the cotangents that enter are of this size.

        Those of the state may differ between its components; the adjoint, which is measured in other units,
        has the smallest of them throughout.
        """

    def arrive(self, t: float, y: Array, z: Array) -> None:
        """z was reached at the output time t, where the stored state is y."""

    def shift(self) -> None:
        self._order[0], self._order[-1] = self._order[-1], self._order[0]

    def add_quadrature(self, integrator: Integrator) -> int:
        """param_bars -= h sum_i b_i (df/dparams)^T a_i over the step just made (h < 0 when t falls);
        pull-backs made.
        """
        start, end = integrator.t_start, integrator.t
        chosen = [i for i, weight in enumerate(self._weights) if weight != 0.0]
        step = integrator.step
        assert isinstance(step, RowStep)
        for i in chosen:
            t = step.stage_time(i, start, end)
            self.evaluations.add_params(self._order[i], t, (start - end) * self._weights[i])
        return len(chosen)


def solve_adjoint(
    stages: AdjointStages,
    dynamics: Dynamics,
    tableau: Tableau,
    control: Control,
    trajectory: Trajectory,
    stats: Stats,
    ys_bar: Array,
) -> Cotangents:
    """Cotangents of y0, ts and the wanted parameters, given those (T, n) of the outputs.

    An output time's own cotangent is <ybar_i, f>, that of the start -<a(t0), f>. Nothing enters after the
    last output whose cotangent is not zero: the backward solve begins there.
    """
    ts, ys, n = trajectory.ts, trajectory.ys, stages.size
    ts_bar = np.zeros(len(ts))
    sizes = _sizes(ys_bar)
    stops = _stops(sizes, stages.anchors_at_outputs)
    a = ys_bar[stops[0]].copy()
    rtol, atol = stages.tolerances(control.rtol, control.atol, max(sizes))
    control = replace(control, rtol=rtol, atol=atol)
    step = RowStep(stages, tableau)  # one for all intervals
    for start, end in zip(stops, stops[1:], strict=False):
        stages.begin(ys[start], a)
        integrator = _interval(stages, step, control, trajectory, start, end)
        ts_bar[start] = inner(ys_bar[start], stages.start_slope)
        _walk(integrator, stages, stats)
        stages.arrive(float(ts[end]), ys[end], integrator.y)
        a = integrator.y[-n:]
        if end == 0:
            ts_bar[0] = -inner(a, dynamics.slope0)
        a = a + ys_bar[end]
        control = replace(control, first_step=abs(integrator.h) or None)
    return Cotangents(a, ts_bar, stages.evaluations.param_bars)


def _stops(sizes: list[float], every: bool) -> list[int]:
    """Output times to stop at, the last first: those where a cotangent enters, or every one before it,
    and the start.
    """
    last = max((i for i, size in enumerate(sizes) if size != 0.0), default=0)
    return [i for i in range(last, -1, -1) if every or sizes[i] != 0.0 or i == 0]


def _interval(
    stages: AdjointStages, step: RowStep, control: Control, trajectory: Trajectory, start: int, end: int
) -> Integrator:
    """The backward integrator from ts[start] to ts[end], its first slope evaluated."""
    t0, t1 = float(trajectory.ts[start]), float(trajectory.ts[end])
    grid, tableau = None, step.tableau
    if not tableau.is_adaptive:
        times = np.array(trajectory.grid)
        grid = times[(times >= min(t0, t1)) & (times <= max(t0, t1))][::-1]
    integrator = Integrator(stages, tableau, control, t0, t1, Stats(), grid=grid, name=stages.name, step=step)
    step.evaluate_start(t0)
    integrator.stats.nfe += 1
    return integrator


def _walk(integrator: Integrator, stages: AdjointStages, stats: Stats) -> None:
    """To the end of the interval; what it costs is added to the backward half of `stats`."""
    own = integrator.stats
    try:
        integrator.start()
        while not integrator.is_done:
            integrator.advance()
            stats.n_vjp_params += stages.add_quadrature(integrator)
    except SolveError as error:
        error.add_note(stages.note)
        raise
    finally:
        stats.nfe_backward += own.nfe
        stats.n_vjp_state += own.nfe
        stats.n_accepted_backward += own.n_accepted
        stats.n_rejected_backward += own.n_rejected


def _sizes(ys_bar: Array) -> list[float]:
    """Root mean square of each output's cotangent, (T,): 0 only where all of it is 0.
    One read from the device.
    """
    if ys_bar.shape[1] == 0:
        return [0.0] * len(ys_bar)
    magnitude = abs(ys_bar)
    largest = magnitude.max(axis=1, keepdims=True)
    ratio = magnitude / (largest + (largest == 0.0))  # squares of at most 1: no overflow, no underflow to 0
    return to_host(largest[:, 0] * (ratio**2).mean(axis=1) ** 0.5).tolist()
