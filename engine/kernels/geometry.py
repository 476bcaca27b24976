"""Sizes of sliding windows, and the checks that convolution and pooling share."""

from __future__ import annotations

import operator
from types import ModuleType
from typing import Any

from ..backend import Array
from ..errors import ArgumentError, ArgumentTypeError

Pair = tuple[int, int]


def as_pair(value: int | Pair, name: str, least: int) -> Pair:
    """(rows, columns) from one integer or two; ArgumentError unless both are at least `least`."""
    try:
        if isinstance(value, (tuple, list)):
            first, second = value
            pair = (operator.index(first), operator.index(second))
        else:
            pair = (operator.index(value),) * 2
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"`{name}` must be an integer or a pair of integers; got {value!r}") from None
    if min(pair) < least:
        raise ArgumentError(f"`{name}` must be at least {least}; got {value!r}")
    return pair


def window_count(size: Pair, window: Pair, stride: Pair, padding: Pair) -> Pair:
    """How many windows fit along each axis: (size + 2 padding - window) // stride + 1.

    Raises ArgumentError if the window does not fit once.
    """
    counts = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, window, stride, padding, strict=True))
    if min(counts) < 1:
        raise ArgumentError(
            f"a window {window} does not fit into an image of {size} with padding {padding}: the result would have "
            f"{counts} positions; use a smaller window or more padding"
        )
    return counts[0], counts[1]


def check_ndim(array: Array, name: str, axes: str) -> None:
    """ArgumentError unless `array` has the four axes named in `axes`."""
    if array.ndim != 4:
        raise ArgumentError(f"`{name}` must have 4 axes {axes}; got shape {array.shape}")


def check_inexact(xp: ModuleType, **arrays: Array) -> Any:
    """The common dtype of `arrays`; ArgumentTypeError unless it is a real or complex float."""
    dtype = xp.result_type(*arrays.values())
    if dtype.kind not in "fc":
        got = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise ArgumentTypeError(f"floating-point arrays are expected; got {got}")
    return dtype


def result_buffer(xp: ModuleType, out: Array | None, shape: tuple[int, ...], dtype: Any) -> Array:
    """`out` if it has this shape and dtype (ArgumentError otherwise), or a new uninitialised array."""
    if out is None:
        return xp.empty(shape, dtype=dtype)
    if out.shape != tuple(shape) or out.dtype != dtype:
        raise ArgumentError(
            f"`out` must be {dtype} of shape {tuple(shape)}; got {out.dtype} of shape {out.shape}"
        )
    return out
