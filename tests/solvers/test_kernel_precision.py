"""A solve accepts round-off of its kernels that is far below its tolerance, forward and backward; nothing else does."""

import numpy as np
import pytest
from odegrad import odeint, ops, value_and_grad
from odegrad.engine.kernels import winograd
from odegrad.solvers.options import GRADIENTS

TIMES = [0.0, 0.1]


def f(t, y, w):
    return ops.tanh(ops.conv2d(y, w, padding=1))


@pytest.fixture
def calls(monkeypatch):
    """Counts correlations by Winograd's algorithm."""
    counted = []
    plain = winograd._correlate_tile
    monkeypatch.setattr(winograd, "_correlate_tile", lambda *args: (counted.append(1), plain(*args))[1])
    return counted


def problem(dtype):
    rng = np.random.default_rng(0)
    y0 = rng.standard_normal((8, 16, 16, 24)).astype(dtype)
    return y0, (0.1 * rng.standard_normal((3, 3, 24, 24))).astype(dtype)


def gradient_of(y0, w, **options):
    def loss(y0, w):
        return ops.sum(odeint(f, y0, TIMES, w, **options).ys[-1] ** 2)

    return value_and_grad(loss, argnums=(0, 1))(y0, w)[1]


@pytest.mark.parametrize(
    "dtype, options, is_used",
    [
        (np.float32, {"rtol": 1e-3}, True),
        (np.float32, {"rtol": 1e-5}, False),
        (np.float64, {"rtol": 1e-5}, True),
        (np.float64, {"rtol": 1e-13}, False),
        (np.float32, {"method": "midpoint", "step_size": 0.1}, False),
    ],
)
def test_a_tolerance_far_above_the_round_off_accepts_it(calls, dtype, options, is_used):
    y0, w = problem(dtype)
    odeint(f, y0, TIMES, w, **{"atol": 1e-3, **options})
    assert bool(calls) == is_used


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_backward_passes_accept_it_too(calls, gradient):
    y0, w = problem(np.float32)
    odeint(f, y0, TIMES, w, rtol=1e-3, atol=1e-3)
    forward = len(calls)
    gradient_of(y0, w, rtol=1e-3, atol=1e-3, gradient=gradient)
    assert len(calls) > 2 * forward


def test_gradients_are_right_to_the_tolerance(calls):
    y0, w = problem(np.float32)
    exact = gradient_of(y0.astype(np.float64), w.astype(np.float64), rtol=1e-13, atol=1e-13)
    calls.clear()
    found = gradient_of(y0, w, rtol=1e-3, atol=1e-3)
    assert calls
    for got, expected in zip(found, exact, strict=True):
        assert np.linalg.norm(got - expected) <= 1e-3 * np.linalg.norm(expected)


def test_the_bits_do_not_depend_on_what_is_kept():
    y0, w = problem(np.float32)
    kept, again = (gradient_of(y0, w, rtol=1e-3, atol=1e-3, keep=keep) for keep in ("all", "none"))
    for one, other in zip(kept, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_evaluation_outside_of_a_solve_accepts_nothing(calls):
    y0, w = problem(np.float32)
    f(0.0, y0, w)
    assert not calls
