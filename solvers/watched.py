"""The loop of a plain solve whose steps a `Monitor` looks at: it ends where an event stops the steps."""

from __future__ import annotations

import math

import numpy as np

from ..engine.backend import Array, to_xp
from .dense_output import StepPolynomials
from .dynamics import StateLayout
from .loop import Integrator
from .monitor import Monitor
from .step_polynomial import hermite_coefficients
from .trajectory import Trajectory


def run_watched(
    integrator: Integrator,
    monitor: Monitor,
    trajectory: Trajectory,
    layout: StateLayout,
    *,
    keeps_path: bool,
) -> None:
    """Walk to the end, or to the event that stops the steps,
    and write down outputs and accepted times up to there.
    """
    integrator.start()
    monitor.begin(integrator, layout)
    path = None
    if keeps_path:
        rows, direction = integrator.stages.rows, math.copysign(1.0, integrator.t1 - integrator.t)
        path = trajectory.path = StepPolynomials(integrator.stages.xp, rows.dtype, integrator.t, direction)
    while not integrator.is_done:
        integrator.advance()
        block = step_polynomial(integrator)
        if monitor.look(integrator, block):
            _write_end(integrator, monitor, trajectory, block)
            return
        trajectory.write_step(integrator)
        trajectory.write_outputs(integrator)
        if path is not None:
            path.add_blocks(integrator.t, [block])
            integrator.stats.peak_saved_bytes += block.nbytes


def _write_end(integrator: Integrator, monitor: Monitor, trajectory: Trajectory, block: Array) -> None:
    """What the step holds up to the event."""
    event = monitor.fired[0]
    trajectory.write_outputs(integrator)
    direction = math.copysign(1.0, integrator.t1 - integrator.t_start)
    trajectory.reached = min(trajectory.reached, int(np.sum((trajectory.ts - event.t) * direction <= 0.0)))
    if event.t == trajectory.grid[-1]:
        return
    trajectory.grid.append(event.t)
    if trajectory.steps is not None:
        trajectory.steps.append(event.y)
    if trajectory.path is not None:
        theta = (event.t - integrator.t_start) / (integrator.t - integrator.t_start)
        powers = to_xp(integrator.stages.xp, (theta ** np.arange(len(block))).astype(block.dtype))
        trajectory.path.add_blocks(
            event.t, [block * powers[:, None]]
        )  # its theta goes from 0 to 1 up to the event


def step_polynomial(integrator: Integrator) -> Array:
    """(p + 1, n): the step just made as a polynomial;
    of a method without dense output the cubic through its ends.

    Cost: one evaluation of f more for such a cubic, and what the method's own dense output costs.
    """
    h = integrator.t - integrator.t_start
    if integrator.method.interpolates:
        return integrator.step.polynomial(h)
    stages, y_new = integrator.stages, integrator.y.copy()
    y, slope = stages.rows[:2].copy()
    if integrator.method.fsal:
        slope_new = stages.rows[integrator.method.stages]
    else:
        stages.input(0)[...] = y_new
        stages.evaluate(0, integrator.t)
        integrator.stats.nfe += 1
        slope_new = stages.rows[1].copy()
    return hermite_coefficients(stages.xp, y, slope, y_new, slope_new, h)
