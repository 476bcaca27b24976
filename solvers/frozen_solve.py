"""A solve as a function of y0, params and output times on accepted times that are held:
what can be differenced.

Differences of an adaptive solve measure its step-size control: the steps change with every argument. So the
accepted times of one solve are held, and every difference walks these, as the gradient methods take them: the
first and the last step stretch with the ends of ts, an inner output time moves along the interpolant (where a
method has none, along the slope).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import to_host
from ..engine.errors import ArgumentTypeError, SolveError
from ..engine.trace import dtype_of
from ..engine.tree import Tree, leaves, tree_map
from .methods import method_named
from .odeint import odeint

CHOOSE_STEPS = ("first_step", "max_step", "step_size", "controller", "callback", "grid")
CONTINUOUS_ONLY = ("backward_rtol", "backward_atol", "drift_limit")
FINER = 1e-3  # tolerances of the fine solve over the given ones, down to FINEST and to 50 units of round-off
FINEST = 1e-12


class FrozenSolve:
    """The states at the output times as a function of {"params", "ts", "y0"},
    on the accepted times of one solve.

    Where all output times are among these, an inner one moves along the slope;
    otherwise along the interpolant.
    """

    def __init__(
        self, f: Callable[..., Any], ts: np.ndarray, grid: np.ndarray, options: dict[str, Any]
    ) -> None:
        self.f, self.ts, self.grid = f, ts, grid
        self.options = {name: value for name, value in options.items() if name not in CHOOSE_STEPS}
        self.interpolates = method_named(options["method"]).interpolates and not np.isin(ts, grid).all()

    def __call__(self, x: dict[str, Any]) -> Tree:
        """The tree ys; NaN, which differences pass over, where a step is too far.

        It is where times are out of order, and where the solve fails.
        """
        ts = _real_times(x["ts"])
        grid = np.array([ts[0], *self.grid[1:-1], ts[-1]])
        direction = np.sign(self.ts[-1] - self.ts[0])
        if any(np.any(np.diff(times) * direction <= 0.0) for times in (ts, grid)):
            return self._nothing(x["y0"])
        try:
            if self.interpolates:
                return self._walk(x, ts, grid)
            nodes = np.array([ts[0], *self.ts[1:-1], ts[-1]])
            ys = self._walk(x, nodes, grid)
        except SolveError:
            return self._nothing(x["y0"])
        return ys if np.array_equal(ts, nodes) else self._moved(x, ys, nodes, ts)

    def _nothing(self, y0: Tree) -> Tree:
        return tree_map(lambda leaf: np.nan + ops.zeros_like(ops.stack([leaf] * len(self.ts))), y0)

    def _walk(self, x: dict[str, Any], ts: np.ndarray, grid: np.ndarray) -> Tree:
        return odeint(self.f, x["y0"], ts, x["params"], grid=grid, **self.options).ys

    def _moved(self, x: dict[str, Any], ys: Tree, nodes: np.ndarray, ts: np.ndarray) -> Tree:
        """The states at the nodes, moved along the slopes there to the times ts."""
        moved = tree_map(lambda leaf: leaf.copy(), ys)
        for i in np.flatnonzero(ts != nodes).tolist():
            y = tree_map(lambda leaf, i=i: leaf[i, ...], ys)
            slope = slope_of(self.f, float(nodes[i]), y, x["params"], has_aux=self.options["has_aux"])
            for leaf, part in zip(leaves(moved), leaves(slope), strict=True):
                leaf[i] += (ts[i] - nodes[i]) * part
        return moved


def fine_solve(
    f: Callable[..., Any], y0: Tree, ts: np.ndarray, params: Tree, options: dict[str, Any]
) -> FrozenSolve:
    """The solve that continuous adjoints are compared with: dopri5, finer,
    with every output time among its steps.
    """
    eps = float(np.finfo(dtype_of(leaves(y0)[0])).eps)
    fine = {name: value for name, value in options.items() if name not in (*CHOOSE_STEPS, *CONTINUOUS_ONLY)}
    fine |= {
        "method": "dopri5",
        "gradient": "discrete",
        "rtol": max(FINER * options["rtol"], FINEST, 50.0 * eps),
        "atol": max(FINER * options["atol"], min(FINEST, options["atol"])),
    }
    grid = np.union1d(odeint(f, y0, ts, params, **fine).grid, ts)
    return FrozenSolve(f, ts, grid if ts[0] < ts[-1] else grid[::-1], fine)


def slope_of(f: Callable[..., Any], t: float, y: Tree, params: Tree, *, has_aux: bool) -> Tree:
    """f(t, y, params) without what it returns beside the slope."""
    result = f(t, y) if params is None else f(t, y, params)
    return result[0] if has_aux and isinstance(result, tuple) else result


def _real_times(ts: Any) -> np.ndarray:
    ts = to_host(ts)
    if ts.dtype.kind != "c":
        return ts
    if ts.imag.any():
        raise ArgumentTypeError("times are real")
    return ts.real
