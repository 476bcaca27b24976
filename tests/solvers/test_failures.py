"""The three named failures with their numbers and partial solutions; counts; callbacks."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad import NonFiniteDynamics, StepSizeUnderflow, TooManySteps, grad, odeint
from odegrad.engine.errors import NeuralODEError, SolveError
from odegrad.engine.trace import base_value
from odegrad.solvers import PIController
from odegrad.solvers.options import GRADIENTS
from solving import METHODS, Counted, random_case

EXECUTIONS = ("replay", "eager")


def blow_up(t, y):
    """y = 1 / (1 - t)."""
    return y * y


def stiff(t, y):
    return -1e6 * (y - np.cos(t))


def nan_after_one(t, y):
    return -y + np.sqrt(1.0 - t)


def failure(f, ts, **options):
    with pytest.raises(SolveError) as caught:
        odeint(f, np.ones(2), ts, **options)
    return caught.value


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_blow_up_in_finite_time(dtype, execution):
    with pytest.raises(StepSizeUnderflow, match="blow up or jump here: end the interval before it") as caught:
        odeint(blow_up, np.ones(2, dtype), [0.0, 0.5, 0.9, 2.0], execution=execution)
    error = caught.value
    assert abs(error.t - 1.0) < 1e-4 and 0 < error.h < 1e-10 and error.stats.n_rejected > 0
    assert np.array_equal(error.solution.ts, [0.0, 0.5, 0.9])


def test_a_blow_up_backwards_in_time():
    assert abs(failure(lambda t, y: -blow_up(t, y), [0.0, -2.0]).t + 1.0) < 1e-4


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_dynamics_that_are_nan_at_once(execution):
    error = failure(lambda t, y: np.log(-y), [0.0, 1.0], execution=execution)
    assert isinstance(error, NonFiniteDynamics) and error.t == 0.0 and error.n_bad == 2
    assert error.stats.nfe == 1 and "f(t0, y0) is non-finite at t=0: 2 of 2 values" in str(error)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_dynamics_that_become_nan(execution):
    error = failure(nan_after_one, [0.0, 0.5, 2.0], execution=execution)
    assert isinstance(error, NonFiniteDynamics) and abs(error.t - 1.0) < 1e-8
    assert "while h shrank from" in str(error) and np.array_equal(error.solution.ts, [0.0, 0.5])


@pytest.mark.parametrize("max_steps", [2, 3])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_nan_in_the_last_of_too_many_steps_is_what_is_reported(execution, max_steps):
    error = failure(
        nan_after_one, [0.99, 2.0], max_steps=max_steps, first_step=0.5, execution=execution, rtol=1e-2
    )
    assert isinstance(error, NonFiniteDynamics) and "stayed non-finite" in str(error)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_nan_on_a_fixed_grid_ends_the_solve_at_its_step(method):
    error = failure(nan_after_one, [0.0, 0.5, 2.0], method=method, step_size=0.1)
    assert isinstance(error, NonFiniteDynamics) and 0.9 < error.t < 1.11 and error.solution.ts[-1] == 0.5


def test_nan_in_a_rejected_step_only_is_survived():
    sol = odeint(lambda t, y: -np.sqrt(y), np.ones(1), [0.0, 1.9], first_step=1.9)
    assert sol.stats.n_rejected > 0 and sol.ys[-1, 0] == pytest.approx((1 - 0.95) ** 2, rel=1e-3)


@pytest.mark.parametrize("slope", [1e308, np.array([1e308, 0.0])])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_state_that_overflows_is_not_accepted(slope, execution):
    error = failure(lambda t, y: slope * np.ones(2), [0.0, 10.0], execution=execution)
    assert isinstance(error, NonFiniteDynamics) and "the state after the step" in str(error)


def test_an_error_estimate_that_overflows_is_named_where_nothing_else_does():
    with pytest.raises(
        NonFiniteDynamics,
        match="the error estimate of the step from t=0 .*: f and the state are finite, the first",
    ):
        odeint(lambda t, y: -y, np.full(2, 1e308), [0.0, 1.0], method="rosenbrock23")


def test_a_complex_state_that_overflows_is_not_accepted():
    with pytest.raises(NonFiniteDynamics):
        odeint(lambda t, y: 1e308 * np.ones_like(y), np.ones(2, complex), [0.0, 10.0])


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_stiff_problem_and_few_steps(execution):
    error = failure(stiff, [0.0, 1e-4, 1.0], max_steps=200, execution=execution)
    assert isinstance(error, TooManySteps) and error.stats.n_accepted + error.stats.n_rejected == 200
    assert "the problem is stiff" in str(error) and "200 steps (`max_steps`)" in str(error)
    assert error.solution.status == "TooManySteps" and error.solution.grid[-1] == error.t
    assert len(error.solution.ys) == 2 and np.allclose(error.solution.ys[-1], np.cos(1e-4), atol=1e-6)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_failure_while_a_gradient_is_taken(gradient):
    with pytest.raises(StepSizeUnderflow):
        grad(lambda y: np.sum(odeint(blow_up, y, [0.0, 2.0], gradient=gradient).ys))(np.ones(1))


def test_a_failure_of_the_backward_solve_is_named():
    """The forward solve walks a given grid; the backward one chooses its steps, and they are too many."""
    with pytest.raises(TooManySteps, match="^backsolve:"):
        grad(
            lambda y: np.sum(
                odeint(
                    stiff, y, [0.0, 0.1], gradient="backsolve", max_steps=20, grid=np.linspace(0, 0.1, 9)
                ).ys
            ),
        )(np.ones(1) * np.cos(0.0))


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_failure_of_the_backward_solve_carries_the_forward_solution(execution):
    options = {"gradient": "backsolve", "max_steps": 20, "execution": execution}
    ts, found = np.array([0.0, 0.05, 0.1]), []

    def loss(y):
        found.append(odeint(stiff, {"y": y}, ts, grid=np.linspace(0, 0.1, 9), **options))
        return np.sum(found[0].ys["y"])

    def stiff(t, y):
        return {"y": -1e6 * (y["y"] - np.cos(t))}

    with pytest.raises(TooManySteps) as caught:
        grad(loss)(np.ones(1))
    solution, forward = caught.value.solution, found[0]
    assert solution.status == "finished" and np.array_equal(solution.ys["y"], base_value(forward.ys["y"]))
    assert np.array_equal(solution.grid, forward.grid) and np.array_equal(solution.ts, ts)


@pytest.mark.parametrize("error", [NonFiniteDynamics, StepSizeUnderflow, TooManySteps])
def test_the_failures_have_one_root(error):
    assert issubclass(error, NeuralODEError)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (NonFiniteDynamics, FloatingPointError),
        (StepSizeUnderflow, ArithmeticError),
        (TooManySteps, RuntimeError),
    ],
)
def test_each_failure_resembles_a_builtin(error, builtin):
    assert issubclass(error, builtin)


def test_a_solve_after_a_failed_one_is_unharmed():
    failure(blow_up, [0.0, 2.0])
    assert odeint(blow_up, np.ones(2), [0.0, 0.5]).ys[-1] == pytest.approx(2.0, rel=1e-4)


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_nfe_counts_every_call_of_f(method):
    f = Counted(lambda t, y: -y + np.sin(5 * t))
    options = {"step_size": 0.1} if method in ("euler", "midpoint", "rk4") else {"first_step": 0.9}
    sol = odeint(f, np.ones(2), [0.0, 0.3, 1.0], method=method, execution="eager", **options)
    assert sol.stats.nfe == f.n_calls


def test_the_default_first_step_costs_two_evaluations():
    sol = odeint(lambda t, y: -y, np.ones(2), [0.0, 1.0])
    assert sol.stats.nfe == 2 + 6 * (sol.stats.n_accepted + sol.stats.n_rejected)


def test_replay_and_eager_count_alike():
    case = random_case(60)
    counts = [case.solve(execution=execution).stats for execution in EXECUTIONS]
    assert counts[0].nfe == counts[1].nfe and counts[0].n_accepted == counts[1].n_accepted


def test_accepted_steps_are_the_steps_of_the_grid():
    sol = random_case(61).solve()
    assert sol.stats.n_accepted == len(sol.grid) - 1


def test_a_controller_of_ones_own():
    careful = odeint(lambda t, y: -y, np.ones(2), [0, 1], controller=PIController(order=5, safety=0.3))
    assert careful.stats.n_accepted > odeint(lambda t, y: -y, np.ones(2), [0, 1]).stats.n_accepted


# --- callbacks --------------------------------------------------------------------------------------------------------


def van_der_pol(t, y):
    return np.stack([y[1], 5 * (1 - y[0] ** 2) * y[1] - y[0]])


def attempts():
    found = []
    sol = odeint(van_der_pol, np.array([2.0, 0.0]), [0.0, 10.0], callback=found.append)
    return sol, found


def test_a_callback_sees_every_attempt():
    sol, found = attempts()
    assert [sum(i.is_accepted for i in found), sum(not i.is_accepted for i in found)] == [
        sol.stats.n_accepted,
        sol.stats.n_rejected,
    ]


def test_a_callback_sees_why_a_step_was_rejected():
    _, found = attempts()
    assert all((info.error_norm <= 1.0) == info.is_accepted for info in found)


def test_the_accepted_steps_of_a_callback_are_the_grid():
    sol, found = attempts()
    accepted = [info for info in found if info.is_accepted]
    assert np.allclose([i.t for i in accepted], sol.grid[:-1]) and np.array_equal(accepted[-1].y, sol.ys[-1])


def test_the_state_of_a_callback_has_the_structure_of_y0():
    found = []
    odeint(lambda t, y: {"a": -y["a"]}, {"a": np.ones((2, 3))}, [0, 1], callback=found.append)
    assert found[0].y["a"].shape == (2, 3)


def test_what_a_callback_raises_ends_the_solve_unchanged():
    def callback(info):
        raise StopIteration("enough")

    with pytest.raises(StopIteration, match="enough"):
        odeint(lambda t, y: -y, np.ones(2), [0.0, 1.0], callback=callback)


@pytest.mark.parametrize("y0", [0.5, 1.0, 2.0, 3.0, 7.0])
def test_a_step_as_short_as_min_step_is_not_tried_twice(y0):
    """(t + h) - t is larger than h where rounding makes it so."""
    with pytest.raises(StepSizeUnderflow, match="below `min_step`") as caught:
        odeint(blow_up, np.array([y0]), [0.0, 4.0], min_step=1e-3)
    assert caught.value.stats.n_rejected < 100
