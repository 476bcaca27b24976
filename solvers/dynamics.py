"""The dynamics as the solvers see them: f traced once at (t0, y0), a flat state, and what f captured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import Array, namespace_of
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.program import Program, Recording, record
from ..engine.trace import Var, base_value, describe, dtype_of, is_weak, shape_of
from ..engine.tree import Tree, leaves, leaves_with_paths, path_name, same_structure, unflatten

Function = Callable[..., Any]


@dataclass(frozen=True)
class StateLayout:
    """How a tree of arrays of one dtype lies in one flat vector (n,)."""

    like: Tree
    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype

    @classmethod
    def of(cls, y0: Tree) -> StateLayout:
        """The layout of a state; ArgumentTypeError unless all leaves are float or complex arrays of one dtype."""
        found = [(path_name(path), leaf) for path, leaf in leaves_with_paths(y0)]
        if not found:
            raise ArgumentError("`y0` has no arrays in it")
        wrong = [
            f"{name}: {describe(leaf)}"
            for name, leaf in found
            if is_weak(leaf) or dtype_of(leaf).kind not in "fc"
        ]
        if wrong:
            raise ArgumentTypeError(f"`y0` must hold float or complex arrays; got {', '.join(wrong)}")
        if len({dtype_of(leaf) for _, leaf in found}) > 1:
            raise ArgumentTypeError(
                "the arrays of `y0` must have one dtype; got "
                + ", ".join(f"{n}: {describe(x)}" for n, x in found)
            )
        shapes = tuple(shape_of(leaf) for _, leaf in found)
        return cls(unflatten(y0, (None for _ in found)), shapes, dtype_of(found[0][1]))

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def flatten(self, tree: Tree) -> Any:
        """The leaves joined to (n,); works on traced values."""
        flat = [ops.reshape(leaf, (size,)) for leaf, size in zip(leaves(tree), self.sizes, strict=True)]
        return flat[0] if len(flat) == 1 else ops.concatenate(flat)

    def split(self, flat: Any, leading: tuple[int, ...] = ()) -> list[Any]:
        """The leaves in a vector (*leading, n), each (*leading, *shape): views on arrays; works on traced values."""
        if len(self.shapes) == 1:
            return [ops.reshape(flat, (*leading, *self.shapes[0]))]
        parts, start = [], 0
        for shape, size in zip(self.shapes, self.sizes, strict=True):
            window = ops.getitem(flat, (..., slice(start, start + size)))
            parts.append(ops.reshape(window, (*leading, *shape)))
            start += size
        return parts

    def views(self, flat: Array) -> list[Array]:
        """The leaves of an array (n,) as views that can be written."""
        bounds = np.cumsum([0, *self.sizes])
        return [flat[a:b].reshape(s) for a, b, s in zip(bounds, bounds[1:], self.shapes, strict=False)]

    def tree(self, parts: Sequence[Any]) -> Tree:
        """Leaves put back into the structure of y0."""
        return rebuild(self.like, parts)


def rebuild(like: Tree, parts: Sequence[Any]) -> Tree:
    """A tree whose None leaves are placeholders, filled with `parts` in order."""
    source = iter(parts)

    def fill(node: Tree) -> Tree:
        if isinstance(node, dict):
            filled = {key: fill(node[key]) for key in sorted(node)}
            return {key: filled[key] for key in node}
        if isinstance(node, (list, tuple)):
            children = [fill(child) for child in node]
            if isinstance(node, list):
                return children
            return type(node)(*children) if hasattr(node, "_fields") else tuple(children)
        return next(source)

    return fill(like)


class Dynamics:
    """f(t, y, params), recorded at (t0, y0).

    Attributes:
        program, hidden: what the call did, and what it captured; captured Vars of outer traces are `captured`.
        slope0: f(t0, y0) flat (n,), on plain arrays: the first stage, so that recording wastes no evaluation.
        aux0: what f returned beside the slope in that call (leaves), with `has_aux`.
    """

    def __init__(self, f: Function, t0: float, y0: Tree, params: Tree, *, has_aux: bool) -> None:
        self.f = f
        self.has_params = params is not None
        self.has_aux = has_aux
        self.layout = StateLayout.of(y0)
        self.params_like = params
        self.y0_vars = leaves(y0)
        self.y0_leaves = [base_value(leaf) for leaf in self.y0_vars]
        self.params_leaves = leaves(params)
        self.param_values = [base_value(leaf) for leaf in self.params_leaves]
        self.xp: ModuleType = namespace_of(*self.y0_leaves, *self.param_values)
        names = ["t", *(f"y/{path_name(p)}" if p else "y" for p, _ in leaves_with_paths(y0))]
        names += [f"params/{path_name(path)}" for path, _ in leaves_with_paths(params)]
        with np.errstate(all="ignore"):
            recording = record(self._call_flat, [float(t0), *self.y0_leaves, *self.param_values], names)
        self.program: Program = recording.program
        self.hidden = recording.hidden
        self.aux_like, n_slopes = self._check(recording)
        self.n_slopes = n_slopes
        self.slope0 = self.layout.flatten(self.layout.tree(recording.values[:n_slopes]))
        self.aux0 = recording.values[n_slopes:]

    def aux_tree(self, columns: Sequence[Any]) -> Tree:
        """Leaves put back into the structure of aux."""
        return rebuild(self.aux_like, columns)

    @property
    def captured(self) -> list[Var]:
        """Vars of outer traces that f closed over; they are differentiated there."""
        return [value for value in self.hidden if type(value) is Var]

    def hidden_values(self, captured: Sequence[Any] | None = None) -> list[Any]:
        """The hidden inputs on plain arrays, or with the captured Vars replaced."""
        if captured is None:
            return [base_value(value) for value in self.hidden]
        source = iter(captured)
        return [next(source) if type(value) is Var else value for value in self.hidden]

    def slope(self, t: Any, y: Any, params: Sequence[Any], captured: Sequence[Any]) -> Any:
        """f as a function of the flat state (n,), on traced values as well: the program, interpreted."""
        outputs = self.program.run([t, *self.layout.split(y), *params], self.hidden_values(captured))
        return self.layout.flatten(self.layout.tree(outputs[: self.n_slopes]))

    def call(self, t: float, y: Array) -> tuple[Array, list[Any]]:
        """f itself, called anew on plain arrays: the flat slope (n,) and the leaves of aux."""
        arguments = [float(t), *self.layout.split(y), *self.param_values]
        recording = record(self._call_flat, arguments, ["t"] * len(arguments))
        self._check(recording)
        slopes = self.layout.tree(recording.values[: self.n_slopes])
        return self.layout.flatten(slopes), recording.values[self.n_slopes :]

    def call_plain(self, t: float, y: Array) -> Array:
        """f without any trace, on read-only arrays: what the program is compared with before it is trusted."""
        state = [_read_only(part) for part in self.layout.split(y)]
        result = self._call_flat(float(t), *state, *(_read_only(leaf) for leaf in self.param_values))
        slope = result[0] if self.has_aux else result
        return self.layout.flatten(slope)

    def _call_flat(self, t: Any, *values: Any) -> Tree:
        n = len(self.layout.shapes)
        y = self.layout.tree(values[:n])
        result = self.f(t, y, unflatten(self.params_like, values[n:])) if self.has_params else self.f(t, y)
        if n == 1 and not self.has_aux and is_weak(result) and shape_of(y) == ():
            return ops.zeros_like(leaves(y)[0]) + result  # a number is a fine slope of a 0-d state
        return result

    def _check(self, recording: Recording) -> tuple[Tree, int]:
        """(structure of aux, number of slope leaves); an error for a slope that does not look like y."""
        result, aux = recording.result, None
        if self.has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise ArgumentTypeError(
                    f"with has_aux=True f must return (slope, aux); got {type(result).__name__}"
                )
            result, aux = result
        placeholder = self.layout.tree([0] * len(self.layout.shapes))
        if not same_structure(result, placeholder):
            raise ArgumentTypeError(
                f"f must return a slope of the structure of y; got {_paths(result)}, expected {_paths(placeholder)}"
            )
        n = len(self.layout.shapes)
        problems = []
        for (path, _), value, shape in zip(
            leaves_with_paths(placeholder), recording.values[:n], self.layout.shapes, strict=True
        ):
            if shape_of(value) != shape or is_weak(value) or dtype_of(value) != self.layout.dtype:
                problems.append(
                    f"{path_name(path)}: {describe(value)} for a state {self.layout.dtype}{list(shape)}"
                )
        if problems:
            raise ArgumentError(
                "f(t, y) must have the shape and dtype of y; got "
                + ", ".join(problems)
                + ". A float64 constant array "
                "or a NumPy float64 scalar turns a float32 result into float64; make constants of y.dtype"
            )
        return unflatten(aux, (None for _ in leaves(aux))), n


def _read_only(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def _paths(tree: Tree) -> str:
    return ", ".join(path_name(path) for path, _ in leaves_with_paths(tree)) or "nothing"
