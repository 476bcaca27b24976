"""Linear, Conv2d, ConvTranspose2d: initialisation, time as a channel, and what convolution means."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad.engine import random
from odegrad.layers import Conv2d, ConvTranspose2d, Linear, TimeConcat
from oracles import EPS64, assert_close, inner, norm
from strategies import seeds

KEY = random.key(5)


def joined(weights, axis):
    """The weights of the layer that sees t as one more channel."""
    w_t = weights["w_t"] if weights["w"].ndim == 4 else weights["w_t"][None]
    return {"w": np.concatenate([weights["w"], w_t], axis=axis), "b": weights["b"]}


TIMED = {
    "linear": (Linear(3, 4, with_time=True), Linear(4, 4), 0, (3,)),
    "conv": (Conv2d(2, 3, with_time=True), Conv2d(3, 3), 2, (5, 6, 2)),
    "conv with stride": (Conv2d(2, 3, stride=2, with_time=True), Conv2d(3, 3, stride=2), 2, (5, 6, 2)),
    "conv without padding": (
        Conv2d(2, 3, padding=0, with_time=True),
        Conv2d(3, 3, padding=0),
        2,
        (5, 6, 2),
    ),
    "conv transpose": (
        ConvTranspose2d(2, 3, (9, 12), with_time=True),
        ConvTranspose2d(3, 3, (9, 12)),
        3,
        (5, 6, 2),
    ),
}


@pytest.mark.parametrize(("timed", "plain", "axis", "shape"), TIMED.values(), ids=TIMED)
@given(seed=seeds, t=st.floats(-2.0, 2.0))
def test_with_time_is_time_as_one_more_channel(timed, plain, axis, shape, seed, t):
    weights = timed.init(random.key(seed), np.float64)
    x = np.random.default_rng(seed).standard_normal((3, *shape))
    y, _ = timed.apply(weights, None, t, x, mode="train")
    with_channel, _ = TimeConcat().apply(None, None, t, x, mode="train")
    expected, _ = plain.apply(joined(weights, axis), None, t, with_channel, mode="train")
    assert_close(y, expected, scale=norm(expected), tol=10 * EPS64)


def test_time_concat_puts_t_last():
    y, _ = TimeConcat().apply(None, None, 0.25, np.ones((2, 3, 3, 2), np.float32), mode="train")
    assert y.dtype == np.float32 and np.all(y[..., 2] == 0.25) and np.all(y[..., :2] == 1.0)


BOUNDS = {
    "linear": (Linear(16, 4000), 1 / 4, ("w", "b")),
    "linear with time": (Linear(15, 4000, with_time=True), 1 / 4, ("w", "b", "w_t")),
    "conv": (Conv2d(4, 2000), 1 / 6, ("w", "b")),
    "conv with time": (Conv2d(3, 2000, with_time=True), 1 / 6, ("w", "b", "w_t")),
    "conv transpose": (ConvTranspose2d(500, 4, (8, 8)), 1 / 6, ("w",)),
}


@pytest.mark.parametrize(
    ("layer", "bound", "name"),
    [(layer, bound, name) for layer, bound, names in BOUNDS.values() for name in names],
    ids=[f"{label}-{name}" for label, (_, _, names) in BOUNDS.items() for name in names],
)
def test_initial_weights_are_uniform_within_the_bound(layer, bound, name):
    """Against the moments of a uniform distribution: mean 0, variance bound**2 / 3, and its edge."""
    draws = layer.init(KEY, np.float64)[name].ravel()
    n = draws.size
    assert np.abs(draws).max() <= bound and np.abs(draws).max() > bound * (1 - 20 / n)
    assert abs(draws.mean()) < 5 * bound / math.sqrt(3 * n)
    assert abs(draws.var() / (bound**2 / 3) - 1) < 5 / math.sqrt(n)


@pytest.mark.parametrize(
    "layer", [Linear(4, 4, with_time=True), Conv2d(4, 4, with_time=True)], ids=["linear", "conv"]
)
def test_arrays_of_a_layer_are_drawn_apart(layer):
    flat = [array.ravel()[:4].tolist() for array in layer.init(KEY).values()]
    assert len({tuple(values) for values in flat}) == 3


def correlated(x, w, stride, padding):
    """The definition of a convolution layer as six loops."""
    k, n_out = w.shape[0], w.shape[3]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = ((n + 2 * padding - k) // stride + 1 for n in x.shape[1:3])
    y = np.zeros((x.shape[0], height, width, n_out))
    for i in range(height):
        for j in range(width):
            window = padded[:, i * stride : i * stride + k, j * stride : j * stride + k]
            for o in range(n_out):
                y[:, i, j, o] = (window * w[..., o]).sum((1, 2, 3))
    return y


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (2, 1, 0), (5, 3, 2), (1, 1, 0)]
)
def test_convolution_is_its_definition(kernel, stride, padding, rng):
    layer = Conv2d(2, 3, kernel, stride, padding)
    weights, x = layer.init(KEY, np.float64), rng.standard_normal((2, 6, 7, 2))
    y, _ = layer.apply(weights, None, None, x, mode="train")
    expected = correlated(x, weights["w"], stride, padding) + weights["b"]
    assert_close(y, expected, scale=norm(expected), tol=10 * EPS64)


@pytest.mark.parametrize(
    ("size", "image"), [((28, 28), (14, 14)), ((14, 14), (7, 7)), ((7, 7), (4, 4)), ((5, 8), (3, 4))]
)
def test_transposed_convolution_is_the_transpose(size, image, rng):
    down, up = Conv2d(2, 3, stride=2, bias=False), ConvTranspose2d(3, 2, size, bias=False)
    weights = down.init(KEY, np.float64)
    x, ybar = rng.standard_normal((2, *size, 2)), rng.standard_normal((2, *image, 3))
    y, _ = down.apply(weights, None, None, x, mode="train")
    xbar, _ = up.apply(weights, None, None, ybar, mode="train")
    assert_close(inner(ybar, y), inner(xbar, x), scale=norm(ybar) * norm(y), tol=10 * EPS64)


def test_linear_is_its_definition(rng):
    layer = Linear(3, 2)
    weights, x = layer.init(KEY, np.float64), rng.standard_normal((4, 3))
    y, _ = layer.apply(weights, None, None, x, mode="train")
    expected = np.array(
        [[sum(x[i] * weights["w"][:, j]) + weights["b"][j] for j in range(2)] for i in range(4)]
    )
    assert_close(y, expected, scale=norm(expected), tol=10 * EPS64)
