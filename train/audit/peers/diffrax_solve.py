"""diffrax's solve and its gradient, compiled once for all problems that share dynamics, shapes and dtype."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import diffrax
import jax

from ....engine.tree import Tree
from ..case import Portable, cast, half_square
from ..functions import Functions

METHODS = ("backsolve", "seminorm", "checkpoint")
# (y0, params, ts, rtol, atol) -> ((loss, forward steps), gradient)
Solve = Callable[..., Any]
COUNTS: Counter[str] = Counter()  # evaluations "f" and pull-backs "vjp" of a solve made by `counting_solve`


@functools.cache
def plain_solve(portable: Portable, functions: Functions, method: str, most_steps: int) -> Solve:
    """The solve as diffrax makes it."""
    return jax.jit(_differentiated(lambda slope: slope, portable, functions, method, most_steps))


@functools.cache
def counting_solve(portable: Portable, functions: Functions, method: str, most_steps: int) -> Solve:
    """The same, which adds to COUNTS; slower, and compiled faster."""
    options: Any = {"xla_backend_optimization_level": 0}
    return jax.jit(
        _differentiated(counted, portable, functions, method, most_steps), compiler_options=options
    )


def _differentiated(
    wrap: Callable[[Any], Any], portable: Portable, functions: Functions, method: str, most_steps: int
) -> Solve:
    wanted = (0, 1, 2) if method == "checkpoint" else (0, 1)  # of the continuous adjoint there is none for ts
    return jax.value_and_grad(
        loss_by(wrap, portable, functions, method, most_steps), argnums=wanted, has_aux=True
    )


def loss_by(
    wrap: Callable[[Any], Any], portable: Portable, functions: Functions, method: str, most_steps: int
) -> Callable[..., tuple[Any, Any]]:
    """(y0, params, ts, rtol, atol) -> (loss, steps) with the slopes that `wrap` makes of the problem's.

    Tolerances are arguments, so that one compilation serves them all.
    """

    def loss(y0: Any, params: Tree, ts: Any, rtol: Any, atol: Any) -> tuple[Any, Any]:
        slope = wrap(portable.on(functions, cast(portable.constants, y0.dtype)))
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope), diffrax.Dopri5(), ts[0], ts[-1], None, y0, params, max_steps=most_steps,
            saveat=diffrax.SaveAt(t0=True, ts=ts[1:]), adjoint=_adjoint(method, rtol, atol),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        )  # fmt: skip
        return half_square(solution.ys), solution.stats["num_steps"]

    return loss


def _adjoint(method: str, rtol: Any, atol: Any) -> Any:
    if method == "checkpoint":
        return diffrax.RecursiveCheckpointAdjoint()
    if method == "backsolve":
        return diffrax.BacksolveAdjoint()
    controller = diffrax.PIDController(rtol=rtol, atol=atol, norm=diffrax.adjoint_rms_seminorm)
    return diffrax.BacksolveAdjoint(stepsize_controller=controller)


def counted(slope: Callable[[Any, Any, Tree], Any]) -> Callable[[Any, Any, Tree], Any]:
    """The slope with a rule of its own, which calls back at each evaluation and each pull-back."""

    def count(what: str) -> None:
        jax.debug.callback(lambda: COUNTS.update([what]))

    @jax.custom_vjp
    def f(t: Any, y: Any, params: Tree) -> Any:
        count("f")
        return slope(t, y, params)

    def forward(t: Any, y: Any, params: Tree) -> tuple[Any, Any]:
        count("f")
        return jax.vjp(slope, t, y, params)

    def backward(pull_back: Any, y_bar: Any) -> Any:
        count("vjp")
        return pull_back(y_bar)

    f.defvjp(forward, backward)
    return f
