"""What a forward solve leaves behind: outputs, the accepted grid, aux, and what its derivative will need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine.backend import Array, namespace_of
from .checkpoints import Checkpoints
from .dense_output import DenseOutput
from .loop import Integrator
from .stages import ForwardStages


def locate(ts: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each output time the step (T,) that ends at or after it, and its place theta (T,) in that step,
    in [0, 1].
    """
    direction = 1.0 if grid[-1] >= grid[0] else -1.0
    steps = (direction * grid).searchsorted(direction * ts) - 1
    steps = np.minimum(np.maximum(steps, 0), len(grid) - 2)
    left, right = grid[steps], grid[steps + 1]
    thetas = (ts - left) / (right - left)
    thetas[ts == right] = 1.0
    return steps, thetas


def n_read_inside(ts: np.ndarray, grid: np.ndarray) -> int:
    """Number of steps with an output time before their end; the first output is the initial state."""
    steps, thetas = locate(ts[1:], grid)
    return len(np.unique(steps[thetas < 1.0]))


@dataclass
class Trajectory:
    """The record of one forward solve.

    Attributes:
        ts: output times (T,); ys (T, n): the flat state there; reached: how many of them are filled.
        grid: accepted times so far.
        states: flat states at the grid times, or checkpoints of them, where they are kept (`discrete`).
        held: buffers of the stages of each step, None where they were not kept.
        slopes: time derivative of the interpolant at the output times (T, n), where `ts` is differentiated.
        partners: the second copy z of the state at the output times (T, n) (`reversible`).
        path: the solution between the grid times (`interpolated`, dense=True).
        steps: flat states at the grid times, with save="steps".
        aux_ts, aux: times and values (leaves) of what f returned beside the slope.
    """

    ts: np.ndarray
    ys: Array
    grid: list[float]
    reached: int = 1
    states: list[Array] | Checkpoints | None = None
    held: list[Any] = field(default_factory=list)
    slopes: Array | None = None
    partners: Array | None = None
    path: DenseOutput | None = None
    steps: list[Array] | None = None
    aux_ts: list[float] | None = None
    aux: list[list[Any]] = field(default_factory=list)

    def write_outputs(self, integrator: Integrator) -> None:
        """The output times inside the step just made, all by one product."""
        t, t_next, ts = integrator.t_start, integrator.t, self.ts
        first, direction = self.reached, 1.0 if ts[-1] > ts[0] else -1.0
        last = first
        while last < len(ts) and (t_next - ts[last]) * direction > 0:
            last += 1
        h = t_next - t
        if last > first:
            thetas = (ts[first:last] - t) / h
            self.ys[first:last] = integrator.step.interpolate(thetas, h)
            if self.slopes is not None:
                self.slopes[first:last] = integrator.step.interpolate(thetas, h, derivative=True)
        if last < len(ts) and ts[last] == t_next:
            self.ys[last] = integrator.y
            last += 1
        self.reached = last

    def write_step(self, integrator: Integrator) -> None:
        """The end of the step just made: its time, and its state where those are what was asked for."""
        self.grid.append(integrator.t)
        if self.steps is not None:
            self.steps.append(integrator.y.copy())

    def outputs(self) -> tuple[np.ndarray, Array]:
        """Times (T,) and states (T, n) that were asked for, as far as they were reached."""
        if self.steps is not None:
            return np.array(self.grid), namespace_of(self.ys).stack(self.steps)
        return self.ts[: self.reached].copy(), self.ys[: self.reached].copy()

    def write_slope(self, t: float, slope: Array) -> None:
        """The slope at a grid time that is an output time as well."""
        if self.slopes is not None:
            at = np.flatnonzero(self.ts == t)
            if at.size:
                self.slopes[int(at[0])] = slope

    def write_aux(self, stages: ForwardStages, c: np.ndarray, integrator: Integrator, first: int) -> None:
        """What f returned in stages `first`, ... of the step just made (in its extra ones it is not asked
        for).
        """
        if self.aux_ts is None:
            return
        t, t_next = integrator.t_start, integrator.t
        for index in range(first, len(c)):
            self.aux_ts.append(t_next if c[index] == 1.0 else t + float(c[index]) * (t_next - t))
            self.aux.append([stages.xp.array(leaf) for leaf in stages.aux(index)])

    @staticmethod
    def _xp_stack(leaves: list[Any]) -> Array:
        xp = namespace_of(*leaves)
        return xp.stack([xp.asarray(leaf) for leaf in leaves])

    def sorted_aux(self) -> tuple[np.ndarray, list[Array]]:
        """Times (N,) in the order of integration (ties by order of evaluation)
        and leaves with a leading axis N.
        """
        assert self.aux_ts is not None
        times = np.array(self.aux_ts)
        order = np.argsort(times if self.grid[-1] >= self.grid[0] else -times, kind="stable")
        columns = zip(*self.aux, strict=True)
        return times[order], [self._xp_stack([column[i] for i in order]) for column in columns]
