"""The grid of times on which TA-BN keeps its statistics and parameters,
and interpolation over the nodes it visited.
"""

from __future__ import annotations

import functools
import math
from types import ModuleType

import numpy as np

from ..engine.backend import Array, to_xp
from ..engine.errors import ArgumentError
from ..engine.primitive import primitive

VISITED = 1.0  # accumulated hat weight from which on a node counts as visited


def uniform_nodes(t0: float = 0.0, t1: float = 1.0, n_cells: int = 100) -> tuple[float, ...]:
    """n_cells + 1 equally spaced times from t0 to t1, both ends included."""
    if not t0 < t1 or n_cells < 1:
        raise ArgumentError(
            f"a grid needs t0 < t1 and at least one cell; got [{t0}, {t1}] and {n_cells} cells"
        )
    return (*(t0 + (t1 - t0) * k / n_cells for k in range(n_cells)), float(t1))


def check_nodes(nodes: tuple[float, ...]) -> None:
    """ArgumentError unless there are at least two nodes, finite and strictly increasing."""
    if len(nodes) < 2 or not all(map(math.isfinite, nodes)):
        raise ArgumentError(f"`nodes` must be at least two finite times; got {nodes}")
    for k, (left, right) in enumerate(zip(nodes, nodes[1:], strict=False)):
        if not left < right:
            raise ArgumentError(f"`nodes` must increase; got nodes[{k}] = {left}, nodes[{k + 1}] = {right}")


@functools.lru_cache(maxsize=64)
def grid_array(nodes: tuple[float, ...], xp: ModuleType = np) -> Array:
    """The nodes as a float64 array (K,), read-only on the host.

    One array for equal nodes, so that all layers of a network share one interpolation in a traced program.
    """
    grid = to_xp(xp, np.array(nodes))
    if xp is np:
        grid.flags.writeable = False
    return grid


def hats(ts: np.ndarray, nodes: tuple[float, ...]) -> np.ndarray:
    """(N, K): the hat functions of the grid at N times, on the host; clamped outside,
    so that each row sums to 1.
    """
    grid = grid_array(nodes)
    cell = np.clip(np.searchsorted(grid, ts, "right") - 1, 0, len(grid) - 2)
    rising = np.clip((ts - grid[cell]) / (grid[cell + 1] - grid[cell]), 0.0, 1.0)
    weights = np.zeros((len(ts), len(grid)))
    rows = np.arange(len(ts))
    weights[rows, cell] = 1.0 - rising
    weights[rows, cell + 1] = rising
    return weights


@primitive("fill_unvisited")
def fill_unvisited(xp, values, visits, initial_share, grid, *, initial):
    """Running averages (K, C) as estimates on the whole grid.

    A visited node gives the average of what it has seen: its running average still holds `initial_share` (K,)
    of the value `initial` that it started with, which is taken out. A node that was not visited gets the
    interpolation between its visited neighbours; beyond the first and the last of them the value is theirs,
    and with none visited it is `initial` everywhere. Interpolation over the whole grid of the result is
    interpolation over the visited nodes. Depends on running statistics only: once per solve in a program, and
    nothing is read from a device. It has no VJP rule, since those are never differentiated. Cost:
    some passes over (K, K).
    """
    is_visited, nodes = visits >= VISITED, xp.arange(len(grid))
    before = xp.where(is_visited & (nodes <= nodes[:, None]), nodes, -1).max(
        axis=1
    )  # the nearest one, -1 for none
    after = xp.where(is_visited & (nodes >= nodes[:, None]), nodes, len(grid)).min(
        axis=1
    )  # len(grid) for none
    left, right = xp.where(before < 0, after, before), xp.where(after == len(grid), before, after)
    left, right = xp.minimum(left, len(grid) - 1), xp.maximum(right, 0)  # with none visited anything will do
    width = grid[right] - grid[left]
    rising = (xp.where(width > 0, grid - grid[left], 0.0) / xp.where(width > 0, width, 1.0)).astype(
        values.dtype
    )
    share = xp.where(is_visited, initial_share, 0)[:, None]
    estimates = (values - share * values.dtype.type(initial)) / (1 - share)
    found = (1 - rising)[:, None] * estimates[left] + rising[:, None] * estimates[right]
    return xp.where(is_visited.any(), found, values.dtype.type(initial))
