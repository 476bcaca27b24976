"""Derivatives of derivatives through a solve: Hessian products, forward mode, nesting."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad import errors, grad, hvp, jvp, odeint, value_and_grad
from odegrad.engine.trace import base_value
from odegrad.engine.tree import leaves, unflatten
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


# --- trees of states and parameters, and the times, all at once ------------------------------------------------------

POINT = (
    {"p": np.array([0.3, -0.8]), "q": np.array([1.1, 0.4])},
    {"k": np.array(0.7), "w": np.array([[0.5, -0.3], [0.2, 0.8]])},
    np.array([0.1, 0.5, 0.9, 1.3]),
)
TANGENT = (
    {"p": np.array([0.6, -1.0]), "q": np.array([-0.4, 0.9])},
    {"k": np.array(-1.1), "w": np.array([[0.3, 1.0], [-0.7, 0.2]])},
    np.array([0.4, -0.9, 0.6, 1.0]),
)
ALL = (0, 1, 2)


def pendula(t, y, params):
    """Coupled pendula whose coupling changes in time."""
    return {
        "p": -np.sin(y["q"] @ params["w"]) - params["k"] * t * y["p"],
        "q": y["p"] * (1.0 + params["k"] * y["q"]),
    }


def states(y0, params, ts, **options):
    return odeint(pendula, y0, ts, params, rtol=1e-4, atol=1e-4, **options).ys


def energy(*args, **options):
    """A scalar of the states at all times."""
    ys = states(*args, **options)
    return np.sum(ys["p"] ** 2) + np.sum(np.sin(ys["q"]) * ys["p"])


def on_grid(function, gradient, **options):
    """The function on the accepted times of the solve at POINT, of which the first and the last follow ts."""
    grid = odeint(pendula, *POINT[:1], POINT[2], POINT[1], rtol=1e-4, atol=1e-4).grid

    def held(y0, params, ts):
        ends = base_value(ts)
        stretched = np.array([ends[0], *grid[1:-1], ends[-1]])
        return function(y0, params, ts, grid=stretched, gradient=gradient, **options)

    return held


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in leaves(tree)])


def differences(function):
    """d/dh function(POINT + h TANGENT), flat, extrapolated."""

    def at(*values):
        return flat(function(*unflatten(POINT, values)))

    return central_difference(at, leaves(POINT), leaves(TANGENT), h=2e-3)


def inner(bars, tangents):
    return sum(np.sum(bar * tangent) for bar, tangent in zip(leaves(bars), leaves(tangents), strict=True))


SECOND = {
    "hvp": lambda f: hvp(f, POINT, TANGENT)[1],
    "forward over reverse": lambda f: jvp(grad(f, ALL), POINT, TANGENT)[1],
    "reverse over reverse": lambda f: grad(lambda *x: inner(grad(f, ALL)(*x), TANGENT), ALL)(*POINT),
    "reverse over forward": lambda f: grad(lambda *x: jvp(f, x, TANGENT)[1], ALL)(*POINT),
}


VARIANTS = [("tape", {}), ("tape", {"execution": "eager"})]
VARIANTS += [("discrete", options) for options in ({}, {"checkpoints": 2}, {"execution": "eager"})]


@pytest.mark.parametrize("way", SECOND)
@pytest.mark.parametrize(("gradient", "options"), VARIANTS, ids=str)
def test_second_derivatives_of_trees_and_times_are_differences_of_gradients(gradient, options, way):
    loss = on_grid(energy, gradient, **options)
    expected = differences(grad(loss, ALL))
    assert np.abs(flat(SECOND[way](loss)) - expected).max() <= 1e-8 * np.abs(expected).max()


@pytest.mark.parametrize("gradient", EXACT)
def test_tangents_of_trees_and_times_are_differences_of_states(gradient):
    solution = on_grid(states, gradient)
    expected = differences(solution)
    found = flat(jvp(solution, POINT, TANGENT)[1])
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


# --- methods that give first derivatives only ------------------------------------------------------------------------


@pytest.mark.parametrize("way", [*SECOND, "jvp"])
@pytest.mark.parametrize("gradient", ["backsolve", "interpolated", "reversible"])
def test_the_other_methods_refuse_by_name_and_say_what_to_use(gradient, way):
    def loss(y0, params, ts):
        return energy(y0, params, ts, gradient=gradient)

    ways = {**SECOND, "jvp": lambda f: jvp(f, POINT, TANGENT)}
    with pytest.raises(
        errors.NeuralODEError,
        match=f"gradient='{gradient}' gives first derivatives only; use 'tape' or 'discrete'",
    ):
        ways[way](loss)
