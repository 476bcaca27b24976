"""The options of a solve, checked at the public entrance: every mismatch in one message."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ..engine.backend import is_array, to_host
from ..engine.errors import ArgumentError, TracedValueError
from ..engine.trace import Var
from ..engine.tree import Tree, leaves
from . import option_checks
from .controller import Controller
from .events import Event, checked_events
from .method import Method
from .methods import method_named
from .monitor import Monitor
from .solution import StepInfo
from .tableau import Tableau

GRADIENTS = ("discrete", "tape", "backsolve", "interpolated", "reversible")
KEEPS = ("auto", "all", "none")
EXECUTIONS = ("replay", "eager", "compiled")
SAVES = ("ts", "steps")
POSITIVE_OR_NONE = ("max_step", "min_step", "first_step", "step_size", "drift_limit")
_ROUND_OFF_BELOW_RTOL = 25.0
_PLAIN = frozenset((str, int, float, bool, type(None)))
TOLERANCES = ("rtol", "atol", "backward_rtol", "backward_atol")


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
    drift_limit: float | None = None
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

    @cached_property
    def accepted_round_off(self) -> float:
        """What kernels may round off beyond plain sums (`engine.kernels.precision`):
        little beside the tolerance.

        Steps of a given size have no tolerance, and nothing is accepted there.
        """
        if not self.method.is_adaptive:
            return 0.0
        rtols = [to_host(rtol).min(initial=1.0) if is_array(rtol) else rtol for rtol in leaves(self.rtol)]
        return float(min(rtols)) / _ROUND_OFF_BELOW_RTOL

    @cached_property
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
    """Options, or ArgumentError with one line for each that does not fit.

    Those of plain values are remembered: small systems are solved often, with the same ones.
    """
    if type(method) is str and _PLAIN.issuperset(map(type, given.values())):
        return _known_options(method, **given)
    return _checked_options(method, given)


def _refuse_traced(given: dict[str, Any]) -> None:
    """TracedValueError for options that are values of a trace: what is decided by them would be frozen."""
    traced = [name for name, value in given.items() if any(type(leaf) is Var for leaf in leaves(value))]
    if traced:
        raise TracedValueError(
            f"options of a solve are constants, neither differentiated nor traced; got a traced value for "
            f"{' and '.join(f'`{name}`' for name in traced)}. Under `jit` name the argument in `static_argnums`"
        )


@lru_cache(maxsize=256, typed=True)  # typed: True is no number of steps
def _known_options(method: str, **given: Any) -> Options:
    return _checked_options(method, given)


def _checked_options(method: str | Tableau | Method, given: dict[str, Any]) -> Options:
    _refuse_traced(given)
    choices = {"gradient": GRADIENTS, "keep": KEEPS, "execution": EXECUTIONS, "save": SAVES}
    problems = [
        option_checks.choice(name, given.get(name, allowed[0]), allowed) for name, allowed in choices.items()
    ]
    problems += [
        option_checks.positive(name, given[name]) for name in POSITIVE_OR_NONE if given.get(name) is not None
    ]
    problems += [
        option_checks.tolerance(name, given[name])
        for name in TOLERANCES
        if name in given and (given[name] is not None or name in ("rtol", "atol"))
    ]
    problems += [
        option_checks.norm(given.get("norm", "rms")),
        option_checks.boolean("warn_stiff", given.get("warn_stiff", True)),
    ]
    problems.append(option_checks.boolean("independent", given.get("independent", False)))
    problems.append(option_checks.ordered_steps(given))
    problems.append(option_checks.fraction("coupling", given.get("coupling", 1.0)))
    if not option_checks.is_integer(given["max_steps"]) or given["max_steps"] < 1:
        problems.append(f"`max_steps` must be a positive integer; got {given['max_steps']!r}")
    if not option_checks.is_integer(given["keep_bytes"]) or given["keep_bytes"] < 0:
        problems.append(f"`keep_bytes` must be a non-negative integer; got {given['keep_bytes']!r}")
    if given.get("checkpoints") is not None:
        problems.append(option_checks.checkpoints(given["checkpoints"], given["gradient"], given["keep"]))
    if given["callback"] is not None and not callable(given["callback"]):
        problems.append(f"`callback` must be a function of a StepInfo; got {given['callback']!r}")
    problems.append(option_checks.controller(given["controller"]))
    for name in ("breakpoints", "jump_ts"):
        given[name] = option_checks.as_stops(name, given.get(name))
    chosen = method_named(method)
    problems.append(option_checks.of_chosen_steps(given, chosen))
    problems.append(option_checks.dense(given.get("dense", False), given["gradient"], chosen))
    given["events"] = checked_events(given.get("events"))
    problems.append(option_checks.eventful(given, chosen))
    if given["grid"] is not None:
        given["grid"] = option_checks.as_grid(given["grid"])
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


def check_method(options: Options, y0: Tree, *, has_aux: bool) -> None:
    """ArgumentError where the method cannot advance this state,
    or cannot say what f returned beside the slope.
    """
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
