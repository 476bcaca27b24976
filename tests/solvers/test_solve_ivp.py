"""`solve_ivp` beside SciPy's: its own examples, fields and habits, with one import changed."""

from __future__ import annotations

import math
import threading
import warnings

import numpy as np
import odegrad
import pytest
import scipy.integrate
import scipy.sparse
from odegrad import Event, StiffnessWarning, solve_ivp
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, SolveError

METHODS = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")
FIELDS = {
    "t", "y", "sol", "t_events", "y_events", "nfev", "njev", "nlu", "status", "message", "success",
}  # fmt: skip


def both(*args, **kwargs):
    """The results of SciPy and of this package."""
    return scipy.integrate.solve_ivp(*args, **kwargs), solve_ivp(*args, **kwargs)


def exponential_decay(t, y):
    return -0.5 * y


def lotka_volterra(t, z, a, b, c, d):
    x, y = z
    return [a * x - b * x * y, -c * y + d * x * y]


def upward_cannon(t, y):
    return [y[1], -0.5]


def hit_ground(t, y):
    return y[0]


hit_ground.terminal, hit_ground.direction = True, -1


def apex(t, y):
    return y[1]


def brusselator_in_place(t, y):
    """A style that cannot be traced: arrays filled in place, math functions, a branch on a value."""
    slope = np.zeros(2)
    slope[0] = 1.0 + y[0] ** 2 * y[1] - 4.0 * y[0]
    slope[1] = 3.0 * y[0] - y[0] ** 2 * y[1]
    if y[0] > 1e9:
        slope[0] = math.exp(float(t))
    return slope


def robertson(t, y):
    x, y, z = y
    a, b, c = 0.04 * x, 1e4 * y * z, 3e7 * y * y
    return [-a + b, a - b - c, c]


def jacobian_of_robertson(t, y):
    _, y, z = y
    return [[-0.04, 1e4 * z, 1e4 * y], [0.04, -1e4 * z - 6e7 * y, -1e4 * y], [0.0, 6e7 * y, 0.0]]


@pytest.mark.parametrize("method", METHODS)
def test_exponential_decay(method):
    theirs, ours = both(exponential_decay, [0, 10], [2, 4, 8], method=method)
    exact = np.outer([2.0, 4.0, 8.0], np.exp(-0.5 * ours.t))
    assert ours.t[0] == 0.0 and ours.t[-1] == 10.0
    assert np.abs(ours.y - exact).max() < 20 * 1e-3
    assert set(ours) == FIELDS == set(theirs)
    assert ours.y.shape == (3, len(ours.t)) and ours.status == 0 and ours.success is True


@pytest.mark.parametrize("method", METHODS)
def test_output_at_chosen_times(method):
    times = [0, 1, 2, 4, 10]
    theirs, ours = both(exponential_decay, [0, 10], [2, 4, 8], method=method, t_eval=times)
    assert np.array_equal(ours.t, theirs.t)
    assert np.abs(ours.y - np.outer([2.0, 4.0, 8.0], np.exp(-0.5 * ours.t))).max() < 20 * 1e-3


@pytest.mark.parametrize("times", [[3.0, 1.5, 0.2], [2.5], [3.0, 0.0], []])
def test_output_backwards_in_time(times):
    theirs, ours = both(exponential_decay, (3.0, 0.0), [1.0], t_eval=times, rtol=1e-8)
    assert np.array_equal(ours.t, theirs.t) and ours.y.shape == (1, len(times))
    assert ours.y[0] == pytest.approx(np.exp(-0.5 * (ours.t - 3.0)), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_cannonball_fired_upward(method):
    theirs, ours = both(
        upward_cannon, [0, 100], [0, 10], events=(hit_ground, apex), method=method, dense_output=True
    )
    assert ours.status == theirs.status == 1
    for event in range(2):
        assert ours.t_events[event] == pytest.approx(theirs.t_events[event], rel=1e-4)
        assert ours.y_events[event].shape == theirs.y_events[event].shape
        assert ours.y_events[event] == pytest.approx(theirs.y_events[event], rel=1e-3, abs=1e-3)
    assert ours.t[-1] == ours.t_events[0][0] == pytest.approx(40.0, rel=1e-4)
    assert ours.sol(ours.t_events[1][0]) == pytest.approx([100.0, 0.0], rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(("direction", "expected"), [(1, [3, 7]), (-1, [1, 5]), (0, [1, 3, 5, 7])])
@pytest.mark.parametrize("terminal", [None, 2])
def test_directions_and_numbers_of_events(direction, expected, terminal):
    def level(t, y):
        return y[0]

    level.direction = direction
    if terminal:
        level.terminal = terminal
    theirs, ours = both(lambda t, y: [y[1], -y[0]], (0, 12), [1.0, 0.0], events=level, rtol=1e-8, atol=1e-8)
    assert ours.t_events[0] == pytest.approx(0.5 * math.pi * np.array(expected[:terminal]), rel=1e-6)
    assert ours.t_events[0] == pytest.approx(theirs.t_events[0], rel=1e-6) and ours.status == theirs.status


def test_an_event_that_is_zero_at_the_start_has_not_happened():
    ours = solve_ivp(upward_cannon, [0, 100], [0, 10], events=lambda t, y: y[0])
    assert ours.t_events[0] == pytest.approx([40.0])


def test_an_event_that_never_happens():
    theirs, ours = both(upward_cannon, [0, 1], [0, 10], events=[lambda t, y: y[0] + 1])
    assert len(ours.t_events[0]) == len(theirs.t_events[0]) == 0 and ours.status == 0


def test_lotka_volterra_with_arguments_and_dense_output():
    theirs, ours = both(
        lotka_volterra, [0, 15], [10, 5], args=(1.5, 1, 3, 1), dense_output=True, rtol=1e-9, atol=1e-9
    )
    times = np.linspace(0, 15, 300)
    assert ours.sol(times).shape == (2, 300) and ours.sol(0.3).shape == (2,)
    assert np.abs(ours.sol(times) - theirs.sol(times)).max() < 1e-5
    assert ours.sol.t_min == theirs.sol.t_min and ours.sol.t_max == theirs.sol.t_max


def test_arguments_reach_events_and_jacobian():
    def jac(t, y, rate):
        return [[-rate]]

    ours = solve_ivp(
        lambda t, y, rate: -rate * y, (0, 5), [1.0], args=(2.0,), events=lambda t, y, rate: y[0] - 1 / rate,
        method="Radau", jac=jac, rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    assert ours.t_events[0] == pytest.approx([0.5 * math.log(2.0)], rel=1e-6)


@pytest.mark.parametrize("method", ["RK45", "BDF"])
def test_complex_states(method):
    theirs, ours = both(exponential_decay, [0, 10], [2 + 1j], t_eval=[0, 1, 2, 4, 10], method=method)
    exact = (2 + 1j) * np.exp(-0.5 * ours.t)
    assert ours.y.dtype == theirs.y.dtype and np.abs(ours.y[0] - exact).max() < 1e-2


@pytest.mark.parametrize("method", ["RK45", "Radau"])
def test_vectorized_functions(method):
    shapes = []

    def fun(t, y):
        shapes.append(y.shape)
        return np.array([y[1], -y[0]])

    ours = solve_ivp(fun, (0, 1), [1.0, 0.0], method, vectorized=True, rtol=1e-8, atol=1e-8)
    assert ours.y[:, -1] == pytest.approx([math.cos(1.0), -math.sin(1.0)], abs=1e-6)
    assert (2, 1) in shapes and ((2, 2) in shapes) == (method == "Radau")


@pytest.mark.parametrize("method", METHODS)
def test_functions_that_cannot_be_traced(method):
    theirs, ours = both(brusselator_in_place, (0, 5), [1.5, 3.0], method=method, rtol=1e-8, atol=1e-8)
    assert ours.y[:, -1] == pytest.approx(theirs.y[:, -1], rel=1e-5)


def test_the_function_is_called_for_each_evaluation_with_arrays_of_its_own():
    seen = []

    def fun(t, y):
        assert type(t) is float and type(y) is np.ndarray
        seen.append((y, y.copy()))
        return -y

    solve_ivp(fun, (0, 1), [1.0, 2.0])  # the first solve of a size is compared with plain calls
    seen.clear()
    ours = solve_ivp(fun, (0, 1), [1.0, 2.0])
    assert len(seen) == ours.nfev
    assert all(np.array_equal(now, then) for now, then in seen)


def test_what_the_function_does_to_its_argument_changes_nothing():
    def fun(t, y):
        y *= -1.0
        return y

    assert solve_ivp(fun, (0, 1), [1.0], rtol=1e-8, atol=1e-8).y[0, -1] == pytest.approx(math.exp(-1.0))


@pytest.mark.parametrize(
    "jac",
    [
        None, jacobian_of_robertson, lambda t, y: scipy.sparse.csc_matrix(jacobian_of_robertson(t, y)),
    ],
    ids=["differences", "function", "sparse"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["Radau", "kvaerno5", "rosenbrock23"])
def test_stiff_problems(method, jac):
    tolerances = {"rtol": 1e-4, "atol": 1e-8} if method == "rosenbrock23" else {"rtol": 1e-6, "atol": 1e-10}
    ours = solve_ivp(robertson, (0, 1e3), [1, 0, 0], method=method, jac=jac, **tolerances)
    theirs = scipy.integrate.solve_ivp(robertson, (0, 1e3), [1, 0, 0], method="BDF", rtol=1e-9, atol=1e-13)
    assert ours.y[:, -1] == pytest.approx(theirs.y[:, -1], rel=1e-2 if method == "rosenbrock23" else 1e-4)
    assert ours.njev > 0 and ours.nlu >= ours.njev


def test_a_constant_jacobian():
    matrix = np.array([[-1e4, 1.0], [0.0, -1.0]])
    theirs, ours = both(
        lambda t, y: matrix @ y, (0, 5), [1.0, 1.0], "Radau", jac=matrix, rtol=1e-6, atol=1e-9
    )
    assert ours.y[1, -1] == pytest.approx(math.exp(-5.0), rel=1e-4)
    assert ours.njev == 1 and ours.nfev <= 1.05 * theirs.nfev


def test_differences_are_the_jacobian():
    from odegrad.solvers.plain_function import PlainFunction

    y = np.array([0.9, 3e-5, 0.1])
    found = PlainFunction(robertson, is_vectorized=False, jac=None, scale=1e-10).jacobian(0.0, y)
    assert found == pytest.approx(np.array(jacobian_of_robertson(0.0, y)), rel=1e-5, abs=1e-5)


def test_a_failure_has_the_status_and_what_was_reached():
    theirs, ours = both(lambda t, y: y * y, (0, 2), [1.0])
    assert ours.status == theirs.status == -1 and not ours.success
    assert "error test asks for a step" in ours.message and ours.t[-1] == pytest.approx(1.0, abs=1e-3)
    assert ours.y.shape == (1, len(ours.t))


def test_nan_is_a_failure():
    ours = solve_ivp(
        lambda t, y: np.full(1, math.nan if t > 0.5 else 1.0), (0, 1), [0.0], t_eval=[0.25, 0.75]
    )
    assert ours.status == -1 and "non-finite" in ours.message and list(ours.t) == [0.25]


@pytest.mark.parametrize("t_eval", [None, []])
def test_an_interval_of_length_zero(t_eval):
    theirs, ours = both(exponential_decay, (1.0, 1.0), [2.0, 3.0], t_eval=t_eval, dense_output=True)
    assert np.array_equal(ours.t, theirs.t) and ours.status == 0
    assert ours.y.shape == (2, len(ours.t)) and ours.sol(1.0) == pytest.approx([2.0, 3.0])


def test_dense_output_beyond_a_terminal_event_is_extrapolated():
    theirs, ours = both(upward_cannon, [0, 100], [0, 10], events=hit_ground, dense_output=True)
    assert ours.sol(41.0) == pytest.approx([10.0 * 41.0 - 0.25 * 41.0**2, 10.0 - 20.5], rel=1e-8)
    assert ours.sol(41.0) == pytest.approx(theirs.sol(41.0), rel=1e-8)


def test_steps_are_limited():
    ours = solve_ivp(exponential_decay, (0, 1), [1.0], max_step=0.1, first_step=0.01)
    steps = np.diff(ours.t)
    assert steps[0] == pytest.approx(0.01) and steps.max() <= 0.1 * (1 + 1e-12)


@pytest.mark.parametrize(
    "method", ["dopri5", "tsit5", "vern7", scipy.integrate.RK45, odegrad.solvers.TABLEAUS["bosh3"]]
)
def test_methods_by_other_names(method):
    ours = solve_ivp(exponential_decay, (0, 1), [1.0], method=method, rtol=1e-8, atol=1e-8)
    assert ours.y[0, -1] == pytest.approx(math.exp(-0.5), rel=1e-6)


def test_tolerances_of_each_component_and_none_absolute():
    ours = solve_ivp(exponential_decay, (0, 1), [1.0, 2.0], rtol=[1e-6, 1e-8], atol=0)
    assert ours.y[:, -1] == pytest.approx(math.exp(-0.5) * np.array([1.0, 2.0]), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "RK45", "jac": np.eye(1)}, "'jac' mean nothing to dopri5"),
        ({"steps": 3}, "'steps' mean nothing"),
        ({"rtoll": 1e-9}, "'rtoll' mean nothing to dopri5 and are ignored; did you mean 'rtol'"),
        ({"rtol": 1e-20}, "rtol is raised"),
    ],
)
def test_warnings_for_what_means_nothing(options, message):
    with pytest.warns(UserWarning, match=message):
        solve_ivp(exponential_decay, (0, 1), [1.0], **options)


def test_the_warning_of_stiffness_can_be_switched_off_as_it_says():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve_ivp(lambda t, y: -1e5 * (y - np.cos(t)), (0, 0.1), [0.0], warn_stiff=False)
    with pytest.warns(StiffnessWarning, match="warn_stiff=False"):
        solve_ivp(lambda t, y: -1e5 * (y - np.cos(t)), (0, 0.1), [0.0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "RK4"}, "`method` must be one of 'RK23'"),
        ({"t_span": 3}, "`t_span` must be two times"),
        ({"t_span": (0, math.nan)}, "`t_span` must be two finite times"),
        ({"y0": [[1.0]]}, "`y0` must have one axis"),
        ({"y0": ["a"]}, "`y0` must hold numbers"),
        ({"y0": [math.inf]}, "`y0` must be finite"),
        ({"t_eval": [[0.5]]}, "`t_eval` must have one axis"),
        ({"t_eval": [0.5, 2.0]}, "`t_eval` must lie in"),
        ({"t_eval": [0.5, 0.25]}, "`t_eval` must be strictly monotone"),
        ({"args": 3}, "`args` must be a tuple"),
        ({"atol": -1.0}, "`atol` must not be negative"),
        ({"atol": "1e-6", "rtol": None}, "`rtol` must be a number, or numbers .*; `atol` must be a number"),
        ({"first_step": 7.0}, "`first_step` = 7.0 is longer"),
        ({"first_step": "0.1"}, "`first_step` must be a positive number; got '0.1'"),
        ({"fun": 3}, "`fun` must be a function"),
        ({"max_step": -1.0}, "`max_step` must be a positive number"),
        ({"method": "BDF", "jac_sparsity": np.eye(1)}, "Jacobians are dense here"),
        ({"method": "Radau", "jac": np.eye(2)}, "`jac` must be a matrix of shape"),
        ({"fun": lambda t, y: [1.0, 2.0]}, "`fun` must return as many numbers as y"),
        ({"events": Event(hit_ground, jump=lambda t, y: y)}, "has a jump"),
        ({"events": 3}, "`events` must be a list"),
    ],
)
def test_wrong_arguments(wrong, message):
    given = {"fun": exponential_decay, "t_span": (0, 1), "y0": [1.0], **wrong}
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        solve_ivp(**given)


def test_what_the_function_raises_comes_out():
    def fun(t, y):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        solve_ivp(fun, (0, 1), [1.0])


def test_solves_within_solves_and_in_threads():
    def inner(rate):
        return solve_ivp(lambda t, y: -rate * y, (0, 1), [1.0], rtol=1e-8, atol=1e-8).y[0, -1]

    def outer(t, y):
        return inner(1.0) * y  # exp(-1) y

    found = {}

    def run(rate):
        found[rate] = inner(rate)

    threads = [threading.Thread(target=run, args=(rate,)) for rate in (1.0, 2.0, 3.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == pytest.approx({rate: math.exp(-rate) for rate in found}, rel=1e-6) and len(found) == 3
    assert solve_ivp(outer, (0, 1), [1.0]).y[0, -1] == pytest.approx(math.exp(math.exp(-1.0)), rel=1e-3)


def test_solves_of_one_size_share_a_program():
    from odegrad.solvers.compiled import _known

    solve_ivp(exponential_decay, (0, 1), [1.0, 2.0, 3.0])
    before = len(_known)
    solve_ivp(lambda t, y: y, (0, 1), [1.0, 2.0, 3.0])
    assert len(_known) == before


def test_the_result_is_a_dictionary_with_attributes():
    ours = solve_ivp(exponential_decay, (0, 1), [1.0])
    assert ours["t"] is ours.t and "nfev" in repr(ours) and "message" in dir(ours)
    with pytest.raises(AttributeError, match="has the fields t, y"):
        _ = ours.time


def test_no_warning_on_a_plain_problem():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert solve_ivp(exponential_decay, (0, 1), [1.0]).success


def test_failures_of_events_keep_their_name():
    with pytest.raises((SolveError, ArgumentError), match="must return a finite real number"):
        solve_ivp(exponential_decay, (0, 1), [1.0], events=lambda t, y: math.nan)
