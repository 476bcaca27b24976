"""Taylor series in decimal arithmetic: the equations they solve, and that what is stored is what they give."""

import sys
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
import pytest
from odegrad import odeint
from odegrad.train.solve import PROBLEMS
from odegrad.train.solve.registry import reference

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import taylor_references as taylor  # noqa: E402


@pytest.mark.parametrize("name", taylor.SERIES)
def test_a_short_solve_agrees_with_runge_kutta(name):
    problem = PROBLEMS[name]
    short = replace(problem, y0=problem.y0.copy(), ts=problem.ts[:1] + np.array([0.0, 0.05, 0.1]))
    found = np.array(taylor.solve(short, taylor.COARSE), dtype=float)
    expected = odeint(problem.f, problem.y0, short.ts, method="dop853", rtol=1e-14, atol=1e-14).ys
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()


def test_what_is_stored_is_what_the_series_give():
    problem = PROBLEMS["lorenz"]
    found = np.array(taylor.solve(problem, taylor.COARSE), dtype=float)
    assert np.array_equal(found, reference(problem))


def test_two_settings_agree_far_beyond_doubles():
    problem = PROBLEMS["lorenz"]
    short = replace(problem, y0=problem.y0.copy(), ts=problem.ts[:4].copy())
    assert taylor.reference(short)[1] < 1e-20


def test_an_inverse_cube_of_a_series():
    """Of (1 + t)**2, which is (1 + t)**-3 with coefficients (-1)**n (n + 1) (n + 2) / 2."""
    square, cube = [Decimal(c) for c in (1, 2, 1, *(0,) * 9)], []
    for n in range(12):
        cube.append(taylor.inverse_cube(square, cube, n))
    assert cube == [(-1) ** n * comb(n + 2, 2) for n in range(12)]


def test_a_polynomial_in_decimals_is_exact():
    coefficients = [Decimal(k) for k in (3, -1, 4, -1, 5)]
    exact = sum((Fraction(int(c)) * Fraction(1, 8) ** k for k, c in enumerate(coefficients)), Fraction(0))
    assert Fraction(taylor.evaluate(coefficients, Decimal("0.125"))) == exact
