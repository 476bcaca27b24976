"""Normalisation by moments, and the hat functions that interpolate over a grid of times."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import namespace_of
from ..primitive import primitive
from ..trace import base_value, dtype_of, shape_of
from .functions import sqrt
from .reductions import square_about_mean, sum
from .shaping import reshape


def normalize(x: Any, mean: Any, var: Any, eps: float, scale: Any = 1.0, shift: Any = None) -> Any:
    """scale * (x - mean) / sqrt(var + eps) + shift, per channel (last axis).

    x is centred first: folding the mean into the shift would cancel in float32 where |mean| is large. What
    concerns channels only is computed on (C,) arrays, so that x is passed over three times.
    """
    y = (x - mean) * (scale / sqrt(var + eps))
    return y if shift is None else y + shift


def group_normalize(x: Any, groups: int, eps: float) -> Any:
    """x (B, ..., C) with mean 0 and variance 1 over each sample's spatial axes and each group of channels.

    Sums run over positions first and over the channels of a group then, on (B, C): the axes of x stay as they
    are, with all channels innermost, where loops over the few channels of a group would be short.
    """
    shape, dtype = shape_of(x), dtype_of(x)
    positions = tuple(range(1, len(shape) - 1))
    by_group = _group_members(namespace_of(base_value(x)), groups, shape[-1], np.zeros((), dtype).real.dtype)
    n_values = math.prod(shape[1:]) // groups
    each_sample = (shape[0], *(1 for _ in positions), shape[-1])

    def averages(values: Any) -> Any:
        """(B, 1, ..., C): for each sample and channel the mean over its group."""
        of_group = sum(values, positions) @ by_group * (1.0 / n_values)
        return reshape(of_group @ by_group.T, each_sample)

    mean = averages(x)
    return (x - mean) * (1.0 / sqrt(averages(square_about_mean(x, mean)) + eps))


def _group_members(xp: ModuleType, groups: int, channels: int, dtype: Any) -> Any:
    """(C, groups): 1 where a channel belongs to a group, consecutive channels to one."""
    return xp.repeat(xp.eye(groups, dtype=dtype), channels // groups, axis=0)


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
    """d hat_weights / dt: -1/d and 1/d at the ends of the cell that holds t (the right one at a node),
    else 0.
    """
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
