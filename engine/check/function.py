"""A scalar function of a tree as the checks call it: on read-only arrays, twice at first,
its value looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np

from ..backend import is_array, namespace_of, to_host, to_number
from ..errors import ArgumentError, ImpureFunctionError, NonFiniteGradient
from ..trace import describe, dtype_of, is_weak, shape_of
from ..tree import Tree, leaves, leaves_with_paths, path_name, unflatten
from .arguments import check_point
from .differences import noise_level
from .directions import random_leaf, relative_size

PACKAGE = __name__.partition(".")[0]
UNKNOWN_LINE = "an unknown line"
NOISE_STEP = 1e-6  # relative
SAME = 64.0  # two evaluations may differ by this many units of round-off: atomic sums on a GPU have no fixed order


class ScalarFunction:
    """f at x: a pure function of a tree of arrays to a real scalar.

    Attributes:
        x, leaves, names: the tree, its leaves and what messages call them.
        value: f(x).
        eps: spacing of the floats that f computes with.
        noise: how far values of f lie from a smooth function near x, where that can be measured.
    Raises: ArgumentError, ArgumentTypeError for a tree that is empty, has integer leaves or values that are
        not finite, and for a result that is not a real scalar; ImpureFunctionError if f writes into x or if
        two calls differ; NonFiniteGradient if f(x) is not finite.
    Cost: two evaluations of f.
    """

    def __init__(self, f: Callable[[Tree], Any], x: Tree) -> None:
        check_point(x)
        self.f, self.x = f, x
        self.leaves = leaves(x)
        self.names = [path_name(path) for path, _ in leaves_with_paths(x)]
        self.xp = namespace_of(*self.leaves)
        result = self._call(self.leaves)
        check_real_scalar(result)
        self.value = float(to_host(result))
        dtypes = [dtype_of(result), *(dtype_of(leaf) for leaf in self.leaves)]
        self.eps = max(float(np.finfo(dtype).eps) for dtype in dtypes)
        if not np.isfinite(self.value):
            raise NonFiniteGradient(
                f"the function is {self.value} at the point where its gradient was to be checked; nothing can be "
                "compared there. Move the point into the domain of the function",
                value=self.value,
            )
        again = self.at(self.leaves)
        if not abs(again - self.value) <= SAME * self.eps * abs(self.value):
            raise ImpureFunctionError(
                f"the function is not pure: two calls with the same argument gave {self.value!r} and {again!r}. "
                "Draw random numbers from a key or a seed that is fixed outside of it, and let it change nothing "
                "that it reads",
                values=(self.value, again),
            )

    @cached_property
    def noise(self) -> float:
        rng = np.random.default_rng(0)
        v = [random_leaf(leaf, rng) for leaf in self.leaves]
        return noise_level(self.line(v), NOISE_STEP * relative_size(self.leaves, v))

    def at(self, values: Sequence[Any]) -> Any:
        """f of a tree with these leaves, as a Python number; complex for complex values."""
        result = to_host(self._call(values))
        return complex(result) if result.dtype.kind == "c" else float(result)

    def _call(self, values: Sequence[Any]) -> Any:
        pairs = zip(self.leaves, values, strict=True)
        values = [np.asarray(v) if is_array(leaf) and isinstance(v, np.generic) else v for leaf, v in pairs]
        return call_pure(self.f, unflatten(self.x, [guarded(value) for value in values]), values)

    def entry(self, leaf: int, index: int, unit: complex = 1.0) -> Callable[[float], Any]:
        """h -> f(x + h unit e), e the unit vector of an entry (flat index) of a leaf."""

        def phi(h: Any) -> Any:
            values, given = list(self.leaves), self.leaves[leaf]
            if not is_array(given):
                values[leaf] = given + h * unit
                return self.at(values)
            moved = self.xp.array(given, order="C")  # a copy in which a flat index means what it says
            moved.reshape(-1)[index] += moved.dtype.type(h * unit)
            values[leaf] = moved
            return self.at(values)

        return phi

    def line(self, direction: Sequence[Any]) -> Callable[[float], Any]:
        """h -> f(x + h v); `direction` has a leaf of v for each of x, or None for a zero one."""

        def phi(h: Any) -> Any:
            return self.at([moved(leaf, h, v) for leaf, v in zip(self.leaves, direction, strict=True)])

        return phi

    def line_of_leaf(self, leaf: int, v: Any) -> Callable[[float], Any]:
        """h -> f(x + h v), v moving one leaf only."""
        return self.line([v if k == leaf else None for k in range(len(self.leaves))])


def moved(leaf: Any, h: float, v: Any) -> Any:
    """leaf + h v in the dtype of the leaf."""
    if v is None:
        return leaf
    return leaf + h * v if is_weak(leaf) else (leaf + h * v).astype(leaf.dtype)


def call_pure(f: Callable[[Tree], Any], argument: Tree, originals: Sequence[Any]) -> Any:
    """f(argument); ImpureFunctionError, with the line, if it writes into an array of it or exchanges one."""
    before = leaves(argument)
    try:
        with np.errstate(all="ignore"):
            result = f(argument)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise ImpureFunctionError(
            f"the function writes into its argument at {line_of(error.__traceback__)}; build a new array instead "
            "(y = y + ...), or work on a copy"
        ) from error
    after = leaves(argument)
    if len(after) != len(before) or any(a is not b for a, b in zip(after, before, strict=True)):
        raise ImpureFunctionError(
            "the function exchanges leaves of the tree that it is given; let it build a new tree, or copy the dicts "
            "and lists that it changes"
        )
    for array, original in zip(before, originals, strict=True):
        if is_array(array) and not isinstance(array, np.ndarray) and not to_number((array == original).all()):
            raise ImpureFunctionError("the function writes into its argument; build a new array instead")
    return result


def guarded(leaf: Any) -> Any:
    """A leaf that f cannot change: a read-only view; of a device array, which has no such thing, a copy."""
    if not is_array(leaf):
        return leaf
    if not isinstance(leaf, np.ndarray):
        return leaf.copy()
    view = leaf.view()
    view.flags.writeable = False
    return view


def check_real_scalar(result: Any) -> None:
    """ArgumentError unless a function returned a float of shape ()."""
    is_tree = isinstance(result, (dict, list, tuple)) or result is None
    if is_tree or not (is_weak(result) or hasattr(result, "dtype")):
        raise ArgumentError(f"a real scalar was expected; the function returned {described(result)}")
    if shape_of(result) != () or dtype_of(result).kind != "f":
        raise ArgumentError(
            f"a real scalar was expected; the function returned {describe(result)}. Sum it to one number (of complex "
            "values a real part or a modulus)"
        )


def described(tree: Tree) -> str:
    """The leaves of a result with types and shapes, for messages."""
    listed = ", ".join(f"{path_name(path)}: {describe(leaf)}" for path, leaf in leaves_with_paths(tree))
    return f"{type(tree).__name__} ({listed})" if listed else repr(tree)


def described_error(error: Exception) -> str:
    """The type of an error, the caller's line it comes from, and the first line of its message."""
    line = line_of(error.__traceback__)
    place = "" if line == UNKNOWN_LINE else f" at {line}"
    return f"{type(error).__name__}{place}: {(str(error).splitlines() or [''])[0]}"


def line_of(traceback: TracebackType | None) -> str:
    """file:line of the innermost frame of an exception that is neither odegrad's nor NumPy's."""
    found = UNKNOWN_LINE
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        if not is_ours(module):
            found = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found


def is_ours(module: str) -> bool:
    """Whether a module of this name belongs to the library or to what it calls, and not to the caller."""
    return module.partition(".")[0] in (PACKAGE, "numpy", "cupy", "contextlib", "functools")
