"""Every mistake in a call of `odeint` is reported at once, by name, with what was got and what was expected."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from odegrad import grad, odeint
from odegrad.engine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ImpureDynamicsError,
    NotReachedError,
    TracedValueError,
)
from odegrad.solvers import METHODS, Radau5, Tableau
from odegrad.solvers.options import GRADIENTS
from odegrad.solvers.tableau import rationals

Y0 = np.ones(3)
EXECUTIONS = ("replay", "eager")


def decay(t, y):
    return -y


def refused(error, words, f=decay, y0=Y0, ts=(0.0, 1.0), params=None, **options):
    with pytest.raises(error, match=re.escape(words)):
        odeint(f, y0, ts, params, **options)


TIMES = {
    "one time": ([0.0], ArgumentError, "T >= 2; got shape (1,)"),
    "no array": (1.0, ArgumentError, "T >= 2; got shape ()"),
    "two axes": ([[0.0, 1.0]], ArgumentError, "T >= 2; got shape (1, 2)"),
    "equal": ([0.0, 0.5, 0.5], ArgumentError, "got ts[1] = 0.5 == ts[2] = 0.5"),
    "back and forth": ([0.0, 1.0, 0.5], ArgumentError, "got ts[1] = 1 then ts[2] = 0.5"),
    "nan": ([0.0, math.nan], ArgumentError, "`ts` must be finite; got ts[1] = nan"),
    "infinite": ([0.0, 1.0, math.inf], ArgumentError, "`ts` must be finite; got ts[2] = inf"),
    "text": ("abc", ArgumentTypeError, "`ts` must be an array of real times (T,); got 'abc'"),
    "none": (None, ArgumentTypeError, "`ts` must be an array of real times (T,); got None"),
    "complex": (np.array([0, 1j]), ArgumentTypeError, "`ts` must be an array of real times (T,)"),
}


@pytest.mark.parametrize("case", TIMES)
def test_output_times(case):
    ts, error, words = TIMES[case]
    refused(error, words, ts=ts)


STATES = {
    "integers": (np.array([1, 2]), ArgumentTypeError, "float32, float64, complex128; got y0: int64[2]"),
    "float16": (np.ones(2, np.float16), ArgumentTypeError, "got y0: float16[2]"),
    "booleans": (np.array([True]), ArgumentTypeError, "got y0: bool[1]"),
    "a list of numbers": ([1.0, 2.0], ArgumentTypeError, "got y0/0: float, y0/1: float. Convert it"),
    "text": ("abc", ArgumentTypeError, "got y0: str"),
    "two dtypes": (
        (np.ones(2), np.ones(1, np.float32)),
        ArgumentTypeError,
        "one dtype; got y0/0: f64[2], y0/1: f32[1]",
    ),
    "masked": (
        np.ma.masked_array([1.0, 2.0], [True, False]),
        ArgumentTypeError,
        "`y0` must be a plain numpy.ndarray; got a MaskedArray",
    ),
    "a record array in a tree": (
        {"a": np.ones(2).view(np.recarray)},
        ArgumentTypeError,
        "`y0/a` must be a plain",
    ),
    "nothing": (None, ArgumentError, "`y0` has no arrays in it"),
    "an empty tree": ({}, ArgumentError, "`y0` has no arrays in it"),
    "nan": (np.array([1.0, math.nan]), ArgumentError, "1 of 2 values NaN or infinite in y0"),
    "infinite leaf": ({"a": np.ones(1), "b": np.array([math.inf])}, ArgumentError, "infinite in y0/b"),
}


@pytest.mark.parametrize("case", STATES)
def test_initial_states(case):
    y0, error, words = STATES[case]
    refused(error, words, y0=y0)


NO_DENSE_OUTPUT = Tableau(
    name="heun21", order=2, c=rationals("0 1"), a=(rationals(""), rationals("1")), b=rationals("1/2 1/2"),
    embedded_order=1, b_embedded=rationals("1 0"), source="Heun's method and Euler's",
)  # fmt: skip


@pytest.mark.parametrize("tolerance", ["atol", "backward_atol"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_tolerance_that_the_dtype_of_the_state_cannot_hold(execution, tolerance):
    words = f"`{tolerance}` = 1e-60 is zero in the dtype of the state, float32"
    refused(ArgumentError, words, y0=np.ones(2, np.float32), execution=execution, **{tolerance: 1e-60})


def test_a_masked_array_among_the_parameters():
    params = {"w": np.ma.masked_array([1.0, 2.0, 3.0], [True, False, False])}
    words = "`params/w` must be a plain numpy.ndarray; got a MaskedArray"
    refused(ArgumentTypeError, words, f=lambda t, y, p: p["w"] * y, params=params)


OPTIONS = {
    "rtol zero": ({"rtol": 0}, "`rtol` must be a positive number; got 0"),
    "rtol negative": ({"rtol": -1e-3}, "`rtol` must be a positive number; got -0.001"),
    "rtol nan": ({"rtol": math.nan}, "`rtol` must be a positive number; got nan"),
    "rtol infinite": ({"rtol": math.inf}, "`rtol` must be a positive number; got inf"),
    "rtol text": (
        {"rtol": "1e-3"},
        "`rtol` must be a positive number, or an array or a tree of them; got '1e-3'",
    ),
    "rtol yes": ({"rtol": True}, "`rtol` must be a positive number; got True"),
    "atol zero": ({"atol": 0.0}, "`atol` must be a positive number; got 0.0"),
    "backward": ({"backward_rtol": -1.0}, "`backward_rtol` must be a positive number; got -1.0"),
    "method": ({"method": "dopri"}, "got 'dopri'. Did you mean 'dopri5'?"),
    "method class": ({"method": Radau5}, "Did you mean Radau5()?"),
    "method none": (
        {"method": None},
        f"`method` must be one of {', '.join(map(repr, METHODS))}; got None",
    ),
    "gradient": ({"gradient": "disrete"}, "got 'disrete'; did you mean 'discrete'?"),
    "keep": ({"keep": "nne"}, "`keep` must be one of 'auto', 'all', 'none'; got 'nne'; did you mean 'none'?"),
    "execution": ({"execution": "eeger"}, "got 'eeger'; did you mean 'eager'?"),
    "max_steps zero": ({"max_steps": 0}, "`max_steps` must be a positive integer; got 0"),
    "max_steps fraction": ({"max_steps": 1.5}, "`max_steps` must be a positive integer; got 1.5"),
    "keep_bytes": ({"keep_bytes": -1}, "`keep_bytes` must be a non-negative integer; got -1"),
    "max_step": ({"max_step": 0.0}, "`max_step` must be a positive number; got 0.0"),
    "first_step": ({"first_step": -0.1}, "`first_step` must be a positive number; got -0.1"),
    "step_size": ({"step_size": 0.1}, "`step_size` is for methods with fixed steps; dopri5 chooses its own"),
    "max_step of fixed steps": (
        {"method": "rk4", "max_step": 0.1},
        "`max_step` is for methods that choose their steps; rk4 takes those of `step_size` or `grid`",
    ),
    "control of fixed steps": (
        {"method": "adams_bashforth", "first_step": 0.1, "controller": "pi"},
        "`first_step`, `controller` are for methods that choose their steps; adams_bashforth takes those of",
    ),
    "step_size and grid": ({"method": "rk4", "step_size": 0.1, "grid": [0, 1]}, "exclude each other"),
    "callback": ({"callback": 3}, "`callback` must be a function of a StepInfo; got 3"),
    "controller": ({"controller": 0.9}, "a PIController or a FilterController; got 0.9"),
    "grid ends": ({"grid": [0.0, 0.5]}, "from ts[0] = 0 to ts[-1] = 1; got a grid from 0 to 0.5"),
    "grid order": ({"grid": [0.0, 0.7, 0.5, 1.0]}, "to ts[-1] = 1; got grid[1] = 0.7 then grid[2] = 0.5"),
    "grid with a duplicate": ({"grid": [0.0, 0.5, 0.5, 1.0]}, "got grid[1] = 0.5 == grid[2] = 0.5"),
    "grid nan": ({"grid": [0.0, math.nan, 1.0]}, "`grid` must be finite times, shape (N + 1,)"),
    "grid too long": ({"grid": np.linspace(0, 1, 11), "max_steps": 9}, "10 steps, more than `max_steps` = 9"),
    "more output times than max_steps": (
        {"ts": np.linspace(0, 1, 11), "method": "euler", "max_steps": 9},
        "from each output time to the next, 10 of them, more than `max_steps` = 9",
    ),
    "step_size too small": (
        {"method": "rk4", "step_size": 1e-12},
        "`step_size` = 1e-12 divides the interval [0, 1] into 1e+12 steps, more than `max_steps` = 100000",
    ),
    "step_size so small that the number of steps overflows": (
        {"method": "euler", "step_size": 5e-324},
        "into inf steps, more than `max_steps` = 100000",
    ),
    "no dense output": (
        {"method": NO_DENSE_OUTPUT, "ts": [0.0, 0.5, 1.0]},
        "`ts` must be two times, since heun21 has no dense output; got 3",
    ),
    "grid without an output": (
        {"grid": [0.0, 0.4, 1.0], "method": "rk4", "ts": [0, 0.5, 1]},
        "0.5 is not in it",
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options(case):
    options, words = OPTIONS[case]
    refused(ArgumentError, words, **options)


def test_a_grid_that_is_no_array():
    refused(ArgumentTypeError, "`grid` must be an array of times (N + 1,); got 'abc'", grid="abc")


def test_several_mistakes_come_in_one_message():
    with pytest.raises(ArgumentError, match="(?s)gradient.*rtol.*max_steps"):
        odeint(decay, Y0, [0, 1], rtol=-1, gradient="x", max_steps=0)


def test_an_unknown_option():
    with pytest.raises(TypeError, match="unexpected keyword argument 'tol'"):
        odeint(decay, Y0, [0, 1], tol=1e-3)


@pytest.mark.parametrize("f", [3, None, np.ones(3)])
def test_dynamics_that_are_no_function(f):
    refused(ArgumentTypeError, f"`f` must be a function f(t, y, params); got {type(f).__name__}", f=f)


SLOPES = {
    "shape": (
        lambda t, y: y[:2],
        ArgumentError,
        "must have the shape of y; got f: f64[2], expected float64[3]",
    ),
    "sum": (lambda t, y: np.sum(y), ArgumentError, "got f: f64[], expected float64[3]"),
    "number": (lambda t, y: t, ArgumentError, "got f: float, expected float64[3]. f takes the time first"),
    "dtype": (lambda t, y: y.astype(np.float32), ArgumentTypeError, "the dtype of y, float64; got f: f32[3]"),
    "nothing": (lambda t, y: None, ArgumentTypeError, "structure of y; got nothing, expected y"),
    "list": (
        lambda t, y: [y, y],
        ArgumentTypeError,
        "expected y. Join components into one array with np.stack",
    ),
    "aux unasked": (lambda t, y: (-y, y), ArgumentTypeError, "got f/0: f64[3], f/1: f64[3], expected y"),
}


@pytest.mark.parametrize("case", SLOPES)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_slopes_that_do_not_look_like_the_state(case, execution):
    f, error, words = SLOPES[case]
    refused(error, words, f=f, execution=execution)


def test_missing_aux():
    refused(ArgumentTypeError, "with has_aux=True f must return (slope, aux); got f: f64[3]", has_aux=True)


def test_a_float64_constant_among_float32():
    refused(
        ArgumentTypeError,
        "make constants of y.dtype",
        f=lambda t, y: y * np.ones(3),
        y0=np.ones(3, np.float32),
    )


def test_a_numpy_scalar_among_float32():
    with pytest.raises(
        ArgumentTypeError, match="test_bad_input.py:[0-9]+ would become float64; use a Python number"
    ):
        odeint(lambda t, y: y * np.sqrt(2.0), np.ones(3, np.float32), [0, 1])


def branch_on_state(t, y):
    return -y if y[0] > 0 else y


def branch_on_time(t, y):
    return -y if t > 0.5 else y


def float_of_state(t, y):
    return float(y[0]) * y


def math_of_time(t, y):
    return math.sin(t) * y


def array_of_state(t, y):
    return np.array([y[1], -y[0], y[2]])


UNTRACEABLE = {
    branch_on_state: r"a branch \(bool\)",
    branch_on_time: r"a branch \(bool\)",
    float_of_state: r"float\(\)",
    math_of_time: r"float\(\)",
    array_of_state: "a conversion to numpy.ndarray",
}


@pytest.mark.parametrize("f", UNTRACEABLE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_what_a_trace_cannot_see_is_refused_with_its_line(f, execution):
    line = f.__code__.co_firstlineno + 1
    with pytest.raises(
        TracedValueError, match=rf"{UNTRACEABLE[f]} of a traced value.*test_bad_input.py:{line}:"
    ):
        odeint(f, Y0, [0.0, 1.0], execution=execution)


def multiply_in_place(t, y):
    y *= -1
    return y


def assign_in_place(t, y):
    y[0] = 0
    return y


def write_with_out(t, y):
    np.negative(y, out=y)
    return y


@pytest.mark.parametrize("f", [multiply_in_place, assign_in_place, write_with_out], ids=lambda f: f.__name__)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_writing_in_place_is_refused_and_leaves_y0_alone(f, execution):
    y0 = np.ones(3)
    with pytest.raises(TracedValueError, match="in.place"):
        odeint(f, y0, [0.0, 1.0], execution=execution)
    assert np.array_equal(y0, np.ones(3))


class MineError(Exception):
    """Not of the package."""


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("n_calls", [0, 1])
def test_what_f_raises_arrives_unchanged(execution, n_calls):
    raised = MineError("mine")
    calls = []

    def f(t, y):
        if len(calls) == n_calls:
            raise raised
        calls.append(t)
        return np.cos(y) * 0.7 - 0.3 * y + 1.0 / (2.0 + y * y)

    with pytest.raises(MineError) as caught:
        odeint(f, Y0, [0.0, 1.0], execution=execution)
    assert caught.value is raised


def random_slope():
    rng = np.random.default_rng(0)
    return lambda t, y: -y * rng.normal(size=3) + np.sin(y) * 0.11


def counter():
    calls = [0]

    def f(t, y):
        calls[0] += 1
        return -y * calls[0] + np.cos(y) * 0.12

    return f


def different_for_arrays():
    return lambda t, y: np.tanh(y * 0.13) if isinstance(y, np.ndarray) else -np.tanh(y * 0.13)


@pytest.mark.parametrize("make", [random_slope, counter, different_for_arrays], ids=lambda m: m.__name__)
def test_impure_dynamics(make):
    with pytest.raises(ImpureDynamicsError, match="must be a pure function.*execution='eager'") as caught:
        odeint(make(), Y0, [0.0, 1.0])
    assert caught.value.distance > 0


@pytest.mark.parametrize("f", [lambda t, y, p: -y, lambda: None])
def test_a_wrong_number_of_arguments_is_pythons_own_error(f):
    with pytest.raises(TypeError, match="positional argument"):
        odeint(f, Y0, [0.0, 1.0])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_gradient_of_what_the_solution_does_not_depend_on(gradient):
    with pytest.raises(NotReachedError, match="nothing that is differentiated reaches the result: 0/w"):
        grad(lambda p: np.sum(odeint(lambda t, y, p: -y, Y0, [0, 1], p, gradient=gradient).ys))(
            {"w": np.ones(2)}
        )


def test_options_that_are_remembered_tell_true_from_one():
    odeint(decay, Y0, [0, 1], max_steps=1, method="euler")
    with pytest.raises(ArgumentError, match="`max_steps` must be a positive integer; got True"):
        odeint(decay, Y0, [0, 1], max_steps=True, method="euler")
