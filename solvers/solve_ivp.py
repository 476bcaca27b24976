"""`solve_ivp` with SciPy's signature, so that a script can change one import."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..engine.backend import host_numbers, is_device_array, namespace_of, to_xp
from ..engine.errors import ArgumentError, ArgumentTypeError, SolveError, TracedValueError
from ..engine.trace import Var, user_line
from ..engine.tree import leaves
from . import option_checks
from .events import Event, checked_events
from .method import Method
from .methods import METHODS, SCIPY_METHODS
from .odeint import odeint
from .plain_function import PlainFunction, call_running, running
from .solution import Solution
from .tableau import Tableau

MESSAGES = {0: "The end of `t_span` was reached.", 1: "A terminal event ended the solve."}
SMALLEST_RTOL = 100.0 * float(np.finfo(np.float64).eps)
SMALLEST_ATOL = 1e-290  # where 0 is given: what is scaled by it does not overflow near 1
NO_LIMIT = 10**15
OF_STEPS = ("first_step", "max_step", "min_step")
OF_BANDS = ("jac_sparsity", "lband", "uband")


class IvpResult(dict[str, Any]):
    """What `solve_ivp` returns; its fields are attributes as well as keys."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"a result of solve_ivp has the fields {', '.join(self)}; no {name!r}"
            ) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __repr__(self) -> str:
        width = max(map(len, self))
        return "\n".join(f"{name:>{width}}: {value!r}" for name, value in self.items())


class IvpSolution:
    """The solution as a function of time: sol(t) is (n,) at a time, (n, m) at times (m,).

    Beyond its ends it is the polynomial of the first or the last step, which soon is worth nothing.

    Attributes:
        ts: the accepted times (N + 1,); t_min, t_max: its ends.
    """

    def __init__(self, ts: np.ndarray, read: Callable[[np.ndarray], np.ndarray]) -> None:
        self.ts, self._read = ts, read
        self.t_min, self.t_max = float(ts.min()), float(ts.max())

    def __call__(self, t: Any) -> np.ndarray:
        times = host_numbers(t).astype(np.float64)
        if times.ndim > 1:
            raise ArgumentError(f"`t` must be a time or times (m,); got shape {times.shape}")
        columns = self._read(times.reshape(-1)).T
        return columns if times.ndim else columns[:, 0]


def solve_ivp(
    fun: Callable[..., Any],
    t_span: Any,
    y0: Any,
    method: Any = "RK45",
    t_eval: Any = None,
    dense_output: bool = False,
    events: Any = None,
    vectorized: bool = False,
    args: Any = None,
    **options: Any,
) -> IvpResult:
    """Solve y' = fun(t, y, *args), y(t_span[0]) = y0,
    with the arguments and the result of `scipy.integrate.solve_ivp`.

    `fun` is called as SciPy calls it and never traced: it may branch, fill arrays in place and keep what it
    likes. Nothing is differentiated; for derivatives, trees and speed write f(t, y, params) and call
    `odeint`.

    Args:
        fun: fun(t, y, *args) -> n numbers, as an array or a list; with `vectorized` it takes (n, k)
            and returns (n, k).
        t_span: (t0, t1), in either direction of time.
        y0: initial state (n,); computed in float64, or in complex128 if it is complex. One of CuPy stays on
            the GPU, `fun` is called there, and y, y_events and `sol` have its module; for explicit methods.
        method: "RK45" (dopri5), "RK23" (bosh3), "DOP853" (dop853); "Radau", "BDF" and "LSODA" are all radau5,
            which is implicit, of order 5, and never switches (for a complex y0 kvaerno5);
            or what `odeint` takes as `method`.
        t_eval: times (T,) in t_span, in its direction, at which y is returned (default: the accepted steps).
        dense_output: whether `sol` is the solution as a function of time.
        events: a function event(t, y, *args) or a list of them, with attributes `terminal` and `direction`,
            or of `Event` without jumps. One that is zero at t0 has not happened there.
        args: further arguments of fun, jac and events.
        options: rtol (1e-3) and atol (1e-6), numbers or arrays (n,); first_step, max_step, min_step; jac for
            implicit methods: a matrix, sparse or not, or jac(t, y, *args) (default: differences); warn_stiff
            of `odeint`. SciPy's options for banded and sparse Jacobians are refused.
    Returns: IvpResult with t (T,), y (n, T), sol, t_events and y_events (lists, an array for each event; None
        without events), nfev, njev, nlu (calls of fun but those of differences, Jacobians, factorisations),
        status (0, or 1 after a terminal event, or -1), message, success. With status -1 the message says why,
        and t, y hold what was reached.
    Raises: ArgumentError (a ValueError) and ArgumentTypeError (a TypeError) for arguments; what fun raises.
    """
    if not callable(fun):
        raise ArgumentTypeError(f"`fun` must be a function fun(t, y, *args); got {fun!r}")
    _refuse_traced((t_span, y0, t_eval, args))
    t0, t1 = _span(t_span)
    y0 = _state(y0)
    extra = _extra(args)
    chosen = _method(method, y0.dtype)
    _check_device(y0, chosen)
    given = _checked(options, chosen, abs(t1 - t0))
    watched = [_with(event, extra) for event in checked_events(events)]
    wanted = None if t_eval is None else _output_times(t_eval, t0, t1)
    jac = given.pop("jac")
    function = PlainFunction(
        lambda t, y: fun(t, y, *extra),
        is_vectorized=bool(vectorized),
        jac=(lambda t, y: jac(t, y, *extra)) if callable(jac) else jac,
        scale=given["atol"],
    )
    if t0 == t1:
        return _standing_still(function, t0, y0, wanted, dense_output, None if events is None else watched)
    ts = [t0, t1] if wanted is None else np.union1d(wanted, [t0, t1])[:: 1 if t1 > t0 else -1]
    save, message = "ts" if wanted is not None else "steps", ""
    with running(function):
        try:
            found = odeint(
                call_running, y0, ts, method=chosen, events=watched, save=save, dense=bool(dense_output),
                max_steps=NO_LIMIT, **given,
            )  # fmt: skip
        except SolveError as error:
            found, message = error.solution, str(error)
    return _result(found, y0, wanted, message, None if events is None else watched)


def _result(
    found: Solution, y0: np.ndarray, wanted: np.ndarray | None, message: str, watched: list[Event] | None
) -> IvpResult:
    status = -1 if message else int(found.status == "event")
    xp = namespace_of(y0)
    rows = np.arange(len(found.ts)) if wanted is None else np.flatnonzero(np.isin(found.ts, wanted))
    sol = None
    if found.dense is not None:
        (path,) = found.dense.paths
        sol = IvpSolution(np.array(path.times), path.read_many)
    stats = found.stats
    return IvpResult(
        t=found.ts[rows],
        y=xp.ascontiguousarray(found.ys[to_xp(xp, rows)].T),
        sol=sol,
        t_events=None if watched is None else [record.ts for record in found.events],
        y_events=None if watched is None else [record.ys for record in found.events],
        nfev=stats.nfe,
        njev=stats.n_jacobians,
        nlu=stats.n_factorizations,
        status=status,
        message=message or MESSAGES[status],
        success=status >= 0,
    )


def _standing_still(
    function: PlainFunction,
    t: float,
    y0: np.ndarray,
    wanted: np.ndarray | None,
    dense_output: bool,
    watched: list[Event] | None,
) -> IvpResult:
    """The result for an interval of length zero: its two ends, or the one output time there can be."""
    function.slope(t, y0)
    ts = np.array([t, t]) if wanted is None else wanted
    ys = np.repeat(y0[None], len(ts), axis=0)
    sol = IvpSolution(np.array([t, t]), lambda times: np.repeat(y0[None], len(times), axis=0))
    nothing = None if watched is None else [np.empty(0) for _ in watched]
    empty = namespace_of(y0).empty
    no_states = None if watched is None else [empty((0, len(y0)), y0.dtype) for _ in watched]
    return IvpResult(
        t=ts, y=ys.T, sol=sol if dense_output else None, t_events=nothing, y_events=no_states, nfev=1, njev=0,
        nlu=0, status=0, message=MESSAGES[0], success=True,
    )  # fmt: skip


def _refuse_traced(given: Any) -> None:
    if any(type(value) is Var for value in leaves(given)):
        raise TracedValueError(
            f"solve_ivp at {user_line()} is given a traced value, and it is neither differentiated nor traced: inside of "
            "`grad`, `vjp` and `jit` call odeint"
        )


def _span(t_span: Any) -> tuple[float, float]:
    try:
        t0, t1 = map(float, host_numbers(t_span))
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"`t_span` must be two times (t0, t1); got {t_span!r}") from error
    if not (math.isfinite(t0) and math.isfinite(t1)):
        raise ArgumentError(f"`t_span` must be two finite times (t0, t1); got {t_span!r}")
    return t0, t1


def _state(y0: Any) -> np.ndarray:
    """y0 as float64 or complex128 (n,), an array of its own, of its module."""
    values = y0 if is_device_array(y0) else np.asarray(y0)
    if values.dtype.kind not in "biufc":
        raise ArgumentTypeError(f"`y0` must hold numbers, shape (n,); got {y0!r}")
    if values.ndim != 1:
        raise ArgumentError(f"`y0` must have one axis, shape (n,); got shape {values.shape}")
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def _extra(args: Any) -> tuple[Any, ...]:
    try:
        return () if args is None else tuple(args)
    except TypeError as error:
        raise ArgumentTypeError(
            f"`args` must be a tuple of further arguments, as (a,); got {args!r}"
        ) from error


def _method(method: Any, dtype: np.dtype) -> str | Tableau | Method:
    """What `odeint` takes, from a name or a solver class of SciPy, or from what `odeint` takes."""
    if isinstance(method, (Tableau, Method)):
        return method
    name = method.__name__ if isinstance(method, type) else method
    if isinstance(name, str) and name in SCIPY_METHODS:
        found = SCIPY_METHODS[name]
        return "kvaerno5" if found == "radau5" and dtype.kind == "c" else found
    if isinstance(name, str) and name in METHODS:
        return name
    raise ArgumentError(
        f"`method` must be one of {', '.join(map(repr, SCIPY_METHODS))}, or a method of odeint; got {method!r}"
    )


def _check_device(y0: Any, method: str | Tableau | Method) -> None:
    """ArgumentTypeError for a state on a GPU with a method that asks for Jacobians of `fun`."""
    found = METHODS[method] if isinstance(method, str) else method
    if is_device_array(y0) and not isinstance(found, Tableau):
        raise ArgumentTypeError(
            f"solve_ivp takes Jacobians of `fun` on the host, and method={found.name!r} asks for them; got `y0` of "
            "cupy. Take an explicit method such as 'RK45', or odeint, which differentiates f itself"
        )


def _checked(options: dict[str, Any], method: str | Tableau | Method, length: float) -> dict[str, Any]:
    """The options as `odeint` takes them, and `jac`; UserWarning, as SciPy's,
    for those that mean nothing here.
    """
    bands = [name for name in OF_BANDS if options.get(name) is not None]
    if bands:
        raise ArgumentError(
            f"{', '.join(map(repr, bands))}: Jacobians are dense here; leave them out, or use odeint with Radau5(...) or "
            "Kvaerno5(linear_solver='krylov')"
        )
    known = {"rtol": 1e-3, "atol": 1e-6, **dict.fromkeys(OF_STEPS), "jac": None, "warn_stiff": True}
    unknown = [name for name in options if name not in known and name not in OF_BANDS]
    found = METHODS[method] if isinstance(method, str) else method
    if isinstance(found, Tableau) and options.get("jac") is not None:
        unknown.append("jac")
    if unknown:
        near = [match for name in unknown for match in get_close_matches(name, known, 1) if match != name]
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        warnings.warn(
            f"solve_ivp: {', '.join(map(repr, unknown))} mean nothing to {found.name} and are ignored{hint}",
            stacklevel=3,
        )
    given = {**known, **{name: value for name, value in options.items() if name in known}}
    given["min_step"] = given["min_step"] or None
    wrong = [option_checks.positive(name, given[name]) for name in OF_STEPS if given[name] is not None]
    wrong += [
        f"`{name}` must be a number, or numbers (n,); got {given[name]!r}"
        for name in ("rtol", "atol")
        if np.asarray(given[name]).dtype.kind not in "iuf"
    ]
    if any(wrong):
        raise ArgumentError("; ".join(filter(None, wrong)))
    if np.any(np.asarray(given["rtol"]) < SMALLEST_RTOL):
        warnings.warn(f"solve_ivp: rtol is raised to {SMALLEST_RTOL:.1e}; below is round-off", stacklevel=3)
        given["rtol"] = np.maximum(given["rtol"], SMALLEST_RTOL)
    if np.any(np.asarray(given["atol"]) < 0):
        raise ArgumentError(f"`atol` must not be negative; got {given['atol']!r}")
    for name in ("rtol", "atol"):
        smallest = 0.0 if name == "rtol" else SMALLEST_ATOL
        value = np.maximum(given[name], smallest)
        given[name] = value if value.ndim else float(value)
    if given["first_step"] is not None and given["first_step"] > length > 0.0:
        raise ArgumentError(f"`first_step` = {given['first_step']} is longer than `t_span`, {length:g}")
    return given


def _output_times(t_eval: Any, t0: float, t1: float) -> np.ndarray:
    times = host_numbers(t_eval).astype(np.float64)
    if times.ndim != 1:
        raise ArgumentError(f"`t_eval` must have one axis, shape (T,); got shape {times.shape}")
    low, high = min(t0, t1), max(t0, t1)
    if np.any((times < low) | (times > high)):
        raise ArgumentError(
            f"`t_eval` must lie in `t_span`, [{low:g}, {high:g}]; got {times.min():g} to {times.max():g}"
        )
    steps = np.diff(times)
    if np.any(steps <= 0.0 if t1 > t0 else steps >= 0.0):
        raise ArgumentError("`t_eval` must be strictly monotone, in the direction of `t_span`")
    return times


def _with(event: Event, extra: tuple[Any, ...]) -> Event:
    """The event with further arguments of its condition."""
    if event.jump is not None:
        raise ArgumentError(f"the event {event.name!r} has a jump, which solve_ivp does not know; use odeint")
    return Event(
        lambda t, y: event.condition(t, y.copy(), *extra), event.terminal, event.direction, name=event.name
    )
