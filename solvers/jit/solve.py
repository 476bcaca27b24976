"""A forward pass and its `discrete` derivative through the loops in machine code."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...engine.backend import Array
from ...engine.forking import free_in_child
from ..compiled import Compiled, Purpose, checkout, compiled_for, give_back
from ..controllers import controller_for
from ..dynamics import Dynamics
from ..forward import MAX_KEPT_STEPS, Forward, stages_for, trust
from ..gradients import Cotangents
from ..options import Options
from ..stats import Stats
from ..tableau import Tableau
from ..times import walking_grid
from ..trajectory import Trajectory
from . import job
from .control import NO_ERROR
from .loops import loop
from .machine import Kernels, Machine

_kernels: WeakKeyDictionary[Compiled, Kernels] = WeakKeyDictionary()
_lock = free_in_child(threading.Lock())


class Run:
    """A forward pass that was made in machine code, and what its derivative needs.

    `machine` still holds the accepted times, the states there and the stages of the first `n_kept` steps; it
    is None once a derivative was taken. `grid` and `states` are copies for further ones.
    """

    def __init__(self, machine: Machine, grid: np.ndarray, states: np.ndarray, n_kept: int) -> None:
        self.machine: Machine | None = machine
        self.grid, self.states, self.n_kept = grid, states, n_kept

    def pull_back(self, done: Forward, options: Options, purpose: Purpose, ys_bar: Array) -> Cotangents:
        """The cotangents of y0 and of the wanted parameters, given those of the outputs (T, n)."""
        machine, self.machine = self.machine, None
        if machine is None:
            machine = self._another(done, options, purpose)
        else:
            machine.counts[job.MAX_KEPT] = self.n_kept
        machine.params.fill(0)
        machine.write_cotangents(ys_bar)
        counts = machine.counts
        counts[job.NFE_BACKWARD] = counts[job.N_PULLS] = 0
        loop("sweep", machine.rows.dtype)(*machine.places)
        stats, n_pulls = done.stats, int(counts[job.N_PULLS])
        stats.nfe_backward += int(counts[job.NFE_BACKWARD])
        stats.n_vjp_state += n_pulls
        stats.n_vjp_params += n_pulls if purpose.wanted else 0
        found = Cotangents(machine.bars[0].copy(), np.zeros(len(done.times)), machine.param_bars())
        give_back(machine)
        return found

    def _another(self, done: Forward, options: Options, purpose: Purpose) -> Machine:
        """A machine with what the forward pass left, but for stages."""
        machine = _machine_for(compiled_for(done.dynamics, purpose), done.dynamics, options.tableau)
        n = len(self.grid)
        machine.make_room(n, with_states=True)
        machine.grid[:n], machine.states[:n] = self.grid, self.states
        machine.write_times(done.times)
        machine.slope0[...] = done.dynamics.slope0
        machine.counts[job.N_ACCEPTED], machine.counts[job.MAX_KEPT] = n - 1, 0
        return machine


def solve(
    dynamics: Dynamics,
    options: Options,
    times: np.ndarray,
    purpose: Purpose,
    compiled: Compiled,
    stats: Stats,
) -> Forward | None:
    """The forward pass, counted in `stats`; None where it did not reach the end,
    which replay finds out the reason of.

    Raises: Unsupported; ImpureDynamicsError as replay does.
    """
    keeps_states = purpose.kind == "discrete"
    machine = _machine_for(compiled, dynamics, options.tableau)
    if not compiled.is_trusted:
        with np.errstate(all="ignore"):
            trust(*stages_for(dynamics, options, purpose), dynamics, times, stats)
    ys = np.empty((len(times), machine.size), machine.rows.dtype)
    ys[0] = machine.rows[0] = dynamics.initial_state()
    if not dynamics.is_evaluated:
        dynamics.slope0 = machine.slope_at_start(dynamics.t0)
    machine.rows[1] = machine.slope0[...] = dynamics.slope0
    _begin(machine, options, times, ys, keeps_states)
    walk = loop("walk", machine.rows.dtype)
    while (status := walk(*machine.places)) == job.FULL:
        _make_room(machine, keeps_states)
    counts = machine.counts
    n = int(counts[job.N_ACCEPTED])
    machine.release(job.YS, job.GIVEN)
    if status == job.FAILED:
        give_back(machine)
        return None
    stats.nfe += 1 + int(counts[job.NFE])  # recording f was the first one
    stats.n_accepted += n
    stats.n_rejected += int(counts[job.N_REJECTED])
    grid = machine.grid[: n + 1].copy()
    done = Forward(dynamics, times, Trajectory(times, ys, grid.tolist(), reached=len(times)), stats)
    if keeps_states:
        n_kept = min(n, int(counts[job.MAX_KEPT]))
        stats.peak_saved_bytes += (n + 1) * ys[0].nbytes + n_kept * machine.stages.nbytes
        states: Any = machine.states[: n + 1].copy()
        done.trajectory.states = states
        done.run = Run(machine, grid, states, n_kept)
    else:
        give_back(machine)
    return done


def _begin(machine: Machine, options: Options, times: np.ndarray, ys: np.ndarray, keeps_states: bool) -> None:
    """Write down all that `walk` starts from."""
    counts, reals, given = machine.counts, machine.reals, walking_grid(options, times)
    machine.make_room(2 if given is None else len(given), with_states=keeps_states)
    machine.grid[0] = times[0]
    machine.states[0] = ys[0]
    machine.write_times(times)
    machine.hold(job.YS, ys)
    if given is not None:
        machine.hold(job.GIVEN, np.ascontiguousarray(given))
    counts[job.IS_ADAPTIVE], counts[job.KEEPS_STATES] = given is None, keeps_states
    counts[job.MAX_KEPT] = _most_kept(machine, options) if keeps_states else 0
    counts[job.KEPT_ROOM], counts[job.REACHED] = len(machine.kept), 1
    counts[job.MAX_STEPS] = options.max_steps
    counts[job.N_ACCEPTED : job.NFE + 1] = 0
    counts[job.WAS_REJECTED] = 0
    reals[job.T], reals[job.H], reals[job.REMEMBERED] = times[0], 0.0, NO_ERROR
    if given is None and machine.control is not options:
        machine.control = options
        choice: Any = options.controller
        controller = _controller(choice, options.tableau.error_order or 1)
        reals[job.RTOL : job.FIRST_STEP + 1] = (
            options.rtol, options.atol, controller.order, controller.safety, controller.min_factor,
            controller.max_factor, controller.beta, options.max_step, options.first_step or 0.0,
        )  # fmt: skip


def _make_room(machine: Machine, keeps_states: bool) -> None:
    """More accepted steps, or more kept ones, whichever the loop has run out of."""
    if machine.counts[job.N_ACCEPTED] + 1 < machine.counts[job.ROOM]:
        machine.make_room_for_stages()
    else:
        machine.make_room(2 * int(machine.counts[job.ROOM]), with_states=keeps_states)


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
