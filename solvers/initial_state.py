"""The initial state, checked at the public entrance."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import to_number
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.trace import base_value, is_weak
from ..engine.tree import Tree, leaves, leaves_with_paths, path_name, tree_map


def initial_state(y0: Tree) -> Tree:
    """y0 in native byte order, a Python number as a 0-d float64 array;
    ArgumentError for values that are not finite.
    """
    if is_weak(y0):
        y0 = np.zeros(()) + y0
    if type(y0) is np.ndarray and y0.dtype.isnative and y0.dtype.kind == "f" and np.isfinite(y0).all():
        return y0
    refuse_subclasses("y0", y0)
    for path, leaf in leaves_with_paths(y0):
        value = base_value(leaf)
        if hasattr(value, "dtype") and value.dtype.kind in "fc" and not to_number(ops.isfinite(value).all()):
            n_bad = value.size - to_number(ops.isfinite(value).sum())
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
    if all([_is_plain(leaf) for leaf in leaves(tree)]):
        return
    for path, leaf in leaves_with_paths(tree):
        if not _is_plain(leaf):
            leaf_name = f"{name}/{path_name(path)}" if path else name
            raise ArgumentTypeError(
                f"`{leaf_name}` must be a plain numpy.ndarray; got a {type(base_value(leaf)).__name__}, whose own rules would be lost. "
                "Convert it with numpy.array(...), a masked array with .filled(value)"
            )


def _is_plain(leaf: Any) -> bool:
    kind = type(base_value(leaf))
    return kind is np.ndarray or not issubclass(kind, np.ndarray)
