"""The public entrance: solve an initial value problem, differentiable in y0, params and every output time."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import numpy as np

from ..engine.errors import NeuralODEError
from ..engine.kernels.precision import accepting
from ..engine.trace import Var
from ..engine.tree import Tree
from .controller import Controller
from .dynamics import Dynamics
from .event_solve import solve_with_events
from .forward import aux_of
from .independent import solve_independent
from .initial_state import initial_state, refuse_subclasses
from .method import Method
from .options import Options, check_method, check_outputs, checked_options
from .pieces import solve_in_pieces
from .recorded import with_what_is_recorded
from .resolution import warn_unresolved
from .solution import Aux, Solution, StepInfo
from .solve import Solve
from .stats import Stats
from .tableau import Tableau
from .times import joined_times, output_times
from .tolerances import flat_tolerances


def odeint(
    f: Callable[..., Any],
    y0: Tree,
    ts: Any,
    params: Tree = None,
    *,
    method: str | Tableau | Method = "dopri5",
    rtol: Any = 1e-5,
    atol: Any = 1e-7,
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
    controller: str | Controller | None = None,
    backward_rtol: Any = None,
    backward_atol: Any = None,
    drift_limit: float | None = None,
    coupling: float = 0.99,
    checkpoints: int | None = None,
    callback: Callable[[StepInfo], None] | None = None,
    save: str = "ts",
    dense: bool = False,
    min_step: float | None = None,
    norm: str | Callable[[Tree], Any] = "rms",
    breakpoints: Any = None,
    jump_ts: Any = None,
    warn_stiff: bool = True,
    independent: bool = False,
    events: Any = None,
) -> Solution:
    """Solve y' = f(t, y, params), y(ts[0]) = y0, and return y at every time in ts.

    Inside `grad`, `vjp` and the other transforms the result is differentiable in y0,
    params and every entry of ts.

    Args:
        f: dynamics; f(t, y, params) -> slope with the structure, shapes and dtype of y; f(t, y) when params
            is None. t is a number. With `has_aux` f returns (slope, aux). f is traced: it may use NumPy
            functions and operators, but not branch on values. It may call odeint itself;
            then gradient="tape" or execution="eager".
        y0: initial state: a float32, float64 or complex128 array of any shape, NumPy or CuPy, or a tree of
            them; a Python number is a 0-d float64 array.
        ts: output times (T,), T >= 2, strictly increasing or decreasing, in the time unit of f.
        params: tree of arrays; gradients come back in this structure.
        method: a name in METHODS (solvers/methods.py), which lists them all: explicit ones as "dopri5",
            "dop853" or, of fixed steps, "rk4", implicit ones for stiff problems as "kvaerno5", symplectic and
            multistep ones; or a `Tableau` or `Method`. Derivatives are taken through explicit Runge-Kutta
            methods.
        rtol, atol: each step keeps the `norm` of error / (atol + rtol * max(|y|, |y_new|)) below 1. Positive
            numbers, or arrays, or trees like y0 of them, that broadcast against the state.
        gradient: "discrete" (exact for the steps taken, hand-written), "tape" (the same, by tracing; the
            oracle), "backsolve" (continuous adjoint, O(1) memory, its error falls with rtol and atol),
            "interpolated" (the same along the stored dense output: stable where "backsolve" is not) or
            "reversible" (another scheme, whose steps are computed backwards: exact for them, O(1) memory; 13
            nfe a dopri5 step).
        execution: "replay" (traced once, then NumPy calls into reused buffers), "eager" (f is called each
            time) or "compiled" (f, its derivative, steps and loop in machine code, for small systems; needs
            numba, the `jit` extra. The first solve of a structure takes seconds; what it does not know is
            replayed, with a line in the log of "odegrad". Problems are not watched for stiffness).
        keep: which stage residuals `discrete` keeps: "auto" (of up to 64 steps, while they fit in
            keep_bytes), "all" or "none".
        checkpoints: number of states that `discrete` stores, for very long solves; the others are computed
            again, as rarely as that number allows (default: the states of all steps are stored). The gradient
            is the same to the bit.
        max_steps: attempted steps after which TooManySteps is raised.
        max_step, first_step: largest step and first one (default: chosen by a probe), in the unit of ts.
            They, min_step and controller are for adaptive methods, and refused with fixed steps.
        min_step: smallest step that the error test may ask for; StepSizeUnderflow where it asks for less. The
            step to an end, a breakpoint or a jump may be shorter.
        norm: of the scaled error: "rms" (root mean square), "max", "leaves" (the largest root mean square of
            an array of y0), or a function of the tree of scaled errors that returns a number. Backward solves
            use "rms".
        breakpoints: times (m,) at which a step ends, as where f is continuous with a kink (the grid of
            TA-BN).
        jump_ts: times (m,) at which f jumps: steps end there, no stage sees f on the other side, and slope,
            first step and controller begin anew. Every gradient method is as exact as without; the times are
            constants. At an output time that is a jump the derivative is that from before it.
        step_size: largest step of a method with fixed steps (default: from output time to output time).
        grid: walk exactly these times (`sol.grid` of an earlier solve) instead of choosing steps.
        controller: a name in CONTROLLERS (solvers/controllers.py): "i" (the default), "pi", "pid",
            "gustafsson", "pi33", "pi42", "h211pi", "h211b", "h312pid", "h312b", "h321", "predictive" (the
            default of radau5); or a `PIController`, `FilterController` or `PredictiveController`, which have
            the safety factor and the limits of growth, or what has their `judge`.
        backward_rtol, backward_atol: tolerances of the backward solve of `backsolve` and `interpolated`
            (default: rtol, atol).
        drift_limit: largest distance, in units of atol + rtol |y|, between the state that `backsolve` or
            `reversible` solves back to an output time and the one stored there; with fixed steps, which have
            no tolerances, `backsolve` takes a thousandth of the largest |y| as the unit. Default: 1000, or
            half of |y| where that is less; math.inf accepts any.
        coupling: lam of "reversible", in (0, 1]. The way back magnifies round-off by 1/lam a step; the way
            forth is stable for steps h |a| < -log(lam) along a rate a of f,
            so that strongly damped problems want a smaller one.
        callback: called after every attempted step with a `StepInfo`.
        save: "ts" (the states at the output times) or "steps" (ts = (t0, t1): those at every accepted step,
            with the times as sol.ts); steps are not differentiated.
        dense: whether sol.dense is the solution as a function of time, with `.derivative`;
            not differentiated.
        warn_stiff: whether to warn (`StiffnessWarning`)
            where stability and not the tolerances holds the steps small.
        independent: whether every row of a batch (the first axis of each array of y0, all with as many axes)
            has its own time and steps, those it would make alone, and costs nothing once it has finished. f
            is then called without a trace, on the rows that are left, with t an array (A, 1, ..., 1) that
            broadcasts against them; what belongs to single rows must be part of the state. Rows must not
            depend on each other: that is checked once, by calling f on halves of the batch. For explicit
            adaptive methods with dense output, without derivatives; sol.stats has the counts of each row too,
            sol.grid is empty, and a failure names its `row`.
        events: a list of `Event`, or of functions as SciPy takes them, all watched in every step. sol.events
            has, for each of them, times and states where it happened; a terminal one ends the solve there,
            with sol.status "event" and without the output times beyond it; one with a jump goes on from
            another state, with f evaluated and the first step chosen anew. Two changes of sign within a
            quarter of a step are not seen (`max_step`). First derivatives reach times and states of events,
            and what follows. With methods that interpolate by extra stages each step costs these; fixed steps
            without dense output are read by a cubic, 1 nfe a step.
            The steps are replayed with execution="compiled" too.
    Returns: Solution with ys (T, *y0.shape), or a tree of these.
    Raises: NonFiniteDynamics, NonConvergence (of an implicit method), StepSizeUnderflow, TooManySteps, with
        t, h, error_norm, component (the one at fault), nfe, y (the last good state), and the partial solution
        as `.solution` (from a backward solve, the whole forward solution); DriftError, likewise, beyond
        `drift_limit`; EventAccumulation and GrazingEvent for events that follow each other too closely, or
        whose time has no derivative; what f or `callback` raises, and KeyboardInterrupt, get `.solution`,
        `.t` and `.y` too; ArgumentError or ArgumentTypeError for arguments;
        TracedValueError for dynamics that cannot be traced.
    Cost: 6 nfe per attempted dopri5 step, plus 2 to choose the first one.
    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section II.4 (step size) and Table 5.2 (dopri5).
    """
    options = checked_options(
        method, rtol=rtol, atol=atol, gradient=gradient, execution=execution, keep=keep, keep_bytes=keep_bytes,
        max_steps=max_steps, max_step=max_step, first_step=first_step, step_size=step_size, grid=grid,
        controller=controller, backward_rtol=backward_rtol, backward_atol=backward_atol, callback=callback,
        drift_limit=drift_limit, coupling=coupling, checkpoints=checkpoints, save=save, dense=dense,
        min_step=min_step, norm=norm, breakpoints=breakpoints, warn_stiff=warn_stiff, jump_ts=jump_ts,
        independent=independent, events=events,
    )  # fmt: skip
    ts = joined_times(ts)
    times = output_times(ts)
    check_outputs(options, times)
    y0 = initial_state(y0)
    refuse_subclasses("params", params)
    if independent:
        dynamics = _recorded(f, times, y0, params, has_aux)
        check_method(options, y0, has_aux=has_aux)
        options = flat_tolerances(options, dynamics.layout)
        warn_unresolved(options, dynamics)
        return solve_independent(dynamics, options, times, is_traced=type(ts) is Var)

    if not options.events and not options.jump_ts:
        solution = _solve(f, y0, ts, times, params, options, Stats(), has_aux=has_aux)
        return with_what_is_recorded(solution, ts)

    def solve(y0: Tree, ts: Any, options: Options, stats: Stats) -> Solution:
        if options.jump_ts:
            return solve_in_pieces(solve, y0, ts, output_times(ts), options, stats)
        return _solve(f, y0, ts, output_times(ts), params, options, stats, has_aux=has_aux)

    if options.events:
        return solve_with_events(f, solve, y0, ts, times, params, options, has_aux=has_aux)
    return with_what_is_recorded(solve(y0, ts, options, Stats()), ts)


def _solve(
    f: Callable[..., Any],
    y0: Tree,
    ts: Any,
    times: np.ndarray,
    params: Tree,
    options: Options,
    stats: Stats,
    *,
    has_aux: bool,
) -> Solution:
    """`odeint` of checked arguments, where f does not jump; `times` are the values of `ts`."""
    with accepting(options.accepted_round_off):
        dynamics = _recorded(f, times, y0, params, has_aux)
    options = flat_tolerances(options, dynamics.layout)
    warn_unresolved(options, dynamics)
    check_method(options, y0, has_aux=has_aux)
    constants = [*dynamics.params_leaves, *dynamics.hidden]
    args = [dynamics.layout.flatten(dynamics.y0), ts if type(ts) is Var else times, *constants]
    solve = Solve(dynamics, options, times, args, stats)
    ys = solve(*args, structure=solve.structure())
    done = solve.done
    assert done is not None
    aux = Aux(*aux_of(done)) if has_aux else None
    if options.save == "steps":
        times, ys = done.trajectory.outputs()
    tree, grid = dynamics.layout.unflatten(ys, (len(times),)), np.array(done.trajectory.grid)
    return Solution(times.copy(), tree, grid, stats, aux, dense=done.dense() if options.dense else None)


def _recorded(f: Callable[..., Any], times: np.ndarray, y0: Tree, params: Tree, has_aux: bool) -> Dynamics:
    """f, called once at the start; what it raises says where."""
    try:
        return Dynamics(f, times[0], y0, params, has_aux=has_aux)
    except Exception as error:
        if not isinstance(error, NeuralODEError):
            error.add_note(f"odeint: raised by the first call of f, at t={times[0]:g}")
        raise


def check_options(**options: Any) -> None:
    """Raise what `odeint` would raise for these options of its, before there is a problem to solve."""
    defaults = {name: known.default for name, known in signature(odeint).parameters.items()}
    given = {name: default for name, default in defaults.items() if default is not Parameter.empty}
    given.update(options)
    for name in ("params", "has_aux"):  # of the problem
        del given[name]
    checked_options(given.pop("method"), **given)
