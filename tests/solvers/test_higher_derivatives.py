"""Derivatives of derivatives through a solve: Hessian products, forward mode, nesting."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad import errors, grad, hvp, jvp, odeint, value_and_grad
from oracles import central_difference
from solving import random_case

EXACT = ("discrete", "tape")


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "rk4"])
@pytest.mark.parametrize("gradient", EXACT)
def test_hessian_products_are_differences_of_gradients(gradient, method):
    case = random_case(40, method=method)
    fixed = {"grid": case.grid(), "step_size": None, "gradient": gradient}
    direction = np.random.default_rng(1).standard_normal(case.y0.shape)
    first = grad(lambda y: case.loss(y, **fixed))
    _, (product,) = hvp(lambda y: case.loss(y, **fixed), (case.y0,), (direction,))
    expected = central_difference(first, [case.y0], [direction], h=0.02)
    assert np.abs(product - expected).max() <= 1e-7 * np.abs(expected).max()


@pytest.mark.parametrize("gradient", EXACT)
def test_hessian_products_of_parameters(gradient):
    case = random_case(41)
    fixed = {"grid": case.grid(), "gradient": gradient}

    def loss(a):
        return case.loss(params={**case.params, "a": a}, **fixed)

    direction = np.random.default_rng(2).standard_normal(case.params["a"].shape)
    _, (product,) = hvp(loss, (case.params["a"],), (direction,))
    expected = central_difference(grad(loss), [case.params["a"]], [direction], h=0.02)
    assert np.abs(product - expected).max() <= 1e-7 * np.abs(expected).max()


@pytest.mark.parametrize("gradient", EXACT)
def test_hessian_products_of_output_times(gradient):
    case = random_case(42)
    direction = np.array([0.3, -1.0, 0.5, 0.7])
    _, (product,) = hvp(lambda ts: case.loss(ts=ts, gradient=gradient), (case.ts,), (direction,))
    grid = case.grid()

    def first(ts):
        moved = np.array([ts[0], *grid[1:-1], ts[-1]])
        return grad(lambda t: case.loss(ts=t, gradient=gradient, grid=moved))(ts)

    expected = central_difference(first, [case.ts], [direction], h=1e-3)
    assert np.abs(product - expected).max() <= 1e-7 * np.abs(expected).max()


@pytest.mark.parametrize("gradient", EXACT)
def test_forward_mode_is_the_transpose_of_reverse_mode(gradient):
    case = random_case(43)
    rng = np.random.default_rng(3)
    ydot, ybar = rng.standard_normal(case.y0.shape), rng.standard_normal((4, *case.y0.shape))
    _, out = jvp(lambda y: case.solve(y, gradient=gradient).ys, (case.y0,), (ydot,))
    back = grad(lambda y: np.sum(ybar * case.solve(y, gradient=gradient).ys))(case.y0)
    assert np.sum(out * ybar) == pytest.approx(np.sum(ydot * back), rel=1e-12)


@pytest.mark.parametrize("inner", EXACT)
@pytest.mark.parametrize("outer", EXACT)
def test_an_inner_gradient_depends_on_outer_values(inner, outer):
    """d/dk of (dy(1)/dy0)**2 = d/dk exp(-2 k)."""

    def sensitivity(k):
        options = {"rtol": 1e-10, "atol": 1e-10}
        slope = grad(lambda y: odeint(lambda t, y: -k * y, y, [0, 1], gradient=inner, **options).ys[-1])(
            np.array(1.0)
        )
        return slope * slope

    assert grad(sensitivity)(np.array(0.7)) == pytest.approx(-2 * np.exp(-1.4), rel=1e-8)


def test_a_captured_value_of_the_outer_trace_is_differentiated_there():
    def loss(k):
        _, inner = value_and_grad(
            lambda y: np.sum(odeint(lambda t, y: -k * y, y, [0.0, 1.0], rtol=1e-10).ys)
        )(np.ones(2))
        return np.sum(inner)

    assert grad(loss)(np.array(0.7)) == pytest.approx(-2 * np.exp(-0.7), rel=1e-5)


def test_third_derivatives():
    """y0 -> y(1) of y' = y**2 is y0 / (1 - y0)."""

    def end(y):
        return odeint(lambda t, y: y * y, y, [0.0, 1.0], rtol=1e-11, atol=1e-11).ys[-1]

    assert grad(grad(grad(end)))(np.array(0.4)) == pytest.approx(6 / 0.6**4, rel=1e-6)


def test_backsolve_refuses_second_derivatives():
    case = random_case(44)
    with pytest.raises(errors.NeuralODEError, match="first derivatives only; use 'tape' or 'discrete'"):
        hvp(lambda y: case.loss(y, gradient="backsolve"), (case.y0,), (case.y0,))
