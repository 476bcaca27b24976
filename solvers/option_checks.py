"""One check an option: what is wrong with a value, in words for the user, or "".

Two of them turn times into what the solve works with, and raise.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

import numpy as np

from ..engine.backend import host_numbers, to_host
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.tree import Tree, leaves
from .controllers import CONTROLLERS
from .method import Method
from .norms import NORMS
from .tableau import Tableau

MAY_BE_INFINITE = ("max_step", "step_size", "drift_limit")


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value in allowed:
        return ""
    near = difflib.get_close_matches(str(value).lower(), allowed, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {value!r}{hint}"


def positive(name: str, value: Any) -> str:
    is_number = isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)
    if is_number and 0 < value and (value < math.inf or name in MAY_BE_INFINITE):
        return ""
    return f"`{name}` must be a positive number; got {value!r}"


def fraction(name: str, value: Any) -> str:
    if not positive(name, value) and value <= 1:
        return ""
    return f"`{name}` must be a number in (0, 1]; got {value!r}"


def tolerance(name: str, value: Tree) -> str:
    if isinstance(value, (int, float, np.floating, np.integer)):
        return positive(name, value)
    for leaf in leaves(value) or [None]:
        try:
            numbers = np.asarray(to_host(leaf) if hasattr(leaf, "dtype") else leaf)
            is_fine = bool(((numbers > 0) & np.isfinite(numbers)).all()) and numbers.dtype.kind in "fiu"
        except (TypeError, ValueError):
            is_fine = False
        if not is_fine:
            return f"`{name}` must be a positive number, or an array or a tree of them; got {value!r}"
    return ""


def norm(value: Any) -> str:
    if callable(value):
        return ""
    problem = choice("norm", value, NORMS)
    return f"{problem} (or give a function of the tree of scaled errors)" if problem else ""


def boolean(name: str, value: Any) -> str:
    return "" if isinstance(value, (bool, np.bool_)) else f"`{name}` must be True or False; got {value!r}"


def ordered_steps(given: dict[str, Any]) -> str:
    """`min_step` above what is asked for elsewhere."""
    smallest = given.get("min_step")
    if smallest is None or positive("min_step", smallest):
        return ""
    for name in ("first_step", "max_step"):
        value = given[name]
        if value is not None and not positive(name, value) and value < smallest:
            return f"`min_step` = {smallest:g} is above `{name}` = {value:g}"
    return ""


def of_chosen_steps(given: dict[str, Any], method: Tableau | Method) -> str:
    """What a method with fixed steps would not look at."""
    names = ("first_step", "max_step", "min_step", "controller")
    unused = [f"`{name}`" for name in names if given.get(name) is not None]
    if method.is_adaptive or not unused:
        return ""
    verb = "is" if len(unused) == 1 else "are"
    return (
        f"{', '.join(unused)} {verb} for methods that choose their steps; {method.name} takes those of `step_size` or "
        "`grid`"
    )


def controller(value: Any) -> str:
    if value is None or isinstance(value, str) and value in CONTROLLERS:
        return ""
    if isinstance(value, str):
        return choice("controller", value, tuple(CONTROLLERS))
    if callable(getattr(value, "judge", None)) and not isinstance(value, type):
        return ""
    names = ", ".join(map(repr, CONTROLLERS))
    return f"`controller` must be one of {names}, a PIController or a FilterController; got {value!r}"


def as_grid(grid: Any) -> np.ndarray:
    """An array (N + 1,) of one's own."""
    try:
        return np.array(host_numbers(grid), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"`grid` must be an array of times (N + 1,); got {grid!r}") from error


def as_stops(name: str, times: Any) -> tuple[float, ...]:
    """Times at which steps end, ascending, each once."""
    if times is None:
        return ()
    try:
        values = np.unique(np.asarray(host_numbers(times), dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"`{name}` must be an array of times; got {times!r}") from error
    if np.ndim(times) != 1 or not np.isfinite(values).all():
        raise ArgumentError(f"`{name}` must be finite times, shape (m,); got {times!r}")
    return tuple(values.tolist())


def dense(value: Any, gradient: str, method: Tableau | Method) -> str:
    if boolean("dense", value):
        return boolean("dense", value)
    if value and gradient == "reversible":
        return (
            "gradient='reversible' has no dense output; leave out `dense`, or choose another gradient method"
        )
    if value and not isinstance(method, Tableau) and not method.interpolates:
        return f"{method.name} has no dense output; leave out `dense`, or choose another method (dopri5)"
    return ""


def eventful(given: dict[str, Any], method: Tableau | Method) -> str:
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


def checkpoints(value: Any, gradient: str, keep: str) -> str:
    if not is_integer(value) or value < 1:
        return f"`checkpoints` must be None or a positive number of states; got {value!r}"
    if gradient != "discrete":
        return f"`checkpoints` are those of gradient='discrete'; got gradient={gradient!r}"
    if keep == "all":
        return "`checkpoints` and keep='all' exclude each other: stages are not kept where states are not"
    return ""


def is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
