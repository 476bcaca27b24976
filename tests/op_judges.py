"""What every primitive's VJP rule is judged by: called by its tests, and by the check that those tests can fail."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from odegrad.engine import vjp
from op_cases import Case
from oracles import EPS64, assert_close, central_difference, complex_step, inner, inner_all, norm

TOL = {"complex": 200 * EPS64, "difference": 1e-9}


def rng_of(case: Case) -> np.random.Generator:
    """Random numbers that belong to the case alone."""
    return np.random.default_rng(zlib.crc32(str(case).encode()))


def directions(rng: np.random.Generator, values: Sequence[Any]) -> list[np.ndarray]:
    return [rng.standard_normal(np.shape(value)) for value in values]


def to_module(xp: ModuleType, values: Sequence[Any]) -> list[Any]:
    return [xp.asarray(v) if isinstance(v, np.ndarray) else v for v in values]


def judge_vjp(case: Case, rng: np.random.Generator, xp: ModuleType = np) -> None:
    """<ybar, J xdot> = <J^T ybar, xdot>, with J xdot from complex step or, for kinked operations, from differences."""
    values = case.draw(rng)
    chosen = [values[k] for k in case.wrt]
    xdot = directions(rng, chosen)
    oracle = complex_step if case.oracle == "complex" else central_difference
    ydot = oracle(case.plain(values), chosen, xdot)
    _, pull_back = vjp(case.function(to_module(xp, values)), *to_module(xp, chosen))
    ybar = rng.standard_normal(ydot.shape)
    xbar = pull_back(xp.asarray(ybar))
    assert [bar.shape for bar in xbar] == [x.shape for x in chosen]
    scale = norm(ybar) * norm(ydot) + norm(*xbar) * norm(*xdot)
    assert_close(inner(ybar, ydot), inner_all(xbar, xdot), scale=scale, tol=TOL[case.oracle])


def judge_derivative_of_the_rule(case: Case, rng: np.random.Generator) -> None:
    """The pull-back as a function of (x, ybar): its own VJP against complex step through the rule."""
    values = case.draw(rng)
    chosen = [values[k] for k in case.wrt]
    ybar = rng.standard_normal(np.shape(case.forward(values)))

    def pulled(*arguments: Any) -> Any:
        _, pull_back = vjp(case.function(values), *arguments[:-1])
        return sum(
            (bar * weight).sum() for bar, weight in zip(pull_back(arguments[-1]), weights, strict=True)
        )

    weights = directions(rng, chosen)
    arguments = [*chosen, ybar]
    xdot = directions(rng, arguments)
    expected = complex_step(pulled, arguments, xdot)
    _, pull_back = vjp(pulled, *arguments)
    bars = pull_back(np.ones(()))
    scale = abs(expected) + norm(*bars) * norm(*xdot)
    assert_close(inner_all(bars, xdot), expected, scale=scale, tol=400 * EPS64)


def judge_flat(case: Case, rng: np.random.Generator) -> None:
    """No cotangent passes: of the operation plus a detour, only what takes the detour arrives."""
    values = case.draw(rng)
    chosen = [values[k] for k in case.wrt]

    def with_detour(*arguments: Any) -> Any:
        return case.function(values)(*arguments).sum() * 2.0 + sum(x.sum() for x in arguments)

    _, pull_back = vjp(with_detour, *chosen)
    for x, bar in zip(chosen, pull_back(np.ones(())), strict=True):
        assert_close(bar, np.ones(x.shape), scale=0.0, tol=0.0)
