"""Tolerances for each component: numbers, or arrays or trees of them that broadcast against the state."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine.backend import to_host, to_number
from ..engine.errors import ArgumentError
from ..engine.tree import Tree, leaves, leaves_with_paths, path_name, same_structure
from .dynamics import StateLayout
from .options import Options

NAMES = ("rtol", "atol", "backward_rtol", "backward_atol")
LARGEST_SUBNORMAL = float(np.finfo(np.float32).smallest_normal)  # below it a number may be zero in float32


def flat_tolerances(options: Options, layout: StateLayout) -> Options:
    """The options with each tolerance as a number or an array (n,) like the flat state.

    ArgumentError for one that does not broadcast, or that is zero in the dtype of the state.
    """
    given = (options.rtol, options.atol, options.backward_rtol, options.backward_atol)
    if all(type(tolerance) is float or tolerance is None for tolerance in given):
        for name in ("atol", "backward_atol") if options.method.is_adaptive else ():
            _refuse_zero(name, getattr(options, name), layout.dtype)
        return options
    flat = {name: _flat(name, value, layout) for name, value in zip(NAMES, given, strict=True)}
    if options.method.is_adaptive:
        for name in ("atol", "backward_atol"):
            _refuse_zero(name, flat[name], layout.dtype)
    return replace(options, **flat)


def _flat(name: str, tolerance: Tree, layout: StateLayout) -> Any:
    is_tree = isinstance(tolerance, (dict, list, tuple))
    if tolerance is None or not is_tree and np.ndim(tolerance) == 0:
        return None if tolerance is None else float(to_number(tolerance))
    like = list(leaves_with_paths(layout.like))
    if not like[0][0] and isinstance(tolerance, (list, tuple)):
        tolerance, is_tree = np.asarray(tolerance, dtype=np.float64), False  # numbers for one array
    parts = leaves(tolerance)
    if not is_tree:
        parts = parts * len(like)  # one array for every leaf
    elif not same_structure(tolerance, layout.like):
        raise ArgumentError(
            f"`{name}` must be a number, an array, or a tree with the structure of y0; got "
            f"{', '.join(path_name(path) for path, _ in leaves_with_paths(tolerance))}, expected "
            f"{', '.join(path_name(path) for path, _ in like)}"
        )
    columns = []
    for part, (path, _), shape in zip(parts, like, layout.shapes, strict=True):
        values = to_host(part) if hasattr(part, "dtype") else np.asarray(part)
        try:
            columns.append(np.broadcast_to(values, shape).reshape(-1).astype(np.float64))
        except ValueError as error:
            leaf = f"y0/{path_name(path)}" if path else "y0"
            raise ArgumentError(
                f"`{name}` must broadcast against the state; got shape {values.shape} for {leaf} of shape {shape}"
            ) from error
    return np.concatenate(columns)


def _refuse_zero(name: str, tolerance: Any, dtype: np.dtype) -> None:
    """An absolute tolerance that is zero in the dtype of the state."""
    if tolerance is None or type(tolerance) is float and tolerance > LARGEST_SUBNORMAL:
        return
    real = np.zeros((), dtype).real.dtype
    if bool(np.any(np.asarray(tolerance).astype(real) == 0)):
        raise ArgumentError(
            f"`{name}` = {shown(tolerance)} is zero in the dtype of the state, {dtype}, whose smallest number is "
            f"{np.finfo(real).smallest_subnormal:.1e}; enlarge it"
        )


def smallest(tolerance: Any) -> float:
    """The tightest of the components' tolerances."""
    if type(tolerance) is float:
        return tolerance
    return float(np.min(tolerance, initial=math.inf))


def shown(tolerance: Any) -> str:
    """A tolerance in a message."""
    if np.ndim(tolerance) == 0:
        return f"{tolerance:g}"
    return f"{np.min(tolerance, initial=math.inf):g} to {np.max(tolerance, initial=0.0):g}"
