"""`backsolve`: its error falls as fast as the tolerance does, and what it costs is what the method promises."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from odegrad import grad, odeint, value_and_grad
from odegrad.engine.tree import leaves
from solving import FIXED, distance, network, random_case, same_bits

RTOLS = 10.0 ** -np.arange(4, 9.01, 0.5)


def gradients(case, **options):
    return grad(lambda y, p, ts: case.loss(y, p, ts, **options), (0, 1, 2))(case.y0, case.params, case.ts)


@functools.cache
def errors(span: float, n_times: int) -> np.ndarray:
    """Distances (3, tolerances) of the gradients of y0, params and ts from those of a solve at 1e-13.

    With two output times the way back of this network magnifies errors some thousandfold, more than `drift_limit` is
    by default.
    """
    case = random_case(30, n_times=n_times, span=span, hidden=6)
    exact = gradients(case, gradient="discrete", rtol=1e-13, atol=1e-13)
    any_drift = {"gradient": "backsolve", "drift_limit": np.inf}
    found = [gradients(case, rtol=rtol, atol=rtol, **any_drift) for rtol in RTOLS]
    return np.array([[distance(x[i], exact[i]) for x in found] for i in range(3)])


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["y0", "params", "ts"])
@pytest.mark.parametrize("n_times", [2, 6])
@pytest.mark.parametrize("span", [4.0, -4.0])
def test_the_error_falls_in_proportion_to_the_tolerance(span, n_times, argument):
    found = errors(span, n_times)[argument]
    slope = np.polyfit(np.log(RTOLS), np.log(found), 1)[0]
    assert abs(slope - 1.0) <= 0.25, found


@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_converge_too(method):
    case = random_case(31, n_times=3)
    exact = gradients(case, rtol=1e-13, atol=1e-13)
    coarse, fine = (
        distance(gradients(case, gradient="backsolve", method=method, step_size=h), exact)
        for h in (0.02, 0.01)
    )
    order = {"euler": 1, "midpoint": 2, "rk4": 4}[method]
    assert abs(np.log2(coarse / fine) - order) < 0.3


def test_replay_gives_what_eager_gives():
    case = random_case(32)
    found = gradients(case, gradient="backsolve")
    assert distance(found, gradients(case, gradient="backsolve", execution="eager")) <= 1e-12


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**30])
def test_scaling_the_loss_scales_the_gradient_and_changes_nothing_else(factor):
    case = random_case(33)
    plain = grad(lambda p: case.loss(params=p, gradient="backsolve"))(case.params)
    scaled = grad(lambda p: factor * case.loss(params=p, gradient="backsolve"))(case.params)
    assert same_bits({k: v * factor for k, v in plain.items()}, scaled)


def test_a_loss_that_ignores_the_solution_has_gradient_zero():
    case = random_case(33)
    found = grad(lambda p: 0.0 * case.loss(params=p, gradient="backsolve"))(case.params)
    assert all(not np.any(leaf) for leaf in leaves(found))


def test_a_captured_value_is_differentiated_like_a_parameter():
    case = random_case(34)

    def captured(params):
        options = {"gradient": "backsolve"}
        return case.loss_of(odeint(lambda t, y: network(t, y, params), case.y0, case.ts, **options).ys)

    found = grad(captured)(case.params)
    assert distance(found, grad(lambda p: case.loss(params=p, gradient="backsolve"))(case.params)) <= 1e-13


def test_tighter_backward_tolerances_bring_the_gradient_closer():
    case = random_case(35, rtol=1e-9, atol=1e-9)
    exact = gradients(case, rtol=1e-13, atol=1e-13)[1]

    def error(tolerance):
        options = {"backward_rtol": tolerance, "backward_atol": tolerance}
        return distance(gradients(case, gradient="backsolve", **options)[1], exact)

    assert error(1e-9) < 1e-2 * error(1e-3)


def stats_of(case, **options):
    found = []

    def loss(p):
        found.append(case.solve(params=p, gradient="backsolve", **options))
        return case.loss_of(found[0].ys)

    value_and_grad(loss)(case.params)
    return found[0].stats


def test_memory_does_not_depend_on_the_number_of_steps():
    assert [stats_of(random_case(36, rtol=r, atol=r)).peak_saved_bytes for r in (1e-2, 1e-10)] == [0, 0]


def test_stages_without_weight_cost_no_parameter_pull_back():
    stats = stats_of(random_case(36))
    assert stats.n_vjp_params == 5 * stats.n_accepted_backward


def test_every_backward_evaluation_is_counted():
    stats = stats_of(random_case(36, n_times=2))
    attempts = stats.n_accepted_backward + stats.n_rejected_backward
    assert stats.nfe_backward == stats.n_vjp_state == 6 * attempts + 2


def test_the_drift_is_measured_in_units_of_the_tolerance():
    assert 0.0 < stats_of(random_case(36)).drift < 100.0


def test_an_unstable_way_back_shows_in_the_drift():
    """y' = -40 y grows by e**40 backwards: no tolerance helps, and the drift says so."""
    found, options = [], {"gradient": "backsolve", "drift_limit": np.inf}

    def loss(k):
        sol = odeint(lambda t, y, k: -k * y, np.ones(1), [0.0, 1.0], k, **options)
        found.append(sol)
        return np.sum(sol.ys[-1])

    grad(loss)(np.array(40.0))
    assert found[0].stats.drift > 1e3
