"""`tape` against complex step and differences on the frozen grid: y0, parameters, captured values, output times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from odegrad import grad, odeint
from oracles import EPS64, central_difference, complex_step
from solving import ADAPTIVE, FIXED, cases, network, random_case

TOL = 5000 * EPS64  # times the size of the gradient: some hundred operations one after another


def inner(first: dict, second: dict) -> float:
    return sum(float(np.sum(first[key] * second[key])) for key in first)


@given(cases())
def test_initial_state(case):
    direction = np.random.default_rng(1).standard_normal(case.y0.shape)
    fixed = {"grid": case.grid(), "step_size": None}
    found = grad(lambda y: case.loss(y, gradient="tape", **fixed))(case.y0)
    expected = complex_step(
        lambda y: case.loss(y, {k: v.astype(complex) for k, v in case.params.items()}, **fixed),
        [case.y0],
        [direction],
    )
    assert abs(np.sum(found * direction) - expected) <= TOL * np.linalg.norm(found) * np.linalg.norm(
        direction
    )


@given(cases())
def test_parameters(case):
    rng = np.random.default_rng(2)
    directions = {key: rng.standard_normal(value.shape) for key, value in case.params.items()}
    fixed = {"grid": case.grid(), "step_size": None}
    found = grad(lambda p: case.loss(params=p, gradient="tape", **fixed))(case.params)
    names = list(case.params)
    expected = complex_step(
        lambda *values: case.loss(case.y0.astype(complex), dict(zip(names, values, strict=True)), **fixed),
        [case.params[name] for name in names],
        [directions[name] for name in names],
    )
    scale = np.sqrt(inner(found, found) * inner(directions, directions))
    assert abs(inner(found, directions) - expected) <= TOL * scale


def test_a_captured_value_is_differentiated_like_a_parameter():
    case = random_case(4)

    def captured(params):
        return case.loss_of(odeint(lambda t, y: network(t, y, params), case.y0, case.ts, gradient="tape").ys)

    given_as_params = grad(lambda p: case.loss(params=p, gradient="tape"))(case.params)
    found = grad(captured)(case.params)
    assert all(np.allclose(found[k], given_as_params[k], rtol=1e-13, atol=1e-14) for k in found)


def stretched(grid: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """The frozen grid with its first and last time where ts begins and ends."""
    return np.array([ts[0], *grid[1:-1], ts[-1]])


@pytest.mark.parametrize("span", [1.5, -1.5])
@pytest.mark.parametrize("n_times", [2, 5])
@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("rtol", [1e-2, 1e-6])
def test_every_output_time(method, n_times, span, rtol):
    case = random_case(6, n_times=n_times, span=span, method=method, rtol=rtol, atol=rtol)
    grid = case.grid()
    found = grad(lambda ts: case.loss(ts=ts, gradient="tape"))(case.ts)
    expected = [
        central_difference(
            lambda ts: case.loss(ts=ts, grid=stretched(grid, ts)),
            [case.ts],
            [np.eye(len(case.ts))[i]],
            h=1e-3,
        )
        for i in range(len(case.ts))
    ]
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


@pytest.mark.parametrize("i", [0, -1])
@pytest.mark.parametrize("method", FIXED)
def test_the_ends_of_a_solve_with_fixed_steps(method, i):
    case = random_case(7, n_times=2, method=method)
    grid = case.grid()
    found = grad(lambda ts: case.loss(ts=ts, gradient="tape"))(case.ts)[i]
    direction = np.eye(2)[i]
    expected = central_difference(
        lambda ts: case.loss(ts=ts, grid=stretched(grid, ts), step_size=None), [case.ts], [direction]
    )
    assert abs(found - expected) <= 1e-9 * abs(expected)


@pytest.mark.parametrize("method", FIXED)
def test_an_inner_output_time_of_fixed_steps_moves_along_the_slope(method):
    case = random_case(8, n_times=4, method=method)
    ys = case.solve().ys
    found = grad(lambda ts: case.loss(ts=ts, gradient="tape"))(case.ts)
    bars = case.weights + ys
    expected = [np.sum(bars[i] * network(case.ts[i], ys[i], case.params)) for i in (1, 2)]
    assert np.allclose(found[1:3], expected, rtol=1e-13, atol=1e-13)


def stats_of_tape(n_steps):
    """Statistics after the gradient of a linear ODE (3,) in n_steps steps of rk4, with its solution's own scale."""
    kept = []

    def loss(matrix):
        solution = odeint(
            lambda t, y, a: a @ y,
            np.ones(3),
            [0.0, 1.0],
            matrix,
            method="rk4",
            gradient="tape",
            step_size=1 / n_steps,
        )
        kept.append(solution)
        return solution.ys[-1].sum()

    grad(loss)(np.eye(3))
    return kept[0].stats


def test_every_stage_is_pulled_back_once():
    stats = stats_of_tape(5)
    assert stats.nfe_backward == stats.n_vjp_state == stats.n_vjp_params == 4 * 5


def test_memory_is_that_of_all_stages():
    """Each stage keeps its input (3,) at least; twice the steps keep twice as much."""
    few, many = stats_of_tape(10).peak_saved_bytes, stats_of_tape(20).peak_saved_bytes
    assert few >= 10 * 4 * 3 * 8
    assert many == pytest.approx(2 * few, rel=0.1)
