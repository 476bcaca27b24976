"""The order of each method, of its dense output and of the derivative of that, measured on fixed grids."""

from __future__ import annotations

import decimal
import math
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import odegrad
import problems
import pytest
from odegrad import odeint
from odegrad.solvers.tableaus import TABLEAUS
from oracles import EPS64
from rooted_trees import DIGITS, in_digits


@dataclass(frozen=True)
class Measured:
    """A problem, and numbers of steps with which the error of a method is near its leading term and above round-off."""

    problem: str
    n_steps: tuple[int, ...]


MEASURED = {
    "euler": Measured("pendulum", (4000, 8000, 16000)),
    "midpoint": Measured("pendulum", (400, 800, 1600)),
    "heun": Measured("pendulum", (800, 1600, 3200)),
    "ralston": Measured("rigid_body", (300, 600, 1200)),
    "rk4": Measured("pendulum", (600, 1200, 2400)),
    "three_eighths": Measured("rigid_body", (100, 200, 400)),
    "heun_euler": Measured("pendulum", (800, 1600, 3200)),
    "fehlberg12": Measured("pendulum", (4000, 8000, 16000)),
    "fehlberg32": Measured("pendulum", (200, 400, 800)),
    "bosh3": Measured("pendulum", (200, 400, 800)),
    "rkf45": Measured("rigid_body", (300, 420, 600)),
    "cash_karp": Measured("pendulum", (100, 200, 400)),
    "dopri5": Measured("pendulum", (150, 300, 600)),
    "tsit5": Measured("oscillator", (120, 180, 260)),
    "vern7": Measured("oscillator", (32, 45, 64)),
    "dop853": Measured("oscillator", (12, 17, 24)),
}
# In double precision the error of vern6 is that of order 7 until it is lost in round-off: see `in_digits` below.
ORDERS = {name: TABLEAUS[name].order for name in MEASURED}


def slope_of(errors: list[float]) -> float:
    """The power of h in errors measured at h, h / 2, h / 4, ..."""
    return float(-np.polyfit(np.arange(len(errors)), np.log2(errors), 1)[0])


def test_every_tableau_is_measured():
    assert {*MEASURED, "vern6"} == set(TABLEAUS)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("method", MEASURED)
def test_global_error(method, direction):
    chosen = MEASURED[method]
    p = next(p for p in problems.PROBLEMS if p.name == chosen.problem)
    ends = [(p.y0, p.t0, p.t1, p.y1), (p.y1, p.t1, p.t0, p.y0)]
    start, t0, t1, end = ends[direction == "backward"]
    errors = []
    for n in chosen.n_steps:
        ys = odeint(p.f, start, [t0, t1], method=method, grid=np.linspace(t0, t1, n + 1)).ys
        errors.append(np.abs(ys[-1] - end).max())
    slope = -np.polyfit(np.log(chosen.n_steps), np.log(errors), 1)[0]
    assert abs(slope - ORDERS[method]) < 0.15, errors


def size_of_sums(method):
    """How much round-off a step can magnify: the sum of |b_i|, 1 where no weight is negative and 354 for vern6."""
    return float(sum(map(abs, TABLEAUS[method].b)))


def rational(t, y):
    """y' = -2 t y**2, whose solution through 1 at t = 0 is 1 / (1 + t**2)."""
    return -2 * t * y * y


def solved_in_digits(method, t0, t1, n):
    """y(t1) and its error after n steps of a tableau in 60-digit arithmetic, from the definition of the method."""
    with decimal.localcontext(DIGITS):
        numbers = [[*map(in_digits, row)] for row in (*method.a, method.b)]
        t0, h = Decimal(t0), (Decimal(t1) - Decimal(t0)) / n
        y = 1 / (1 + t0 * t0)
        for step in range(n):
            slopes = []
            for c, row in zip(method.c, numbers, strict=False):
                y_i = y + h * sum(a * k for a, k in zip(row, slopes, strict=True))
                slopes.append(rational(t0 + (step + in_digits(c)) * h, y_i))
            y += h * sum(b * k for b, k in zip(numbers[-1], slopes, strict=True))
        return y, abs(y - 1 / (1 + Decimal(t1) ** 2))


@pytest.mark.parametrize("ends", [("0.5", "1.5"), ("1.5", "0.5")], ids=["forward", "backward"])
@pytest.mark.parametrize("method", ["tsit5", "vern6", "vern7", "dop853"])
def test_global_error_in_digits(method, ends):
    first = 600 if method == "vern6" else 64
    errors = [float(solved_in_digits(TABLEAUS[method], *ends, n)[1]) for n in (first, 2 * first)]
    assert abs(slope_of(errors) - TABLEAUS[method].order) < 0.15, errors


@pytest.mark.parametrize("ends", [("0.5", "1.5"), ("1.5", "0.5")], ids=["forward", "backward"])
@pytest.mark.parametrize("method", TABLEAUS)
def test_steps_are_those_of_the_definition(method, ends):
    exact, _ = solved_in_digits(TABLEAUS[method], *ends, 8)
    t0, t1 = map(float, ends)
    y0 = np.array([1 / (1 + t0**2)])
    ys = odeint(rational, y0, [t0, t1], method=method, grid=np.linspace(t0, t1, 9)).ys
    assert abs(ys[-1, 0] - float(exact)) <= 8 * 10 * EPS64 * size_of_sums(method)  # 8 steps


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


# where three halvings see the leading term of the error and not yet round-off
FIRST_STEP = {
    "heun_euler": 0.1, "fehlberg12": 0.025, "fehlberg32": 0.1, "bosh3": 0.05, "rkf45": 0.05, "cash_karp": 0.05,
    "dopri5": 0.05, "tsit5": 0.04, "vern6": 0.1, "vern7": 0.2, "dop853": 0.4,
}  # fmt: skip


def test_every_interpolant_is_measured():
    assert set(FIRST_STEP) == {name for name, method in TABLEAUS.items() if method.interpolates}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("method", "h"), FIRST_STEP.items())
def test_dense_output_in_one_step(method, h, sign):
    errors = [in_one_step(method, sign * h / 2**k)[0] for k in range(3)]
    assert abs(slope_of(errors) - (TABLEAUS[method].interpolant_order + 1)) < 0.15, errors


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("method", "h"), FIRST_STEP.items())
def test_derivative_of_dense_output_in_one_step(method, h, sign):
    errors = [in_one_step(method, sign * h / 2**k)[1] for k in range(3)]
    assert abs(slope_of(errors) - TABLEAUS[method].interpolant_order) < 0.15, errors


@pytest.mark.parametrize("method", TABLEAUS)
def test_a_polynomial_of_the_order_is_solved_exactly(method):
    p = TABLEAUS[method].order
    y = odeint(
        lambda t, y: p * t ** (p - 1) + 0.0 * y, np.zeros(1), [0.0, 2.0], method=method, grid=[0, 0.7, 2]
    ).ys
    assert abs(y[-1, 0] - 2.0**p) <= 20 * EPS64 * size_of_sums(method) * 2.0**p
