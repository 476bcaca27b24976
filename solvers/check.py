"""Gradients of a solve, judged by differences of the solve on its frozen grid.

Differences of an adaptive solve measure its step-size control: the steps change with every argument. So the accepted
times of one solve are held, and every difference walks these, as the gradient methods take them: the first and the last
step stretch with the ends of ts, an inner output time moves along the interpolant (along the slope where a method has none).

A continuous adjoint is not the derivative of the steps taken but approaches that of the exact solution. It is compared
with a solve of its own, by dopri5 at a thousandth of the tolerances, which has every output time among its steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import namespace_of, to_xp
from ..engine.check.function import ScalarFunction
from ..engine.check.gradients import DOUBLE, TOL_DOUBLE, TOL_SINGLE, check_options, compare, traced_gradient
from ..engine.check.lines import UNNAMED, not_analytic, without_rule
from ..engine.check.measure import Plan
from ..engine.check.report import GradientReport
from ..engine.errors import ArgumentError, ArgumentTypeError, SolveError
from ..engine.trace import dtype_of, shape_of
from ..engine.tree import Tree, leaves, tree_map, unflatten
from .methods import method_named
from .odeint import odeint
from .options import initial_state, output_times

CHOOSE_STEPS = ("first_step", "max_step", "step_size", "controller", "callback", "grid")
CONTINUOUS = ("backsolve", "interpolated")
CONTINUOUS_ONLY = ("backward_rtol", "backward_atol", "drift_limit")
RTOL, ATOL = 1e-5, 1e-7  # what odeint takes where none are given
DISCRETISATION = 100.0  # times rtol: how near to the exact gradient a continuous adjoint is to come
FINER = 1e-3  # the tolerances of its reference over its own, down to FINEST and to 50 units of round-off
FINEST = 1e-12
COARSEST = 0.1  # largest relative error that may pass for right by itself


def solution_gradients(
    f: Callable[..., Any],
    y0: Tree,
    ts: Any,
    params: Tree = None,
    *,
    gradient: str = "discrete",
    loss: Callable[[Tree], Any] | None = None,
    reference: str = "auto",
    entries: int | None = 16,
    directions: int = 2,
    tol: float | None = None,
    seed: int = 0,
    **options: Any,
) -> GradientReport:
    """Compare what a gradient method gives for y0, params and every output time with derivatives that use no rule.

    Args:
        f, y0, ts, params: the problem, as for `odeint`.
        gradient: the gradient method that is judged.
        loss: function of the states `ys` to a real scalar (default: their sum with random signs that follow from the
            seed; of complex states the real part).
        reference, entries, directions, seed: as for `gradients`. Complex steps serve for y0 and params where f is
            analytic; output times are real, so differences serve for them.
        tol: relative error up to which a leaf is "ok". Default: 1e-7 (1e-3 for float32) for "tape", "discrete" and
            "reversible", which are exact about the steps taken; for "backsolve" and "interpolated", which are compared
            with a finer solve, 100 times the larger of rtol and `backward_rtol`, if that is more, but at most 0.1. With
            given steps these two need a `tol`.
        options: method, rtol, atol, ... of `odeint`.
    Returns: GradientReport with the leaves "params/...", "ts", "y0".
    Raises: what `gradients` and `odeint` raise.
    Cost: a gradient, and for each leaf 20 solves a direction, 1 or 10 an entry; on the accepted steps alone.
    """
    check_options(reference, entries, directions, tol)
    ts, y0 = output_times(ts), initial_state(y0)
    if loss is None:
        loss = _signed_sum(y0, len(ts), seed)
    x = {"params": params, "ts": ts, "y0": y0}

    def solved(x: dict[str, Any]) -> Any:
        return loss(odeint(f, x["y0"], x["ts"], x["params"], gradient=gradient, **options).ys)

    function = ScalarFunction(solved, x)
    dynamics = DynamicsAtStart(f, float(ts[0]), {"params": params, "y": y0}, bool(options.get("has_aux")))
    found = traced_gradient(function, dynamics.without_rule)
    if gradient in CONTINUOUS:
        walk = fine_solve(f, y0, ts, params, options)
    else:
        grid = odeint(f, y0, ts, params, gradient=gradient, **options).grid
        walk = FrozenSolve(f, ts, grid, gradient, options)
    frozen = ScalarFunction(lambda x: loss(walk(x)), x)
    if tol is None and gradient in CONTINUOUS:
        least = TOL_SINGLE if frozen.eps > DOUBLE else TOL_DOUBLE
        tol = max(least, _discretisation(gradient, options))
    plan = Plan(
        reference,
        entries,
        directions,
        seed,
        lambda: dynamics.not_analytic() or not_analytic(loss, _complex(walk(x))),
    )
    finer = "a finer solve of " if gradient in CONTINUOUS else ""
    title = f"{gradient} against {finer}{len(walk.grid) - 1} frozen steps"
    return compare(frozen, found, plan, tol=tol, title=title)


def _discretisation(gradient: str, options: dict[str, Any]) -> float:
    """How far a continuous adjoint may be from the derivative of the exact solution, by its tolerances."""
    method = options.get("method", "dopri5")
    used = method_named(method)
    if not used.is_adaptive or options.get("grid") is not None:
        raise ArgumentError(
            f"`tol` is needed: on given steps of {used.name}, {gradient!r} is as far from the exact derivative as these steps "
            "are coarse; say how far that may be"
        )
    return min(DISCRETISATION * max(options.get("rtol", RTOL), options.get("backward_rtol") or 0.0), COARSEST)


class DynamicsAtStart:
    """f at t0 and {"params", "y"}: inside a solve a trace does not see its operations."""

    def __init__(self, f: Callable[..., Any], t0: float, at: dict[str, Any], has_aux: bool) -> None:
        self.f, self.t0, self.at, self.has_aux = f, t0, at, has_aux

    def __call__(self, at: dict[str, Any]) -> Tree:
        return slope_of(self.f, self.t0, at["y"], at["params"], has_aux=self.has_aux)

    def without_rule(self) -> list[str]:
        """The operations of f without a VJP rule, with their lines."""
        return without_rule(self, self.at)

    def not_analytic(self) -> str:
        """What in f is not analytic, or ""."""
        found = not_analytic(self, _complex(self.at))
        return "" if found == UNNAMED else found


def slope_of(f: Callable[..., Any], t: float, y: Tree, params: Tree, *, has_aux: bool) -> Tree:
    """f(t, y, params) without what it returns beside the slope."""
    result = f(t, y) if params is None else f(t, y, params)
    return result[0] if has_aux else result


class FrozenSolve:
    """The states at the output times as a function of {"params", "ts", "y0"}, on the accepted times of one solve.

    Where all output times are among these, an inner one moves along the slope; otherwise along the interpolant.
    """

    def __init__(
        self, f: Callable[..., Any], ts: np.ndarray, grid: np.ndarray, gradient: str, options: dict[str, Any]
    ) -> None:
        self.f, self.ts, self.grid, self.gradient = f, ts, grid, gradient
        self.options = {name: value for name, value in options.items() if name not in CHOOSE_STEPS}
        method = options.get("method", "dopri5")
        self.interpolates = method_named(method).interpolates and not np.isin(ts, grid).all()

    def __call__(self, x: dict[str, Any]) -> Tree:
        """The tree ys; NaN, which differences pass over, where a step is too far: times out of order, a solve that fails."""
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
        return odeint(self.f, x["y0"], ts, x["params"], grid=grid, gradient=self.gradient, **self.options).ys

    def _moved(self, x: dict[str, Any], ys: Tree, nodes: np.ndarray, ts: np.ndarray) -> Tree:
        """The states at the nodes, moved along the slopes there to the times ts."""
        moved = tree_map(lambda leaf: leaf.copy(), ys)
        for i in np.flatnonzero(ts != nodes).tolist():
            y = tree_map(lambda leaf, i=i: leaf[i, ...], ys)
            slope = slope_of(
                self.f, float(nodes[i]), y, x["params"], has_aux=bool(self.options.get("has_aux"))
            )
            for leaf, part in zip(leaves(moved), leaves(slope), strict=True):
                leaf[i] += (ts[i] - nodes[i]) * part
        return moved


def fine_solve(
    f: Callable[..., Any], y0: Tree, ts: np.ndarray, params: Tree, options: dict[str, Any]
) -> FrozenSolve:
    """The solve that continuous adjoints are compared with."""
    eps = float(np.finfo(dtype_of(leaves(y0)[0])).eps)
    fine = {name: value for name, value in options.items() if name not in (*CHOOSE_STEPS, *CONTINUOUS_ONLY)}
    fine["method"] = "dopri5"
    fine["rtol"] = max(FINER * options.get("rtol", RTOL), FINEST, 50.0 * eps)
    fine["atol"] = max(FINER * options.get("atol", ATOL), min(FINEST, options.get("atol", ATOL)))
    grid = odeint(f, y0, ts, params, **fine).grid
    joined = np.union1d(grid, ts)
    return FrozenSolve(f, ts, joined if ts[0] < ts[-1] else joined[::-1], "discrete", fine)


def _real_times(ts: Any) -> np.ndarray:
    ts = np.asarray(ts)
    if ts.dtype.kind != "c":
        return ts
    if ts.imag.any():
        raise ArgumentTypeError("times are real")
    return ts.real


def _signed_sum(y0: Tree, n_times: int, seed: int) -> Callable[[Tree], Any]:
    """The sum of all states, each with a random sign (of complex states with a random unit), real."""
    rng = np.random.default_rng(seed)
    xp = namespace_of(*leaves(y0))
    signs = []
    for leaf in leaves(y0):
        is_complex = dtype_of(leaf).kind == "c"
        drawn = rng.choice([1, -1, 1j, -1j] if is_complex else [1.0, -1.0], (n_times, *shape_of(leaf)))
        signs.append(to_xp(xp, drawn.astype(dtype_of(leaf))))

    def signed_sum(ys: Tree) -> Any:
        total: Any = 0.0
        for leaf, sign in zip(leaves(ys), signs, strict=True):
            part = ops.sum(leaf * sign)
            total = total + (ops.real(part) if sign.dtype.kind == "c" else part)
        return total

    return signed_sum


def _complex(tree: Tree) -> Tree:
    return unflatten(tree, (ops.astype(leaf, np.complex128) for leaf in leaves(tree)))
