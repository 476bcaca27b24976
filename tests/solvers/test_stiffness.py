"""The warning that a problem is stiff: where stability holds the steps it comes, and nowhere else."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from odegrad import odeint
from odegrad.engine.errors import StiffnessWarning
from odegrad.solvers import METHODS, Stepper
from odegrad.solvers.stiffness import stability_interval, stages_at_one_time
from odegrad.solvers.tableaus import TABLEAUS
from problems import kepler, lorenz, oscillator

WATCHED = [name for name, tableau in TABLEAUS.items() if tableau.is_adaptive and stages_at_one_time(tableau)]


def stiff(t, y, rate=2e4):
    return -rate * (y - np.cos(t))


def warnings_of(solve):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solve()
    return [str(one.message) for one in caught if issubclass(one.category, StiffnessWarning)]


def relaxed(t, y):
    """Van der Pol's equation with mu = 1000, along the slow branch."""
    return np.stack([y[1], 1000.0 * (1.0 - y[0] ** 2) * y[1] - y[0]])


def test_the_usual_pairs_are_watched():
    assert {"dopri5", "tsit5", "dop853"} <= set(WATCHED)


@pytest.mark.parametrize("method", WATCHED)
@pytest.mark.parametrize("span", [(0.0, 0.7), (0.0, -0.7)])
def test_a_stiff_problem_is_noticed_once(method, span):
    direction = np.sign(span[1])
    found = warnings_of(
        lambda: odeint(lambda t, y: direction * stiff(t, y), np.ones(2), span, method=method, rtol=1e-4)
    )
    assert len(found) == 1 and "the problem is stiff: at t=" in found[0]


def test_van_der_pol_is_noticed():
    assert warnings_of(lambda: odeint(relaxed, np.array([2.0, 0.0]), (0.0, 2.0), rtol=1e-4, atol=1e-4))


def test_the_warning_names_implicit_methods_that_exist_and_do_better():
    found = warnings_of(lambda: odeint(stiff, np.ones(1), (0.0, 0.7)))[0]
    names = re.findall(r"'(\w+)'", found)
    assert names and all(
        odeint(stiff, np.ones(1), (0.0, 0.7), method=name).stats.n_accepted < 300 for name in names
    )
    assert set(names) <= set(METHODS)


def test_the_warning_points_at_the_line_of_the_caller():
    with pytest.warns(StiffnessWarning) as caught:
        odeint(stiff, np.ones(1), (0.0, 0.7))
    assert caught[0].filename == __file__


def test_the_warning_can_be_switched_off():
    assert not warnings_of(lambda: odeint(stiff, np.ones(1), (0.0, 0.7), warn_stiff=False))


def test_the_warning_says_where_the_limit_is():
    h_rho, limit = map(float, re.search(r"h rho = ([\d.]+), at most ([\d.]+)", warnings_of(
        lambda: odeint(stiff, np.ones(1), (0.0, 0.7)))[0]).groups())  # fmt: skip
    assert limit == pytest.approx(3.31, abs=0.01) and h_rho == pytest.approx(limit, rel=0.05)


NOT_STIFF = {
    "lorenz": (lorenz, [1.0, 1.0, 1.0], 40.0, 1e-6),
    "lorenz, tight": (lorenz, [1.0, 1.0, 1.0], 5.0, 1e-12),
    "kepler": (kepler, [0.1, 0.0, 0.0, 19.0**0.5], 40.0, 1e-9),
    "oscillator": (oscillator, [1.0, 0.0], 800.0, 1e-6),
    "oscillator, crude": (oscillator, [1.0, 0.0], 3000.0, 1e-2),
}


@pytest.mark.parametrize("case", NOT_STIFF)
@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
def test_no_other_problem_is_called_stiff(case, method):
    f, y0, end, tol = NOT_STIFF[case]
    options = {"rtol": tol, "atol": tol, "method": method}
    assert not warnings_of(lambda: odeint(f, np.array(y0), (0.0, end), **options))
    sol = odeint(f, np.array(y0), (0.0, end), **options)
    assert sol.stats.n_accepted > 1000, sol.stats  # looked at more than once


def test_a_stepper_warns_too():
    stepper = Stepper(stiff, np.ones(1), 0.0, 0.7)

    def walk():
        while not stepper.is_done:
            stepper.step()

    assert len(warnings_of(walk)) == 1


@pytest.mark.parametrize("name", ["dopri5", "bosh3", "tsit5", "rk4", "euler", "dop853"])
def test_the_stability_interval_is_where_a_step_begins_to_grow(name):
    """Measured on y' = -y with one step of size x."""
    x = stability_interval(TABLEAUS[name])
    sizes = [
        abs(odeint(lambda t, y: -y, np.ones(1), (0.0, h), method=name, grid=[0.0, h]).ys[-1, 0])
        for h in (0.99 * x, 1.01 * x)
    ]
    assert sizes[0] < 1.0 < sizes[1]
