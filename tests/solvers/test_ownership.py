"""What the caller does to arrays between a solve and its pull-back does not reach the derivative."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad import odeint, vjp
from solving import random_case, same_bits

METHODS = [
    pytest.param({"gradient": "discrete", "keep": "all"}, id="discrete-all"),
    pytest.param({"gradient": "discrete", "keep": "none"}, id="discrete-none"),
    pytest.param({"gradient": "backsolve"}, id="backsolve"),
    pytest.param({"gradient": "tape"}, id="tape"),
    pytest.param({"gradient": "interpolated"}, id="interpolated"),
    pytest.param({"gradient": "reversible"}, id="reversible"),
]
EXECUTIONS = ("replay", "eager")


def pulled(change, **options):
    """The cotangents of (y0, params, ts), pulled back after `change` was done to (solution, y0, params, ts, captured)."""
    case = random_case(70)
    y0, ts = case.y0.copy(), case.ts.copy()
    params = {key: value.copy() for key, value in case.params.items()}
    captured, found = np.full(3, 0.7), []

    def f(t, y, p):
        return np.tanh(y @ p["a"] + t * p["c"]) @ p["b"] - captured * y

    def solution(y0, params, ts):
        found.append(odeint(f, y0, ts, params, **options))
        return found[0].ys

    ys, pull_back = vjp(solution, y0, params, ts)
    change(ys, found[0], y0, params, ts, captured)
    return pull_back(case.weights)


def change_outputs(ys, solution, y0, params, ts, captured):
    ys *= 2.0


def change_times(ys, solution, y0, params, ts, captured):
    solution.ts[1] += 0.01
    solution.grid[1] += 0.01
    ts[1] += 0.01


def change_state(ys, solution, y0, params, ts, captured):
    y0 += 1.0


def change_params(ys, solution, y0, params, ts, captured):
    for value in params.values():
        value *= 3.0


def change_captured(ys, solution, y0, params, ts, captured):
    captured += 1.0


CHANGES = [change_outputs, change_times, change_state, change_params, change_captured]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("options", METHODS)
def test_a_change_after_the_solve_does_not_change_a_bit_of_the_gradient(options, execution, change):
    options = {**options, "execution": execution}
    assert same_bits(pulled(change, **options), pulled(lambda *_: None, **options))


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("options", METHODS)
def test_so_it_is_where_the_slope_at_the_start_is_the_state_itself(options, execution):
    def solution(y, ts):
        return odeint(lambda t, y: y, y, ts, execution=execution, **options).ys

    def pulled(factor):
        y0 = np.array([1.0, 2.0])
        _, pull_back = vjp(solution, y0, np.array([0.0, 0.5, 1.0]))
        y0 *= factor
        return pull_back(np.ones((3, 2)))

    assert same_bits(pulled(100.0), pulled(1.0))
