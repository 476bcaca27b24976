"""Long rows for NumPy: its inner loop runs over the last axis, which for images is a handful of channels.

Seeing (B, H, W, C) as (N / k, k C) with k C around a thousand makes the inner loop long; an operand (C,) is
repeated k times to go with it. Measured on 256x14x14x16 float32: a product with (C,) takes 0.15 instead of
0.37 ms, a sum over all axes but the last 0.06 instead of 1.0 ms (0.04 by BLAS, whose second thread is erratic
for so little work).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..primitive import Call

ROW = 2048  # values in a row: in the L1 cache, and long enough to hide the cost of starting a loop
SMALL = 1 << 15  # values below which one matrix-vector product is the cheapest sum


def repeats(n_rows: int, width: int) -> int:
    """How many rows of `width` values to join: the largest divisor of n_rows that keeps a joined row within
    ROW.
    """
    for k in range(min(n_rows, max(1, ROW // max(1, width))), 0, -1):
        if n_rows % k == 0:
            return k
    return 1


def can_widen(array: np.ndarray, width: int) -> bool:
    """Whether joining rows of `width` values pays."""
    return bool(array.flags.c_contiguous and array.size > SMALL and width <= 32 and array.dtype.kind in "fb")


def channel_operand(function: Any, out: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[Call] | None:
    """function(a, b) -> out where one operand is (C,) and the other is shaped like out;
    None where it does not pay.
    """
    image, channels = (a, b) if a.shape == out.shape else (b, a)
    if image.shape != out.shape or channels.ndim != 1 or out.ndim < 2 or channels.shape[0] != out.shape[-1]:
        return None
    if not (
        can_widen(image, len(channels)) and can_widen(out, len(channels)) and channels.dtype == image.dtype
    ):
        return None
    width = len(channels)
    k = repeats(out.size // width, width)
    repeated = np.empty(k * width, channels.dtype)
    wide = [x.reshape(-1, k * width) if x is image else repeated for x in (a, b)]
    return [
        (np.copyto, (repeated.reshape(k, width), channels), {}),
        (function, tuple(wide), {"out": out.reshape(-1, k * width)}),
    ]


def leading_sum(out: np.ndarray, x: np.ndarray) -> list[Call] | None:
    """The sum of x (..., C) over all axes but the last into out (C,);
    None for what is not contiguous and real.
    """
    if not x.flags.c_contiguous or x.dtype.kind != "f" or x.dtype != out.dtype or out.size < 1 or not x.size:
        return None
    width = out.size
    rows = x.reshape(-1, width)
    if x.size <= SMALL:
        if width < 2:
            return None
        return [(np.dot, (np.ones(len(rows), x.dtype), rows), {"out": out.reshape(-1)})]
    k = repeats(len(rows), width)
    partial = np.empty(k * width, x.dtype)
    return [
        (np.add.reduce, (x.reshape(-1, k * width),), {"axis": 0, "out": partial}),
        (np.add.reduce, (partial.reshape(k, width),), {"axis": 0, "out": out.reshape(-1)}),
    ]


def against_zero(function: Any, out: np.ndarray, x: np.ndarray) -> list[Call]:
    """function(x, 0) -> out. A row of zeros lets NumPy use its vector loop, which a single zero does not."""
    if x.flags.c_contiguous and out.flags.c_contiguous and x.size > SMALL:
        k = repeats(x.size, 1)
        return [(function, (x.reshape(-1, k), np.zeros(k, x.dtype)), {"out": out.reshape(-1, k)})]
    return [(function, (x, np.zeros((), x.dtype)), {"out": out})]
