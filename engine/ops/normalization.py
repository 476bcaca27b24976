"""Normalisation by moments, and the hat functions that interpolate over a grid of times."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..primitive import primitive
from ..trace import dtype_of, shape_of
from .elementwise import sqrt
from .reductions import mean, sum


def normalize(x: Any, mean: Any, var: Any, eps: float, scale: Any = 1.0, shift: Any = None) -> Any:
    """scale * (x - mean) / sqrt(var + eps) + shift, per channel (last axis).

    x is centred first: folding the mean into the shift would cancel in float32 where |mean| is large. What concerns
    channels only is computed on (C,) arrays, so that x is passed over three times.
    """
    y = (x - mean) * (scale / sqrt(var + eps))
    return y if shift is None else y + shift


def group_normalize(x: Any, groups: int, eps: float) -> Any:
    """x (B, ..., C) with mean 0 and variance 1 over each sample's spatial axes and each group of channels."""
    shape = shape_of(x)
    grouped = x.reshape(shape[0], -1, groups, shape[-1] // groups)
    centred = grouped - mean(grouped, (1, 3), keepdims=True)
    n = grouped.shape[1] * grouped.shape[3]
    variance = sum(centred * centred, (1, 3), keepdims=True) * (1.0 / n)
    return (centred / sqrt(variance + eps)).reshape(shape)


@primitive("hat_weights")
def hat_weights(xp, t, grid, *, dtype):
    """The K hat functions of a grid (K,), strictly increasing, at time t: at most two non-zeros, with sum 1.

    weights @ a is the linear interpolation of a (K, ...) at t, clamped outside the grid.
    """
    rising = (
        xp.clip((t - grid[:-1]) / (grid[1:] - grid[:-1]), 0.0, 1.0)
        if not _is_complex(t)
        else _ramp(xp, t, grid)
    )
    ends = xp.ones((1,), rising.dtype), xp.zeros((1,), rising.dtype)
    return (xp.concatenate((ends[0], rising)) - xp.concatenate((rising, ends[1]))).astype(
        _result_dtype(t, dtype)
    )


@hat_weights.vjp(saves=("t", "grid"))
def hat_weights_vjp(ybar, t, grid, *, dtype):
    """tbar = <ybar, d weights / dt>: the right derivative at a node, 0 outside; the grid is configuration."""
    return sum(ybar * hat_slopes(t, grid, dtype=dtype)), None


@hat_weights.writes_into
def hat_weights_into(out, t, grid, *, dtype):
    """Two writes; the cell is found by bisection."""
    return None if _is_complex(out) else [(_write_hats, (out, t, grid), {})]


@primitive("hat_slopes", is_flat=True)
def hat_slopes(xp, t, grid, *, dtype):
    """d hat_weights / dt: -1/d and 1/d at the ends of the cell that holds t (the right one at a node), else 0."""
    time = t.real if _is_complex(t) else t
    widths = grid[1:] - grid[:-1]
    rising = ((grid[:-1] <= time) & (time < grid[1:])) / widths
    zero = xp.zeros((1,), rising.dtype)
    return (xp.concatenate((zero, rising)) - xp.concatenate((rising, zero))).astype(_result_dtype(t, dtype))


def _ramp(xp: Any, t: Any, grid: Any) -> Any:
    """The rising part of each cell for complex-step times: analytic in the cell that holds Re t."""
    s = (t - grid[:-1]) / (grid[1:] - grid[:-1])
    return xp.where(s.real < 0, 0.0, xp.where(s.real >= 1, 1.0, s))


def _write_hats(out: np.ndarray, t: Any, grid: np.ndarray) -> None:
    """hat_weights on the host without temporaries; t is a number or a 0-d array."""
    out.fill(0)
    time = float(t)
    cell = min(max(int(grid.searchsorted(time, "right")) - 1, 0), len(grid) - 2)
    left, right = grid.item(cell), grid.item(cell + 1)
    rising = min(max((time - left) / (right - left), 0.0), 1.0)
    out[cell] = 1.0 - rising
    out[cell + 1] = rising


def _is_complex(value: Any) -> bool:
    return dtype_of(value).kind == "c"


def _result_dtype(t: Any, dtype: str) -> Any:
    """The dtype asked for, or its complex partner when t is complex."""
    return np.result_type(dtype, np.complex64) if _is_complex(t) else np.dtype(dtype)
