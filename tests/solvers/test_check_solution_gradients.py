"""`check.solution_gradients`: every gradient method passes on its frozen grid, wrong ones and wrong dynamics do not."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from odegrad import check, odeint
from odegrad.engine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ImpureFunctionError,
    NeuralODEError,
    NonFiniteGradient,
    NoRuleError,
    TracedValueError,
)
from odegrad.engine.primitive import PRIMITIVES, primitive
from odegrad.solvers.gradients import discrete
from oracles import central_difference
from solving import Case, cases, network, random_case

EXACT = ("tape", "discrete", "reversible")
CONTINUOUS = ("backsolve", "interpolated")


def report_on(case: Case, **options: Any) -> check.GradientReport:
    return check.solution_gradients(network, case.y0, case.ts, case.params, **{**case.options, **options})


@pytest.mark.parametrize("gradient", EXACT)
def test_an_exact_method_agrees_to_nine_digits(gradient):
    report = report_on(random_case(3), gradient=gradient, tol=1e-9, entries=6)
    report.assert_ok()
    assert [leaf.name for leaf in report.leaves] == ["params/a", "params/b", "params/c", "ts", "y0"]


@settings(max_examples=5)
@given(cases())
def test_drawn_solves_pass(case):
    report_on(case, entries=2, directions=1).assert_ok()


@pytest.mark.parametrize("gradient", CONTINUOUS)
@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_a_continuous_adjoint_is_within_a_hundred_tolerances(gradient, rtol):
    report = report_on(random_case(4), gradient=gradient, rtol=rtol, atol=rtol, entries=3)
    assert report.ok and report.tol == pytest.approx(100 * rtol)


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_a_continuous_adjoint_is_not_exact(gradient):
    report = report_on(random_case(4), gradient=gradient, rtol=1e-4, atol=1e-4, entries=3, tol=1e-9)
    assert report.verdict == "wrong"


def test_a_continuous_adjoint_backwards_in_time_passes():
    report_on(random_case(6, span=-1.5), gradient="backsolve", entries=3).assert_ok()


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4", "bosh3"])
def test_every_method_passes_with_inner_output_times(method):
    options = {} if method == "bosh3" else {"step_size": 0.2}
    report_on(random_case(5, n_times=4), method=method, entries=3, **options).assert_ok()


def test_a_solve_backwards_in_time_passes():
    report_on(random_case(6, span=-1.5), entries=3).assert_ok()


def test_complex_steps_serve_for_states_and_parameters_and_differences_for_times():
    report = report_on(random_case(3), entries=2)
    assert {leaf.name: leaf.method for leaf in report.leaves} == {
        "params/a": "complex step",
        "params/b": "complex step",
        "params/c": "complex step",
        "ts": "central differences",
        "y0": "complex step",
    }


def test_what_is_not_analytic_in_the_dynamics_is_named():
    def f(t, y, p):
        return -p * np.abs(y) * y

    report = check.solution_gradients(f, np.array([1.0, -0.5]), [0.0, 0.5, 1.0], np.array(0.7))
    line = f.__code__.co_firstlineno + 1
    assert report.ok and f"no complex step: `abs` at {__file__}:{line} is not analytic" in str(report)


def test_what_is_not_analytic_in_the_loss_is_named():
    report = check.solution_gradients(
        lambda t, y: -y * y, np.array([1.0, 0.5]), [0.0, 1.0], loss=lambda ys: np.sum(np.abs(ys - 0.7) ** 3)
    )
    assert report.ok and f"no complex step: `abs` at {__file__}:" in str(report)


def test_complex_states_pass():
    def f(t, y, p):
        return -1j * p * np.abs(y) ** 2 * y

    check.solution_gradients(f, np.array([0.5 + 0.2j, -0.3j]), [0.0, 0.3, 1.0], np.array(0.7)).assert_ok()


def test_float32_solves_pass_against_float64():
    report = report_on(random_case(7, dtype=np.float32), entries=3)
    assert report.ok and "double precision" in str(report)


def test_trees_aux_and_autonomous_dynamics_pass():
    def f(t, y):
        return {"q": y["p"], "p": -np.sin(y["q"])}, {"energy": np.sum(y["p"] ** 2)}

    y0 = {"q": np.array([1.0, 0.3]), "p": np.array([0.0, 0.5])}
    for method in ({}, {"method": "rk4", "step_size": 0.1}):
        report = check.solution_gradients(f, y0, [0.0, 0.4, 1.0], has_aux=True, **method)
        assert report.ok and [leaf.name for leaf in report.leaves] == ["ts", "y0/p", "y0/q"]


def test_differences_are_those_of_the_frozen_grid():
    case = random_case(8, n_times=2)
    grid = case.grid()
    report = check.solution_gradients(
        network, case.y0, case.ts, case.params, loss=case.loss_of, reference="differences", entries=None
    )
    worst = report["y0"].worst
    direction = np.zeros_like(case.y0)
    direction[worst.index] = 1.0
    expected = central_difference(lambda y: case.loss(y, grid=grid), [case.y0], [direction])
    assert worst.expected == pytest.approx(float(expected), rel=1e-8)


def test_an_adjoint_with_a_wrong_weight_is_wrong(monkeypatch):
    right = discrete.adjoint_weights
    monkeypatch.setattr(discrete, "adjoint_weights", lambda tableau: 1.001 * right(tableau))
    assert report_on(random_case(3), entries=4).verdict == "wrong"


@pytest.fixture
def wrong_rule():
    """The square with a rule that has lost its factor; it exists during the test only."""
    op = primitive("under_test")(lambda xp, x: x * x)
    op.vjp(saves=("x",))(lambda ybar, x: (ybar * x,))
    yield op
    del PRIMITIVES["under_test"]


@pytest.mark.parametrize("gradient", [*EXACT, *CONTINUOUS])
def test_a_wrong_rule_in_the_dynamics_is_wrong_by_every_method(gradient, wrong_rule):
    report = check.solution_gradients(
        lambda t, y, p: -p * wrong_rule(y), np.array([1.0, 0.4]), [0.0, 1.0], np.array(0.5), gradient=gradient
    )
    assert report.wrong == ("params", "ts", "y0")


def test_steps_that_are_too_far_for_the_dynamics_are_passed_over():
    """van der Pol's equation on a grid for mu = 10 explodes with a mu that is some percent larger."""

    def f(t, y, mu):
        return np.stack([y[1], mu * (1.0 - y[0] ** 2) * y[1] - y[0]])

    y0 = np.array([2.0, 0.0])
    report = check.solution_gradients(
        f, y0, [0.0, 20.0], np.array(10.0), entries=0, directions=1, rtol=1e-6, atol=1e-6
    )
    report.assert_ok()


def test_dynamics_with_a_kink_are_reported():
    """y = 0 stays there, and |y| has no derivative."""
    report = check.solution_gradients(lambda t, y: np.abs(y), np.zeros(2), [0.0, 1.0])
    assert report["y0"].verdict == "kink" and report.ok


# --- bad input ------------------------------------------------------------------------------------------------------


def test_a_branch_is_located():
    def f(t, y):
        return y if y[0] > 0 else -y

    with pytest.raises(TracedValueError, match=f"{__file__}:{f.__code__.co_firstlineno + 1}"):
        check.solution_gradients(f, np.ones(2), [0.0, 1.0])


@pytest.fixture
def no_rule():
    """A primitive without a rule, which exists during the test only."""
    yield primitive("without_a_rule")(lambda xp, x: xp.sin(x))
    del PRIMITIVES["without_a_rule"]


def test_an_operation_without_a_rule_is_located(no_rule):
    def f(t, y):
        return -no_rule(y)

    line = f.__code__.co_firstlineno + 1
    with pytest.raises(
        NoRuleError, match=f"`without_a_rule` has no VJP rule.*`without_a_rule` at {__file__}:{line}"
    ):
        check.solution_gradients(f, np.ones(2), [0.0, 1.0])


def test_a_slope_of_another_shape():
    with pytest.raises(ArgumentError, match="must have the shape of y"):
        check.solution_gradients(lambda t, y: y[:1], np.ones(2), [0.0, 1.0])


def test_a_slope_of_another_dtype():
    with pytest.raises(ArgumentTypeError, match="must have the dtype of y"):
        check.solution_gradients(lambda t, y: y.astype(np.float32), np.ones(2), [0.0, 1.0])


def test_a_loss_that_is_no_scalar():
    with pytest.raises(ArgumentError, match="a real scalar was expected"):
        check.solution_gradients(lambda t, y: -y, np.ones(2), [0.0, 1.0], loss=lambda ys: ys[-1])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rtl", "did you mean 'rtol'"),
        ("metod", "did you mean 'method'"),
        ("entires", "did you mean 'entries'"),
        ("x", "there are method, rtol, atol"),
    ],
)
def test_an_unknown_option(name, hint):
    with pytest.raises(ArgumentTypeError, match=f"have no option '{name}'; {hint}"):
        check.solution_gradients(lambda t, y: -y, np.ones(2), [0.0, 1.0], **{name: 1})


def test_swapped_arguments():
    with pytest.raises(
        ArgumentTypeError, match="takes a function first; got ndarray; it came second, so swap"
    ):
        check.solution_gradients(np.ones(2), lambda t, y: -y, [0.0, 1.0])


@pytest.mark.parametrize("loss", [3.0, "sum", np.ones(2)])
def test_a_loss_that_is_no_function(loss):
    with pytest.raises(
        ArgumentTypeError, match=f"`loss` must be a function of the states `ys`; got {type(loss).__name__}"
    ):
        check.solution_gradients(lambda t, y: -y, np.ones(2), [0.0, 1.0], loss=loss)


@pytest.mark.parametrize("execution", ["replay", "eager"])
def test_dynamics_that_change_between_calls(execution):
    n_calls = itertools.count()

    def f(t, y):
        return -y * next(n_calls)

    with pytest.raises(
        ImpureFunctionError, match=r"f is not pure: two calls at t=0.5 gave slopes that differ by 1.414e\+00"
    ):
        check.solution_gradients(f, np.ones(2), [0.5, 1.0], execution=execution)


def test_dynamics_that_draw_random_numbers():
    rng = np.random.default_rng(0)
    with pytest.raises(ImpureFunctionError, match="Draw random numbers from a key or a seed"):
        check.solution_gradients(lambda t, y: -y * rng.normal(), np.ones(2), [0.0, 1.0])


def writes_state(t, y, p):
    y *= -1.0
    return y * p


def writes_params(t, y, p):
    p[0] = 3.0
    return -y * p


@pytest.mark.parametrize("f", [writes_state, writes_params])
def test_dynamics_that_write_into_their_arguments(f):
    y0, params = np.ones(2), np.ones(2)
    line = f.__code__.co_firstlineno + 1
    with pytest.raises(ImpureFunctionError, match=f"writes into its argument at {__file__}:{line}"):
        check.solution_gradients(f, y0, [0.0, 1.0], params)
    assert np.array_equal(y0, np.ones(2)) and np.array_equal(params, np.ones(2))


@pytest.mark.parametrize(
    ("slope", "message"),
    [
        (None, "structure of y; got nothing"),
        ([], "structure of y; got nothing"),
        (3, "shape of y; got f: int"),
        ("y", "shape of y; got f: str"),
    ],
)
def test_a_result_that_is_no_slope(slope, message):
    with pytest.raises(NeuralODEError, match=message):
        check.solution_gradients(lambda t, y: slope, np.ones(2), [0.0, 1.0])


def test_an_impure_loss():
    n_calls = itertools.count()
    with pytest.raises(ImpureFunctionError, match="not pure: two calls with the same argument"):
        check.solution_gradients(
            lambda t, y: -y, np.ones(2), [0.0, 1.0], loss=lambda ys: np.sum(ys) * next(n_calls)
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_the_comparison(value):
    with pytest.raises(NonFiniteGradient, match=f"the function is {value} at the point"):
        check.solution_gradients(lambda t, y: -y, np.ones(2), [0.0, 1.0], loss=lambda ys: np.sum(ys) * value)


def test_a_gradient_that_is_not_finite_stops_the_comparison():
    """That of the root at 0."""
    with pytest.raises(NonFiniteGradient, match="the gradient is not finite in y0"):
        check.solution_gradients(
            lambda t, y: -y, np.zeros(2), [0.0, 1.0], loss=lambda ys: np.sum(np.sqrt(ys[0]))
        )


@pytest.mark.parametrize("ts", [[0.0], [0.0, 0.0], [0.0, 1.0, 0.5], [0.0, np.nan]])
def test_times_that_are_none(ts):
    with pytest.raises(ArgumentError, match="`ts` must be"):
        check.solution_gradients(lambda t, y: -y, np.ones(2), ts)


def test_the_grid_that_was_given_is_the_one_that_is_walked():
    grid = np.linspace(0.0, 1.0, 6)
    report = check.solution_gradients(lambda t, y: -y * y, np.ones(2), [0.0, 1.0], grid=grid)
    assert report.ok and report.title == "discrete against 5 frozen steps"
    assert report.value == pytest.approx(report_value(grid))


def report_value(grid: np.ndarray) -> float:
    """The default loss of that solve: all states, with signs drawn from seed 0."""
    ys = odeint(lambda t, y: -y * y, np.ones(2), [0.0, 1.0], grid=grid).ys
    return float(np.sum(ys * np.random.default_rng(0).choice([1.0, -1.0], (2, 2))))


@pytest.mark.parametrize("steps", [{"method": "euler", "step_size": 0.1}, {"grid": [0.0, 0.5, 1.0]}])
def test_a_continuous_adjoint_on_given_steps_needs_a_tolerance(steps):
    with pytest.raises(ArgumentError, match="`tol` is needed"):
        check.solution_gradients(
            lambda t, y, p: -p * y, np.ones(2), [0.0, 1.0], np.ones(2), gradient="backsolve", **steps
        )


def test_loose_tolerances_do_not_make_a_zero_gradient_right():
    """At rtol 0.02 a hundred tolerances are more than the whole gradient."""
    report = check.solution_gradients(
        lambda t, y, p: -p * y, np.ones(2), [0.0, 1.0], np.ones(2), gradient="backsolve", rtol=0.02, atol=0.02
    )
    assert report.tol <= 0.1
