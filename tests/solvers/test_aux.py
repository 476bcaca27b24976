"""What f returns beside the slope: which evaluations it comes from, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad import grad, odeint
from odegrad.solvers import TABLEAUS, Stepper
from odegrad.solvers.options import GRADIENTS

ADAPTIVE_FSAL = ("dopri5", "bosh3")
EXECUTIONS = ("replay", "eager")


def van_der_pol(t, y):
    return np.stack([y[1], 5 * (1 - y[0] ** 2) * y[1] - y[0]])


def observed(t, y):
    return van_der_pol(t, y), {"y": y * 1.0, "first": y[0] + 0.0 * t}


Y0 = np.array([2.0, 0.0])


def expected_evaluations(method, t1, **options):
    """(times, states): stage 1 of the first step, then the others of each accepted step; recomputed from its slopes."""
    numbers = TABLEAUS[method].as_floats()
    is_fsal = TABLEAUS[method].fsal
    stepper = Stepper(van_der_pol, Y0, 0.0, t1, method=method, **options)
    times, states = [], []
    while not stepper.is_done:
        step = stepper.step()
        h = step.t1 - step.t0
        first = 1 if is_fsal and times else 0
        for i in range(first, len(numbers.c)):
            times.append(step.t0 + numbers.c[i] * h)
            states.append(step.y0 + h * sum(a * k for a, k in zip(numbers.a[i], step.k, strict=False)))
    assert not options or stepper.stats.n_rejected > 0
    return np.array(times), np.array(states)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("t1", [3.0, -1.0])
@pytest.mark.parametrize("method", ADAPTIVE_FSAL)
def test_only_evaluations_of_accepted_steps_count(method, t1, execution):
    """A first step that is far too long makes sure that some are rejected."""
    sol = odeint(observed, Y0, [0.0, t1], method=method, has_aux=True, first_step=0.9, execution=execution)
    times, states = expected_evaluations(method, t1, first_step=0.9)
    order = np.argsort(np.sign(t1) * times, kind="stable")
    assert np.allclose(sol.aux.ts, times[order], rtol=0, atol=1e-14)
    assert np.allclose(sol.aux.values["y"], states[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_methods_with_fixed_steps_observe_every_stage(method):
    sol = odeint(observed, Y0, [0.0, 1.0], method=method, has_aux=True, step_size=0.125)
    assert len(sol.aux.ts) == 8 * TABLEAUS[method].stages == sol.stats.nfe


def test_times_are_monotone_in_the_direction_of_the_solve():
    sol = odeint(observed, Y0, [1.0, 0.0], has_aux=True)
    assert np.all(np.diff(sol.aux.ts) <= 0) and sol.aux.ts[0] == 1.0 and sol.aux.ts[-1] == 0.0


def test_the_structure_is_that_which_f_returned():
    aux = odeint(observed, Y0, [0.0, 1.0], has_aux=True).aux
    assert aux.values["y"].shape == (len(aux.ts), 2) and aux.values["first"].shape == (len(aux.ts),)


@pytest.mark.parametrize("empty", [None, (), {}])
def test_nothing_observed(empty):
    sol = odeint(lambda t, y: (van_der_pol(t, y), empty), Y0, [0.0, 1.0], has_aux=True)
    assert sol.aux.values == empty


@pytest.mark.parametrize("keep", ["all", "none"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_backward_pass_observes_nothing(gradient, keep):
    found = []

    def loss(y):
        options = {"gradient": gradient, "keep": keep, "drift_limit": np.inf}  # the way back is unstable
        sol = odeint(observed, y, [0.0, 1.0], has_aux=True, **options)
        found.append((sol, sol.aux.values["y"].copy()))
        return np.sum(sol.ys)

    grad(loss)(Y0)
    sol, before = found[0]
    plain = odeint(observed, Y0, [0.0, 1.0], has_aux=True, gradient=gradient).aux
    assert np.array_equal(sol.aux.values["y"], before) and np.array_equal(before, plain.values["y"])


def test_no_aux_without_asking():
    assert odeint(van_der_pol, Y0, [0.0, 1.0]).aux is None


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("scalar", [3, True, 0.5, 2j], ids=repr)
def test_a_number_has_the_dtype_of_its_type(scalar, execution):
    aux = odeint(lambda t, y: (-y, scalar), Y0, [0.0, 1.0], has_aux=True, execution=execution).aux
    assert aux.values.dtype == np.asarray(scalar).dtype and np.all(aux.values == scalar)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_complex_number_that_depends_on_time(execution):
    aux = odeint(lambda t, y: (-y, 1j * t), Y0, [0.0, 1.0], has_aux=True, execution=execution).aux
    assert np.allclose(aux.values, 1j * aux.ts, rtol=0, atol=1e-15)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_truth_value_that_depends_on_time(execution):
    aux = odeint(lambda t, y: (-y, t > 0.5), Y0, [0.0, 1.0], has_aux=True, execution=execution).aux
    assert aux.values.dtype == bool and np.array_equal(aux.values, aux.ts > 0.5)
