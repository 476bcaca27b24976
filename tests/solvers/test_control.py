"""The options that choose steps: controllers by name, limits, norms, tolerances by component, breakpoints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from odegrad import StepSizeUnderflow, grad, odeint
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, NonFiniteDynamics
from odegrad.solvers import CONTROLLERS, FilterController, PIController
from odegrad.solvers.controller import Verdict
from odegrad.solvers.options import GRADIENTS
from solving import random_case, same_bits

SPANS = [(0.0, 3.0), (3.0, 0.0)]


def van_der_pol(t, y):
    return np.stack([y[1], 5 * (1 - y[0] ** 2) * y[1] - y[0]])


def rates(t, y):
    """Two components that never meet, one slow and one fast."""
    return np.stack([-y[0], -30.0 * (y[1] - np.cos(t))])


def attempts(f=rates, y0=(1.0, 0.5), span=(0.0, 3.0), **options):
    """The solution and the step infos of a solve."""
    found = []
    sol = odeint(f, np.array(y0), span, callback=found.append, **options)
    return sol, found


def accepted_sizes(found):
    return np.array([abs(info.h) for info in found if info.is_accepted])


# --- controllers ------------------------------------------------------------------------------------------------------


def settled(controller, order, constant=1e3, steps=400):
    """The last error on a problem whose error norm is constant * h**order: where the filter comes to rest."""
    verdict, h, error = None, 1.0, 0.0
    for _ in range(steps):
        error = constant * h**order
        verdict = controller.judge(error, h, verdict)
        h = verdict.next_h
    return error


@pytest.mark.parametrize("order", [3, 5, 8])
@pytest.mark.parametrize("name", [name for name in CONTROLLERS if name not in ("pi", "predictive")])
def test_every_filter_comes_to_rest_where_classical_control_does(name, order):
    """At rest all rho are 1: error = safety**order."""
    assert settled(CONTROLLERS[name].make(order), order) == pytest.approx(0.9**order, rel=1e-6)


@pytest.mark.parametrize("order", [3, 5])
def test_the_classical_filter_is_the_classical_controller(order):
    errors = [0.3, 0.9, 4.0, 0.5, math.nan, 0.2, 1e-9, 0.0]
    verdicts = []
    for controller in (FilterController(order, (1.0, 0.0, 0.0)), PIController(order, beta=0.0)):
        verdict, found = None, []
        for error in errors:
            verdict = controller.judge(error, 1.0, verdict)
            found.append([verdict.is_accepted, verdict.next_h])
        verdicts.append(found)
    assert np.allclose(verdicts[0], verdicts[1], rtol=1e-14, atol=0.0)


def test_a_filter_multiplies_the_factors_of_three_steps_and_two_ratios():
    """The formula by hand, far from the limits: errors 0.5, 0.4, 0.3 after steps of 1, 1.1 and 1.3."""
    controller = FilterController(4, (0.3, 0.1, -0.2), (0.25, -0.125), max_factor=100.0)
    verdict = None
    for error, h in [(0.5, 1.0), (0.4, 1.1), (0.3, 1.3)]:
        verdict = controller.judge(error, h, verdict)
    rho = [0.9 * e**-0.25 for e in (0.3, 0.4, 0.5)]
    expected = rho[0] ** 0.3 * rho[1] ** 0.1 * rho[2] ** -0.2 * (1.3 / 1.1) ** -0.25 * (1.1 / 1.0) ** 0.125
    assert verdict.next_h == pytest.approx(1.3 * expected, rel=1e-14)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_name_gives_the_tolerance_asked_for(name):
    ys = [odeint(van_der_pol, np.array([2.0, 0.0]), (0.0, 4.0), controller=c, rtol=r, atol=r).ys[-1]
          for c, r in ((name, 1e-7), (None, 1e-11))]  # fmt: skip
    assert np.abs(ys[0] - ys[1]).max() < 1e-4


def test_classical_control_is_the_default():
    y0, span = np.array([2.0, 0.0]), (0.0, 10.0)
    choices = (None, "i", PIController(5, beta=0.0))
    grids = [odeint(van_der_pol, y0, span, controller=c).grid for c in choices]
    assert same_bits(grids[0], grids[1]) and same_bits(grids[0], grids[2])


def spread_of_steps(controller, order=5, n=60):
    """Of log h in the end, where the error is h**order times a factor that alternates between 1/2 and 2."""
    verdict, h, sizes = None, 0.5, []
    for i in range(n):
        verdict = controller.judge(min(1.0, h**order * 2.0 ** (-1) ** i), h, verdict)
        h = verdict.next_h
        sizes.append(h)
    return np.ptp(np.log(sizes[-10:]))


@pytest.mark.parametrize("name", ["h211pi", "h211b", "h312pid", "h312b"])
def test_low_pass_filters_smooth_what_classical_control_passes_on(name):
    """A zero at the highest frequency: what alternates from step to step does not reach the steps."""
    assert spread_of_steps(CONTROLLERS[name].make(5)) < 0.05 * spread_of_steps(CONTROLLERS["i"].make(5))


@pytest.mark.parametrize(
    ("controller", "words"),
    [
        ("h312", "did you mean 'h312b'"),
        ("PID", "did you mean 'pid'"),
        (3, "a PIController or a FilterController; got 3"),
        (PIController, "a PIController or a FilterController; got <class"),
    ],
    ids=str,
)
def test_another_controller_is_refused(controller, words):
    with pytest.raises(ArgumentError, match=words):
        attempts(controller=controller)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"betas": (1.0, 0.0)}, "`betas` must be three finite numbers"),
        ({"betas": (1.0, -1.0, 0.0)}, "whose sum is positive"),
        ({"alphas": (math.nan, 0.0)}, "`alphas` must be two finite numbers"),
        ({"order": 0, "safety": 1.0}, "`order` must be at least 1; got 0; `safety`"),
        ({"min_factor": 1.0}, "`min_factor`"),
        ({"max_factor": 0.5}, "`max_factor`"),
    ],
    ids=str,
)
def test_a_filter_is_checked(options, words):
    with pytest.raises(ArgumentError, match=words):
        FilterController(**{"order": 5, "betas": (1.0, 0.0, 0.0), **options})


# --- limits of steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", SPANS)
def test_no_step_is_longer_than_max_step(span):
    sol, _ = attempts(span=span, max_step=0.01)
    assert np.abs(np.diff(sol.grid)).max() <= 0.01 * (
        1 + 1e-10
    )  # the last one takes in what would be a sliver


@pytest.mark.parametrize("span", SPANS)
def test_the_first_attempt_is_the_first_step(span):
    _, found = attempts(span=span, first_step=1e-3)
    assert abs(found[0].h) == pytest.approx(1e-3, rel=1e-12)


@pytest.mark.parametrize("min_step", [1e-5, 1e-3])
def test_a_smallest_step_that_the_test_never_asks_for_changes_nothing(min_step):
    free, _ = attempts(max_step=0.05, first_step=0.02)
    bound, _ = attempts(max_step=0.05, first_step=0.02, min_step=min_step)
    assert same_bits(free.grid, bound.grid)


@pytest.mark.parametrize("span", SPANS)
def test_a_step_below_the_smallest_is_an_error_and_not_accepted(span):
    found = []
    with pytest.raises(
        StepSizeUnderflow, match="below `min_step` = 0.3: there the scaled error is"
    ) as caught:
        odeint(van_der_pol, np.array([2.0, 0.0]), span, min_step=0.3, callback=found.append)
    assert caught.value.error_norm > 1.0 and all(info.error_norm <= 1.0 for info in found if info.is_accepted)


def test_all_steps_but_the_last_are_as_long_as_the_smallest():
    sol, found = attempts(lambda t, y: -y, (1.0, 1.0), (0.0, 3.0), min_step=0.05, rtol=1e-4)
    assert accepted_sizes(found)[:-1].min() >= 0.05 * (1 - 1e-12) and sol.grid[-1] == 3.0


def test_nan_at_the_smallest_step_is_reported_as_nan():
    with pytest.raises(NonFiniteDynamics):
        attempts(lambda t, y: np.log(1.0 - t) - y, span=(0.0, 3.0), min_step=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_step": 0.0}, "`min_step` must be a positive number; got 0.0"),
        ({"min_step": math.nan}, "`min_step` must be a positive number; got nan"),
        ({"min_step": 0.2, "max_step": 0.1}, "`min_step` = 0.2 is above `max_step` = 0.1"),
        ({"min_step": 0.2, "first_step": 0.1}, "`min_step` = 0.2 is above `first_step` = 0.1"),
        ({"min_step": -1, "max_step": -1}, "`max_step` .*; `min_step` "),
        ({"warn_stiff": 1}, "`warn_stiff` must be True or False; got 1"),
    ],
    ids=str,
)
def test_limits_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ArgumentError, match=words):
        attempts(**options)


# --- norms ------------------------------------------------------------------------------------------------------------


def scaled_errors(norm, **options):
    """The norms of all attempts on one given grid of sizes, by a controller that accepts everything."""

    class Fixed:
        def judge(self, error_norm, h, previous=None):
            return Verdict(True, error_norm, h, 0.1)

    y0 = {"a": np.array([1.0, 0.2]), "b": np.array([[0.5, 0.1, -0.3]])}
    found = []

    def f(t, y):
        return {"a": -2.0 * y["a"] ** 2, "b": np.sin(5.0 * t) * y["b"]}

    odeint(f, y0, (0.0, 1.0), norm=norm, first_step=0.1, controller=Fixed(), callback=found.append, **options)
    return np.array([info.error_norm for info in found])


NORMS = {
    "rms": lambda e: np.sqrt((np.sum(e["a"] ** 2) + np.sum(e["b"] ** 2)) / 5),
    "max": lambda e: max(np.abs(e["a"]).max(), np.abs(e["b"]).max()),
    "leaves": lambda e: max(np.sqrt(np.mean(e["a"] ** 2)), np.sqrt(np.mean(e["b"] ** 2))),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_by_name_is_what_its_formula_says(name):
    assert np.allclose(scaled_errors(name), scaled_errors(NORMS[name]), rtol=1e-12)


def test_the_largest_error_bounds_every_component():
    assert np.all(scaled_errors("max") >= scaled_errors("leaves")) and np.all(
        scaled_errors("leaves") >= scaled_errors("rms")
    )


def test_a_norm_may_leave_a_component_out():
    only_slow, _ = attempts(norm=lambda e: abs(e[0]))
    both, _ = attempts(norm="max")
    assert only_slow.stats.n_accepted < both.stats.n_accepted


def test_a_norm_sees_no_nan():
    seen = []

    def norm(errors):
        seen.append(np.isfinite(errors).all())
        return np.nanmax(np.abs(errors))

    sol = odeint(lambda t, y: -np.sqrt(y), np.ones(1), [0.0, 1.9], first_step=1.9, norm=norm)
    assert all(seen) and sol.stats.n_rejected > 0


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_with_another_norm(gradient):
    """A norm chooses steps; on the same grid the derivative is the same."""
    case = random_case(4)
    exact = grad(lambda y: case.loss(y, rtol=1e-11, atol=1e-11))(case.y0)
    found = grad(lambda y: case.loss(y, norm="max", gradient=gradient, rtol=1e-8, atol=1e-8))(case.y0)
    assert np.allclose(found, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "error", "words"),
    [
        ("l2", ArgumentError, "`norm` must be one of 'rms', 'max', 'leaves'; got 'l2'.*or give a function"),
        (None, ArgumentError, "`norm` must be one of"),
        (lambda e: "big", ArgumentTypeError, "`norm` must return a number; got str"),
        (lambda e: e, ArgumentTypeError, "`norm` must return a number; got ndarray"),
        (lambda e: -1.0, ArgumentError, "a number that is not negative; got -1"),
        (lambda e: math.nan, ArgumentError, "a number that is not negative; got nan"),
    ],
)
def test_another_norm_is_refused(norm, error, words):
    with pytest.raises(error, match=words):
        attempts(norm=norm)


# --- tolerances by component ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rtol", [1e-5, np.float64(1e-5), np.array(1e-5), np.full(2, 1e-5), np.full(1, 1e-5), [1e-5, 1e-5]]
)
@pytest.mark.parametrize("atol", [1e-7, np.full(2, 1e-7)])
def test_equal_tolerances_are_one_number(rtol, atol):
    assert np.allclose(attempts(rtol=rtol, atol=atol)[0].grid, attempts()[0].grid, rtol=1e-9)


def test_the_tolerances_of_a_component_bound_its_error():
    loose = np.array([1e-10, 1e-3])
    exact = attempts(rtol=1e-12, atol=1e-12)[0].ys[-1]
    errors = np.abs(attempts(rtol=loose, atol=loose, norm="max")[0].ys[-1] - exact)
    assert (
        errors[0] < 1e-9
        and attempts(rtol=loose, atol=loose)[0].stats.nfe < attempts(rtol=1e-10, atol=1e-10)[0].stats.nfe
    )


@pytest.mark.parametrize(
    "atol", [{"a": 1e-8, "b": np.full((2, 1), 1e-4)}, np.full((1, 3), 1e-6)], ids=["tree", "array"]
)
def test_tolerances_of_a_tree(atol):
    y0 = {"a": np.ones((2, 3)), "b": np.ones((2, 3))}
    flat = np.concatenate(
        [np.broadcast_to(atol[k] if isinstance(atol, dict) else atol, (2, 3)).ravel() for k in "ab"]
    )
    tree = odeint(lambda t, y: {"a": -y["a"], "b": -9 * y["b"]}, y0, (0.0, 1.0), atol=atol)
    rates = np.repeat([1.0, 9.0], 6)
    joined = odeint(lambda t, y: -rates * y, np.ones(12), (0.0, 1.0), atol=flat)
    assert np.allclose(tree.grid, joined.grid, rtol=1e-12)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_with_tolerances_by_component(gradient):
    case = random_case(5)
    exact = grad(lambda y: case.loss(y, rtol=1e-11, atol=1e-11))(case.y0)
    tol = np.geomspace(1e-9, 1e-8, case.y0.size).reshape(case.y0.shape)
    found = grad(lambda y: case.loss(y, gradient=gradient, rtol=tol, atol=tol))(case.y0)
    assert np.allclose(found, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"rtol": np.ones(3)},
            r"`rtol` must broadcast against the state; got shape \(3,\) for y0 of shape \(2,\)",
        ),
        ({"atol": np.ones((2, 2))}, r"`atol` must broadcast .* got shape \(2, 2\)"),
        (
            {"atol": {"a": 1e-3}},
            "`atol` must be a number, an array, or a tree with the structure of y0; got a, expected",
        ),
        ({"rtol": np.array([1e-3, 0.0])}, "`rtol` must be a positive number, or an array or a tree of them"),
        ({"rtol": np.array([1e-3, math.nan])}, "`rtol` must be a positive number, or an array"),
        ({"atol": "tight"}, "`atol` must be a positive number, or an array or a tree of them; got 'tight'"),
        ({"atol": None}, "`atol` must be a positive number, or an array or a tree of them; got None"),
        ({"atol": np.array([1e-3, 1e-3j])}, "`atol` must be a positive number"),
        ({"rtol": -1.0, "atol": math.inf}, "`rtol` must be a positive number; got -1.0; `atol`"),
    ],
    ids=str,
)
def test_tolerances_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ArgumentError, match=words):
        attempts(**options)


# --- breakpoints ------------------------------------------------------------------------------------------------------

KINKS = np.array([0.31, 0.5, 1.7])


def kinked(t, y):
    """Continuous in t with kinks: hats like those of a temporal batch norm."""
    return -y + np.abs(t - 0.31) + 2.0 * np.abs(t - 0.5) - np.abs(t - 1.7)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize(
    ("method", "step_size"), [("dopri5", None), ("bosh3", None), ("rk4", 0.2), ("euler", 0.2)]
)
def test_a_step_ends_at_every_breakpoint(method, step_size, span):
    grid = odeint(kinked, np.ones(2), span, breakpoints=KINKS, method=method, step_size=step_size).grid
    assert np.isin(KINKS, grid).all() and np.all(np.diff(grid) * (span[1] - span[0]) > 0)


def test_breakpoints_outside_of_the_interval_and_at_its_ends_change_nothing():
    plain, asked = (
        odeint(kinked, np.ones(2), (0.0, 3.0), breakpoints=b).grid for b in (None, [-1.0, 0.0, 3.0, 9.0])
    )
    assert same_bits(plain, asked)


def test_a_high_order_method_needs_fewer_steps_with_its_kinks_named():
    counts = [
        odeint(kinked, np.ones(2), (0.0, 3.0), breakpoints=b, rtol=1e-9, atol=1e-9).stats
        for b in (None, KINKS)
    ]
    assert counts[1].n_rejected < counts[0].n_rejected and counts[1].nfe < counts[0].nfe


def test_a_step_after_a_breakpoint_is_not_held_back_by_the_one_cut_to_end_there():
    """The step to 1e-3 beyond the natural end of one is tiny, the next one is not."""
    plain = odeint(lambda t, y: -y, np.ones(1), (0.0, 3.0)).grid
    close = odeint(lambda t, y: -y, np.ones(1), (0.0, 3.0), breakpoints=[plain[4] + 1e-3]).grid
    sizes = np.diff(close)
    assert sizes[5] > 0.9 * np.diff(plain)[4] and sizes[4] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_every_gradient_method_knows_breakpoints(gradient):
    """Closed form: d y(2) / d y0 = exp(-2), whatever is forced."""
    options = {"breakpoints": KINKS, "gradient": gradient, "rtol": 1e-9, "atol": 1e-9}
    slope = grad(lambda y: np.sum(odeint(kinked, y, (0.0, 2.0), **options).ys[-1]))(np.ones(2))
    assert np.allclose(slope, math.exp(-2.0), rtol=1e-6)


def test_a_given_grid_must_hold_the_breakpoints():
    with pytest.raises(ArgumentError, match="`grid` must hold every breakpoint; 0.31 is not in it"):
        odeint(kinked, np.ones(1), (0.0, 1.0), grid=[0.0, 0.5, 1.0], breakpoints=KINKS)


@pytest.mark.parametrize("name", ["breakpoints", "jump_ts"])
@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("soon", ArgumentTypeError, "must be an array of times; got 'soon'"),
        ([math.nan], ArgumentError, r"must be finite times, shape \(m,\)"),
        ([[0.5]], ArgumentError, r"must be finite times, shape \(m,\)"),
        (0.5, ArgumentError, r"must be finite times, shape \(m,\)"),
    ],
    ids=str,
)
def test_stops_that_are_no_times_are_refused(name, value, error, words):
    with pytest.raises(error, match=f"`{name}` {words}"):
        odeint(kinked, np.ones(1), (0.0, 1.0), **{name: value})
