"""Adams methods: the published coefficients, order, uneven times, both directions, dense output, cost."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from odegrad import odeint
from odegrad.engine.errors import ArgumentError
from odegrad.solvers import AdamsBashforth, AdamsBashforthMoulton
from odegrad.solvers.adams import integrals_of_lagrange
from oracles import EPS64, host

PENDULUM = next(p for p in problems.PROBLEMS if p.name == "pendulum")
KINDS = [AdamsBashforth, AdamsBashforthMoulton]
ORDERS = [1, 2, 3, 4, 5]

# Hairer, Norsett & Wanner (1993), section III.1: (1.6) and (1.9), the slope at the newest time first.
BASHFORTH = {
    1: np.array([1.0]),
    2: np.array([3, -1]) / 2,
    3: np.array([23, -16, 5]) / 12,
    4: np.array([55, -59, 37, -9]) / 24,
    5: np.array([1901, -2774, 2616, -1274, 251]) / 720,
}
MOULTON = {
    1: np.array([1.0]),
    2: np.array([1, 1]) / 2,
    3: np.array([5, 8, -1]) / 12,
    4: np.array([9, 19, -5, 1]) / 24,
    5: np.array([251, 646, -264, 106, -19]) / 720,
}


def solve_all(kind, order, f, y0, grid):
    """States at every time of the grid."""
    return odeint(f, y0, grid, method=kind(order=order), grid=grid).ys


@pytest.mark.parametrize("order", ORDERS)
def test_weights_of_bashforth(order):
    weights = integrals_of_lagrange([-float(j) for j in range(order)]).sum(axis=1)
    assert np.abs(weights - BASHFORTH[order]).max() <= 16 * EPS64 * np.abs(BASHFORTH[order]).max()


@pytest.mark.parametrize("order", ORDERS)
def test_weights_of_moulton(order):
    weights = integrals_of_lagrange([1.0 - j for j in range(order)]).sum(axis=1)
    assert np.abs(weights - MOULTON[order]).max() <= 16 * EPS64


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_step_obeys_the_published_formula(kind, order, direction):
    h, f = direction * 0.05, PENDULUM.f
    grid = h * np.arange(31)
    ys = solve_all(kind, order, f, PENDULUM.y0, grid)
    slopes = np.array([f(t, y) for t, y in zip(grid, ys, strict=True)])
    for n in range(order - 1, 30):
        past = slopes[n - order + 1 : n + 1][::-1]
        expected = ys[n] + h * BASHFORTH[order] @ past
        if kind is AdamsBashforthMoulton:
            predicted = f(grid[n + 1], expected)
            expected = ys[n] + h * MOULTON[order] @ np.vstack([predicted, past])[:order]
        assert np.abs(ys[n + 1] - expected).max() <= 20 * EPS64


def stretched(t0, t1, n):
    """n times whose distances vary by a factor of 3 along the way."""
    s = np.linspace(0.0, 1.0, n)
    grid = t0 + (t1 - t0) * (s + 0.5 * np.sin(2 * np.pi * s) / (2 * np.pi))
    grid[-1] = t1
    return grid


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("spacing", [np.linspace, stretched], ids=["even", "stretched"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_order(kind, order, spacing, direction):
    """The largest error of y' = y cos t along the whole way, y = exp(sin t)."""
    t0, t1 = (0.0, 4.0) if direction == "forward" else (4.0, 0.0)
    errors = []
    for n in (400, 800):
        grid = spacing(t0, t1, n + 1)
        ys = solve_all(kind, order, lambda t, y: y * np.cos(t), np.exp(np.sin(grid[:1])), grid)
        errors.append(np.abs(ys[:, 0] - np.exp(np.sin(grid))).max())
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.15, errors


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_polynomials_are_solved_exactly_on_uneven_times_and_between_them(kind, order, direction):
    steps = np.random.default_rng(order).uniform(0.05, 0.3, 12)
    grid = direction * np.concatenate([[0.0], np.cumsum(steps)])
    ts = np.sort(np.concatenate([grid, 0.6 * grid[:-1] + 0.4 * grid[1:]]) * direction) * direction
    ys = odeint(
        lambda t, y: order * t ** (order - 1) + 0.0 * y, np.zeros(1), ts, method=kind(order=order), grid=grid
    ).ys[:, 0]
    known = np.isin(ts, grid) | (
        abs(ts) >= abs(grid[order - 1])
    )  # the interpolant of dopri5 is of order 4 only
    assert np.abs(ys - ts**order)[known].max() <= 100 * EPS64 * abs(ts[-1]) ** order


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_dense_output_and_its_derivative_have_the_order_of_the_method(kind, order, direction):
    """On y' = y cos t, y = exp(sin t), in the second half of the interval, beyond the first steps."""
    errors = []
    for n in (200, 400):
        grid = direction * np.linspace(0.0, 2.0, n + 1)
        sol = odeint(
            lambda t, y: y * np.cos(t),
            np.ones(1),
            grid[[0, -1]],
            method=kind(order=order),
            grid=grid,
            dense=True,
        )
        ts = grid[n // 2 : -1] + 0.37 * (grid[1] - grid[0])
        exact = np.exp(np.sin(ts))
        states, slopes = sol.dense(ts)[:, 0], sol.dense.derivative(ts)[:, 0]
        errors.append([np.abs(states - exact).max(), np.abs(slopes - exact * np.cos(ts)).max()])
    assert np.all(abs(np.log2(np.divide(*errors)) - order) < 0.15), errors


@pytest.mark.parametrize(("kind", "per_step"), [(AdamsBashforth, 1), (AdamsBashforthMoulton, 2)])
def test_cost(kind, per_step):
    """Four starting slopes are those of dopri5: 7 each, the first of them is f(t0, y0)."""
    sol = odeint(lambda t, y: -y, np.ones(1), np.linspace(0, 1, 21), method=kind(order=5))
    assert sol.stats.nfe == 4 * 7 + 16 * per_step


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adams_bashforth", AdamsBashforth), ("adams_bashforth_moulton", AdamsBashforthMoulton)],
)
def test_the_name_stands_for_order_4(name, kind):
    by_name, by_value = (
        odeint(PENDULUM.f, PENDULUM.y0, [0, 5], method=method, step_size=0.1).ys
        for method in (name, kind(order=4))
    )
    assert np.array_equal(by_name, by_value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_replay_and_eager_evaluation_give_the_same_bits(kind, dtype):
    y0 = np.ones((3, 2), dtype)
    replayed, eager = (
        odeint(
            lambda t, y: -y * np.cos(t), y0, [0, 0.55, 1], method=kind(), step_size=0.1, execution=execution
        ).ys
        for execution in ("replay", "eager")
    )
    assert np.array_equal(replayed, eager) and replayed.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_any_module(xp, kind):
    ys = odeint(lambda t, y: -2.0 * t * y, xp.ones(3), [0, 0.55, 1], method=kind(), step_size=0.01).ys
    assert np.abs(host(ys)[:, 1] - np.exp(-(np.array([0, 0.55, 1]) ** 2))).max() < 1e-6


def test_two_solves_do_not_share_their_past():
    options = {"method": AdamsBashforth(), "step_size": 0.1}
    first = odeint(PENDULUM.f, PENDULUM.y0, [0, 2], **options).ys
    odeint(PENDULUM.f, PENDULUM.y1, [3, 5], **options)
    assert np.array_equal(odeint(PENDULUM.f, PENDULUM.y0, [0, 2], **options).ys, first)


@pytest.mark.parametrize("order", [0, 6, 4.0, "4"])
def test_an_order_that_is_not_offered_is_refused(order):
    with pytest.raises(ArgumentError, match="integer from 1 to 5"):
        AdamsBashforth(order=order)
