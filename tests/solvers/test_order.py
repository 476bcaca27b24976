"""The order of each method, of its dense output and of the derivative of that, measured on fixed grids."""

from __future__ import annotations

import math

import numpy as np
import odegrad
import problems
import pytest
from odegrad import odeint

PENDULUM = next(p for p in problems.PROBLEMS if p.name == "pendulum")
ORDERS = {"euler": 1, "midpoint": 2, "bosh3": 3, "rk4": 4, "dopri5": 5}
STEPS = {"euler": 4000, "midpoint": 400, "bosh3": 200, "rk4": 600, "dopri5": 150}


def slope_of(errors: list[float]) -> float:
    """The power of h in errors measured at h, h / 2, h / 4, ..."""
    return float(-np.polyfit(np.arange(len(errors)), np.log2(errors), 1)[0])


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("method", ORDERS)
def test_global_error(method, direction):
    p = PENDULUM
    ends = [(p.y0, p.t0, p.t1, p.y1), (p.y1, p.t1, p.t0, p.y0)]
    start, t0, t1, end = ends[direction == "backward"]
    errors = []
    for n in (STEPS[method], 2 * STEPS[method], 4 * STEPS[method]):
        ys = odeint(p.f, start, [t0, t1], method=method, grid=np.linspace(t0, t1, n + 1)).ys
        errors.append(np.abs(ys[-1] - end).max())
    assert abs(slope_of(errors) - ORDERS[method]) < 0.15, errors


def forced(t, y):
    return y * np.cos(t)


THETAS = np.linspace(0.1, 0.9, 9)


def in_one_step(method: str, h: float) -> tuple[float, float]:
    """The largest errors of the state and of its time derivative inside one step of size h, whose start is exact."""
    t0 = 0.4
    ts = np.array([t0, *(t0 + THETAS * h), t0 + h])
    y0, exact = np.array([math.exp(math.sin(t0))]), np.exp(np.sin(ts))

    def inside(times):
        ys = odeint(forced, y0, times, method=method, grid=[t0, t0 + h]).ys[1:-1, 0]
        return np.sum(ys), ys

    slopes, ys = odegrad.grad(inside, has_aux=True)(ts)
    inner = slice(1, -1)
    return np.abs(ys - exact[inner]).max(), np.abs(slopes - exact * np.cos(ts))[inner].max()


@pytest.mark.parametrize("h", [0.1, -0.1])
@pytest.mark.parametrize(("method", "order"), [("dopri5", 5), ("bosh3", 4)])
def test_dense_output_in_one_step(method, order, h):
    errors = [in_one_step(method, h / 2**k)[0] for k in range(3)]
    assert abs(slope_of(errors) - order) < 0.3, errors


@pytest.mark.parametrize("h", [0.1, -0.1])
@pytest.mark.parametrize(("method", "order"), [("dopri5", 4), ("bosh3", 3)])
def test_derivative_of_dense_output_in_one_step(method, order, h):
    errors = [in_one_step(method, h / 2**k)[1] for k in range(3)]
    assert abs(slope_of(errors) - order) < 0.3, errors


@pytest.mark.parametrize("method", ORDERS)
def test_a_polynomial_of_the_order_is_solved_exactly(method):
    p = ORDERS[method]
    y = odeint(
        lambda t, y: p * t ** (p - 1) + 0.0 * y, np.zeros(1), [0.0, 2.0], method=method, grid=[0, 0.7, 2]
    ).ys
    assert abs(y[-1, 0] - 2.0**p) <= 20 * np.finfo(float).eps * 2.0**p
