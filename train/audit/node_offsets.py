"""Networks whose TA-BN moves gamma and alpha as a whole, so that every gradient method can be judged on them.

A continuous adjoint samples the hat functions of single nodes no better than its steps do, and a solve of few
steps misses most nodes; sums over nodes are what all methods can be asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...engine.tree import Tree
from ...layers import Layer


def dynamics_of(
    net: Layer, weights: Tree, stats: Tree, mode: str
) -> tuple[Callable[[Any, Any, Tree], Any], Tree]:
    """(f, params) of a network whose gamma and alpha on TA-BN's nodes move together, by one number a channel.

    Every other weight is a parameter itself.
    """

    def f(t: Any, h: Any, params: Tree) -> Any:
        return net.apply(with_offsets(weights, params), stats, t, h, mode=mode)[0]

    return f, offsets(weights)


def offsets(weights: Tree) -> Tree:
    """The weights, with zeros (C,) in place of each grid (K, C) of gamma and alpha."""
    if _is_on_nodes(weights):
        return {name: np.zeros_like(grid[0]) for name, grid in weights.items()}
    if isinstance(weights, dict):
        return {name: offsets(part) for name, part in weights.items()}
    return [offsets(part) for part in weights] if isinstance(weights, list) else weights


def with_offsets(weights: Tree, params: Tree) -> Tree:
    """The weights at `params`: grids of gamma and alpha moved by their offsets, all others replaced."""
    if _is_on_nodes(weights):
        return {name: grid + params[name] for name, grid in weights.items()}
    if isinstance(weights, dict):
        return {name: with_offsets(part, params[name]) for name, part in weights.items()}
    if isinstance(weights, list):
        return [with_offsets(part, own) for part, own in zip(weights, params, strict=True)]
    return params


def _is_on_nodes(weights: Tree) -> bool:
    return isinstance(weights, dict) and set(weights) == {"gamma", "alpha"} and weights["gamma"].ndim == 2
