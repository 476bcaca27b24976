"""Directions in the space of a tree: drawn, checked, measured, paired with gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, is_array, namespace_of, to_host, to_xp
from ..errors import ArgumentError, ArgumentTypeError
from ..trace import describe, dtype_of, is_weak, shape_of
from ..tree import Tree, leaves, leaves_with_paths, path_name, same_structure, unflatten
from .arguments import check_leaves, check_settings


def relative_size(values: Sequence[Any], direction: Sequence[Any]) -> float:
    """rms(x) / rms(v) over the leaves that v moves; x counts as 1 where it is 0."""
    pairs = [
        (host_vector(x), host_vector(v)) for x, v in zip(values, direction, strict=True) if v is not None
    ]
    x_size = math.sqrt(sum(float(np.sum(np.abs(x) ** 2)) for x, _ in pairs))
    v_size = math.sqrt(sum(float(np.sum(np.abs(v) ** 2)) for _, v in pairs))
    if v_size == 0.0:
        raise ArgumentError("the direction is zero")
    count = math.sqrt(sum(x.size for x, _ in pairs))
    return (x_size or count) / v_size


def checked_direction(x: Tree, direction: Tree) -> list[Any]:
    """The leaves of a direction; an error unless its structure and shapes are those of x and its values are
    finite.
    """
    named = [(path_name(path), leaf) for path, leaf in leaves_with_paths(direction)]
    expected = [(path_name(path), leaf) for path, leaf in leaves_with_paths(x)]
    if not same_structure(x, direction) or any(
        shape_of(v) != shape_of(leaf) for (_, v), (_, leaf) in zip(named, expected, strict=True)
    ):
        raise ArgumentError(
            f"the direction must be shaped like x; got {_listed(named)}, expected {_listed(expected)}"
        )
    for (name, v), (_, leaf) in zip(named, expected, strict=True):
        if dtype_of(v).kind == "c" and dtype_of(leaf).kind == "f":
            raise ArgumentTypeError(f"the direction is complex where x is real, in {name}")
        if not np.isfinite(host_vector(v)).all():
            raise ArgumentError(f"the direction is not finite in {name}")
    return leaves(direction)


def _listed(named: list[tuple[str, Any]]) -> str:
    return ", ".join(f"{name}: {describe(leaf)}" for name, leaf in named) or "nothing"


def random_direction(x: Tree, seed: int = 0) -> Tree:
    """A tree like x with entries of random sign (of complex leaves a unit 1, -1, i or -i)
    and size 0.5 to 1.5.

    Sizes that differ keep the errors of two entries from cancelling.

    Raises: ArgumentError for a tree without leaves and a seed that is none;
        ArgumentTypeError for integer leaves.
    """
    check_leaves(x)
    check_settings(seed=seed)
    rng = np.random.default_rng(seed)
    return unflatten(x, (random_leaf(leaf, rng) for leaf in leaves(x)))


def random_leaf(leaf: Any, rng: np.random.Generator) -> Any:
    """The part of a random direction in one leaf, in its dtype and array module."""
    units = [1, -1, 1j, -1j] if dtype_of(leaf).kind == "c" else [1.0, -1.0]
    drawn = np.asarray(rng.choice(units, shape_of(leaf)) * rng.uniform(0.5, 1.5, shape_of(leaf)))
    return drawn.item() if is_weak(leaf) else like_leaf(leaf, drawn)


def like_leaf(leaf: Any, values: np.ndarray) -> Any:
    """Host values in the dtype and array module of a leaf."""
    return to_xp(namespace_of(leaf), values.astype(leaf.dtype)) if is_array(leaf) else leaf.dtype.type(values)


def pairing(gradient: Sequence[Any], direction: Sequence[Any]) -> float:
    """Re sum(g v): how a real function changes along v,
    by the convention of the engine for complex leaves.
    """
    total = 0.0
    for g, v in zip(gradient, direction, strict=True):
        if v is not None:
            total += float(np.sum(host_vector(g) * host_vector(v)).real)
    return total


def norm_of(values: Sequence[Any]) -> float:
    """The Euclidean norm of all entries of some leaves."""
    return math.sqrt(sum(float(np.sum(np.abs(host_vector(value)) ** 2)) for value in values))


def host_vector(leaf: Any) -> Array:
    """A leaf as a flat NumPy array."""
    return np.asarray(to_host(leaf)).reshape(-1)
