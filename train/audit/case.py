"""The records of an audit: an initial value problem with a scalar loss of its solution, in any precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...engine.tree import Tree, leaves, tree_map
from .functions import OURS, Functions


@dataclass(frozen=True)
class Case:
    """dy/dt = f(t, y, params), y(ts[0]) = y0, and the loss of ys (T, *y0.shape), in one precision.

    `breakpoints` are times at which f has kinks, if it has any: the reference steps from each to the next.
    """

    f: Callable[[Any, Tree, Tree], Tree]
    y0: Tree
    ts: np.ndarray
    params: Tree
    loss: Callable[[Tree], Any]
    breakpoints: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Portable:
    """Dynamics that every library can compute: f(functions, t, y, params, constants) -> slope.

    y, params and constants hold arrays of the library whose `functions` are given; constants are not
    differentiated. Each is equal to itself alone: problems that share one are compiled once.
    """

    f: Callable[[Functions, Any, Any, Tree, Tree], Any]
    constants: Tree = None

    def on(self, functions: Functions, constants: Tree) -> Callable[[Any, Any, Tree], Any]:
        """f(t, y, params) by one library, with the constants as its arrays."""
        return lambda t, y, params: self.f(functions, t, y, params, constants)


@dataclass(frozen=True)
class Problem:
    """A problem in any precision.

    Attributes:
        about: one sentence for the page.
        build: dtype -> Case.
        closed_form: the gradient of the loss, {"y0", "params", "ts"}, where a formula exists.
        portable: its dynamics for any library; without them other libraries are not put beside ours.
    """

    name: str
    about: str
    build: Callable[[np.dtype[Any]], Case]
    closed_form: Callable[[], Tree] | None = None
    portable: Portable | None = None


def half_square(ys: Tree) -> Any:
    """Half the sum of squares of the solution at all output times: a loss in every library."""
    return 0.5 * sum((leaf * leaf).sum() for leaf in leaves(ys))


def cast(tree: Tree, dtype: np.dtype[Any]) -> Tree:
    """The tree with its floating-point leaves in `dtype`."""
    return tree_map(
        lambda leaf: np.asarray(leaf, dtype if np.asarray(leaf).dtype.kind == "f" else None), tree
    )


def arrays_problem(name: str, about: str, case: Case) -> Problem:
    """A problem whose f computes in the precision of its arguments."""

    def build(dtype: np.dtype[Any]) -> Case:
        return replace(case, y0=cast(case.y0, dtype), params=cast(case.params, dtype))

    return Problem(name, about, build)


def portable_problem(
    name: str,
    about: str,
    portable: Portable,
    y0: np.ndarray,
    ts: np.ndarray,
    params: Tree,
    *,
    breakpoints: tuple[float, ...] = (),
    closed_form: Callable[[], Tree] | None = None,
) -> Problem:
    """A problem with the loss `half_square` whose dynamics every library can compute; arrays are float64."""

    def build(dtype: np.dtype[Any]) -> Case:
        f = portable.on(OURS, cast(portable.constants, dtype))
        return Case(f, cast(y0, dtype), ts, cast(params, dtype), half_square, breakpoints)

    return Problem(name, about, build, closed_form, portable)
