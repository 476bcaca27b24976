"""What optimisers refuse: options out of range, parameters of other kinds, gradients that do not match."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..engine.backend import is_array
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.tree import Tree, leaves_with_paths, path_name


def check_options(optimizer: Any, fractions: tuple[str, ...]) -> None:
    """ArgumentError unless the options named lie in [0, 1) and the decay is a number that is not negative."""
    for name in fractions:
        if not 0.0 <= getattr(optimizer, name) < 1.0:
            raise ArgumentError(f"`{name}` must be in [0, 1); got {getattr(optimizer, name)}")
    if not 0.0 <= optimizer.weight_decay < math.inf:
        raise ArgumentError(f"`weight_decay` must be finite and not negative; got {optimizer.weight_decay}")


def check_params(params: Tree) -> None:
    """ArgumentTypeError unless every leaf is an array of float32 or float64."""
    wrong = [
        f"{path_name(path)}: {_described(leaf)}"
        for path, leaf in leaves_with_paths(params)
        if not is_array(leaf) or leaf.dtype not in (np.float32, np.float64)
    ]
    if wrong:
        raise ArgumentTypeError(
            "`params` must be a tree of arrays of float32 or float64; got " + ", ".join(wrong)
        )


def check_grads(grads: Tree, params: Tree) -> None:
    """ArgumentError, with every leaf in question, unless `grads` has the paths,
    shapes and dtypes of `params`.
    """
    if _is_alike(grads, params):
        return
    expected = {path: _described(leaf) for path, leaf in leaves_with_paths(params)}
    got = {path: _described(leaf) for path, leaf in leaves_with_paths(grads)}
    if got != expected:
        wrong = [
            f"{path_name(path)}: expected {expected.get(path, 'nothing')}, got {got.get(path, 'nothing')}"
            for path in dict.fromkeys([*expected, *got])
            if expected.get(path) != got.get(path)
        ]
        raise ArgumentError("`grads` does not match `params`: " + "; ".join(wrong))


def _is_alike(grads: Tree, params: Tree) -> bool:
    """Whether two trees certainly match, leaf by leaf: quickly, as it is asked in every step."""
    if isinstance(params, dict):
        return (
            isinstance(grads, dict)
            and grads.keys() == params.keys()
            and all(_is_alike(grads[key], params[key]) for key in params)
        )
    if isinstance(params, (list, tuple)):
        is_row = isinstance(grads, (list, tuple)) and len(grads) == len(params)
        return is_row and all(map(_is_alike, grads, params))
    if params is None:
        return grads is None
    return is_array(grads) and is_array(params) and (grads.dtype, grads.shape) == (params.dtype, params.shape)


def _described(leaf: Any) -> str:
    return f"{leaf.dtype} {leaf.shape}" if is_array(leaf) else type(leaf).__name__
