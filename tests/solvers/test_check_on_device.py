"""Gradient checks of functions and solves on a device."""

import numpy as np
import pytest
from odegrad import check, ops

Y0, W = np.array([[0.3, -0.8]]), np.array([[0.2, 0.9], [-0.4, 0.1]])


def f(t, y, w):
    return ops.tanh(y @ w) * (1.0 + t)


def of_both(x):
    return ops.sum(ops.tanh(x["y"] @ x["w"]))


@pytest.fixture
def x(device_xp):
    return {"y": device_xp.asarray(Y0), "w": device_xp.asarray(W)}


@pytest.mark.parametrize(
    "judge",
    [
        lambda x: check.gradients(of_both, x),
        lambda x: check.dot_product_test(lambda x: ops.tanh(x["y"] @ x["w"]), x),
        lambda x: check.taylor_test(of_both, x),
    ],
    ids=["gradients", "dot product", "Taylor"],
)
def test_a_right_gradient_passes(x, judge):
    assert judge(x).ok


@pytest.mark.parametrize("gradient", ["tape", "discrete", "backsolve", "interpolated"])
def test_the_gradient_of_a_solve_passes(x, gradient):
    assert check.solution_gradients(f, x["y"], [0.0, 0.4, 1.0], x["w"], gradient=gradient).ok
