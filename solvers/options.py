"""The options of a solve, checked at the public entrance: every mismatch in one message."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import is_array, to_host
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.trace import Var, base_value, is_weak
from ..engine.tree import Tree, leaves, leaves_with_paths, path_name, tree_map
from .controller import Controller
from .controllers import CONTROLLERS
from .events import Event, checked_events
from .method import Method
from .methods import method_named
from .monitor import Monitor
from .norms import NORMS
from .solution import StepInfo
from .tableau import Tableau

GRADIENTS = ("discrete", "tape", "backsolve", "interpolated", "reversible")
KEEPS = ("auto", "all", "none")
EXECUTIONS = ("replay", "eager", "compiled")
SAVES = ("ts", "steps")
POSITIVE = ("drift_limit",)
POSITIVE_OR_NONE = ("max_step", "min_step", "first_step", "step_size")
_ROUND_OFF_BELOW_RTOL = 25.0
TOLERANCES = ("rtol", "atol", "backward_rtol", "backward_atol")
MAY_BE_INFINITE = ("max_step", "step_size", "drift_limit")


@dataclass(frozen=True)
class Options:
    """Everything about a solve but the problem itself; see `odeint` for what each means."""

    method: Tableau | Method
    rtol: Any  # a number, or what broadcasts against the state; once there is one: an array (n,)
    atol: Any
    gradient: str
    keep: str
    keep_bytes: int
    execution: str
    max_steps: int
    max_step: float
    first_step: float | None
    step_size: float | None
    grid: np.ndarray | None
    controller: str | Controller | None
    backward_rtol: Any
    backward_atol: Any
    callback: Callable[[StepInfo], None] | None
    drift_limit: float = math.inf
    coupling: float = 0.99
    checkpoints: int | None = None
    save: str = "ts"
    dense: bool = False
    min_step: float | None = None
    norm: str | Callable[[Tree], Any] = "rms"
    breakpoints: tuple[float, ...] = ()
    jump_ts: tuple[float, ...] = ()
    warn_stiff: bool = True
    independent: bool = False
    events: tuple[Event, ...] = ()
    monitor: Monitor | None = None  # what looks for them in the steps of one solve

    @property
    def tableau(self) -> Tableau:
        """The method as a tableau, for those who have asked `is_tableau`."""
        assert isinstance(self.method, Tableau)
        return self.method

    @property
    def is_tableau(self) -> bool:
        """Whether the method is an explicit Runge-Kutta tableau, which derivatives of the solve need."""
        return isinstance(self.method, Tableau)

    @property
    def interpolates(self) -> bool:
        """Whether output times may lie inside steps."""
        return self.method.interpolates and self.gradient != "reversible"

    @property
    def accepted_round_off(self) -> float:
        """What kernels may round off beyond plain sums (`engine.kernels.precision`): little beside the tolerance.

        Steps of a given size have no tolerance, and nothing is accepted there.
        """
        if not self.method.is_adaptive:
            return 0.0
        rtols = [to_host(rtol).min(initial=1.0) if is_array(rtol) else rtol for rtol in leaves(self.rtol)]
        return float(min(rtols)) / _ROUND_OFF_BELOW_RTOL

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable; equal for options that mean the same."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in values.values())

    def backward(self) -> Options:
        """The options of the backward solve of `backsolve` and `interpolated`, whose state is another one."""
        return replace(
            self,
            rtol=self.rtol if self.backward_rtol is None else self.backward_rtol,
            atol=self.atol if self.backward_atol is None else self.backward_atol,
            first_step=None,
            norm="rms",
            warn_stiff=False,
        )


def checked_options(method: str | Tableau | Method, **given: Any) -> Options:
    """Options, or ArgumentError with one line for each that does not fit."""
    choices = {"gradient": GRADIENTS, "keep": KEEPS, "execution": EXECUTIONS, "save": SAVES}
    problems = [_choice(name, given.get(name, allowed[0]), allowed) for name, allowed in choices.items()]
    problems += [
        _positive(name, given[name])
        for name in (*POSITIVE, *POSITIVE_OR_NONE)
        if name in given and (given[name] is not None or name in POSITIVE)
    ]
    problems += [
        _tolerance(name, given[name])
        for name in TOLERANCES
        if name in given and (given[name] is not None or name in ("rtol", "atol"))
    ]
    problems += [_norm(given.get("norm", "rms")), _boolean("warn_stiff", given.get("warn_stiff", True))]
    problems.append(_boolean("independent", given.get("independent", False)))
    problems.append(_ordered_steps(given))
    problems.append(_fraction("coupling", given.get("coupling", 1.0)))
    if not _is_integer(given["max_steps"]) or given["max_steps"] < 1:
        problems.append(f"`max_steps` must be a positive integer; got {given['max_steps']!r}")
    if not _is_integer(given["keep_bytes"]) or given["keep_bytes"] < 0:
        problems.append(f"`keep_bytes` must be a non-negative integer; got {given['keep_bytes']!r}")
    if given.get("checkpoints") is not None:
        problems.append(_checkpoints(given["checkpoints"], given["gradient"], given["keep"]))
    if given["callback"] is not None and not callable(given["callback"]):
        problems.append(f"`callback` must be a function of a StepInfo; got {given['callback']!r}")
    problems.append(_controller(given["controller"]))
    for name in ("breakpoints", "jump_ts"):
        given[name] = _as_stops(name, given.get(name))
    chosen = method_named(method)
    problems.append(_dense(given.get("dense", False), given["gradient"], chosen))
    given["events"] = checked_events(given.get("events"))
    problems.append(_eventful(given, chosen))
    if given["grid"] is not None:
        given["grid"] = _as_times(given["grid"])
    if given["step_size"] is not None and given["grid"] is not None:
        problems.append("`step_size` and `grid` exclude each other")
    if given["step_size"] is not None and chosen.is_adaptive:
        problems.append(
            f"`step_size` is for methods with fixed steps; {chosen.name} chooses its own (`first_step`)"
        )
    found = [problem for problem in problems if problem]
    if found:
        raise ArgumentError("; ".join(found))
    if given["max_step"] is None:
        given["max_step"] = math.inf
    return Options(method=chosen, **given)


def initial_state(y0: Tree) -> Tree:
    """y0 in native byte order, a Python number as a 0-d float64 array; ArgumentError for values that are not finite."""
    if is_weak(y0):
        y0 = np.zeros(()) + y0
    refuse_subclasses("y0", y0)
    for path, leaf in leaves_with_paths(y0):
        value = base_value(leaf)
        if hasattr(value, "dtype") and value.dtype.kind in "fc" and not bool(ops.isfinite(value).all()):
            n_bad = int(value.size - ops.isfinite(value).sum())
            name = f"y0/{path_name(path)}" if path else "y0"
            raise ArgumentError(
                f"`y0` must be finite; got {n_bad} of {value.size} values NaN or infinite in {name}"
            )
    return tree_map(_in_native_order, y0)


def _in_native_order(leaf: Any) -> Any:
    dtype = getattr(base_value(leaf), "dtype", None)
    return leaf if dtype is None or dtype.isnative else ops.astype(leaf, dtype.newbyteorder("="))


def refuse_subclasses(name: str, tree: Tree) -> None:
    """ArgumentTypeError for masked arrays, matrices and the like: replay computes on their plain data."""
    for path, leaf in leaves_with_paths(tree):
        kind = type(base_value(leaf))
        if issubclass(kind, np.ndarray) and kind is not np.ndarray:
            leaf_name = f"{name}/{path_name(path)}" if path else name
            raise ArgumentTypeError(
                f"`{leaf_name}` must be a plain numpy.ndarray; got a {kind.__name__}, whose own rules would be lost. "
                "Convert it with numpy.array(...), a masked array with .filled(value)"
            )


def check_method(options: Options, y0: Tree, *, has_aux: bool) -> None:
    """ArgumentError where the method cannot advance this state, or cannot say what f returned beside the slope."""
    if isinstance(options.method, Tableau):
        return
    options.method.check(y0)
    if has_aux or options.gradient == "reversible":
        wanted = "has_aux=True" if has_aux else "gradient='reversible'"
        raise ArgumentError(
            f"{wanted} needs an explicit Runge-Kutta method (dopri5); got method={options.method.name!r}"
        )


def check_outputs(options: Options, ts: np.ndarray) -> None:
    """ArgumentError for output times between which the steps themselves are asked for."""
    if options.save == "steps" and len(ts) > 2:
        raise ArgumentError(
            f"save='steps' returns every accepted step between two times, `ts` = (t0, t1); got {len(ts)} times. Leave the "
            "others out, or leave out `save`; with dense=True the solution can be read anywhere"
        )


def joined_times(ts: Any) -> Any:
    """A list of traced times as one traced array (T,); anything else as it is."""
    if isinstance(ts, (list, tuple)) and any(type(t) is Var for t in ts):
        return ops.stack([np.zeros(()) + t for t in ts])
    return ts


def output_times(ts: Any) -> np.ndarray:
    """The output times as float64 (T,) on the host, T >= 2, finite and strictly monotone; ArgumentError otherwise."""
    values = base_value(ts)
    try:
        given = to_host(values) if hasattr(values, "dtype") else np.asarray(values)
        times = given.astype(np.float64, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"`ts` must be an array of real times (T,); got {values!r}") from error
    if times.ndim != 1 or times.size < 2:
        raise ArgumentError(f"`ts` must be strictly monotone, shape (T,), T >= 2; got shape {times.shape}")
    if not np.isfinite(times).all():
        raise ArgumentError(
            f"`ts` must be finite; got ts[{int(np.argmin(np.isfinite(times)))}] = {times[~np.isfinite(times)][0]}"
        )
    steps = np.diff(times)
    wrong = np.flatnonzero(np.sign(steps) != np.sign(times[-1] - times[0]))
    if wrong.size or times[-1] == times[0]:
        i = int(wrong[0]) if wrong.size else 0
        relation = "==" if times[i] == times[i + 1] else "then"
        raise ArgumentError(
            f"`ts` must be strictly monotone, shape (T,), T >= 2; got ts[{i}] = {times[i]:g} {relation} "
            f"ts[{i + 1}] = {times[i + 1]:g}"
        )
    return times


def walking_grid(options: Options, ts: np.ndarray) -> np.ndarray | None:
    """The times to walk: given ones, or those of a method with fixed steps; None where steps are chosen."""
    grid = _given_grid(options, ts)
    return grid if grid is None else _with_breakpoints(grid, options)


def _with_breakpoints(grid: np.ndarray, options: Options) -> np.ndarray:
    """The grid of a method with fixed steps with the breakpoints; ArgumentError for a given one that lacks them."""
    inside = np.array([t for t in options.breakpoints if min(grid[0], grid[-1]) < t < max(grid[0], grid[-1])])
    missing = inside[~np.isin(inside, grid)]
    if missing.size and options.grid is not None:
        raise ArgumentError(
            f"`grid` must hold every breakpoint; {missing[0]:g} is not in it. Give the `grid` of a solve with these "
            "`breakpoints`, or leave one of them out"
        )
    return (
        np.unique(np.concatenate([grid, missing]))[:: 1 if grid[-1] > grid[0] else -1]
        if missing.size
        else grid
    )


def _given_grid(options: Options, ts: np.ndarray) -> np.ndarray | None:
    if options.grid is not None:
        return _checked_grid(options.grid, options, ts)
    if options.method.is_adaptive:
        if not options.method.interpolates and options.gradient != "reversible" and len(ts) > 2:
            raise ArgumentError(
                f"`ts` must be two times, since {options.method.name} has no dense output; got {len(ts)}. Give a `grid` "
                "that holds every output time, or use a method with dense output (dopri5)"
            )
        return None
    if options.step_size is not None:
        return _even_steps(options.step_size, options.max_steps, ts)
    if len(ts) - 1 > options.max_steps:
        raise ArgumentError(
            f"{options.method.name} makes a step from each output time to the next, {len(ts) - 1} of them, more than "
            f"`max_steps` = {options.max_steps}; raise `max_steps`"
        )
    return ts


def _even_steps(step_size: float, max_steps: int, ts: np.ndarray) -> np.ndarray:
    """Times that divide each interval between outputs evenly, into steps of at most `step_size`."""
    with np.errstate(over="ignore"):
        counts = np.maximum(1.0, np.ceil(abs(np.diff(ts)) / step_size - 1e-9))
    if counts.sum() > max_steps:
        raise ArgumentError(
            f"`step_size` = {step_size:g} divides the interval [{ts[0]:g}, {ts[-1]:g}] into {counts.sum():.6g} steps, "
            f"more than `max_steps` = {max_steps}; enlarge one of them"
        )
    pieces = [ts[:1]]
    for start, end, n in zip(ts, ts[1:], counts.astype(int), strict=False):
        pieces.append(np.append(start + (end - start) * np.arange(1, n) / n, end))
    return np.concatenate(pieces)


def _as_times(grid: Any) -> np.ndarray:
    """An array (N + 1,) of one's own."""
    try:
        return np.array(to_host(grid), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"`grid` must be an array of times (N + 1,); got {grid!r}") from error


def _checked_grid(grid: np.ndarray, options: Options, ts: np.ndarray) -> np.ndarray:
    if grid.ndim != 1 or grid.size < 2 or not np.isfinite(grid).all():
        raise ArgumentError(f"`grid` must be finite times, shape (N + 1,), N >= 1; got shape {grid.shape}")
    if len(grid) - 1 > options.max_steps:
        raise ArgumentError(
            f"`grid` has {len(grid) - 1} steps, more than `max_steps` = {options.max_steps}; raise `max_steps`"
        )
    if np.any(np.sign(np.diff(grid)) != np.sign(ts[-1] - ts[0])) or grid[0] != ts[0] or grid[-1] != ts[-1]:
        raise ArgumentError(
            f"`grid` must run strictly monotone from ts[0] = {ts[0]:g} to ts[-1] = {ts[-1]:g}; it runs from "
            f"{grid[0]:g} to {grid[-1]:g}"
        )
    if not options.interpolates and not np.isin(ts, grid).all():
        missing = ts[~np.isin(ts, grid)][0]
        has_none = f"{options.method.name} has" if options.gradient != "reversible" else "'reversible' uses"
        raise ArgumentError(
            f"`grid` must hold every output time, since {has_none} no dense output; {missing:g} is not in it"
        )
    return grid


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value in allowed:
        return ""
    near = difflib.get_close_matches(str(value), allowed, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {value!r}{hint}"


def _positive(name: str, value: Any) -> str:
    is_number = isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)
    if is_number and 0 < value and (value < math.inf or name in MAY_BE_INFINITE):
        return ""
    return f"`{name}` must be a positive number; got {value!r}"


def _fraction(name: str, value: Any) -> str:
    if not _positive(name, value) and value <= 1:
        return ""
    return f"`{name}` must be a number in (0, 1]; got {value!r}"


def _tolerance(name: str, value: Tree) -> str:
    if isinstance(value, (int, float, np.floating, np.integer)):
        return _positive(name, value)
    for leaf in leaves(value) or [None]:
        try:
            numbers = np.asarray(to_host(leaf) if hasattr(leaf, "dtype") else leaf)
            is_fine = bool(((numbers > 0) & np.isfinite(numbers)).all()) and numbers.dtype.kind in "fiu"
        except (TypeError, ValueError):
            is_fine = False
        if not is_fine:
            return f"`{name}` must be a positive number, or an array or a tree of them; got {value!r}"
    return ""


def _norm(value: Any) -> str:
    if callable(value):
        return ""
    problem = _choice("norm", value, NORMS)
    return f"{problem} (or give a function of the tree of scaled errors)" if problem else ""


def _boolean(name: str, value: Any) -> str:
    return "" if isinstance(value, (bool, np.bool_)) else f"`{name}` must be True or False; got {value!r}"


def _ordered_steps(given: dict[str, Any]) -> str:
    """`min_step` above what is asked for elsewhere."""
    smallest = given.get("min_step")
    if smallest is None or _positive("min_step", smallest):
        return ""
    for name in ("first_step", "max_step"):
        value = given[name]
        if value is not None and not _positive(name, value) and value < smallest:
            return f"`min_step` = {smallest:g} is above `{name}` = {value:g}"
    return ""


def _controller(value: Any) -> str:
    if value is None or isinstance(value, str) and value in CONTROLLERS:
        return ""
    if isinstance(value, str):
        return _choice("controller", value, tuple(CONTROLLERS))
    if callable(getattr(value, "judge", None)) and not isinstance(value, type):
        return ""
    names = ", ".join(map(repr, CONTROLLERS))
    return f"`controller` must be one of {names}, a PIController or a FilterController; got {value!r}"


def _as_stops(name: str, times: Any) -> tuple[float, ...]:
    """Times at which steps end, ascending, each once."""
    if times is None:
        return ()
    try:
        values = np.unique(np.asarray(to_host(times), dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"`{name}` must be an array of times; got {times!r}") from error
    if np.ndim(times) != 1 or not np.isfinite(values).all():
        raise ArgumentError(f"`{name}` must be finite times, shape (m,); got {times!r}")
    return tuple(values.tolist())


def _dense(value: Any, gradient: str, method: Tableau | Method) -> str:
    if _boolean("dense", value):
        return _boolean("dense", value)
    if value and gradient == "reversible":
        return (
            "gradient='reversible' has no dense output; leave out `dense`, or choose another gradient method"
        )
    if value and not isinstance(method, Tableau) and not method.interpolates:
        return f"{method.name} has no dense output; leave out `dense`, or choose another method (dopri5)"
    return ""


def _eventful(given: dict[str, Any], method: Tableau | Method) -> str:
    """What events do not go together with."""
    if not given["events"]:
        return ""
    if given["gradient"] == "reversible":
        return (
            "`events` are looked for in dense output, which gradient='reversible' has none of; choose another"
        )
    if given.get("independent"):
        return "`events` and independent=True exclude each other; solve the rows one by one"
    if not isinstance(method, Tableau) and not method.interpolates:
        return f"`events` are looked for in dense output, which {method.name} has none of; choose another method (dopri5)"
    return ""


def _checkpoints(value: Any, gradient: str, keep: str) -> str:
    if not _is_integer(value) or value < 1:
        return f"`checkpoints` must be None or a positive number of states; got {value!r}"
    if gradient != "discrete":
        return f"`checkpoints` are those of gradient='discrete'; got gradient={gradient!r}"
    if keep == "all":
        return "`checkpoints` and keep='all' exclude each other: stages are not kept where states are not"
    return ""


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
