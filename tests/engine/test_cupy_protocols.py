"""Traced values in code that is written for CuPy: its functions and the operators of its arrays hand them over.

The installed CuPy does so without a GPU: an array over memory of the host has everything but its values.
"""

import operator

import numpy as np
import pytest
from odegrad import grad, odeint, ops, vjp
from odegrad.engine import backend
from odegrad.engine.errors import ArgumentTypeError, TracedValueError
from oracles import assert_close, norm

X = np.linspace(-0.9, 0.9, 6).reshape(2, 3)


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy", reason="CuPy is not installed")


def valueless(cupy):
    """An array of CuPy (2, 3) that nothing can be computed with."""
    memory = np.zeros((2, 3))
    pointer = cupy.cuda.MemoryPointer(
        cupy.cuda.UnownedMemory(memory.ctypes.data, memory.nbytes, memory, device_id=0), 0
    )
    return cupy.ndarray((2, 3), np.float64, memptr=pointer)


@pytest.mark.parametrize("name", ["tanh", "exp", "sin", "square", "negative", "absolute", "log1p", "sqrt"])
def test_functions_of_cupy_are_traced(cupy, name):
    value, pull_back = vjp(lambda x: getattr(cupy, name)(x), X + 1.0)
    expected, other = vjp(lambda x: getattr(np, name)(x), X + 1.0)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(pull_back(X)[0], other(X)[0])


def test_a_choice_of_cupy_is_traced(cupy):
    gradient = grad(lambda x: ops.sum(cupy.where(x > 0.0, x, 0.5 * x)))(X)
    np.testing.assert_array_equal(gradient, np.where(X > 0.0, 1.0, 0.5))


def test_a_function_without_a_rule_is_refused_by_name(cupy):
    with pytest.raises(TracedValueError, match="arctan2"):
        grad(lambda x: ops.sum(cupy.arctan2(x, x)))(X)


@pytest.mark.parametrize(
    "operate", [operator.add, operator.mul, operator.truediv, operator.matmul, operator.gt]
)
def test_an_array_of_cupy_on_the_left_leaves_the_operator_to_a_traced_value(cupy, operate):
    """Which says that the modules differ; CuPy itself would say that it does not know the type."""
    with pytest.raises(ArgumentTypeError, match="arrays of different modules meet"):
        vjp(lambda x: operate(valueless(cupy), x), X.T)


def test_dynamics_may_be_written_with_the_module_of_the_device(device_xp):
    w = device_xp.asarray(0.3 * np.eye(3) + 0.1)

    def f(t, y):
        return device_xp.tanh(w[0] * y @ w) * device_xp.sin(t) - device_xp.where(y > 0.0, y, 0.0)

    def of_numpy(t, y):
        host = backend.to_host(w)
        return np.tanh(host[0] * y @ host) * np.sin(t) - np.where(y > 0.0, y, 0.0)

    found = grad(lambda y: ops.sum(odeint(f, y, (0.1, 1.0)).ys[-1]))(device_xp.asarray(X))
    expected = grad(lambda y: ops.sum(odeint(of_numpy, y, (0.1, 1.0)).ys[-1]))(X)
    assert_close(backend.to_host(found), expected, scale=norm(expected), tol=1e-12)
