"""Gradients of a solve, judged by differences of the solve on its frozen grid (`frozen_solve`).

A continuous adjoint is not the derivative of the steps taken but approaches that of the exact solution. It is
compared with a solve of its own, by dopri5 at a thousandth of the tolerances,
which has every output time among its steps.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import namespace_of, to_xp
from ..engine.check.arguments import check_function, check_settings, default_tol
from ..engine.check.function import ScalarFunction
from ..engine.check.gradients import compare, traced_gradient
from ..engine.check.lines import not_analytic
from ..engine.check.measure import Plan
from ..engine.check.report import GradientReport
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.trace import dtype_of, shape_of
from ..engine.tree import Tree, leaves
from .dynamics_at_start import DynamicsAtStart, as_complex
from .frozen_solve import FrozenSolve, fine_solve
from .initial_state import initial_state
from .methods import method_named
from .odeint import odeint
from .times import output_times

DEFAULTS = {
    name: known.default
    for name, known in signature(odeint).parameters.items()
    if known.kind is Parameter.KEYWORD_ONLY
}
CONTINUOUS = ("backsolve", "interpolated")
DISCRETISATION = 100.0  # times rtol: how near to the exact gradient a continuous adjoint is to come
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
    """Compare what a gradient method gives for y0, params and every output time with derivatives that use no
    rule.

    Args:
        f, y0, ts, params: the problem, as for `odeint`.
        gradient: the gradient method that is judged.
        loss: function of the states `ys` to a real scalar (default: their sum with random signs that follow
            from the seed; of complex states the real part).
        reference, entries, directions, seed: as for `gradients`. Complex steps serve for y0 and params where
            f is analytic; output times are real, so differences serve for them.
        tol: relative error up to which a leaf is "ok". Default: 1e-7 (1e-3 for float32) for "tape",
            "discrete" and "reversible", which are exact about the steps taken; for "backsolve" and
            "interpolated", which are compared with a finer solve, 100 times the larger of rtol and
            `backward_rtol`, if that is more, but at most 0.1. With given steps these two need a `tol`.
        options: method, rtol, atol, ... of `odeint`.
    Returns: GradientReport with the leaves "params/...", "ts", "y0".
    Raises: what `gradients` and `odeint` raise.
    Cost: a gradient, and for each leaf 20 solves a direction, 1 or 10 an entry; on the accepted steps alone.
    """
    check_function("solution_gradients(f, y0, ts, params)", f, y0)
    check_settings(seed=seed, tol=tol, reference=reference, entries=entries, directions=directions)
    _check_names(options)
    options = {**DEFAULTS, **options, "gradient": gradient}
    ts, y0 = output_times(ts), initial_state(y0)
    loss = _checked_loss(loss, y0, len(ts), seed)
    dynamics = DynamicsAtStart(f, float(ts[0]), {"params": params, "y": y0}, options["has_aux"])
    dynamics.check_pure()

    def solved(x: dict[str, Any]) -> Any:
        return loss(odeint(f, x["y0"], x["ts"], x["params"], **options).ys)

    xp = namespace_of(*leaves(y0))
    function = ScalarFunction(solved, {"params": params, "ts": to_xp(xp, ts), "y0": y0})
    found = traced_gradient(function, dynamics.without_rule)
    if gradient in CONTINUOUS:
        walk = fine_solve(f, y0, ts, params, options)
        tol = max(default_tol(function.eps), _discretisation(gradient, options)) if tol is None else tol
    else:
        walk = FrozenSolve(f, ts, odeint(f, y0, ts, params, **options).grid, options)

    def explain() -> str:
        return dynamics.not_analytic() or not_analytic(loss, as_complex(walk(function.x)))

    frozen = ScalarFunction(lambda x: loss(walk(x)), function.x)
    finer = "a finer solve of " if gradient in CONTINUOUS else ""
    title = f"{gradient} against {finer}{len(walk.grid) - 1} frozen steps"
    return compare(frozen, found, Plan(reference, entries, directions, seed, explain), tol=tol, title=title)


def _check_names(options: dict[str, Any]) -> None:
    """ArgumentTypeError, with the nearest name, for options that neither `odeint` nor the comparison has."""
    known = {**signature(solution_gradients).parameters, **DEFAULTS}
    for name in options:
        if name not in DEFAULTS:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(DEFAULTS)}"
            raise ArgumentTypeError(f"solution_gradients and odeint have no option {name!r}{hint}")


def _checked_loss(loss: Any, y0: Tree, n_times: int, seed: int) -> Callable[[Tree], Any]:
    """The loss, or the default one; ArgumentTypeError unless it is a function."""
    if loss is None:
        return _signed_sum(y0, n_times, seed)
    if not callable(loss):
        raise ArgumentTypeError(f"`loss` must be a function of the states `ys`; got {type(loss).__name__}")
    return loss


def _discretisation(gradient: str, options: dict[str, Any]) -> float:
    """How far a continuous adjoint may be from the derivative of the exact solution, by its tolerances."""
    method = method_named(options["method"])
    if not method.is_adaptive or options["grid"] is not None:
        raise ArgumentError(
            f"`tol` is needed: on given steps of {method.name}, {gradient!r} is as far from the exact derivative as "
            "these steps are coarse; say how far that may be"
        )
    return min(DISCRETISATION * max(options["rtol"], options["backward_rtol"] or 0.0), COARSEST)


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
