"""States of every kind: dtypes, shapes, trees, numbers, empty ones; parameters of every kind."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
from odegrad import grad, odeint
from odegrad.solvers.options import GRADIENTS
from oracles import EPS32
from solving import METHODS, random_case

CONTINUOUS = ("backsolve", "interpolated")
EXECUTIONS = ("replay", "eager")
Pair = namedtuple("Pair", "y logp")


def decay(t, y):
    return -y


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_the_state_keeps_its_dtype(dtype, execution):
    ys = odeint(decay, np.ones(3, dtype), [0, 0.5, 1], execution=execution).ys
    assert ys.dtype == dtype and abs(ys[-1, 0] - np.exp(-1)) < 1e-5


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_a_float32_solve_are_those_of_float64(gradient, method):
    gradients = []
    for dtype in (np.float32, np.float64):
        case = random_case(5, dtype=dtype, method=method, rtol=1e-4, atol=1e-5)
        grid = random_case(5, method=method, rtol=1e-4, atol=1e-5).grid(gradient=gradient)
        options = {"gradient": gradient, "grid": grid, "step_size": None}
        if gradient in CONTINUOUS:
            options |= {"backward_rtol": 1e-5, "backward_atol": 1e-6}
        gradients.append(
            grad(lambda p, case=case, options=options: case.loss(params=p, **options))(case.params)
        )
    single, double = gradients
    assert single["a"].dtype == np.float32
    tol = 1e-3 if gradient in CONTINUOUS else 200 * EPS32
    assert np.abs(single["a"] - double["a"]).max() <= tol * np.abs(double["a"]).max()


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 3, 4, 2), (0,), (0, 3)])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_shapes(shape, execution):
    ys = odeint(decay, np.ones(shape), [0, 1, 2], execution=execution).ys
    assert ys.shape == (3, *shape) and np.allclose(ys[-1], np.exp(-2), rtol=1e-4)


@pytest.mark.parametrize("y0", [1.0, np.float64(1.0), 1])
def test_a_number_is_a_0d_state(y0):
    ys = odeint(decay, y0, [0, 1]).ys
    assert ys.shape == (2,) and ys.dtype == np.float64


def test_the_gradient_with_respect_to_a_number():
    assert grad(lambda y: odeint(decay, y, [0, 1]).ys[-1])(2.0) == pytest.approx(np.exp(-1), rel=1e-5)


TREES = {
    "tuple": ((np.ones((2, 3)), np.zeros(2)), lambda t, y: (-y[0], np.sum(y[0], axis=1))),
    "list": ([np.ones((2, 3)), np.zeros(2)], lambda t, y: [-y[0], np.sum(y[0], axis=1)]),
    "dict": (
        {"b": np.ones((2, 3)), "a": np.zeros(2)},
        lambda t, y: {"a": np.sum(y["b"], axis=1), "b": -y["b"]},
    ),
    "namedtuple": (Pair(np.ones((2, 3)), np.zeros(2)), lambda t, y: Pair(-y.y, np.sum(y.y, axis=1))),
    "none inside": ((np.ones((2, 3)), None, np.zeros(2)), lambda t, y: (-y[0], None, np.sum(y[0], axis=1))),
}


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_trees(kind, execution):
    y0, f = TREES[kind]
    ys = odeint(f, y0, [0, 1], execution=execution).ys
    assert type(ys) is type(y0)
    y, logp = (ys[k] for k in ("b", "a")) if kind == "dict" else (ys[0], ys[-1])
    assert np.allclose(y[-1], np.exp(-1), rtol=1e-4) and np.allclose(
        logp[-1], 3 * (1 - np.exp(-1)), rtol=1e-4
    )


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_gradient_of_one_leaf_of_a_tree(gradient):
    y0, f = TREES["tuple"]
    found = grad(lambda y: np.sum(odeint(f, y, [0, 1], gradient=gradient, rtol=1e-8, atol=1e-8).ys[1][-1]))(
        y0
    )
    assert np.allclose(found[0], 1 - np.exp(-1), rtol=1e-6) and np.allclose(found[1], 1.0)


SLOPES = {
    "constant": (lambda t, y: np.full(3, 2.0), lambda y0: y0 + 2.0),
    "zero": (lambda t, y: np.zeros_like(y), lambda y0: y0),
    "identity": (lambda t, y: y, lambda y0: np.e * y0),
    "of time alone": (lambda t, y: 2 * t * np.ones(3), lambda y0: y0 + 1.0),
}


@pytest.mark.parametrize("kind", SLOPES)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_simple_dynamics(kind, execution):
    f, end = SLOPES[kind]
    y0 = np.array([1.0, -2.0, 0.5])
    assert np.allclose(odeint(f, y0, [0, 1], execution=execution, rtol=1e-8).ys[-1], end(y0), rtol=1e-7)


@pytest.mark.parametrize("kind", SLOPES)
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_gradients_of_simple_dynamics(kind, gradient, execution):
    f, _ = SLOPES[kind]
    options = {"gradient": gradient, "execution": execution, "rtol": 1e-8}
    found = grad(lambda y: np.sum(odeint(f, y, [0, 1], **options).ys[-1]))(np.array([1.0, -2.0, 0.5]))
    assert np.allclose(found, np.e if kind == "identity" else 1.0, rtol=1e-6)


@pytest.mark.parametrize("result", [1.5, 3])
def test_a_number_is_a_slope_of_a_0d_state(result):
    assert odeint(lambda t, y: result, np.array(0.0), [0, 2]).ys[-1] == pytest.approx(2.0 * result)


def test_a_large_state():
    y0 = np.linspace(0.5, 1.5, 500_000)
    ys = odeint(decay, y0, [0, 1], rtol=1e-6).ys
    assert np.abs(ys[-1] / y0 - np.exp(-1)).max() < 1e-5


def test_arguments_are_left_as_they_were():
    case = random_case(9)
    y0, ts, a = case.y0.copy(), case.ts.copy(), case.params["a"].copy()
    grad(lambda y, p: case.loss(y, p), (0, 1))(case.y0, case.params)
    assert np.array_equal(y0, case.y0) and np.array_equal(ts, case.ts) and np.array_equal(a, case.params["a"])


@pytest.mark.parametrize(
    "ts", [[0, 1, 2], range(3), (0.0, 1.0, 2.0), np.arange(3), np.arange(3, dtype=np.float32)]
)
def test_output_times_of_any_kind(ts):
    sol = odeint(decay, np.ones(2), ts)
    assert sol.ts.dtype == np.float64 and np.array_equal(sol.ts, [0.0, 1.0, 2.0])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_gradient_with_respect_to_a_list_of_times(gradient):
    def end(ts):
        return np.sum(odeint(decay, np.ones(2), ts, gradient=gradient, rtol=1e-8, atol=1e-8).ys[-1])

    assert np.allclose(grad(end)([0.0, 0.5, 1.0]), np.array([2, 0, -2]) * np.exp(-1), rtol=1e-6, atol=1e-12)


PARAMETERS = {
    "none": {"w": np.array(2.0), "n": None},
    "number": {"w": np.array(2.0), "n": 1},
    "integers": {"w": np.array(2.0), "n": np.array([1, 0])},
    "nested": {"w": np.array(2.0), "n": [(), {}, (np.ones(3),)]},
}


@pytest.mark.parametrize("kind", PARAMETERS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_parameters_of_any_kind(kind, gradient):
    rest = PARAMETERS[kind]

    def f(t, y, params):
        y = y[params["n"]] if kind == "integers" else y
        return -params["w"] * y

    def end(w):
        params = {**rest, "w": w}
        return np.sum(odeint(f, np.ones(2), [0, 1], params, gradient=gradient, rtol=1e-8, atol=1e-8).ys[-1])

    assert grad(end)(rest["w"]) == pytest.approx(-2 * np.exp(-2), rel=1e-6)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_python_float_as_a_parameter(gradient, execution):
    def end(k):
        options = {"gradient": gradient, "execution": execution, "rtol": 1e-8, "atol": 1e-8}
        return np.sum(odeint(lambda t, y, p: -p["k"] * y, np.ones(2), [0, 1], {"k": k}, **options).ys[-1])

    found = grad(end)(2.0)
    assert type(found) is float and found == pytest.approx(-2 * np.exp(-2), rel=1e-6)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_parameter_that_is_not_used_has_gradient_zero(gradient):
    params = {"w": np.array(1.0), "unused": np.ones((2, 2))}
    found = grad(
        lambda p: np.sum(odeint(lambda t, y, p: -p["w"] * y, np.ones(2), [0, 1], p, gradient=gradient).ys)
    )(params)
    assert np.array_equal(found["unused"], np.zeros((2, 2))) and found["w"] < 0


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_weight_used_twice_collects_both_gradients(gradient):
    def end(w):
        params = (w, w)
        options = {"gradient": gradient, "rtol": 1e-8, "atol": 1e-8}
        return np.sum(
            odeint(lambda t, y, p: -p[0] * y - p[1] * y, np.ones(1), [0, 1], params, **options).ys[-1]
        )

    assert grad(end)(np.array(0.5)) == pytest.approx(-2 * np.exp(-1), rel=1e-6)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">c16"])
@pytest.mark.parametrize("execution", ["replay", "eager"])
def test_a_state_of_foreign_byte_order_is_converted(execution, dtype):
    y0 = np.array([1.0, -2.0])
    foreign, native = y0.astype(dtype), y0.astype(np.dtype(dtype).newbyteorder("="))
    ys = odeint(lambda t, y: -y, foreign, [0.0, 1.0], execution=execution).ys
    expected = odeint(lambda t, y: -y, native, [0.0, 1.0], execution=execution).ys
    assert ys.dtype == native.dtype and ys.dtype.isnative and np.array_equal(ys, expected)


def test_a_state_of_foreign_byte_order_has_a_gradient():
    found = grad(lambda y: np.sum(odeint(lambda t, y: -y, y, [0.0, 1.0]).ys[-1]))(np.ones(2, ">f8"))
    assert np.allclose(found, np.exp(-1), rtol=1e-4)
