"""Where the steps of a solve lie: ends, output times, given grids, both directions of time."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from hypothesis import given
from odegrad import odeint
from odegrad.solvers import Tableau
from odegrad.solvers.tableau import rationals
from solving import ADAPTIVE, cases, network, random_case


@pytest.mark.parametrize("p", problems.PROBLEMS, ids=str)
def test_the_last_step_ends_at_the_last_time_exactly(p):
    assert odeint(p.f, p.y0, [p.t0, p.t1]).grid[-1] == p.t1


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("direction", [1, -1])
def test_output_times_do_not_change_the_steps(method, direction):
    few, many = (np.linspace(0, direction * 2.0, n) for n in (2, 301))
    case = random_case(3, method=method)
    assert np.array_equal(case.grid(ts=few), case.grid(ts=many))


@given(cases())
def test_the_grid_of_a_solve_gives_the_same_bits_again(case):
    sol = case.solve()
    again = case.solve(grid=sol.grid, step_size=None)
    assert np.array_equal(again.ys, sol.ys) and np.array_equal(again.grid, sol.grid)


@given(cases())
def test_time_reversed_dynamics_take_the_same_steps(case):
    t0 = case.ts[0]
    forward = case.solve()
    mirrored = odeint(
        lambda t, y, params: -network(2 * t0 - t, y, params),
        case.y0,
        2 * t0 - case.ts,
        case.params,
        **case.options,
    )
    assert forward.stats.n_accepted == mirrored.stats.n_accepted
    assert np.allclose(mirrored.ys, forward.ys, rtol=1e-9, atol=1e-9)


def test_the_first_output_is_the_initial_state_itself():
    case = random_case(1)
    assert np.array_equal(case.solve().ys[0], case.y0)


def test_an_output_at_an_accepted_time_is_the_state_there():
    case = random_case(2)
    grid = case.grid(ts=case.ts[[0, -1]])
    ts = np.array([case.ts[0], grid[2], case.ts[-1]])
    state = case.solve(ts=ts[:2], grid=grid[:3]).ys[-1]
    assert np.array_equal(case.solve(ts=ts).ys[1], state)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_fixed_steps_are_at_most_step_size_and_hit_every_output(method):
    ts = np.array([0.0, 0.35, 1.0])
    grid = odeint(lambda t, y: -y, np.ones(2), ts, method=method, step_size=0.1).grid
    assert np.diff(grid).max() <= 0.1 + 1e-15 and set(ts) <= set(grid) and len(grid) == 1 + 4 + 7


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_fixed_steps_go_from_output_to_output_by_default(method):
    ts = np.array([0.0, 0.35, 1.0])
    assert np.array_equal(odeint(lambda t, y: -y, np.ones(2), ts, method=method).grid, ts)


def test_two_times_need_no_dense_output():
    heun = Tableau(
        name="heun21", order=2, c=rationals("0 1"), a=(rationals(""), rationals("1")), b=rationals("1/2 1/2"),
        embedded_order=1, b_embedded=rationals("1 0"), source="Heun's method and Euler's",
    )  # fmt: skip
    ys = odeint(lambda t, y: -y, np.ones(1), [0.0, 1.0], method=heun).ys
    assert ys[-1, 0] == pytest.approx(np.exp(-1), rel=1e-4)


def test_max_step_limits_every_step():
    grid = odeint(lambda t, y: -y, np.ones(2), [0.0, 1.0], max_step=0.07).grid
    assert np.diff(grid).max() <= 0.07 * (1 + 1e-12)


def test_first_step_is_taken():
    assert odeint(lambda t, y: -y, np.ones(2), [0.0, 1.0], first_step=0.015625).grid[1] == 0.015625


@pytest.mark.parametrize("offset", [1e8, -1e8])
def test_a_large_offset_of_time_changes_nothing_but_rounding(offset):
    def f(t, y):
        return -y

    near = odeint(f, np.ones(2), [0.0, 0.5, 1.0])
    far = odeint(f, np.ones(2), offset + np.array([0.0, 0.5, 1.0]))
    assert np.abs(far.ys - near.ys).max() < 1e-7 and far.stats.n_accepted == near.stats.n_accepted


@pytest.mark.parametrize(
    "ts", [[0.0, 1e-300], [1.0, 1.0 + 2.3e-16], [0.0, 1e-300, 2e-300], [-5.0, -5.000000001]]
)
def test_tiny_intervals(ts):
    assert np.array_equal(odeint(lambda t, y: -y, np.ones(2), ts).ys.round(6), np.ones((len(ts), 2)))


def test_ten_thousand_steps():
    sol = odeint(lambda t, y: -y, np.ones(2), [0.0, 1.0], grid=np.linspace(0, 1, 10_001))
    assert sol.stats.n_accepted == 10_000 and abs(sol.ys[-1, 0] - np.exp(-1)) < 1e-13
