"""Stages that only the inside of a step needs: when they are evaluated, counted and pulled back."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad import errors, grad, odeint, vjp
from odegrad.solvers import TABLEAUS, Stepper
from oracles import EPS64
from scipy.integrate import DOP853
from scipy.integrate._ivp.dop853_coefficients import E3, E5
from solving import Counted, distance, network, random_case

WITH_EXTRA = [name for name, method in TABLEAUS.items() if method.extra_c]
ADAPTIVE = [name for name, method in TABLEAUS.items() if method.is_adaptive]
EXECUTIONS = ("replay", "eager")


def case_of(method, *, span=1.5, n_times=5, **options):
    tableau = TABLEAUS[method]
    steps = {"rtol": 1e-3 if tableau.order < 3 else 1e-5} if tableau.is_adaptive else {"step_size": 0.3}
    return random_case(17, span=span, n_times=n_times, **{"method": method, **steps, **options})


def steps_read_inside(sol):
    """Accepted steps with an output time strictly inside."""
    return len({int(np.searchsorted(sol.grid, t)) for t in sol.ts if t not in sol.grid})


def test_some_methods_have_them():
    assert WITH_EXTRA == ["vern6", "vern7", "dop853"]


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("method", WITH_EXTRA)
def test_a_solve_read_only_at_its_end_evaluates_none(method, execution):
    case = case_of(method, n_times=2, execution=execution)
    stats = case.solve().stats
    attempts = stats.n_accepted + stats.n_rejected
    assert stats.nfe == 2 + attempts * (TABLEAUS[method].stages - 1)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("method", WITH_EXTRA)
def test_each_step_that_is_read_inside_evaluates_them_once(method, execution):
    case = case_of(method, n_times=9, execution=execution)
    sol = case.solve()
    attempts = sol.stats.n_accepted + sol.stats.n_rejected
    extra = steps_read_inside(sol) * len(TABLEAUS[method].extra_c)
    assert extra and sol.stats.nfe == 2 + attempts * (TABLEAUS[method].stages - 1) + extra


@pytest.mark.parametrize("method", WITH_EXTRA)
def test_a_step_that_is_read_twice_evaluates_them_once(method):
    """For its outputs, and again for the solution as a function of time."""
    stats = case_of(method, n_times=9).solve(dense=True).stats
    attempts, tableau = stats.n_accepted + stats.n_rejected, TABLEAUS[method]
    assert stats.nfe == 2 + attempts * (tableau.stages - 1) + stats.n_accepted * len(tableau.extra_c)


@pytest.mark.parametrize("method", WITH_EXTRA)
def test_every_call_is_counted(method):
    case = case_of(method, n_times=9, execution="eager")
    f = Counted(network)
    stats = odeint(f, case.y0, case.ts, case.params, **case.options).stats
    assert f.n_calls == stats.nfe


@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_steps_do_not_depend_on_the_output_times(method):
    case = case_of(method)
    few, many = (case.solve(ts=np.linspace(0.3, 1.8, n)) for n in (2, 40))
    assert np.array_equal(few.grid, many.grid) and np.array_equal(few.ys[-1], many.ys[-1])


@pytest.mark.parametrize("method", ADAPTIVE)
def test_dense_output_gives_the_outputs(method):
    case = case_of(method, n_times=12)
    sol = case.solve(dense=True)
    assert np.abs(sol.dense(sol.ts) - sol.ys).max() <= 1e-12


def test_extra_stages_observe_nothing():
    """What f returns beside the slope must not depend on where the output times lie."""

    def f(t, y):
        return -y * y, y * 1.0

    few, many = (
        odeint(f, np.ones(2), np.linspace(0, 1, n), method="dop853", has_aux=True).aux for n in (2, 20)
    )
    assert np.array_equal(few.ts, many.ts) and np.array_equal(few.values, many.values)


# derivatives


def round_off(method):
    """1e-12, or more where the weights cancel: those of vern6 are as large as 176 and -176 and sum to 1."""
    return max(1e-12, 100 * EPS64 * float(sum(map(abs, TABLEAUS[method].b))))


def gradients(case, **options):
    return grad(lambda y0, params, ts: case.loss(y0, params, ts, **options), (0, 1, 2))(
        case.y0, case.params, case.ts
    )


@pytest.mark.parametrize("span", [1.5, -1.5])
@pytest.mark.parametrize("method", TABLEAUS)
def test_discrete_is_tape(method, span):
    case = case_of(method, span=span, n_times=8)
    assert distance(gradients(case, gradient="discrete"), gradients(case, gradient="tape")) <= round_off(
        method
    )


@pytest.mark.parametrize(
    "options",
    [{"keep": "none"}, {"keep": "all"}, {"execution": "eager"}, {"checkpoints": 2}, {"max_step": 0.3}],
    ids=str,
)
@pytest.mark.parametrize("method", WITH_EXTRA)
def test_discrete_is_tape_however_it_is_computed(method, options):
    case = case_of(method, n_times=8, **options)
    tape = gradients(case, gradient="tape", keep="auto", checkpoints=None)
    assert distance(gradients(case, gradient="discrete"), tape) <= round_off(method)


@pytest.mark.parametrize("method", WITH_EXTRA)
def test_discrete_of_outputs_at_the_ends_alone(method):
    """No step is read inside: nothing of the extra stages may be left over from elsewhere."""
    gradients(case_of(method, n_times=8), gradient="discrete")
    case = case_of(method, n_times=2)
    assert distance(gradients(case, gradient="discrete"), gradients(case, gradient="tape")) <= round_off(
        method
    )


@pytest.mark.parametrize("method", WITH_EXTRA)
def test_kept_stages_are_not_evaluated_again(method):
    case, solutions = case_of(method, n_times=8), []

    def loss(params):
        solutions.append(case.solve(params=params, keep="all"))
        return case.loss_of(solutions[0].ys)

    grad(loss)(case.params)
    assert solutions[0].stats.nfe_backward == 1  # the slope at t0, which recording f gave without residuals


@pytest.mark.parametrize("gradient", ["discrete", "tape"])
@pytest.mark.parametrize("method", WITH_EXTRA)
def test_pull_backs_are_counted(method, gradient):
    case, tableau = case_of(method, n_times=8), TABLEAUS[method]
    found = []

    def loss(params):
        found.append(case.solve(params=params, gradient=gradient))
        return case.loss_of(found[0].ys)

    grad(loss)(case.params)
    stats = found[0].stats
    extra = steps_read_inside(found[0]) * len(tableau.extra_c)
    ends = found[0].ts[-2] > found[0].grid[-2]  # whether the slope at the very end has a cotangent
    steps = stats.n_accepted * (tableau.stages - 1)
    assert stats.n_vjp_state == steps + extra + (1 if gradient == "tape" else int(ends))


@pytest.mark.parametrize("gradient", ["backsolve", "interpolated", "reversible"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_other_gradients_come_close(method, gradient):
    order = TABLEAUS[method].order
    rtol = 1e-6 if order < 3 else 1e-8
    expected = 10 * rtol ** (
        order / (order + 1)
    )  # errors of a step stay below rtol, and there are rtol**(-1 / (p + 1))
    case = case_of(method, n_times=4, rtol=rtol, atol=rtol)
    exact = gradients(case_of("dop853", n_times=4, rtol=1e-12, atol=1e-12), gradient="discrete")
    assert distance(gradients(case, gradient=gradient)[:2], exact[:2]) <= expected


# the step by hand


@pytest.mark.parametrize("method", WITH_EXTRA)
def test_a_stepper_evaluates_them_when_it_is_asked(method):
    case = case_of(method)
    stepper = Stepper(network, case.y0, 0.0, 2.0, case.params, method=method)
    steps = [stepper.step() for _ in range(2)]
    before = stepper.stats.nfe
    first = steps[0].interpolate(0.5 * (steps[0].t0 + steps[0].t1))
    again = steps[0].interpolate(0.5 * (steps[0].t0 + steps[0].t1))
    assert stepper.stats.nfe - before == len(TABLEAUS[method].extra_c) and np.array_equal(first, again)


@pytest.mark.parametrize("method", WITH_EXTRA)
def test_a_stepper_interpolates_as_odeint(method):
    case = case_of(method)
    stepper = Stepper(network, case.y0, 0.0, 2.0, case.params, method=method)
    step = stepper.step()
    times = np.linspace(step.t0, step.t1, 5)[1:-1]
    ys = odeint(network, case.y0, [0.0, *times, 2.0], case.params, method=method).ys[1:-1]
    assert np.abs(step.interpolate(times) - ys).max() <= 1e-12


@pytest.mark.parametrize("method", WITH_EXTRA)
def test_a_stepper_hands_out_the_slopes_of_the_step(method):
    case = case_of(method)
    step = Stepper(network, case.y0, 0.0, 2.0, case.params, method=method).step()
    assert len(step.k) == TABLEAUS[method].stages
    assert np.allclose(step.k[-1], network(step.t1, step.y1, case.params), rtol=1e-12)


# the two error estimates of dop853


@pytest.mark.parametrize("span", [1.5, -1.5])
def test_the_error_of_dop853_is_that_of_scipy(span):
    """Their norm in their own words: |h| N5**2 / sqrt((N5**2 + 0.01 N3**2) n), from the slopes of the step."""
    case = case_of("dop853", span=span)
    stepper = Stepper(
        network, case.y0, 0.0, span, case.params, method="dop853", rtol=1e-3, atol=1e-3, first_step=1.0
    )
    step = stepper.step()
    slopes = np.array([k.ravel() for k in step.k])
    scale = 1e-3 + 1e-3 * np.maximum(abs(step.y0), abs(step.y1)).ravel()
    theirs = DOP853._estimate_error_norm(_ErrorWeights(), slopes, step.t1 - step.t0, scale)
    assert abs(step.error_norm - theirs) <= 1e-10 * theirs


class _ErrorWeights:
    """What SciPy's method reads of its solver."""

    E3, E5 = E3, E5


def test_equilibrium_has_no_error():
    sol = odeint(lambda t, y: 0.0 * y, np.ones(2), [0.0, 1.0], method="dop853")
    assert np.array_equal(sol.ys[-1], np.ones(2)) and sol.stats.n_rejected == 0


@pytest.mark.parametrize("method", ADAPTIVE)
def test_dynamics_that_explode(method):
    with pytest.raises(errors.SolveError):
        odeint(lambda t, y: y * y, np.ones(2), [0.0, 2.0], method=method, max_steps=2000)


def test_nothing_of_an_earlier_step_is_read():
    """A later step that is read inside must evaluate its own extra stages."""
    ts = np.array([0.0, 0.3, 2.1, 2.2, 4.0])
    ys, pull_back = vjp(
        lambda ts: odeint(lambda t, y: -y, np.ones(1), ts, method="dop853", rtol=1e-9).ys[:, 0], ts
    )
    assert (
        np.abs(pull_back(np.eye(5)[2])[0][2] + np.exp(-2.1)) <= 1e-6
        and np.abs(ys - np.exp(-ts)).max() <= 1e-6
    )
