"""Elementwise steps on the leaves of a tree, the small ones joined to one array.

A network has dozens of small leaves, on which a NumPy call costs more than its work. A value gets the same
bits as in a step on its own leaf. Measured by `benchmarks/optimizers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..engine.backend import Array

SMALL = 1 << 12  # values; copies of larger leaves cost more than the calls saved

Step = Callable[..., tuple[Array, ...]]


def step_leaves(
    step: Step, n_results: int, columns: Sequence[Sequence[Array]], settings: Sequence[Any]
) -> list[list[Array]]:
    """step(setting, *arrays) for each leaf; `step` is elementwise and returns new arrays like those it is
    given.

    Args:
        n_results: how many arrays it returns.
        columns: the leaves of each argument; those of one leaf have one shape and dtype.
        settings: hashable, one a leaf.
    Returns: the leaves of each result. Small ones on NumPy are views of common arrays.
    """
    stepped: list[Sequence[Array]] = [()] * len(settings)
    small: dict[Any, list[int]] = {}
    for k, (setting, *arrays) in enumerate(zip(settings, *columns, strict=True)):
        if isinstance(arrays[0], np.ndarray) and arrays[0].size < SMALL:
            small.setdefault((arrays[0].dtype, setting), []).append(k)
        else:
            stepped[k] = step(setting, *arrays)
    for (_, setting), chosen in small.items():
        flat = step(setting, *(np.concatenate([c[k].reshape(-1) for k in chosen]) for c in columns))
        parts = [_parted(array, [columns[0][k] for k in chosen]) for array in flat]
        for k, *leaf in zip(chosen, *parts, strict=True):
            stepped[k] = leaf
    return [[leaf[k] for leaf in stepped] for k in range(n_results)]


def _parted(flat: Array, like: Sequence[Array]) -> list[Array]:
    """An array cut into pieces of the shapes of these."""
    ends = accumulate(leaf.size for leaf in like)
    return [flat[end - leaf.size : end].reshape(leaf.shape) for leaf, end in zip(like, ends, strict=True)]
