"""Gradients of real losses through complex values, against differences: moduli, real parts, conjugates, casts."""

import numpy as np
import odegrad
import pytest
from odegrad.engine import grad, ops, vjp
from odegrad.solvers.options import GRADIENTS
from oracles import central_difference

Z = np.array([1.0 + 2.0j, 3.0 - 1.0j])
P = np.array([0.3, 0.7])

LOSSES = {
    "modulus": lambda p: (np.abs(p * Z) ** 2).sum(),
    "modulus of a sum": lambda p: np.abs((p * Z).sum()),
    "direction": lambda p: np.real(ops.sign(p * Z + 1j) * (2.0 - 1.0j)).sum(),
    "real part": lambda p: np.real(np.real(p * Z) * Z * (1j + p)).sum(),
    "conjugate": lambda p: np.real(np.conj(p * Z + 1j * p**2) * Z * p).sum(),
    "conjugate method": lambda p: ((p * Z).conj() * (p * Z * p)).real.sum(),
    "cast": lambda p: np.abs((p * p).astype(complex) * Z - 1j).sum(),
    "real beside complex": lambda p: np.abs(np.sin(p) * np.exp(1j * p) / (Z + p)).sum(),
    "matrix product": lambda p: np.abs(np.stack([p, p * p]) @ Z).sum(),
    "join": lambda p: np.real(np.concatenate([p, 1j * p * p]) ** 2 * (1.0 + 2.0j)).sum(),
    "where": lambda p: np.abs(np.where(p > 0.5, p, Z * p) * Z + 1j * p).sum(),
    "relu": lambda p: np.abs(ops.relu(p * Z - 0.5) + 1j * p).sum(),
    "maximum": lambda p: np.abs(np.maximum(p * Z, 0.5) + 1j * p).sum(),
    "minimum": lambda p: np.abs(np.minimum(p * Z, p) + 1j * p).sum(),
    "modulus in a phase": lambda p: np.real(np.exp(1j * np.abs(p * Z + 1.0) ** 2) * Z).sum(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_a_real_loss_through_complex_values(name):
    expected = [central_difference(LOSSES[name], [P], [e]) for e in np.eye(2)]
    np.testing.assert_allclose(grad(LOSSES[name])(P), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["modulus", "real part", "cast", "modulus in a phase"])
def test_second_derivative_through_complex_values(name):
    slope = grad(LOSSES[name])
    expected = np.stack([central_difference(slope, [P], [e]) for e in np.eye(2)])
    found = np.stack([grad(lambda p, k=k: slope(p)[k])(P) for k in range(2)])
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)


def test_gradient_of_the_modulus_is_zero_at_zero():
    assert grad(lambda y: np.abs(y).sum())(np.zeros(2, complex)).tolist() == [0.0, 0.0]


def test_gradient_of_a_number_that_meets_complex_values_is_real():
    slope = grad(lambda p: np.real((p * Z).sum() * (1.0 + 1.0j)))(0.5)
    assert (type(slope), slope) == (float, 3.0)


def test_modulus_of_a_complex_leaf_is_pulled_back_to_the_conjugate_direction():
    _, pull_back = vjp(np.abs, np.array([3.0 + 4.0j]))
    np.testing.assert_allclose(pull_back(np.array([5.0]))[0], [3.0 - 4.0j], rtol=1e-15)


def schroedinger(t, y, p):
    """A nonlinear Schroedinger equation without dispersion."""
    return -1j * p * np.abs(y) ** 2 * y


@pytest.mark.parametrize("gradient", ["eager", *GRADIENTS])
def test_gradient_of_a_solve_of_the_nonlinear_schroedinger_equation(gradient):
    options = {"execution": "eager"} if gradient == "eager" else {"gradient": gradient}
    fixed = {"method": "rk4", "step_size": 0.1}

    def loss(p, **how):
        y = odegrad.odeint(schroedinger, Z / 4.0, np.array([0.0, 1.0]), p, **fixed, **how).ys[-1]
        return np.real(y * np.array([1.0 - 0.5j, 2.0j])).sum() + (np.abs(y) ** 2 * P).sum()

    expected = [central_difference(loss, [P], [e]) for e in np.eye(2)]
    tol = 1e-4 if gradient in ("backsolve", "interpolated") else 1e-8
    np.testing.assert_allclose(grad(lambda p: loss(p, **options))(P), expected, rtol=tol, atol=tol)
