"""Programs: printing, derivative programs, dead code, shared steps, keys, hidden inputs."""

import math
import weakref

import numpy as np
import pytest
from odegrad import odeint
from odegrad.engine import grad, ops, program, vjp
from odegrad.engine.errors import TracedValueError
from odegrad.engine.program import optimise, record, trace
from odegrad.engine.trace import Var
from oracles import EPS64, assert_close, norm
from replaying import joint_program

RNG = np.random.default_rng(4)
Y, W, B = RNG.standard_normal((4, 2)), RNG.standard_normal((2, 5)), RNG.standard_normal(5)


def layer(t, y, w, b):
    return np.tanh(y @ w + b) * t


def names(program):
    return [step.op.name for step in program.steps]


def single(a):
    return a.astype(np.float32)


# --- printing -------------------------------------------------------------------------------------------------------


def test_program_prints_as_documented():
    program = trace(lambda t, y, w, b: np.tanh(y @ w + b), 0.0, single(Y), single(W), single(B))
    assert str(program).splitlines()[1:] == [
        "    4 = matmul 1 2          f32[4,5]",
        "    5 = add    4 3          f32[4,5]",
        "    6 = tanh   5            f32[4,5]",
        "out 6",
    ]
    assert str(program).splitlines()[0] == "in  0:0 number   1:1 f32[4,2]   2:2 f32[2,5]   3:3 f32[5]"


def test_arguments_are_named_by_their_path():
    program = trace(lambda y, p: y @ p["w"] + p["b"][0], Y, {"w": W, "b": [B]})
    assert program.names == ("0", "1/b/0", "1/w")


def test_static_settings_and_captured_values_are_printed():
    text = str(trace(lambda y: np.sum(y, axis=1) * 3.0 + B[:4], Y))
    assert "axes=(1,)" in text and "hidden  " in text and "number" in text and "f64[4]" in text


# --- running --------------------------------------------------------------------------------------------------------


def test_interpreted_program_gives_the_functions_values():
    recording = record(layer, [0.5, Y, W, B], "tywb")
    other = [0.7, 2 * Y, -W, B + 1]
    assert_close(recording.program.run(other)[0], layer(*other), scale=0.0, tol=0.0)


def test_recording_evaluates_once_and_returns_the_values():
    calls = []
    recording = record(lambda y: calls.append(1) or np.sin(y), [Y], "y")
    assert len(calls) == 1
    assert_close(recording.values[0], np.sin(Y), scale=0.0, tol=0.0)


def test_result_may_be_a_tree():
    recording = record(lambda y: {"b": y + 1, "a": [y * 2]}, [Y], "y")
    assert set(recording.result) == {"a", "b"}
    assert [v.tolist() for v in recording.values] == [(Y * 2).tolist(), (Y + 1).tolist()]


@pytest.mark.parametrize(
    "f", [lambda y: y, lambda y: 1.0, lambda y: B], ids=["argument", "number", "captured"]
)
def test_result_without_any_step(f):
    recording = record(f, [Y], "y")
    found = recording.program.run([Y], recording.hidden)[0]
    assert recording.program.steps == () and np.array_equal(found, f(Y))


def test_program_can_be_differentiated_through():
    recording = record(layer, [0.5, Y, W, B], "tywb")
    through = grad(lambda w: np.sum(recording.program.run([0.5, Y, w, B])[0] ** 2))(W)
    direct = grad(lambda w: np.sum(layer(0.5, Y, w, B) ** 2))(W)
    assert_close(through, direct, scale=norm(direct), tol=4 * EPS64)


# --- captured values ------------------------------------------------------------------------------------------------


def test_captured_values_are_hidden_inputs_in_order():
    recording = record(lambda y: y * B[:2] + 2.5, [Y], "y")
    assert [np.shape(v) for v in recording.hidden] == [(2,), ()]
    assert len(recording.program.hidden) == 2


def test_one_captured_array_is_one_hidden_input():
    assert len(record(lambda y: y * B[0:1] + 0, [Y], "y").hidden) == 2
    scale = B[:2]
    assert len(record(lambda y: (y * scale + scale) / scale, [Y], "y").hidden) == 1


def test_hidden_inputs_take_new_values():
    recording = record(lambda y: y * B[:2] + 2.5, [Y], "y")
    assert recording.program.run([np.ones(2)], [np.array([1.0, 2.0]), 10.0])[0].tolist() == [11.0, 12.0]


def test_captured_var_of_an_outer_trace_is_a_hidden_input():
    def outer(w):
        recording = record(lambda y: np.tanh(y @ w), [Y], "y")
        assert type(recording.hidden[0]) is Var and type(recording.values[0]) is np.ndarray
        return np.sum(recording.program.run([Y], recording.hidden)[0])

    assert_close(grad(outer)(W), grad(lambda w: np.sum(np.tanh(Y @ w)))(W), scale=norm(Y), tol=4 * EPS64)


class Held(np.ndarray):
    """An array that can be referred to weakly."""


def test_program_does_not_hold_on_to_captured_arrays():
    def make():
        captured = np.ones(2).view(Held)
        return record(lambda y: y * captured, [Y], "y").program.vjp([0]), weakref.ref(captured)

    program, captured = make()
    assert captured() is None and names(program)


# --- derivative programs --------------------------------------------------------------------------------------------


def test_vjp_program_equals_the_transform():
    recording = record(layer, [0.5, Y, W, B], "tywb")
    ybar = RNG.standard_normal((4, 5))
    found = recording.program.vjp(recording.program.inputs[1:]).run([0.5, Y, W, B, ybar])
    value, pull_back = vjp(lambda *a: layer(0.5, *a), Y, W, B)
    for result, expected in zip(found, [value, *pull_back(ybar)], strict=True):
        assert_close(result, expected, scale=norm(expected), tol=4 * EPS64)


def test_vjp_program_with_respect_to_time():
    recording = record(layer, [0.5, Y, W, B], "tywb")
    tbar = recording.program.vjp([0]).run([0.5, Y, W, B, np.ones((4, 5))])[1]
    assert_close(tbar, np.sum(np.tanh(Y @ W + B)), scale=10.0, tol=4 * EPS64)


def test_vjp_program_with_respect_to_a_captured_array():
    recording = record(lambda y: y @ W, [Y], "y")
    program = recording.program.vjp(recording.program.hidden)
    wbar = program.run([Y, np.ones((4, 5))], recording.hidden)[1]
    assert_close(wbar, Y.T @ np.ones((4, 5)), scale=norm(Y), tol=4 * EPS64)


def test_vjp_program_gives_zeros_for_what_is_not_reached():
    recording = record(lambda y, w: np.sin(y), [Y, W], "yw")
    assert recording.program.vjp([1]).run([Y, W, Y])[1].tolist() == np.zeros(W.shape).tolist()


def test_vjp_program_of_the_first_results_only():
    program = trace(lambda y: (np.sin(y), np.cos(y)), Y).vjp([0], n_results=1)
    sine, cosine, ybar = program.run([Y, np.ones(Y.shape)])
    for found, expected in ((sine, np.sin(Y)), (cosine, np.cos(Y)), (ybar, np.cos(Y))):
        assert_close(found, expected, scale=1.0, tol=2 * EPS64)


def test_vjp_program_can_be_differentiated_again():
    cubed = trace(lambda y: y**3, np.array([2.0]))
    first = cubed.vjp([0])  # (y, bar) -> y**3, 3 y**2 bar
    second = first.vjp([0]).run([np.array([2.0]), np.array([1.0]), np.array([0.0]), np.array([1.0])])
    assert float(second[2][0]) == 12.0


@pytest.mark.parametrize(
    "f",
    [
        lambda y: ops.softmax_cross_entropy(y[:, :1], np.zeros(4, int)),
        lambda y: np.take(y[:, :1], np.array([0, 0]), axis=1).sum(),
        lambda y: np.sum(np.log(y * y) / (y - 1.0) + np.sqrt(y * y)),
    ],
    ids=["labels", "indices", "singular at one"],
)
def test_placeholder_values_of_the_derivative_trace_do_no_harm(f):
    recording = record(f, [Y], "y")
    found = recording.program.vjp([0]).run([Y, np.array(1.0)], recording.hidden)[1]
    expected = grad(f)(Y)
    assert_close(found, expected, scale=norm(expected), tol=16 * EPS64)


# --- optimisation ---------------------------------------------------------------------------------------------------


def test_dead_steps_are_removed():
    def f(y):
        np.exp(y * 3.0)
        return np.sin(y)

    assert names(optimise(trace(f, Y))) == ["sin"]


def test_equal_steps_are_shared():
    program = optimise(trace(lambda y: np.sin(y) * np.cos(y) + np.sin(y) * np.cos(y), Y))
    assert sorted(names(program)) == ["add", "cos", "mul", "sin"]


def test_steps_with_other_settings_are_not_shared():
    program = optimise(trace(lambda y: np.sum(y, axis=0)[0] + np.sum(y, axis=1)[0], Y))
    assert names(program).count("sum") == 2


@pytest.mark.parametrize("exponent, steps", [(3, ["square", "mul"]), (4, ["square", "square"])])
def test_small_powers_become_products(exponent, steps):
    assert names(optimise(trace(lambda y: y**exponent, Y))) == steps


def test_derivative_of_a_cube_reuses_the_square():
    assert names(trace(lambda y: y**3, Y).vjp([0])).count("square") == 1


def test_tanh_is_evaluated_once_for_value_and_derivative():
    assert names(joint_program(trace(layer, 0.5, Y, W, B))).count("tanh") == 1


@pytest.mark.parametrize(
    "f", [lambda y: np.sin(y) + np.sin(y), lambda y: y**3 - y**4 + y**2, lambda y: (y @ W) @ W.T]
)
def test_optimised_program_gives_the_same_values(f):
    recording = record(f, [Y], "y")
    plain, better = (
        p.run([Y], recording.hidden)[0] for p in (recording.program, optimise(recording.program))
    )
    assert_close(better, plain, scale=norm(plain), tol=4 * EPS64)


# --- keys -----------------------------------------------------------------------------------------------------------


def scaled(factor, offset):
    return trace(lambda y: y * factor + offset, Y).key


def test_key_does_not_depend_on_captured_values():
    assert scaled(B[:2], 1.0) == scaled(2 * B[:2], 7.5)


def test_key_does_not_depend_on_the_point():
    assert trace(layer, 0.5, Y, W, B).key == trace(layer, 0.9, 2 * Y, -W, 0 * B).key


KEYS = [
    lambda: scaled(B[:2], 1.0),
    lambda: scaled(B[:1], 1.0),
    lambda: scaled(single(B[:2]), 1.0),
    lambda: scaled(2.0, 1.0),
    lambda: scaled(2.0, B[:2]),
    lambda: trace(lambda y: y * 2.0 - 1.0, Y).key,
    lambda: trace(lambda y: 2.0 * y + 1.0, Y).key,
    lambda: trace(lambda y: y**3, Y).key,
    lambda: trace(lambda y: y**5, Y).key,
    lambda: trace(lambda y: y.sum(axis=0), Y).key,
    lambda: trace(lambda y: y.sum(axis=1), Y).key,
    lambda: trace(lambda y: y[:1], Y).key,
    lambda: trace(lambda y: y[:2], Y).key,
    lambda: trace(lambda y: y[:2], Y[:3]).key,
    lambda: trace(lambda y: y[:2], single(Y)).key,
    lambda: trace(lambda y: (y[:2], y), Y).key,
]


def test_other_structures_have_other_keys():
    assert len({make() for make in KEYS}) == len(KEYS)


# --- time is a weak scalar ------------------------------------------------------------------------------------------

WEAK = [
    lambda t: np.sin(t) + math.pi,
    lambda t: 1 / (1 + t) ** 2 - t**0.5,
    lambda t: np.exp(-t) * 2**t,
    lambda t: ops.where(t > 0.5, t, 1.0),
    lambda t: np.maximum(t, 0.0) + abs(t) + np.clip(t, 0.0, 1.0),
]


@pytest.mark.parametrize("f", WEAK)
def test_functions_of_time_take_the_dtype_of_the_state(f):
    recording = record(lambda t, y: y * f(t), [0.3, single(Y)], "ty")
    assert recording.values[0].dtype == np.float32


def test_a_scalar_computed_from_the_state_is_not_weak():
    program = trace(lambda y: np.tanh(np.sum(y)), Y)
    assert [program.metas[step.output].dtype for step in program.steps] == [np.float64, np.float64]


def test_branch_on_time_is_refused():
    with pytest.raises(TracedValueError, match=f"branch.*{__file__}"):
        trace(lambda t, y: y if t > 0.5 else -y, 0.1, Y)


SINGULAR = {
    "a pole": (lambda t: 1.0 / (1.0 - t), 1.0, math.inf),
    "zero over zero": (lambda t: (1.0 - t) / (1.0 - t), 1.0, math.nan),
    "a root of a negative number": (lambda t: (t - 2.0) ** 1.5, 1.0, math.nan),
    "an overflow": (lambda t: t**400, 1e300, math.inf),
    "a negative power of zero": (lambda t: t**-1.5, 0.0, math.inf),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_arithmetic_of_numbers_gives_what_arrays_give(name):
    f, t, expected = SINGULAR[name]
    (found,) = record(f, [t], ["t"]).values
    assert type(found) is float
    np.testing.assert_equal(found, expected)


def test_integers_stay_integers():
    (found,) = record(lambda n: n * 2 + 1, [4], ["n"]).values
    assert (type(found), found) == (int, 9)


# --- programs that are remembered -----------------------------------------------------------------------------------------


def recorded(f, *arguments):
    return record(f, arguments, [f"x{k}" for k in range(len(arguments))]).program


def test_equal_recordings_share_a_program():
    first = recorded(lambda y: np.tanh(y) * 2.0, Y)
    assert recorded(lambda y: np.tanh(y) * 3.0, Y + 1.0) is first


@pytest.mark.parametrize(
    "other",
    [
        lambda y: np.sin(y) * 2.0,
        lambda y: np.tanh(y) * 2,
        lambda y: np.tanh(y) * 2.0 + y,
        lambda y: 2.0 * np.tanh(y),
    ],
)
def test_other_recordings_are_other_programs(other):
    assert recorded(other, Y) is not recorded(lambda y: np.tanh(y) * 2.0, Y)


def test_another_dtype_is_another_program():
    assert recorded(np.tanh, Y) is not recorded(np.tanh, Y.astype(np.float32))


def test_remembered_programs_are_bounded():
    for n in range(program.MAX_RECORDED + 3):
        recorded(np.tanh, np.ones(n + 1))
    assert len(program._recorded) == program.MAX_RECORDED


def test_a_program_with_a_solve_inside_is_not_remembered():
    """It holds the data of that solve."""

    def f(y):
        return odeint(lambda t, z: -z, y, [0.0, 1.0]).ys[-1]

    assert recorded(f, Y) is not recorded(f, Y)
