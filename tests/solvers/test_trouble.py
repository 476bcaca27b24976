"""What a failed solve hands over, and dynamics, states and times at the edge of what floats can do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from odegrad import NonFiniteDynamics, StepSizeUnderflow, TooManySteps, grad, odeint
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, SolveError
from odegrad.engine.trace import base_value
from odegrad.solvers import METHODS as ALL_METHODS
from odegrad.solvers.dynamics import StateLayout
from odegrad.solvers.failures import component_name
from odegrad.solvers.options import GRADIENTS
from solving import METHODS

EXECUTIONS = ("replay", "eager")
SPANS = [(0.0, 3.0), (3.0, 0.0)]


def failure(f, y0, ts, error=SolveError, **options):
    with pytest.raises(error) as caught:
        odeint(f, y0, ts, **options)
    return caught.value


# --- what a failure carries -------------------------------------------------------------------------------------------


def two_fates(t, y):
    """The third value of b blows up at t = 1; nothing else happens."""
    grows = np.array([[0.0, 0.0, 1.0]])
    return {"a": -y["a"], "b": grows * y["b"] ** 2}


TREE = {"a": np.ones(2), "b": np.ones((1, 3))}


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_failure_names_the_component_at_fault(execution):
    error = failure(two_fates, TREE, (0.0, 2.0), StepSizeUnderflow, execution=execution)
    assert error.component == "y/b[0, 2]" and error.index == 4 and "largest in y/b[0, 2]" in str(error)


def test_a_failure_names_the_first_component_that_is_not_finite():
    error = failure(
        lambda t, y: np.stack([-y[0], np.log(1.0 - t)]), np.ones(2), (0.0, 2.0), NonFiniteDynamics
    )
    assert error.component == "y[1]" and "the first in y[1]" in str(error)


def test_a_state_without_axes_is_named_too():
    assert failure(lambda t, y: y * y, np.array(1.0), (0.0, 2.0)).component == "y"


@pytest.mark.parametrize("options", [{}, {"norm": "max"}, {"max_steps": 30}, {"min_step": 1e-3}], ids=str)
def test_a_failure_carries_its_numbers(options):
    error = failure(lambda t, y: y * y, np.ones(2), (0.0, 2.0), **options)
    assert 0.0 < error.t <= 1.0 + 1e-4 and error.h > 0.0 and error.nfe == error.stats.nfe > 10
    assert error.error_norm > 1.0 or isinstance(error, TooManySteps)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_the_last_good_state_is_that_at_the_last_accepted_time(execution):
    error = failure(two_fates, TREE, (0.0, 2.0), execution=execution, save="steps")
    last = error.solution.ys
    assert np.array_equal(error.y["b"], last["b"][-1]) and np.array_equal(error.y["a"], last["a"][-1])
    assert error.t == error.solution.ts[-1]


def test_the_component_of_a_backward_solve_has_a_number():
    """Its state is [y, a], which has no layout of the user's."""
    assert component_name(None, 3) == "entry 3"


def test_every_component_has_the_name_that_indexing_gives_it():
    layout = StateLayout.of(TREE)
    names = [component_name(layout, index) for index in range(layout.size)]
    assert names == ["y/a[0]", "y/a[1]", "y/b[0, 0]", "y/b[0, 1]", "y/b[0, 2]"]


# --- solves that are ended from outside -------------------------------------------------------------------------------


class Ended(Exception):
    """Raised by f or a callback."""


def ending_at(error, n_calls):
    calls = []

    def f(t, y):
        calls.append(t)
        if len(calls) == n_calls:
            raise error
        return -y

    return f


@pytest.mark.parametrize("error", [KeyboardInterrupt, Ended("enough"), SystemExit])
def test_what_ends_a_solve_carries_what_it_had_reached(error):
    with pytest.raises(BaseException) as caught:  # noqa: B017, PT011
        odeint(ending_at(error, 30), np.ones(2), [0.0, 0.01, 0.1, 50.0], execution="eager", dense=True)
    part = caught.value.solution
    assert part.status == type(caught.value).__name__ and part.stats.nfe < 30 and len(part.ts) == 3
    assert np.allclose(part.ys, np.exp(-part.ts)[:, None], rtol=1e-4) and part.dense.t1 == part.grid[-1] > 0.1


@pytest.mark.parametrize("method", [name for name in ALL_METHODS if name != "leapfrog"])
def test_what_ends_a_solve_carries_the_state_where_it_stood(method):
    """Where there is no output time on the way, the partial solution is the start alone."""
    steps = {} if ALL_METHODS[method].is_adaptive else {"step_size": 1e-2}
    with pytest.raises(KeyboardInterrupt) as caught:
        odeint(
            ending_at(KeyboardInterrupt, 100),
            np.ones(2),
            [0.0, 50.0],
            method=method,
            execution="eager",
            **steps,
        )
    ended = caught.value
    assert ended.t == ended.solution.grid[-1] > 0.01
    assert np.allclose(ended.y, np.exp(-ended.t), rtol=0.02)


def test_what_an_exception_has_of_its_own_is_kept():
    error = Ended("enough")
    error.y = "mine"
    with pytest.raises(Ended) as caught:
        odeint(ending_at(error, 30), np.ones(2), [0.0, 50.0], execution="eager")
    assert caught.value.y == "mine" and caught.value.t > 0


def test_ctrl_c_in_a_callback():
    def callback(info):
        if info.t > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        odeint(lambda t, y: -y, np.ones(2), (0.0, 3.0), callback=callback, save="steps")
    assert caught.value.solution.ts[-1] > 0.5


def test_what_f_raises_says_how_far_the_solve_was():
    with pytest.raises(Ended) as caught:
        odeint(ending_at(Ended("enough"), 30), np.ones(2), [0.0, 3.0], execution="eager")
    assert str(caught.value) == "enough"
    (note,) = caught.value.__notes__
    assert "odeint stood at t=" in note and f"nfe {caught.value.solution.stats.nfe}" in note


def test_what_the_first_call_of_f_raises_says_so():
    with pytest.raises(Ended) as caught:
        odeint(ending_at(Ended("at once"), 1), np.ones(2), [0.25, 3.0])
    assert caught.value.__notes__ == ["odeint: raised by the first call of f, at t=0.25"]


def test_an_exception_that_takes_no_attributes_arrives_as_it_is():
    class Sealed(Exception):
        def __setattr__(self, name, value):
            if name == "solution":
                raise AttributeError(name)
            super().__setattr__(name, value)

    with pytest.raises(Sealed):
        odeint(ending_at(Sealed(), 30), np.ones(2), [0.0, 3.0], execution="eager")


def test_a_solve_after_one_that_was_ended_is_unharmed():
    with pytest.raises(KeyboardInterrupt):
        odeint(ending_at(KeyboardInterrupt, 30), np.ones(2), [0.0, 3.0], execution="eager")
    assert np.allclose(odeint(lambda t, y: -y, np.ones(2), [0.0, 3.0]).ys[-1], math.exp(-3.0), rtol=1e-4)


# --- where f is called ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"first_step": 100.0}, {"rtol": 1e-2}, {"rtol": 1e-10}, {"breakpoints": [0.1, 1.0]}, {"jump_ts": [1.5]},
    {"gradient": "reversible"}, {"max_step": 0.3}, {"dense": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("span", [*SPANS, (0.1, 0.1 + 1e-9), (1e6, 1e6 + 0.1), (-0.7, 1e-300)])
def test_f_is_never_called_outside_of_the_interval(span, options):
    times = []

    def f(t, y):
        times.append(float(base_value(t)))
        return np.cos(3.0 * t) - y

    odeint(f, np.ones(2), span, execution="eager", **options)
    assert min(span) <= min(times) and max(times) <= max(span)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_calls_f_outside_of_the_interval(method):
    times = []

    def f(t, y):
        times.append(float(base_value(t)))
        return np.cos(3.0 * t) - y

    odeint(f, np.ones(2), (0.1, 0.9), method=method, execution="eager")
    assert min(times) >= 0.1 and max(times) <= 0.9


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_no_gradient_method_calls_f_outside_of_the_interval(gradient):
    """sqrt((t - 0.1)(0.9 - t)) is NaN anywhere else."""

    def loss(y):
        ys = odeint(lambda t, y: np.sqrt((t - 0.1) * (0.9 - t)) - y, y, (0.1, 0.5, 0.9), gradient=gradient).ys
        return np.sum(ys[-1])

    assert np.allclose(grad(loss)(np.ones(2)), math.exp(-0.8), rtol=1e-3)


def test_the_probe_does_not_look_beyond_a_breakpoint():
    times = []

    def f(t, y):
        times.append(float(base_value(t)))
        return 1e-3 * np.ones(2) + 0.0 * y

    odeint(f, np.ones(2), (0.0, 1.0), breakpoints=[1e-4], execution="eager")
    assert times[1] <= 1e-4  # plain Hairer would probe at t = 10


# --- values at the edge -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("scale", [1e300, 1e-300, 5e-324, 1e150])
def test_huge_and_tiny_states(scale, execution):
    """Linear dynamics: with atol scaled along, the solution scales; below atol nothing needs a step."""
    sol = odeint(lambda t, y: -y, np.array([scale, -scale]), (0.0, 1.0), execution=execution)
    assert np.allclose(sol.ys[-1] / scale, [math.exp(-1.0), -math.exp(-1.0)], rtol=1e-3) or scale < 1e-307
    assert np.isfinite(sol.ys).all() and np.abs(sol.ys).max() <= scale


@pytest.mark.parametrize("method", [name for name, known in ALL_METHODS.items() if known.is_adaptive])
def test_huge_states_by_every_adaptive_method(method):
    sol = odeint(lambda t, y: -y, np.full(2, 1e300), (0.0, 1.0), method=method, rtol=1e-4)
    assert np.allclose(sol.ys[-1] / 1e300, math.exp(-1.0), rtol=1e-2)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_huge_and_tiny_times(scale, start):
    ts = scale * np.array([start, start + 0.5, start + 1.0])
    sol = odeint(lambda t, y: -y / scale, np.ones(1), ts)
    assert np.allclose(sol.ys[:, 0], np.exp([0.0, -0.5, -1.0]), rtol=1e-4)


def test_slopes_that_overflow_the_norm():
    error = failure(lambda t, y: 1e200 * y, np.ones(2), (0.0, 1.0))
    assert isinstance(error, (NonFiniteDynamics, StepSizeUnderflow, TooManySteps))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2, 2)])
@pytest.mark.parametrize(
    "options", [{}, {"norm": "max"}, {"norm": "leaves"}, {"rtol": np.ones(1)}, {"save": "steps"}]
)
def test_an_empty_state(shape, options):
    sol = odeint(lambda t, y: -y, np.ones(shape), (0.0, 1.0), **options)
    assert sol.ys.shape == (len(sol.ts), *shape) and sol.grid[-1] == 1.0


def test_an_empty_array_among_others():
    y0 = {"a": np.ones(2), "none": np.ones((0, 3))}
    sol = odeint(lambda t, y: {"a": -y["a"], "none": y["none"]}, y0, (0.0, 1.0), norm="leaves", dense=True)
    assert sol.dense(0.5)["none"].shape == (0, 3) and np.allclose(sol.ys["a"][-1], math.exp(-1.0), rtol=1e-4)


@pytest.mark.parametrize("ts", [[0.5, 0.5], [0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
def test_an_interval_of_no_length_and_duplicates_are_refused(ts):
    with pytest.raises(ArgumentError, match=r"`ts` must be strictly monotone.* == ts\["):
        odeint(lambda t, y: -y, np.ones(1), ts)


def test_neighbouring_floats_are_an_interval():
    t = math.nextafter(1.0, 2.0)
    assert odeint(lambda t, y: -y, np.ones(1), [1.0, t]).grid.tolist() == [1.0, t]


def changing(t, y, calls):
    """float32 from the tenth call on."""
    calls.append(t)
    return -y if len(calls) < 10 else (-y).astype(np.float32)


def test_dynamics_that_change_their_dtype_are_refused_where_they_do():
    calls = []
    with pytest.raises(ArgumentTypeError, match="must have the dtype of y, float64") as caught:
        odeint(lambda t, y: changing(t, y, calls), np.ones(2), (0.0, 9.0), execution="eager")
    assert caught.value.solution.stats.n_accepted > 0
