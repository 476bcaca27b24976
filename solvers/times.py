"""The times of a solve: where its solution is wanted,
and the times that its steps walk where these are given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import host_numbers, is_device_array, to_host, to_number
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.ops.casts import on_device
from ..engine.trace import Var, base_value
from .options import Options


def joined_times(ts: Any) -> Any:
    """A list of traced times as one traced array (T,), on the host as all times are; others as they are."""
    if not isinstance(ts, (list, tuple)):
        return to_host(ts) if is_device_array(ts) else ts
    if any(type(t) is Var for t in ts):
        return ops.stack([np.zeros(()) + _on_host(t) for t in ts])
    return host_numbers(ts) if any(map(is_device_array, ts)) else ts


def _on_host(t: Any) -> Any:
    """A time on the host; of one that is traced the derivative finds back."""
    if type(t) is Var:
        return on_device(t, device="cpu") if is_device_array(base_value(t)) else t
    return to_number(t)


def output_times(ts: Any) -> np.ndarray:
    """The output times as float64 (T,) on the host, T >= 2, finite and strictly monotone;
    ArgumentError otherwise.
    """
    values = base_value(ts)
    try:
        given = to_host(values) if hasattr(values, "dtype") else np.asarray(values)
        times = given.astype(np.float64, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"`ts` must be an array of real times (T,); got {values!r}") from error
    if _is_monotone(times):
        return times
    if times.ndim != 1 or times.size < 2:
        raise ArgumentError(f"`ts` must be strictly monotone, shape (T,), T >= 2; got shape {times.shape}")
    if not np.isfinite(times).all():
        raise ArgumentError(
            f"`ts` must be finite; got ts[{int(np.argmin(np.isfinite(times)))}] = {times[~np.isfinite(times)][0]}"
        )
    steps = np.diff(times)
    wrong = np.flatnonzero(np.sign(steps) != np.sign(times[-1] - times[0]))
    if wrong.size or times[-1] == times[0]:
        pair = _pair("ts", times, int(wrong[0]) if wrong.size else 0)
        raise ArgumentError(f"`ts` must be strictly monotone, shape (T,), T >= 2; got {pair}")
    return times


def _is_monotone(times: np.ndarray) -> bool:
    """Whether these are two or more finite times in order: then all other checks pass."""
    if times.ndim != 1 or times.size < 2:
        return False
    earlier, later = times[:-1], times[1:]
    is_ordered = (later > earlier).all() if times[-1] > times[0] else (later < earlier).all()
    return bool(is_ordered) and math.isfinite(times[0]) and math.isfinite(times[-1])


def _pair(name: str, times: np.ndarray, i: int) -> str:
    """Two neighbours that are out of order, as messages show them."""
    relation = "==" if times[i] == times[i + 1] else "then"
    return f"{name}[{i}] = {times[i]:g} {relation} {name}[{i + 1}] = {times[i + 1]:g}"


def walking_grid(options: Options, ts: np.ndarray) -> np.ndarray | None:
    """The times to walk: given ones, or those of a method with fixed steps; None where steps are chosen."""
    grid = _given_grid(options, ts)
    return grid if grid is None else _with_breakpoints(grid, options)


def _with_breakpoints(grid: np.ndarray, options: Options) -> np.ndarray:
    """The grid of a method with fixed steps with the breakpoints;
    ArgumentError for a given one that lacks them.
    """
    inside = np.array([t for t in options.breakpoints if min(grid[0], grid[-1]) < t < max(grid[0], grid[-1])])
    missing = inside[~np.isin(inside, grid)]
    if missing.size and options.grid is not None:
        raise ArgumentError(
            f"`grid` must hold every breakpoint; {missing[0]:g} is not in it. Give the `grid` of a solve with these "
            "`breakpoints`, or leave one of them out"
        )
    return (
        np.unique(np.concatenate([grid, missing]))[:: 1 if grid[-1] > grid[0] else -1]
        if missing.size
        else grid
    )


def _given_grid(options: Options, ts: np.ndarray) -> np.ndarray | None:
    if options.grid is not None:
        return _checked_grid(options.grid, options, ts)
    if options.method.is_adaptive:
        if not options.method.interpolates and options.gradient != "reversible" and len(ts) > 2:
            raise ArgumentError(
                f"`ts` must be two times, since {options.method.name} has no dense output; got {len(ts)}. Give a `grid` "
                "that holds every output time, or use a method with dense output (dopri5)"
            )
        return None
    if options.step_size is not None:
        return _even_steps(options.step_size, options.max_steps, ts)
    if len(ts) - 1 > options.max_steps:
        raise ArgumentError(
            f"{options.method.name} makes a step from each output time to the next, {len(ts) - 1} of them, more than "
            f"`max_steps` = {options.max_steps}; raise `max_steps`"
        )
    return ts


def _even_steps(step_size: float, max_steps: int, ts: np.ndarray) -> np.ndarray:
    """Times that divide each interval between outputs evenly, into steps of at most `step_size`."""
    with np.errstate(over="ignore"):
        counts = np.maximum(1.0, np.ceil(abs(np.diff(ts)) / step_size - 1e-9))
    if counts.sum() > max_steps:
        raise ArgumentError(
            f"`step_size` = {step_size:g} divides the interval [{ts[0]:g}, {ts[-1]:g}] into {counts.sum():.6g} steps, "
            f"more than `max_steps` = {max_steps}; enlarge one of them"
        )
    pieces = [ts[:1]]
    for start, end, n in zip(ts, ts[1:], counts.astype(int), strict=False):
        pieces.append(np.append(start + (end - start) * np.arange(1, n) / n, end))
    return np.concatenate(pieces)


def _checked_grid(grid: np.ndarray, options: Options, ts: np.ndarray) -> np.ndarray:
    if grid.ndim != 1 or grid.size < 2 or not np.isfinite(grid).all():
        raise ArgumentError(f"`grid` must be finite times, shape (N + 1,), N >= 1; got shape {grid.shape}")
    if len(grid) - 1 > options.max_steps:
        raise ArgumentError(
            f"`grid` has {len(grid) - 1} steps, more than `max_steps` = {options.max_steps}; raise `max_steps`"
        )
    wrong = np.flatnonzero(np.sign(np.diff(grid)) != np.sign(ts[-1] - ts[0]))
    if wrong.size or grid[0] != ts[0] or grid[-1] != ts[-1]:
        has_ends = grid[0] == ts[0] and grid[-1] == ts[-1]
        got = _pair("grid", grid, int(wrong[0])) if has_ends else f"a grid from {grid[0]:g} to {grid[-1]:g}"
        raise ArgumentError(
            f"`grid` must run strictly monotone from ts[0] = {ts[0]:g} to ts[-1] = {ts[-1]:g}; got {got}"
        )
    if not options.interpolates and not np.isin(ts, grid).all():
        missing = ts[~np.isin(ts, grid)][0]
        has_none = f"{options.method.name} has" if options.gradient != "reversible" else "'reversible' uses"
        raise ArgumentError(
            f"`grid` must hold every output time, since {has_none} no dense output; {missing:g} is not in it"
        )
    return grid
