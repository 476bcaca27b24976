"""Jacobians of dynamics and their products, against complex step."""

import numpy as np
import pytest
from odegrad.solvers.dynamics import Dynamics
from odegrad.solvers.implicit.jacobian import EagerJacobian, ReplayedJacobian
from odegrad.solvers.implicit.linearization import EagerLinearization, ReplayedLinearization

WEIGHTS = np.random.default_rng(0).standard_normal((3, 3))


def coupled(t, y, p):
    """Depends on time, parameters and a captured array; a tree of two leaves."""
    a, b = y["a"], y["b"]
    return {
        "a": np.tanh(a @ p + np.sin(t)) @ WEIGHTS * b[0],
        "b": b**3 * np.exp(np.sum(a) * 0.1) + t * t,
    }


def constant(t, y, p):
    return {"a": np.ones((2, 3)), "b": np.ones(2) * t}


STATE = {"a": np.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": np.array([0.5, -0.7])}
PARAMS = np.random.default_rng(1).standard_normal((3, 3))
T, Y = 0.7, np.linspace(-0.9, 0.8, 8)


def dynamics_of(f):
    return Dynamics(f, 0.0, STATE, PARAMS, has_aux=False)


def flat(f, t, y):
    slope = f(t, {"a": y[:6].reshape(2, 3), "b": y[6:]}, PARAMS)
    return np.concatenate([slope["a"].reshape(-1), slope["b"]])


def jacobian_by_complex_step(f):
    return np.stack([flat(f, T, Y + 1e-30j * e).imag / 1e-30 for e in np.eye(8)], axis=1)


@pytest.mark.parametrize("f", [coupled, constant])
@pytest.mark.parametrize("kind", [ReplayedJacobian, EagerJacobian])
def test_jacobian_agrees_with_complex_step(kind, f):
    jacobian, expected = kind(dynamics_of(f)), jacobian_by_complex_step(f)
    jacobian.at(T, Y)
    assert np.abs(jacobian.matrix - expected).max() <= 1e-14 * (1.0 + np.abs(expected).max())


@pytest.mark.parametrize("f", [coupled, constant])
@pytest.mark.parametrize("kind", [ReplayedJacobian, EagerJacobian])
def test_time_derivative_agrees_with_complex_step(kind, f):
    jacobian = kind(dynamics_of(f), with_time=True)
    jacobian.at(T, Y)
    expected = flat(f, T + 1e-30j, Y + 0j).imag / 1e-30
    assert np.abs(jacobian.time - expected).max() <= 1e-14 * (1.0 + np.abs(expected).max())


@pytest.mark.parametrize("f", [coupled, constant])
@pytest.mark.parametrize("kind", [ReplayedLinearization, EagerLinearization])
def test_product_agrees_with_complex_step(kind, f):
    product, v = kind(dynamics_of(f)), np.random.default_rng(2).standard_normal(8)
    product.at(0.1, -Y)  # an earlier state leaves nothing behind
    product.at(T, Y)
    expected = flat(f, T, Y + 1e-30j * v).imag / 1e-30
    assert np.abs(product(v) - expected).max() <= 1e-14 * (1.0 + np.abs(expected).max())
