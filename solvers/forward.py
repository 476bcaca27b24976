"""The forward pass of one solve: buffers, the check of a new program, the loop,
and what is written down on the way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine.backend import Array, place_of, to_number
from ..engine.errors import ImpureDynamicsError, SolveError
from ..engine.jit.layout import Unsupported
from ..engine.product_precision import OPERAND_ERRORS, current_products
from ..engine.trace import base_value
from .checkpoints import Checkpoints
from .compiled import Compiled, Purpose, checkout, compiled_for, give_back
from .controllers import controller_for
from .dense import Dense
from .dense_output import dense_output
from .device_step import row_step
from .dynamics import Dynamics, StateLayout
from .loop import Control, Integrator
from .method import AnyStep, Method
from .norms import norm_of
from .options import Options
from .reversible_steps import ReversibleIntegrator, run_reversible
from .solution import Solution, StepInfo
from .stages import EagerStages, ForwardStages, ReplayStages
from .stats import Stats
from .tableau import Tableau
from .times import walking_grid
from .trajectory import Trajectory
from .watched import run_watched

logger = logging.getLogger("odegrad")

# More steps are not kept by keep="auto": binding buffers costs a millisecond a step the first time, and where
# there are so many, f is usually cheap enough to be evaluated again (benchmarks/iteration.py).
MAX_KEPT_STEPS = 64


@dataclass
class Forward:
    """One forward pass that was made: its dynamics, its record,
    and the buffers that hold what was kept for a derivative.

    `stages` is None once the buffers have been given back. `run` is what a solve in machine code left
    instead. `lock` is held by the thread that pulls back: what was kept serves one at a time.
    """

    dynamics: Dynamics
    times: np.ndarray
    trajectory: Trajectory
    stats: Stats
    stages: ForwardStages | None = None
    run: Any = None
    lock: Any = field(default_factory=threading.RLock, repr=False, compare=False)

    def solution(self, status: str = "finished") -> Solution:
        """What was reached, on arrays of its own."""
        ts, ys = self.trajectory.outputs()
        tree = self.dynamics.layout.unflatten(ys, (len(ts),))
        grid = np.array(self.trajectory.grid)
        return Solution(ts, tree, grid, self.stats, status=status, dense=self.dense())

    def dense(self) -> Dense | None:
        """The solution as a function of time as far as it was reached, where it was kept."""
        path = self.trajectory.path
        if path is None:
            return None
        path.trim()
        return Dense([path], self.dynamics.layout) if path.n_readable else None


def solve_forward(
    dynamics: Dynamics,
    options: Options,
    times: np.ndarray,
    purpose: Purpose,
    *,
    keeps_states: bool,
    keeps_path: bool = False,
    stats: Stats | None = None,
) -> Forward:
    """Walk from times[0] to times[-1].

    Whatever ends it early, a SolveError, what f or a callback raised, or Ctrl-C, carries the partial solution
    as `.solution`, and where it stood as `.t` and `.y` (not with "reversible", whose rows are another
    scheme's).
    """
    stats = Stats() if stats is None else stats
    with np.errstate(all="ignore"):  # the loop meets NaN and overflow with an error of its own
        stages, compiled = stages_for(dynamics, options, purpose)
        trust(stages, compiled, dynamics, times, stats)
        trajectory = _begin(stages, dynamics, options, times, stats, keeps_states, purpose.time)
        done = Forward(dynamics, times, trajectory, stats)
        try:
            _run(stages, dynamics, options, trajectory, stats, purpose.time, keeps_path or options.dense)
        except BaseException as error:
            _attach(error, done)
            if not isinstance(error, SolveError) and options.gradient != "reversible":
                _attach_state(error, done, stages.rows[0])
            raise
    if any(held is not None for held in trajectory.held):
        done.stages = stages
    elif compiled is not None:
        give_back(stages)
    return done


def _attach(error: BaseException, done: Forward) -> None:
    """The partial solution for whoever catches the error;
    a note with the place where it is not one of our own.
    """
    try:
        error.solution = done.solution(type(error).__name__)  # type: ignore[attr-defined]
    except AttributeError:  # an exception with slots
        return
    if not isinstance(error, SolveError):
        error.add_note(
            f"odeint stood at t={done.trajectory.grid[-1]:.6g} of [{done.times[0]:g}, {done.times[-1]:g}]; {done.stats}. "
            "What it had reached is `.solution` of this exception."
        )


def _attach_state(error: BaseException, done: Forward, y: Array) -> None:
    """The last accepted time and the state there, between output times too;
    what the error has of its own is kept.
    """
    for name, value in (("t", done.trajectory.grid[-1]), ("y", done.dynamics.layout.unflatten(y.copy()))):
        if not hasattr(error, name):
            with suppress(AttributeError):  # an exception with slots
                setattr(error, name, value)


def stages_for(
    dynamics: Dynamics, options: Options, purpose: Purpose
) -> tuple[ForwardStages, Compiled | None]:
    """ForwardStages loaded with the parameters of this solve,
    and the compiled program they are given back to.
    """
    method = options.method
    counts = _stage_counts(method)
    if options.execution == "eager":
        return EagerStages(dynamics, purpose, *counts), None
    compiled = compiled_for(dynamics, purpose)
    key = (place_of(dynamics.xp), *counts)
    try:
        stages = checkout(compiled, key, lambda: ReplayStages(compiled, dynamics, purpose, *counts))
    except Unsupported as error:
        logger.info("odegrad: f is called anew at each stage: no replay on this device of %s", error)
        return EagerStages(dynamics, purpose, *counts), None
    stages.load(dynamics)
    return stages, compiled


def _stage_counts(method: Tableau | Method) -> tuple[int, bool, int]:
    """Stages in all, whether the last of a step is the first of the next, and how many are extra ones."""
    n_extra = len(method.extra_c) if isinstance(method, Tableau) else 0
    return method.stages + n_extra, method.fsal, n_extra


def trust(
    stages: ForwardStages, compiled: Compiled | None, dynamics: Dynamics, times: np.ndarray, stats: Stats
) -> None:
    """Compare the replay of a new program with a plain call of f once, a little further on."""
    if compiled is None or compiled.is_trusted or not isinstance(stages, ReplayStages):
        return
    t = float(times[0] + 1e-3 * (times[1] - times[0]))
    y0 = dynamics.initial_state()
    y = y0 + y0.dtype.type(t - times[0]) * dynamics.slope0
    stages.input(0)[...] = y
    stages.evaluate(0, t)
    replayed, plain = stages.rows[1], base_value(dynamics.call_plain(t, y))
    stats.n_checks += 1
    norm = stages.xp.linalg.norm
    scale, distance = to_number(norm(plain)), to_number(norm(replayed - plain))
    if np.isfinite(scale):
        if not distance <= _round_off(stages.xp, y.dtype) * scale:
            raise ImpureDynamicsError(
                f"f(t, y) called on plain arrays differs from its own trace by {distance:.3e} (norm of the slope "
                f"{scale:.3e}) at t={t:.6g}. f must be a pure function of its arguments: no random numbers, no "
                "counters, no isinstance(y, numpy.ndarray); or pass execution='eager'",
                distance=distance,
            )
    compiled.is_trusted = True


def _round_off(xp: Any, dtype: Any) -> float:
    """How far two evaluations of one slope may be apart, relative to it; another function is further away.

    Normalisation by a small variance magnifies round-off a thousandfold. Where products round their operands,
    a product that f computes by CuPy itself may be rounded less than that of the replay.
    """
    rounds_operands = xp is not np and dtype == np.float32
    operands = OPERAND_ERRORS[current_products().precision] if rounds_operands else 0.0
    return max(float(np.finfo(dtype).eps) ** (1 / 3), 4 * operands)


def begin_rows(stages: ForwardStages, dynamics: Dynamics, stats: Stats) -> None:
    """The state and its slope at t0; where f was recorded, that was this evaluation."""
    stages.rows[0] = dynamics.initial_state()
    if dynamics.is_evaluated:
        stages.rows[1] = dynamics.slope0
    else:
        stages.input(0)[...] = stages.rows[0]
        stages.evaluate(0, dynamics.t0)
        dynamics.slope0 = stages.rows[1].copy()
    stats.nfe += 1


def step_of(options: Options, stages: ForwardStages, dynamics: Dynamics, stats: Stats) -> AnyStep:
    """What makes the steps of a solve."""
    method, rows = options.method, stages.rows
    if isinstance(method, Tableau):
        return row_step(stages, method, stats, options.norm, options.rtol, options.atol)
    norm = norm_of(options.norm, dynamics.layout, rows, stages.xp, options.rtol, options.atol)
    return method.step_on(stages, dynamics, norm, stats)


def control_of(options: Options, layout: StateLayout | None = None) -> Control:
    """The part of the options that chooses steps; `layout` is that of the state, where it is the user's."""
    method, chosen = options.method, options.controller
    order = method.error_order
    if chosen is None and isinstance(method, Method):
        chosen = method.controller
    return Control(
        options.rtol,
        options.atol,
        options.max_steps,
        options.max_step,
        options.first_step,
        None if order is None else controller_for(chosen, order),
        options.min_step or 0.0,
        options.norm,
        layout,
        options.breakpoints,
        options.warn_stiff,
    )


def _begin(
    stages: ForwardStages,
    dynamics: Dynamics,
    options: Options,
    times: np.ndarray,
    stats: Stats,
    keeps_states: bool,
    wants_time: bool,
) -> Trajectory:
    begin_rows(stages, dynamics, stats)
    ys = stages.xp.empty((len(times), dynamics.layout.size), dynamics.layout.dtype)
    ys[0] = stages.rows[0]
    trajectory = Trajectory(times, ys, [float(times[0])])
    if options.save == "steps":
        trajectory.steps = [ys[0].copy()]
    if keeps_states:
        trajectory.states = _first_states(options, times, ys[0].copy())
    if wants_time:
        trajectory.slopes = stages.xp.zeros_like(ys)
    if dynamics.has_aux:
        trajectory.aux_ts, trajectory.aux = [float(times[0])], [list(dynamics.aux0)]
    return trajectory


def _first_states(options: Options, times: np.ndarray, y0: Array) -> list[Array] | Checkpoints:
    """What the states are kept in, with the first of them."""
    if options.checkpoints is None:
        return [y0]
    grid = walking_grid(options, times)
    return Checkpoints(options.checkpoints, y0, None if grid is None else len(grid) - 1)


def _run(
    stages: ForwardStages,
    dynamics: Dynamics,
    options: Options,
    trajectory: Trajectory,
    stats: Stats,
    wants_time: bool,
    keeps_path: bool,
) -> None:
    method, times = options.method, trajectory.ts
    on_attempt = _reporter(dynamics, options.callback) if options.callback else None
    control = control_of(options, dynamics.layout)
    if options.gradient == "reversible":
        run_reversible(
            ReversibleIntegrator(stages, options, control, trajectory, stats, on_attempt), trajectory
        )
        return
    integrator = Integrator(
        stages,
        method,
        control,
        float(times[0]),
        float(times[-1]),
        stats,
        grid=walking_grid(options, times),
        on_attempt=on_attempt,
        step=step_of(options, stages, dynamics, stats),
    )
    if options.monitor is not None:
        run_watched(integrator, options.monitor, trajectory, dynamics.layout, keeps_path=keeps_path)
        return
    integrator.start()
    if keeps_path:
        trajectory.path = dense_output(integrator, interpolates=method.interpolates)
    first_aux = 1
    while not integrator.is_done:
        integrator.advance()
        trajectory.write_step(integrator)
        trajectory.write_outputs(integrator)
        trajectory.write_slope(integrator.t_start, stages.rows[1])
        if isinstance(method, Tableau):
            trajectory.write_aux(stages, method.as_floats().c, integrator, first_aux)
        first_aux = 1 if method.fsal else 0
        if trajectory.path is not None:
            stats.peak_saved_bytes += trajectory.path.add(integrator)
        if isinstance(trajectory.states, Checkpoints):
            trajectory.held.append(None)
            if not integrator.is_done:
                trajectory.states.append(integrator.y)
            stats.peak_saved_bytes = max(stats.peak_saved_bytes, trajectory.states.nbytes)
        elif trajectory.states is not None:
            stretches = wants_time and (not trajectory.held or integrator.is_done)
            _keep_step(stages, options, trajectory, integrator.y, stats, may_hold=not stretches)


def _keep_step(
    stages: ForwardStages, options: Options, trajectory: Trajectory, y: Array, stats: Stats, *, may_hold: bool
) -> None:
    """The new state, and the stages of the step where the budget allows.

    `may_hold` is false for the steps at the ends where times are differentiated:
    `discrete` evaluates those again.
    """
    assert isinstance(trajectory.states, list)
    trajectory.states.append(y.copy())
    stats.peak_saved_bytes += y.nbytes
    cost = stages.held_nbytes()
    is_kept = may_hold and (
        options.keep == "all"
        or options.keep == "auto"
        and len(trajectory.held) < MAX_KEPT_STEPS
        and stats.peak_saved_bytes + cost <= options.keep_bytes
    )
    trajectory.held.append(stages.hold() if is_kept else None)
    if trajectory.held[-1] is not None:
        stats.peak_saved_bytes += cost


def _reporter(dynamics: Dynamics, callback: Callable[[StepInfo], None]) -> Callable[..., None]:
    def report(t: float, h: float, error: float, is_accepted: bool, y: Array) -> None:
        callback(StepInfo(t, h, error, is_accepted, dynamics.layout.unflatten(y.copy())))

    return report


def aux_of(done: Forward) -> Any:
    """(times, tree) of what f returned beside the slope."""
    aux_ts, columns = done.trajectory.sorted_aux()
    return aux_ts, done.dynamics.aux_tree(columns)
