"""Gradient clipping: a group of leaves is scaled down together when its norm is too large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine.backend import to_host
from ..engine.errors import ArgumentError
from ..engine.tree import Path, Tree, leaves, leaves_with_paths, unflatten
from .config import TrainConfig


class Group(NamedTuple):
    """Leaves whose common norm is bounded: `selects` is a predicate of a leaf's path."""

    name: str
    max_norm: float
    selects: Callable[[Path], bool]


def is_any(path: Path) -> bool:
    """Every leaf."""
    return True


def is_gamma(path: Path) -> bool:
    """The scales of the normalisation layers: leaves called "gamma"."""
    return bool(path) and path[-1] == "gamma"


def is_alpha(path: Path) -> bool:
    """The shifts of the normalisation layers: leaves called "alpha"."""
    return bool(path) and path[-1] == "alpha"


def clip(grads: Tree, max_norm: float, selects: Callable[[Path], bool] = is_any) -> tuple[Tree, float]:
    """Scale the selected leaves so that their Euclidean norm, over all of them together,
    is at most `max_norm`.

    Args:
        grads: tree of arrays; nothing is written to it, and leaves that keep their values are passed on,
            not copied.
        max_norm: positive; `math.inf` only measures.
    Returns: (tree, norm before clipping). A norm that is NaN or infinite is returned with the gradient as it
        was, so that the caller can say so; no selected leaf at all has norm 0.
    Raises: ArgumentError for a `max_norm` that is not positive.
    Cost: sums in float64, which squares of float32 cannot overflow; one device read.
    """
    clipped, norms = clip_groups(grads, [Group("", max_norm, selects)])
    return clipped, norms[""]


def clip_groups(grads: Tree, groups: Iterable[Group]) -> tuple[Tree, dict[str, float]]:
    """`clip` for one group after the other, each on what the groups before it left.

    Returns: (tree, group name -> norm that the group had just before its own clipping).
    """
    factors, norms = clip_factors(grads, groups)
    if all(factor == 1.0 for factor in factors):
        return grads, norms
    clipped = (
        leaf if factor == 1.0 else np.multiply(leaf, factor, out=np.empty_like(leaf))
        for leaf, factor in zip(leaves(grads), factors, strict=True)
    )
    return unflatten(grads, clipped), norms


def clip_factors(grads: Tree, groups: Iterable[Group]) -> tuple[list[float], dict[str, float]]:
    """What `clip_groups` multiplies each leaf with, in the order of `leaves`, and the norms that it returns.

    Each leaf is squared once, whatever the number of groups: what a group does to its leaves is known from a
    number for each. An optimiser takes the factors as its `scales` and multiplies where it reads the gradient
    anyway.
    """
    entries = list(leaves_with_paths(grads))
    squares = _square_sums([leaf for _, leaf in entries])
    factors = [1.0] * len(entries)
    norms: dict[str, float] = {}
    for name, max_norm, selects in groups:
        if not max_norm > 0.0:
            raise ArgumentError(f"`max_norm` must be positive; got {max_norm}")
        chosen = [k for k, (path, _) in enumerate(entries) if selects(path)]
        norms[name] = norm = math.sqrt(sum((factors[k] ** 2 * squares[k] for k in chosen), start=0.0))
        if math.isfinite(norm) and norm > max_norm:
            for k in chosen:
                factors[k] *= max_norm / norm
    return factors, norms


def make_groups(config: TrainConfig) -> tuple[Group, ...]:
    """All leaves, then all gammas, then all alphas; a configured 0 means no bound,
    and the norm is still measured.
    """
    bounds = (
        ("weights", config.clip_weights, is_any),
        ("gamma", config.clip_gamma, is_gamma),
        ("alpha", config.clip_alpha, is_alpha),
    )
    return tuple(Group(name, bound or math.inf, selects) for name, bound, selects in bounds)


def _square_sums(arrays: Sequence[Any]) -> list[float]:
    """Sum of squares of each array, in float64; those on a device are read at once."""
    sums = []
    for leaf in arrays:
        wide = leaf.reshape(-1).astype(np.float64, copy=False)
        sums.append(wide @ wide)
    return to_host(np.stack(sums)).tolist() if sums else []
