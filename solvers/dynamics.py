"""The dynamics as the solvers see them: f traced once at (t0, y0), a flat state, and what f captured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import Array, is_array, namespace_of
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.program import Program, Recording, record
from ..engine.trace import Var, base_value, describe, dtype_of, is_weak, shape_of
from ..engine.tree import Tree, leaves, leaves_with_paths, path_name, same_structure, unflatten

Function = Callable[..., Any]
STATE_DTYPES = ("float32", "float64", "complex128")


@dataclass(frozen=True)
class StateLayout:
    """How a tree of arrays of one dtype lies in one flat vector (n,)."""

    like: Tree
    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype

    @classmethod
    def of(cls, y0: Tree) -> StateLayout:
        """The layout of a state; ArgumentTypeError unless all leaves are arrays of one dtype in
        STATE_DTYPES.
        """
        if type(y0) is np.ndarray and y0.dtype in STATE_DTYPES:
            return _layout_of_array(y0.shape, y0.dtype)
        found = leaves(y0)
        if not found:
            raise ArgumentError("`y0` has no arrays in it")
        if any(is_weak(leaf) or dtype_of(leaf).name not in STATE_DTYPES for leaf in found):
            raise ArgumentTypeError(
                f"`y0` must hold arrays of {', '.join(STATE_DTYPES)}; got {_described('y0', y0)}. Convert it, for "
                "example with numpy.asarray(y0, dtype=float)"
            )
        if len({dtype_of(leaf) for leaf in found}) > 1:
            raise ArgumentTypeError(f"the arrays of `y0` must have one dtype; got {_described('y0', y0)}")
        shapes = tuple(shape_of(leaf) for leaf in found)
        return cls(unflatten(y0, (0 for _ in found)), shapes, dtype_of(found[0]))

    @cached_property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @cached_property
    def size(self) -> int:
        return sum(self.sizes)

    def flatten(self, tree: Tree) -> Any:
        """The leaves joined to (n,); works on traced values."""
        if type(tree) is np.ndarray:
            return tree if tree.ndim == 1 else tree.reshape(self.size)
        flat = [ops.reshape(leaf, (size,)) for leaf, size in zip(leaves(tree), self.sizes, strict=True)]
        return flat[0] if len(flat) == 1 else ops.concatenate(flat)

    def split(self, flat: Any, leading: tuple[int, ...] = ()) -> list[Any]:
        """The leaves in a vector (*leading, n), each (*leading, *shape): views on arrays;
        works on traced values.
        """
        if len(self.shapes) == 1:
            shape = (*leading, *self.shapes[0])
            return [flat.reshape(shape) if type(flat) is np.ndarray else ops.reshape(flat, shape)]
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
        return unflatten(self.like, parts)

    def unflatten(self, flat: Any, leading: tuple[int, ...] = ()) -> Tree:
        """A vector (*leading, n) as a tree like y0, each leaf (*leading, *shape)."""
        return self.tree(self.split(flat, leading))


class Dynamics:
    """f(t, y, params), recorded at (t0, y0).

    Attributes:
        y0, params_leaves, hidden: the state, the parameters and what f captured, as given: perhaps values of
            outer traces.
        program: what the call did; its hidden inputs are `hidden`.
        t0: where the solve begins.
        aux0: what f returned beside the slope at (t0, y0) (leaves), with `has_aux`.
    """

    def __init__(self, f: Function, t0: float, y0: Tree, params: Tree, *, has_aux: bool) -> None:
        if not callable(f):
            raise ArgumentTypeError(f"`f` must be a function f(t, y, params); got {type(f).__name__}")
        self._given: Function | None = f
        self.t0 = float(t0)
        self.has_params = params is not None
        self.has_aux = has_aux
        self.layout = StateLayout.of(y0)
        self.params_like = params
        self.y0 = y0
        self.y0_leaves = [base_value(leaf) for leaf in leaves(y0)]
        self.params_leaves = leaves(params)
        self.param_values = [base_value(leaf) for leaf in self.params_leaves]
        self.xp: ModuleType = namespace_of(*self.y0_leaves, *self.param_values)
        with np.errstate(all="ignore"):
            recording = record(
                self._call_flat,
                [self.t0, *self.y0_leaves, *self.param_values],
                lambda: ["t", *_names("y", y0), *_names("params", params)],
            )
        self.program: Program = recording.program
        self.hidden = recording.hidden
        self.aux_like = self._check(recording)
        n = self.n_slopes = len(self.layout.shapes)
        self._slope0: Array | None = self.layout.flatten(self.layout.tree(recording.values[:n]))
        self.aux0 = recording.values[n:]

    @property
    def slope0(self) -> Array:
        """f(t0, y0) flat (n,), on plain arrays: the first stage, so that recording wastes no evaluation."""
        if self._slope0 is None:
            self._evaluate_start()
        assert self._slope0 is not None
        return self._slope0

    @slope0.setter
    def slope0(self, slope: Array) -> None:
        self._slope0 = slope

    @property
    def is_evaluated(self) -> bool:
        """Whether `slope0` is known; who has a faster way than the interpreter to evaluate f may set it."""
        return self._slope0 is not None

    def _evaluate_start(self) -> None:
        with np.errstate(all="ignore"):
            outputs = self.program.run([self.t0, *self.y0_leaves, *self.param_values], self.hidden)
        self._slope0 = self.layout.flatten(self.layout.tree(outputs[: self.n_slopes]))
        self.aux0 = outputs[self.n_slopes :]

    def at(self, t0: float, y0: Array, constants: Sequence[Any]) -> Dynamics:
        """The same dynamics from another time and state (n,), with other parameters and captured values.

        They are what was recorded: f itself may have captured what is no longer current.
        """
        other = self._copy()
        n_params = len(self.params_leaves)
        other.params_leaves = other.param_values = list(constants[:n_params])
        other.hidden = list(constants[n_params:])
        other.y0_leaves = self.layout.split(y0)
        other.y0 = self.layout.tree(other.y0_leaves)
        other.t0, other._slope0 = float(t0), None
        if self.has_aux:
            other._evaluate_start()
        return other

    def frozen(self) -> Dynamics:
        """The same dynamics on copies of the parameters and captured arrays,
        which their owner cannot write to.

        A derivative evaluates what was recorded, with the values of the forward pass,
        whatever happened in between.
        """
        other = self._copy()
        n_params = len(self.param_values)
        constants = [value.copy() if is_array(value) else value for value in self.constants()]
        other.params_leaves = other.param_values = constants[:n_params]
        other.hidden = constants[n_params:]
        other.params_like = unflatten(self.params_like, other.params_leaves)  # none of the traced values
        if self._slope0 is not None:
            other._slope0 = self._slope0.copy()  # y0 itself where f(t, y) = y
        other.y0 = self.layout.tree(self.y0_leaves)
        return other

    def _copy(self) -> Dynamics:
        """Another one with the same attributes (`copy.copy` would take five times as long),
        whose f is the program.
        """
        other = Dynamics.__new__(Dynamics)
        other.__dict__.update(self.__dict__)
        other._given = None
        return other

    @property
    def f(self) -> Function:
        """What was given, or the program of a copy. (A copy that held its own method would be a cycle, and
        its arrays would wait for the collector.)
        """
        return self._interpreted if self._given is None else self._given

    def _interpreted(self, t: Any, y: Tree, params: Tree = None) -> Tree:
        outputs = self.program.run([t, *leaves(y), *leaves(params)], self.hidden)
        slope, aux = self.layout.tree(outputs[: self.n_slopes]), outputs[self.n_slopes :]
        return (slope, self.aux_tree(aux)) if self.has_aux else slope

    @property
    def reaching(self) -> frozenset[int]:
        """Positions among the parameters and captured values (in this order) that the slope depends on."""
        n = self.n_slopes
        return self.program.reaching(n, 1 + n)

    def initial_state(self) -> Array:
        """y0 flat (n,), on plain arrays."""
        return self.layout.flatten(self.layout.tree(self.y0_leaves))

    def aux_tree(self, columns: Sequence[Any]) -> Tree:
        """Leaves put back into the structure of aux."""
        return unflatten(self.aux_like, columns)

    def constants(self) -> list[Any]:
        """Parameters, then captured values, as plain arrays and numbers."""
        return [*self.param_values, *(base_value(value) for value in self.hidden)]

    def slope(self, t: Any, y: Any, params: Sequence[Any], hidden: Sequence[Any]) -> Any:
        """f as a function of the flat state (n,), on traced values as well: the program, interpreted."""
        outputs = self.program.run([t, *self.layout.split(y), *params], hidden)
        return self.layout.flatten(self.layout.tree(outputs[: self.n_slopes]))

    def call(self, t: float, y: Array) -> tuple[Array, list[Any]]:
        """f itself, called anew on plain arrays: the flat slope (n,) and the leaves of aux."""
        arguments = [float(t), *self.layout.split(y), *self.param_values]
        recording = record(self._call_flat, arguments, ["t"] * len(arguments))
        self._check(recording)
        slopes = self.layout.tree(recording.values[: self.n_slopes])
        return self.layout.flatten(slopes), recording.values[self.n_slopes :]

    def call_plain(self, t: float, y: Array) -> Array:
        """f without any trace, on read-only arrays: what the program is compared with before it is
        trusted.
        """
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

    def _check(self, recording: Recording) -> Tree:
        """The structure of aux; an error for a slope that does not look like y."""
        result, aux = recording.result, None
        if self.has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise ArgumentTypeError(
                    f"with has_aux=True f must return (slope, aux); got {_described('f', result)}"
                )
            result, aux = result
        layout, n = self.layout, len(self.layout.shapes)
        # an array of an array
        is_plain = type(result) is Var and len(layout.shapes) == 1 and layout.like == 0
        if not is_plain and not same_structure(result, layout.like):
            is_listed = isinstance(result, (list, tuple)) and not isinstance(layout.like, (list, tuple, dict))
            hint = ". Join components into one array with np.stack" if is_listed else ""
            raise ArgumentTypeError(
                f"f must return a slope of the structure of y; got {_described('f', result)}, "
                f"expected {_paths('y', layout.like)}{hint}"
            )
        slopes = recording.values[:n]
        if any(is_weak(x) for x in slopes) or [shape_of(x) for x in slopes] != list(layout.shapes):
            expected = ", ".join(str(layout.dtype) + str(list(shape)) for shape in layout.shapes)
            hint = ". f takes the time first, then the state" if is_weak(slopes[0]) else ""
            raise ArgumentError(
                f"f(t, y) must have the shape of y; got {_described('f', layout.tree(slopes))}, expected {expected}{hint}"
            )
        if any(dtype_of(x) != layout.dtype for x in slopes):
            raise ArgumentTypeError(
                f"f(t, y) must have the dtype of y, {layout.dtype}; got {_described('f', layout.tree(slopes))}. An array "
                f"or a NumPy scalar of another dtype changes that of the result: make constants of y.dtype"
            )
        return unflatten(aux, (0 for _ in leaves(aux))) if self.has_aux else None


@lru_cache(maxsize=256)
def _layout_of_array(shape: tuple[int, ...], dtype: np.dtype) -> StateLayout:
    return StateLayout(0, (shape,), dtype)


def _read_only(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def _paths(name: str, tree: Tree) -> str:
    return ", ".join(_names(name, tree)) or "nothing"


def _names(name: str, tree: Tree) -> list[str]:
    """What to call the leaves of a tree in a program."""
    return [_leaf_name(name, path) for path, _ in leaves_with_paths(tree)]


def _described(name: str, tree: Tree) -> str:
    """Each leaf with its type and shape, as messages show it."""
    return (
        ", ".join(f"{_leaf_name(name, path)}: {describe(x)}" for path, x in leaves_with_paths(tree))
        or "nothing"
    )


def _leaf_name(name: str, path: Any) -> str:
    return f"{name}/{path_name(path)}" if path else name
