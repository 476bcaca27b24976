"""Events: conditions along a solution, what happens where they change sign,
and the record of where they did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, signature
from typing import Any

import numpy as np

from ..engine.backend import is_array, to_host
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.trace import base_value, describe
from ..engine.tree import Tree


@dataclass(frozen=True)
class Event:
    """Something that happens where `condition` changes sign along the solution.

    A condition that touches zero without changing sign, or that is zero throughout, is no event; one that is
    zero at the end of the solve is.

    Args:
        condition: condition(t, y, params) -> a real number, continuous along the solution; condition(t, y)
            when the solve has no params, or when it takes two arguments.
        terminal: True ends the solve at the first occurrence, a number n at the n-th, False never.
        direction: a positive number counts changes from negative to positive only, a negative one those from
            positive to negative, 0 both; along the integration, whichever way time runs.
        jump: jump(t, y, params), or likewise jump(t, y), -> the state, a tree like y0, with which the solve
            goes on from there. An event with a jump does not end the solve.
        name: what messages and `sol.events` call it (default: the name of the condition).
    """

    condition: Callable[..., Any]
    terminal: bool | int = True
    direction: float = 0
    jump: Callable[..., Any] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        wrong = []
        if not callable(self.condition):
            wrong.append(f"`condition` must be a function condition(t, y, params); got {self.condition!r}")
        if self.jump is not None and not callable(self.jump):
            wrong.append(f"`jump` must be None or a function jump(t, y, params); got {self.jump!r}")
        if not isinstance(self.terminal, (bool, int, np.bool_, np.integer)) or self.terminal < 0:
            wrong.append(f"`terminal` must be True, False or a number of occurrences; got {self.terminal!r}")
        if not isinstance(self.direction, (int, float, np.number)) or math.isnan(float(self.direction)):
            wrong.append(f"`direction` must be positive, negative or 0; got {self.direction!r}")
        if not isinstance(self.name, str):
            wrong.append(f"`name` must be text; got {self.name!r}")
        if wrong:
            raise ArgumentTypeError("an Event: " + "; ".join(wrong))
        if not self.name:
            object.__setattr__(self, "name", getattr(self.condition, "__name__", "event"))

    def value(self, t: Any, y: Tree, params: Tree) -> Any:
        """What the condition returns."""
        return (
            self.condition(t, y, params)
            if self._with_params[0] and params is not None
            else self.condition(t, y)
        )

    def state_after(self, t: Any, y: Tree, params: Tree) -> Tree:
        """What the jump returns."""
        assert self.jump is not None
        return self.jump(t, y, params) if self._with_params[1] and params is not None else self.jump(t, y)

    @cached_property
    def _with_params(self) -> tuple[bool, bool]:
        """Whether condition and jump take three arguments."""
        return _takes_three(self.condition), self.jump is not None and _takes_three(self.jump)

    def is_counted(self, sign: float) -> bool:
        """Whether a change to the side `sign` is an occurrence."""
        return self.direction * sign >= 0


@dataclass(frozen=True)
class Occurrences:
    """Where one event happened.

    Attributes:
        which: its place among `events`; name: its name.
        ts: times (k,), float64.
        ys: the states there, before a jump: a tree like y0, each leaf (k, *shape).
    """

    which: int
    name: str
    ts: Any
    ys: Tree

    def __len__(self) -> int:
        return len(self.ts)


def checked_events(events: Any) -> tuple[Event, ...]:
    """Events from what a user gives: None, one of them or several,
    each an `Event` or a function as SciPy takes it.

    Such a function ends the solve where its attribute `terminal` says so (default: it does not), and counts
    the changes of sign that its `direction` names.
    """
    if events is None:
        return ()
    given = [events] if isinstance(events, Event) or callable(events) else events
    if not isinstance(given, (list, tuple)):
        raise ArgumentTypeError(
            f"`events` must be a list of Event(condition, ...), or of functions (t, y, params); got {type(events).__name__}"
        )
    found = []
    for event in given:
        if not isinstance(event, Event):
            if not callable(event):
                raise ArgumentTypeError(
                    f"`events` must hold Event(condition, ...) or functions (t, y, params); got {event!r}"
                )
            terminal = getattr(event, "terminal", False)
            direction = getattr(event, "direction", 0)
            event = Event(
                event, False if terminal is None else terminal, 0 if direction is None else direction
            )
        found.append(event)
    return tuple(found)


def _takes_three(function: Callable[..., Any]) -> bool:
    try:
        known = signature(function).parameters.values()
    except (TypeError, ValueError):  # a built-in function without a signature
        return True
    kinds = [parameter.kind for parameter in known]
    n_positional = sum(kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    return n_positional >= 3 or Parameter.VAR_POSITIONAL in kinds


def number_of(result: Any, event: Event, t: float) -> float:
    """What a condition returned, as a float. ArgumentError where it is no finite real number."""
    if isinstance(result, float) and math.isfinite(result):
        return float(result)
    value = base_value(result)
    if is_array(value):
        value = to_host(value)
    if np.size(value) == 1 and not isinstance(value, (str, bytes, dict)):
        try:
            given = np.asarray(value).reshape(())
            is_claim = given.dtype.kind == "b"  # as y > 0, which is never negative: it would never happen
            number = math.nan if is_claim else given.astype(np.float64, casting="safe").item()
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
    got = repr(value) if isinstance(value, (int, float, np.number)) else f"{describe(value)}: {value!r}"
    raise ArgumentError(
        f"the condition of the event {event.name!r} must return a finite real number, continuous along the "
        f"solution; at t={t:.6g} it returned {got}. Take one component, a norm, or an expression that is defined on "
        "both sides of the event"
    )
