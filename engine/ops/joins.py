"""Joining arrays into a buffer in which some of them may already lie."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from ..primitive import Call


def parts_of(out: np.ndarray, lengths: Sequence[int], axis: int) -> list[np.ndarray]:
    """Views of the parts of a join, which have these lengths along the axis."""
    before = (slice(None),) * axis
    return [out[(*before, slice(a, b))] for a, b in pairwise(accumulate(lengths, initial=0))]


def join_calls(out: np.ndarray, parts: Sequence[np.ndarray], axis: int) -> list[Call]:
    """Calls that bring the parts where they belong in `out`, except for those that were computed there."""
    places = parts_of(out, [part.shape[axis] for part in parts], axis)
    missing = [(place, part) for place, part in zip(places, parts, strict=True) if not _is_same(place, part)]
    if len(missing) == len(parts):
        return [(np.concatenate, (tuple(parts),), {"axis": axis, "out": out})]
    return [(np.copyto, pair, {}) for pair in missing]


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same values in memory."""
    starts = [x.__array_interface__["data"][0] for x in (a, b)]
    return starts[0] == starts[1] and (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
