"""Joining arrays, also into a buffer in which some of them may already lie."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from ..backend import namespace_of
from ..errors import ArgumentError
from ..primitive import Call, primitive
from ..trace import base_value, is_weak, shape_of
from .indexing import getitem
from .shaping import checked_axis, expand_dims


@primitive("concatenate")
def concatenate_arrays(xp, *parts, axis):
    """The parts joined along an axis that exists."""
    return xp.concatenate(parts, axis=axis)


@concatenate_arrays.vjp(saves=("parts.shape",))
def concatenate_vjp(ybar, shapes, *, axis):
    """Each part gets its slice of ybar."""
    bars, start = [], 0
    for shape in shapes:
        window = [slice(None)] * len(shape)
        window[axis] = slice(start, start + shape[axis])
        bars.append(getitem(ybar, tuple(window)))
        start += shape[axis]
    return bars


@concatenate_arrays.writes_into
def concatenate_into(out, *parts, axis):
    """Parts that were not computed in place are copied there."""
    return join_calls(out, parts, axis)


def concatenate(parts: Any, axis: int = 0) -> Any:
    """The arrays of a sequence joined along `axis`."""
    parts = tuple(parts)
    if not parts:
        raise ArgumentError("`concatenate` needs at least one array")
    if any(isinstance(part, list) for part in parts):
        xp = namespace_of(*map(base_value, parts))
        parts = tuple(xp.asarray(part) if isinstance(part, list) else part for part in parts)
    return concatenate_arrays(*parts, axis=checked_axis(axis, len(shape_of(parts[0]))))


def stack(parts: Any, axis: int = 0) -> Any:
    """The arrays of a sequence joined along a new axis."""
    parts = tuple(parts)
    xp = namespace_of(*map(base_value, parts))
    if xp is not np:  # a number becomes an array where the others are
        parts = tuple(part * xp.ones(()) if is_weak(part) else part for part in parts)
    return concatenate([expand_dims(part, axis) for part in parts], axis=axis)


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
