"""A forward pass and its `discrete` derivative through the loops in machine code."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...engine.backend import Array
from ..compiled import Compiled, Purpose, checkout, compiled_for, give_back
from ..controllers import controller_for
from ..dynamics import Dynamics
from ..forward import MAX_KEPT_STEPS, Forward, stages_for, trust
from ..gradients import Cotangents
from ..options import Options
from ..solution import Stats
from ..tableau import Tableau
from ..times import walking_grid
from ..trajectory import Trajectory
from . import job
from .control import NO_ERROR
from .loops import loop
from .machine import Kernels, Machine

FIRST_ROOM = 128  # accepted steps that there is room for at first
_kernels: WeakKeyDictionary[Compiled, Kernels] = WeakKeyDictionary()
_lock = threading.Lock()


class Run:
    """A forward pass that was made in machine code, and what its derivative needs.

    `machine` holds the stages of the first `n_kept` steps; it is None once they have been used.
    """

    def __init__(self, machine: Machine, grid: np.ndarray, states: np.ndarray, n_kept: int) -> None:
        self.machine: Machine | None = machine
        self.grid, self.states, self.n_kept = grid, states, n_kept

    def pull_back(self, done: Forward, options: Options, purpose: Purpose, ys_bar: Array) -> Cotangents:
        """The cotangents of y0 and of the wanted parameters, given those of the outputs (T, n)."""
        machine, n_kept = self.machine, self.n_kept
        if machine is None:
            compiled = compiled_for(done.dynamics, purpose)
            machine, n_kept = _machine_for(compiled, done.dynamics, options.tableau), 0
        self.machine = None
        machine.params.fill(0)
        machine.hold(job.YS_BAR, np.ascontiguousarray(ys_bar, machine.rows.dtype))
        machine.hold(job.TS, np.ascontiguousarray(done.trajectory.ts))
        machine.hold(job.GRID, self.grid)
        machine.hold(job.STATES, self.states)
        machine.hold(job.SLOPE0, np.ascontiguousarray(done.dynamics.slope0))
        counts = machine.counts
        counts[job.N_TIMES], counts[job.N_ACCEPTED] = len(done.trajectory.ts), len(self.grid) - 1
        counts[job.MAX_KEPT], counts[job.NFE_BACKWARD], counts[job.N_PULLS] = n_kept, 0, 0
        loop("sweep", machine.rows.dtype)(*machine.places)
        machine.release(job.YS_BAR, job.TS, job.GRID, job.STATES, job.SLOPE0)
        stats, n_pulls = done.stats, int(counts[job.N_PULLS])
        stats.nfe_backward += int(counts[job.NFE_BACKWARD])
        stats.n_vjp_state += n_pulls
        stats.n_vjp_params += n_pulls if purpose.wanted else 0
        found = Cotangents(machine.bars[0].copy(), np.zeros(len(done.times)), machine.param_bars())
        give_back(machine)
        return found


def solve(
    dynamics: Dynamics,
    options: Options,
    times: np.ndarray,
    purpose: Purpose,
    compiled: Compiled,
    stats: Stats,
) -> Forward | None:
    """The forward pass, counted in `stats`; None where it did not reach the end, which replay finds out the reason of.

    Raises: Unsupported; ImpureDynamicsError as replay does.
    """
    keeps_states = purpose.kind == "discrete"
    machine = _machine_for(compiled, dynamics, options.tableau)
    if not compiled.is_trusted:
        with np.errstate(all="ignore"):
            trust(*stages_for(dynamics, options, purpose), dynamics, times, stats)
    if not np.isfinite(dynamics.slope0).all():
        return None
    machine.rows[0], machine.rows[1] = dynamics.initial_state(), dynamics.slope0
    ys = np.empty((len(times), machine.size), machine.rows.dtype)
    ys[0] = machine.rows[0]
    given = walking_grid(options, times)
    grid, states = _begin(machine, options, times, ys, given, keeps_states)
    walk = loop("walk", machine.rows.dtype)
    while (status := walk(*machine.places)) == job.FULL:
        grid, states = _with_more_room(machine, grid, states)
    counts = machine.counts
    n = int(counts[job.N_ACCEPTED])
    machine.release(job.TS, job.YS, job.GIVEN, job.GRID, job.STATES)
    if status == job.FAILED:
        give_back(machine)
        return None
    stats.nfe += 1 + int(counts[job.NFE])  # recording f was the first one
    stats.n_accepted += n
    stats.n_rejected += int(counts[job.N_REJECTED])
    grid = grid[: n + 1]
    done = Forward(dynamics, times, Trajectory(times, ys, grid.tolist(), reached=len(times)), stats)
    if keeps_states:
        n_kept = min(n, int(counts[job.MAX_KEPT]))
        stats.peak_saved_bytes += (n + 1) * ys[0].nbytes + n_kept * machine.stages.nbytes
        at_grid: Any = states[: n + 1]
        done.trajectory.states = at_grid
        done.run = Run(machine, grid, at_grid, n_kept)
    else:
        give_back(machine)
    return done


def _begin(
    machine: Machine,
    options: Options,
    times: np.ndarray,
    ys: np.ndarray,
    given: np.ndarray | None,
    keeps_states: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Write down all that `walk` starts from; returns the arrays (grid, states) that it fills."""
    counts, reals, room = machine.counts, machine.reals, FIRST_ROOM if given is None else len(given)
    grid = machine.hold(job.GRID, np.empty(room))
    grid[0] = times[0]
    states = machine.hold(job.STATES, np.empty((room if keeps_states else 1, machine.size), ys.dtype))
    states[0] = ys[0]
    machine.hold(job.TS, np.ascontiguousarray(times))
    machine.hold(job.YS, ys)
    if given is not None:
        machine.hold(job.GIVEN, np.ascontiguousarray(given))
    counts[job.IS_ADAPTIVE], counts[job.KEEPS_STATES], counts[job.ROOM] = given is None, keeps_states, room
    counts[job.MAX_KEPT] = _most_kept(machine, options) if keeps_states else 0
    counts[job.KEPT_ROOM], counts[job.N_TIMES], counts[job.REACHED] = len(machine.kept), len(times), 1
    counts[job.MAX_STEPS] = options.max_steps
    counts[job.N_ACCEPTED] = counts[job.N_REJECTED] = counts[job.NFE] = counts[job.WAS_REJECTED] = 0
    reals[job.T], reals[job.H], reals[job.REMEMBERED] = times[0], 0.0, NO_ERROR
    if given is None:
        choice: Any = options.controller
        controller = _controller(choice, options.tableau.error_order or 1)
        reals[job.RTOL : job.FIRST_STEP + 1] = (
            options.rtol, options.atol, controller.order, controller.safety, controller.min_factor,
            controller.max_factor, controller.beta, options.max_step, options.first_step or 0.0,
        )  # fmt: skip
    return grid, states


def _with_more_room(machine: Machine, grid: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Larger arrays (grid, states), or more kept steps, whichever the loop has run out of."""
    counts = machine.counts
    if counts[job.N_ACCEPTED] + 1 < counts[job.ROOM]:
        machine.make_room()
        return grid, states
    grid = machine.hold(job.GRID, np.concatenate([grid, np.empty_like(grid)]))
    if counts[job.KEEPS_STATES]:
        states = machine.hold(job.STATES, np.concatenate([states, np.empty_like(states)]))
    counts[job.ROOM] = len(grid)
    return grid, states


@lru_cache(maxsize=64)
def _controller(choice: Any, order: int) -> Any:
    """To make one costs more than a step."""
    return controller_for(choice, order)


def _most_kept(machine: Machine, options: Options) -> int:
    """How many steps may keep what their stages left."""
    affordable = options.keep_bytes // max(1, machine.stages.nbytes)
    return {"all": options.max_steps, "none": 0, "auto": min(MAX_KEPT_STEPS, affordable)}[options.keep]


def _machine_for(compiled: Compiled, dynamics: Dynamics, tableau: Tableau) -> Machine:
    """A machine loaded with the parameters of this solve."""
    with _lock:
        kernels = _kernels.get(compiled)
        if kernels is None:
            kernels = _kernels[compiled] = Kernels.of(compiled)
    size = dynamics.layout.size
    machine = checkout(compiled, ("machine", tableau), lambda: Machine(kernels, compiled, tableau, size))
    machine.load(dynamics)
    return machine
