"""The drift of `backsolve`: measured in units of the tolerances, and an error with its number beyond `drift_limit`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from odegrad import errors, grad, odeint
from odegrad.solvers import Stats
from odegrad.solvers.gradients import DriftGuard
from odegrad.solvers.gradients.drift import units_allowed
from problems import lorenz
from solving import random_case

EXECUTIONS = ("replay", "eager")


def decay_gradient(rate=50.0, found=None, ts=(0.0, 1.0), y0=None, **options):
    """The gradient of sum y(ts[-1]) of y' = -rate y in the rate; solved back, an error grows by exp(rate)."""
    y0 = np.ones(2) if y0 is None else y0

    def loss(k):
        sol = odeint(lambda t, y, k: -k * y, y0, ts, k, gradient="backsolve", **options)
        if found is not None:
            found.append(sol)
        return np.sum(sol.ys[-1])

    return grad(loss)(np.asarray(rate, dtype=y0.dtype))


def refused(**options):
    with pytest.raises(errors.DriftError) as caught:
        decay_gradient(**options)
    return caught.value


# --- the error -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_way_back_that_is_unstable_is_an_error(execution, dtype):
    error = refused(execution=execution, y0=np.ones(2, dtype))
    assert error.drift > error.limit == 1e3 and error.t == 0.0


def test_the_other_direction_of_time():
    """y' = 50 y decays towards the past."""
    error = refused(rate=-50.0, ts=(0.0, -1.0))
    assert error.drift > 1e3 and error.t == 0.0


def test_the_message_says_how_far_where_and_what_to_try():
    error = refused()
    assert str(error).startswith("backsolve: the state solved back to t=0 is ")
    for part in (f"{error.drift:.3g} x (atol + rtol |y|)", "`drift_limit` is 1000", "Tighten rtol and atol",
                 "more output times", "gradient='interpolated' or 'discrete'"):  # fmt: skip
        assert part in str(error)


def test_it_is_a_failure_of_a_solve_and_an_arithmetic_error():
    assert issubclass(errors.DriftError, (errors.SolveError,)) and issubclass(
        errors.DriftError, ArithmeticError
    )


def test_it_carries_the_forward_solution_and_the_counts():
    found = []
    error = refused(found=found)
    assert error.solution.status == "finished" and np.array_equal(error.solution.grid, found[0].grid)
    assert error.stats is found[0].stats and error.stats.drift == error.drift and error.stats.nfe_backward > 0


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_lorenz_over_a_long_horizon(execution):
    def loss(y):
        return np.sum(odeint(lorenz, y, np.linspace(0.0, 10.0, 11), gradient="backsolve").ys[-1])

    with pytest.raises(errors.DriftError):
        grad(loss)(np.ones(3))


def test_a_way_back_that_blows_up_before_the_next_output_is_an_error_too():
    def loss(y):
        return np.sum(odeint(lorenz, y, [0.0, 10.0], gradient="backsolve", max_steps=1000).ys[-1])

    with pytest.raises(errors.SolveError, match="^backsolve:") as caught:
        grad(loss)(np.ones(3))
    assert "gradient='interpolated'" in caught.value.__notes__[0]


# --- the limit -------------------------------------------------------------------------------------------------------


def test_infinity_switches_it_off():
    found = []
    assert np.isfinite(decay_gradient(found=found, drift_limit=math.inf))
    assert found[0].stats.drift > 1e3


def test_the_limit_is_compared_with_the_drift():
    found = []
    decay_gradient(rate=3.0, found=found)
    drift = found[0].stats.drift
    assert 0.0 < drift < 1e3
    decay_gradient(rate=3.0, drift_limit=1.001 * drift)
    with pytest.raises(errors.DriftError):
        decay_gradient(rate=3.0, drift_limit=0.999 * drift)


def test_output_times_anchor_the_state():
    """Over a tenth of the interval an error grows by exp(5) instead of exp(50)."""
    decay_gradient(ts=np.linspace(0.0, 1.0, 11), atol=1e-30)


def test_times_after_the_last_cotangent_are_not_solved_back():
    def loss(k):
        sol = odeint(lambda t, y, k: -k * y, np.ones(1), [0.0, 0.02, 1.0], k, gradient="backsolve")
        return np.sum(sol.ys[1])

    assert grad(loss)(np.array(50.0)) == pytest.approx(-0.02 * np.exp(-1.0), rel=100 * 1e-5)


@pytest.mark.parametrize("gradient", ["discrete", "tape", "interpolated"])
def test_methods_that_store_the_state_have_no_drift(gradient):
    case = random_case(36)
    sol = []

    def loss(p):
        sol.append(case.solve(params=p, gradient=gradient, drift_limit=1e-300))
        return case.loss_of(sol[0].ys)

    grad(loss)(case.params)
    assert sol[0].stats.drift == 0.0


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, "1e3", True])
def test_a_limit_that_is_no_positive_number_is_refused(limit):
    with pytest.raises(errors.ArgumentError, match="`drift_limit` must be a positive number; got"):
        odeint(lambda t, y: -y, np.ones(2), [0.0, 1.0], drift_limit=limit)


@pytest.mark.parametrize(
    "drift_limit, rtol, expected",
    [
        (None, 1e-6, 1000.0),
        (None, 1e-2, 50.0),
        (None, np.array([1e-6, 0.1]), 5.0),
        (2e3, 1e-2, 2e3),
        (math.inf, 1e-2, math.inf),
    ],
)
def test_by_default_half_of_the_state_is_the_most(drift_limit, rtol, expected):
    assert units_allowed(drift_limit, rtol) == pytest.approx(expected, rel=1e-14)


def test_a_loose_solve_back_that_has_lost_the_state_is_refused():
    """Van der Pol's limit cycle repels backwards in time: at rtol 1e-3 the way back ends 600 to 800 tolerances away."""

    def f(t, y, mu):
        return np.stack([y[1], mu * (1.0 - y[0] * y[0]) * y[1] - y[0]])

    def loss(mu):
        sol = odeint(f, np.array([2.0, 0.0]), [0.0, 2.0], mu, rtol=1e-3, atol=2e-3, gradient="backsolve")
        return np.sum(sol.ys[-1] ** 2)

    with pytest.raises(errors.DriftError, match="`drift_limit` is 500"):
        grad(loss)(np.array(10.0))


# --- the unit --------------------------------------------------------------------------------------------------------


def guard(rtol=1e-2, atol=1e-3, limit=math.inf):
    return DriftGuard("backsolve", rtol, atol, limit, "Tighten rtol and atol", Stats())


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_the_drift_is_the_largest_entry_in_units_of_the_stored_state(dtype):
    """Not an average, which many good entries would dilute; and a y_back that has run away does not enlarge the unit."""
    y = np.array([1.0, 0.0, -2.0], dtype)
    checked = guard()
    checked.check(0.0, y + np.array([0.011, 0.002, 21.0]), y)
    assert checked.stats.drift == pytest.approx(21.0 / (1e-3 + 1e-2 * 2.0))


def test_the_largest_drift_of_all_times_is_kept():
    checked = guard()
    for distance in (1.0, 3.0, 2.0):
        checked.check(0.0, np.full(1, distance), np.zeros(1))
    assert checked.stats.drift == pytest.approx(3.0 / 1e-3)


def test_nan_is_beyond_every_limit():
    with pytest.raises(errors.DriftError, match="is inf x"):
        guard().check(0.5, np.array([1.0, math.nan]), np.ones(2))


@pytest.mark.parametrize("size", [0, 3])
def test_no_distance_is_no_drift_whatever_the_unit(size):
    checked = guard(rtol=0.0, atol=0.0, limit=1.0)
    checked.check(0.0, np.zeros(size), np.zeros(size))
    assert checked.stats.drift == 0.0


@pytest.mark.parametrize(("forward", "backward"), [(1e-3, 1e-9), (1e-9, 1e-3)])
def test_the_looser_tolerances_are_the_unit(forward, backward):
    """An accurate way back from an inaccurate state ends as far off as the forward solve was; no drift in its units."""
    found = []
    options = {"rtol": forward, "atol": forward, "backward_rtol": backward, "backward_atol": backward}
    decay_gradient(rate=1.0, found=found, **options)
    assert found[0].stats.drift < 100.0


@pytest.mark.parametrize(("step_size", "is_refused"), [(0.01, False), (0.9, True)])
def test_fixed_steps_are_measured_against_the_state(step_size, is_refused):
    """They have no tolerances: by default the limit is a drift as large as the largest state."""
    options = {"rate": 5.0, "method": "euler", "step_size": step_size, "ts": (0.0, 1.8)}
    if is_refused:
        assert "Take smaller steps" in str(refused(**options))
    else:
        assert np.isfinite(decay_gradient(**options))
