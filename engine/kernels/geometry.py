"""Sizes of sliding windows and of convolutions, and the checks that convolution and pooling share."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache
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


@dataclass(frozen=True)
class Geometry:
    """The sizes of one convolution, checked."""

    x_shape: tuple[int, int, int, int]
    w_shape: tuple[int, int, int, int]
    y_shape: tuple[int, int, int, int]
    stride: Pair
    padding: Pair


def geometry_of(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: int | Pair, padding: int | Pair
) -> Geometry:
    """The sizes of the convolution of x with w; ArgumentError if they do not go together."""
    return _checked(x_shape, w_shape, as_pair(stride, "stride", 1), as_pair(padding, "padding", 0))


@lru_cache(maxsize=512)  # a network has a few; working one out costs as much as a small convolution
def _checked(x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Pair, padding: Pair) -> Geometry:
    if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != w_shape[2]:
        raise ArgumentError(
            "convolution expects images (B, H, W, Cin) and a kernel (kh, kw, Cin, Cout) of the same Cin; "
            f"got {tuple(x_shape)} and {tuple(w_shape)}"
        )
    n_images, height, width, n_in = x_shape
    kernel_height, kernel_width, _, n_out = w_shape
    rows, columns = window_count((height, width), (kernel_height, kernel_width), stride, padding)
    return Geometry(
        (n_images, height, width, n_in),
        (kernel_height, kernel_width, n_in, n_out),
        (n_images, rows, columns, n_out),
        stride,
        padding,
    )


def check_cotangent(ybar: Array, geometry: Geometry) -> None:
    """ArgumentError unless `ybar` has the shape of the result."""
    if ybar.shape != geometry.y_shape:
        raise ArgumentError(
            f"`ybar` must have the shape of the convolution, {geometry.y_shape} (images {geometry.x_shape}, kernel "
            f"{geometry.w_shape}, stride {geometry.stride}, padding {geometry.padding}); got {ybar.shape}"
        )
