"""The public entrance: solve an initial value problem, differentiable in y0, params and every output time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import Array
from ..engine.errors import ArgumentError, ImpureDynamicsError, NeuralODEError, SolveError
from ..engine.primitive import Primitive
from ..engine.trace import Var, base_value, is_weak
from ..engine.transforms import vjp
from ..engine.tree import Tree, leaves, leaves_with_paths, path_name, unflatten
from .compiled import Compiled, Purpose, checkout, compiled_for, give_back
from .controller import PIController
from .dynamics import Dynamics
from .gradients import Cotangents, DiscreteAdjoint, EagerAdjointStages, ReplayAdjointStages, backsolve, walk
from .loop import Control, Integrator
from .options import Options, checked_options, output_times, walking_grid
from .solution import Aux, Solution, Stats, StepInfo
from .stages import EagerStages, ReplayStages, Stages
from .tableau import Tableau
from .trajectory import Trajectory


def odeint(
    f: Callable[..., Any],
    y0: Tree,
    ts: Any,
    params: Tree = None,
    *,
    method: str | Tableau = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-7,
    gradient: str = "discrete",
    has_aux: bool = False,
    execution: str = "replay",
    keep: str = "auto",
    keep_bytes: int = 2**30,
    max_steps: int = 100_000,
    max_step: float | None = None,
    first_step: float | None = None,
    step_size: float | None = None,
    grid: Any = None,
    controller: PIController | None = None,
    backward_rtol: float | None = None,
    backward_atol: float | None = None,
    callback: Callable[[StepInfo], None] | None = None,
) -> Solution:
    """Solve y' = f(t, y, params), y(ts[0]) = y0, and return y at every time in ts.

    Inside `grad`, `vjp` and the other transforms the result is differentiable in y0, params and every entry of ts.

    Args:
        f: dynamics; f(t, y, params) -> slope with the structure, shapes and dtype of y; f(t, y) when params is None.
            t is a number. With `has_aux` f returns (slope, aux). f is traced: it may use NumPy functions and
            operators, but not branch on values.
        y0: initial state: a float32, float64 or complex128 array of any shape, NumPy or CuPy, or a tree of them.
        ts: output times (T,), T >= 2, strictly increasing or decreasing, in the time unit of f.
        params: tree of arrays; gradients come back in this structure.
        method: "dopri5" or "bosh3" (adaptive), "euler", "midpoint", "rk4" (fixed steps), or a `Tableau`.
        rtol, atol: each step keeps the RMS of error / (atol + rtol * max(|y|, |y_new|)) below 1.
        gradient: "discrete" (exact for the steps taken, hand-written), "tape" (the same, by tracing; the oracle) or
            "backsolve" (continuous adjoint, O(1) memory, its error falls with rtol and atol).
        execution: "replay" (traced once, then NumPy calls into reused buffers) or "eager" (f is called each time).
        keep: which stage residuals `discrete` keeps: "auto" (while they fit in keep_bytes), "all" or "none".
        max_steps: attempted steps after which TooManySteps is raised.
        max_step, first_step: limits on the size of steps, in the unit of ts.
        step_size: largest step of a method with fixed steps (default: from output time to output time).
        grid: walk exactly these times (`sol.grid` of an earlier solve) instead of choosing steps.
        controller: step-size control other than the default `PIController`.
        backward_rtol, backward_atol: tolerances of the backward solve of `backsolve` (default: rtol, atol).
        callback: called after every attempted step with a `StepInfo`.
    Returns: Solution with ys (T, *y0.shape), or a tree of these.
    Raises: NonFiniteDynamics, StepSizeUnderflow, TooManySteps, each with the partial solution as `.solution`;
        ArgumentError or ArgumentTypeError for arguments; TracedValueError for dynamics that cannot be traced.
    Cost: 6 nfe per attempted dopri5 step, plus 2 to choose the first one.
    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section II.4 (step size) and Table 5.2 (dopri5).
    """
    options = checked_options(
        method, rtol=rtol, atol=atol, gradient=gradient, execution=execution, keep=keep, keep_bytes=keep_bytes,
        max_steps=max_steps, max_step=max_step, first_step=first_step, step_size=step_size, grid=grid,
        controller=controller, backward_rtol=backward_rtol, backward_atol=backward_atol, callback=callback,
    )  # fmt: skip
    times = output_times(ts)
    if not callable(f):
        raise ArgumentError(f"`f` must be a function f(t, y, params); got {type(f).__name__}")
    y0 = unflatten(y0, (x if hasattr(x, "dtype") or is_weak(x) else np.asarray(x) for x in leaves(y0)))
    _check_finite(y0)
    dynamics = Dynamics(f, times[0], y0, params, has_aux=has_aux)
    solve = _Solve(dynamics, options, times, ts)
    constants = [*dynamics.params_leaves, *dynamics.captured]
    ys = solve(dynamics.layout.flatten(y0), ts if type(ts) is Var else times, *constants)
    parts = dynamics.layout.split(ys, (len(times),))
    return solve.solution(dynamics.layout.tree(parts))


class _Solve(Primitive):
    """One solve as an operation: its forward runs the loop, its rule one of the gradient methods."""

    def __init__(self, dynamics: Dynamics, options: Options, times: np.ndarray, ts: Any) -> None:
        self.name = "odeint"
        self.is_flat = self.may_view = False
        self.rule = self.forward
        self.into = None
        self.dynamics, self.options, self.times = dynamics, options, times
        self.stats = Stats()
        self.grid = walking_grid(options, times)
        constants = [*dynamics.params_leaves, *dynamics.captured]
        wanted = tuple(position for position, value in enumerate(constants) if type(value) is Var)
        is_differentiated = bool(wanted) or type(ts) is Var or any(type(x) is Var for x in dynamics.y0_vars)
        kind = options.gradient if is_differentiated else "solve"
        self.wants_time = is_differentiated and type(ts) is Var
        self.purpose = (
            Purpose("solve") if kind in ("solve", "tape") else Purpose(kind, wanted, self.wants_time)
        )
        self.is_differentiated = is_differentiated
        self.trajectory: Trajectory | None = None
        self._stages: Stages | None = None

    # --- forward ------------------------------------------------------------------------------------------------

    def forward(self, xp: Any, y0: Array, ts: Any, *constants: Any) -> Array:
        """The states (T, n) at the output times."""
        keeps_states = self.is_differentiated and self.options.gradient == "discrete"
        purpose = self.purpose if self.purpose.kind == "discrete" else Purpose("solve")
        with np.errstate(all="ignore"):  # the loop meets NaN and overflow with an error of its own
            stages, compiled = self._forward_stages(purpose)
            self._trust(stages, compiled)
            trajectory = self._begin(stages, y0, keeps_states)
            try:
                self._run(stages, trajectory, keeps_states)
            except SolveError as error:
                error.solution = self._partial(trajectory, type(error).__name__)
                raise
        self.trajectory = trajectory
        if any(held is not None for held in trajectory.held):
            self._stages = stages
        elif compiled is not None:
            give_back(compiled, stages)
        return trajectory.ys

    def _forward_stages(self, purpose: Purpose) -> tuple[Stages, Compiled | None]:
        dynamics, tableau = self.dynamics, self.options.tableau
        if self.options.execution == "eager" or dynamics.xp is not np:
            return EagerStages(dynamics, purpose, tableau.stages, tableau.fsal), None
        compiled = compiled_for(dynamics, purpose)
        key = (tableau.stages, tableau.fsal)
        stages = checkout(compiled, key, lambda: ReplayStages(compiled, dynamics, purpose, *key))
        stages.load(dynamics)
        return stages, compiled

    def _trust(self, stages: Stages, compiled: Compiled | None) -> None:
        """Compare the replay of a new program with a plain call of f once, a little further on."""
        if compiled is None or compiled.is_trusted or not isinstance(stages, ReplayStages):
            return
        dynamics = self.dynamics
        t = float(self.times[0] + 1e-3 * (self.times[1] - self.times[0]))
        y0 = dynamics.layout.flatten(dynamics.layout.tree(dynamics.y0_leaves))
        y = y0 + y0.dtype.type(t - self.times[0]) * dynamics.slope0
        stages.input(0)[...] = y
        stages.evaluate(0, t)
        replayed, plain = stages.rows[1], base_value(dynamics.call_plain(t, y))
        self.stats.n_checks += 1
        scale = np.max(np.abs(plain), initial=0.0)
        if np.isfinite(scale):
            bound = np.sqrt(np.finfo(y.dtype).eps) * scale
            distance = float(np.max(np.abs(replayed - plain), initial=0.0))
            if not distance <= bound:
                raise ImpureDynamicsError(
                    f"f(t, y) called on plain arrays differs from its own trace by {distance:.3e} (largest slope "
                    f"{scale:.3e}) at t={t:.6g}. f must be a pure function of its arguments: no random numbers, no "
                    "counters, no isinstance(y, numpy.ndarray); or pass execution='eager'",
                    distance=distance,
                )
        compiled.is_trusted = True

    def _begin(self, stages: Stages, y0: Array, keeps_states: bool) -> Trajectory:
        dynamics, xp, n_times = self.dynamics, stages.xp, len(self.times)
        stages.rows[0], stages.rows[1] = y0, dynamics.slope0
        self.stats.nfe += 1
        ys = xp.empty((n_times, dynamics.layout.size), dynamics.layout.dtype)
        ys[0] = y0
        trajectory = Trajectory(self.times, ys, [float(self.times[0])])
        if keeps_states:
            trajectory.states = [y0.copy()]
        if self.wants_time:
            trajectory.slopes = xp.zeros_like(ys)
        if dynamics.has_aux:
            trajectory.aux_ts, trajectory.aux = [float(self.times[0])], [list(dynamics.aux0)]
        return trajectory

    def _run(self, stages: Stages, trajectory: Trajectory, keeps_states: bool) -> None:
        options, tableau = self.options, self.options.tableau
        control = Control(
            options.rtol,
            options.atol,
            options.max_steps,
            options.max_step,
            options.first_step,
            options.controller,
        )
        on_attempt = self._report_to(options.callback) if options.callback else None
        t0, t1 = float(self.times[0]), float(self.times[-1])
        integrator = Integrator(
            stages, tableau, control, t0, t1, self.stats, grid=self.grid, on_attempt=on_attempt
        )
        integrator.start()
        budget = {"all": np.inf, "none": -1, "auto": options.keep_bytes}[options.keep] if keeps_states else -1
        first_aux = 1
        while not integrator.is_done:
            integrator.advance()
            trajectory.grid.append(integrator.t)
            trajectory.write_outputs(integrator)
            trajectory.write_slope(integrator.t_start, stages.rows[1])
            trajectory.write_aux(stages, tableau.as_floats().c, integrator, first_aux)
            first_aux = 1 if tableau.fsal else 0
            if trajectory.states is not None:
                trajectory.states.append(integrator.y.copy())
                self.stats.peak_saved_bytes += integrator.y.nbytes
                cost = stages.held_nbytes()
                keeps = self.stats.peak_saved_bytes + cost <= budget
                trajectory.held.append(stages.hold() if keeps else None)
                if trajectory.held[-1] is not None:
                    self.stats.peak_saved_bytes += cost

    def _report_to(self, callback: Callable[[StepInfo], None]) -> Callable[..., None]:
        layout = self.dynamics.layout

        def report(t: float, h: float, error: float, is_accepted: bool, y: Array) -> None:
            callback(StepInfo(t, h, error, is_accepted, layout.tree(layout.split(y.copy()))))

        return report

    def _partial(self, trajectory: Trajectory, status: str) -> Solution:
        reached = trajectory.reached
        layout = self.dynamics.layout
        parts = layout.split(trajectory.ys[:reached], (reached,))
        grid = np.array(trajectory.grid)
        return Solution(self.times[:reached], layout.tree(parts), grid, self.stats, status=status)

    def solution(self, ys: Tree) -> Solution:
        assert self.trajectory is not None
        aux = None
        if self.dynamics.has_aux:
            aux_ts, columns = self.trajectory.sorted_aux()
            aux = Aux(aux_ts, self.dynamics.aux_tree(columns))
        return Solution(self.times, ys, np.array(self.trajectory.grid), self.stats, aux)

    # --- backward -----------------------------------------------------------------------------------------------

    def keep(self, args: tuple[Any, ...], output: Any) -> tuple[Any, ...]:
        return args

    def pull_back(
        self, ybar: Any, saved: tuple[Any, ...], static: Any, needs: tuple[bool, ...]
    ) -> Sequence[Any]:
        """Cotangents of (y0, ts, *constants). Where anything is traced the derivative is itself differentiated."""
        if any(type(value) is Var for value in (ybar, *saved)):
            if self.options.gradient == "backsolve":
                raise NeuralODEError(
                    "gradient='backsolve' gives first derivatives only; use 'tape' or 'discrete' for higher ones"
                )
            return self._pull_by_walking(ybar, saved, needs)
        if self.options.gradient == "tape":
            return self._pull_by_walking(ybar, saved, needs)
        with np.errstate(all="ignore"):
            found = self._discrete(ybar) if self.options.gradient == "discrete" else self._backsolve(ybar)
        bars: list[Any] = [None] * len(saved)
        bars[0], bars[1] = found.y0, found.ts
        for position, bar in zip(self.purpose.wanted, found.params, strict=True):
            bars[2 + position] = bar
        return bars

    def _pull_by_walking(self, ybar: Any, saved: tuple[Any, ...], needs: tuple[bool, ...]) -> Sequence[Any]:
        assert self.trajectory is not None
        dynamics, grid = self.dynamics, np.array(self.trajectory.grid)
        n_params = len(dynamics.params_leaves)
        chosen = [position for position, need in enumerate(needs) if need]

        def walked(*values: Any) -> Any:
            full = list(saved)
            for position, value in zip(chosen, values, strict=True):
                full[position] = value
            y0, ts, *constants = full
            return walk(
                dynamics, self.options.tableau, grid, y0, ts, constants[:n_params], constants[n_params:]
            )

        with np.errstate(all="ignore"):
            _, pull_back = vjp(walked, *(saved[position] for position in chosen))
            found = pull_back(ybar)
        self.stats.nfe_backward += (len(grid) - 1) * (
            self.options.tableau.stages - self.options.tableau.fsal
        ) + 1
        bars: list[Any] = [None] * len(saved)
        for position, bar in zip(chosen, found, strict=True):
            bars[position] = bar
        return bars

    def _discrete(self, ys_bar: Array) -> Cotangents:
        assert self.trajectory is not None
        stages, compiled = self._stages, None
        if stages is None:
            stages, compiled = self._forward_stages(self.purpose)
        elif isinstance(stages, ReplayStages):
            stages.clear_bars()
            compiled = stages.compiled
        sweep = DiscreteAdjoint(
            stages, self.options.tableau, self.trajectory, self.stats, time=self.wants_time
        )
        found = sweep.run(ys_bar)
        self._stages = None
        if compiled is not None:
            give_back(compiled, stages)
        return found

    def _backsolve(self, ys_bar: Array) -> Cotangents:
        assert self.trajectory is not None
        dynamics, options = self.dynamics, self.options
        control = Control(
            options.backward_rtol or options.rtol, options.backward_atol or options.atol, options.max_steps,
            options.max_step, None, options.controller,
        )  # fmt: skip
        compiled, stages = None, None
        if options.execution == "eager" or dynamics.xp is not np:
            stages = EagerAdjointStages(dynamics, self.purpose, options.tableau)
        else:
            compiled = compiled_for(dynamics, self.purpose)
            key = ("backsolve", options.tableau.name)
            stages = checkout(compiled, key, lambda: ReplayAdjointStages(compiled, dynamics, options.tableau))
            stages.load(dynamics)
        found = backsolve(stages, dynamics, options.tableau, control, self.trajectory, self.stats, ys_bar)
        found = Cotangents(found.y0, found.ts, [bar.copy() for bar in found.params])
        if compiled is not None:
            give_back(compiled, stages)
        return found


def _check_finite(y0: Tree) -> None:
    """A NaN in the initial state is the caller's mistake, not the dynamics'."""
    for path, leaf in leaves_with_paths(y0):
        value = base_value(leaf)
        if hasattr(value, "dtype") and value.dtype.kind in "fc" and not bool(ops.isfinite(value).all()):
            raise ArgumentError(f"`y0` has non-finite values in {path_name(path)!r}")
