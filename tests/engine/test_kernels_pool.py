"""Pooling kernels against loops over windows, and their gradients as transposes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odegrad.engine.errors import ArgumentError, ArgumentTypeError
from odegrad.engine.kernels import (
    avg_pool,
    avg_pool_grad,
    max_pool,
    max_pool_grad,
    max_pool_pick,
    pool_output_shape,
)

EPS64 = np.finfo(np.float64).eps

# x shape, size, stride, padding
CASES = [
    ((2, 6, 8, 3), 2, None, 0),
    ((2, 7, 5, 3), 2, None, 0),  # positions that no window reaches
    ((2, 7, 7, 1), 3, 2, 1),
    ((1, 5, 6, 2), 3, 1, (1, 2)),
    ((2, 9, 4, 2), (4, 1), (3, 2), (2, 0)),
    ((1, 1, 1, 2), 2, 1, 1),
    ((0, 4, 4, 2), 2, None, 0),
]
DTYPES = [np.float32, np.float64, np.complex128]


def draw(rng, shape, dtype=np.float64):
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def windows(x, size, stride, padding):
    """(output position, image, channel, list of the positions inside the image in row-major order)."""
    size, padding = pair(size), pair(padding)
    stride = size if stride is None else pair(stride)
    counts = [(x.shape[a + 1] + 2 * padding[a] - size[a]) // stride[a] + 1 for a in (0, 1)]
    for b, i, j, c in np.ndindex(x.shape[0], *counts, x.shape[3]):
        rows = range(i * stride[0] - padding[0], i * stride[0] - padding[0] + size[0])
        columns = range(j * stride[1] - padding[1], j * stride[1] - padding[1] + size[1])
        inside = [(b, r, k, c) for r in rows for k in columns if 0 <= r < x.shape[1] and 0 <= k < x.shape[2]]
        yield (b, i, j, c), inside


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("shape, size, stride, padding", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pool_is_the_maximum_of_each_window(rng, shape, size, stride, padding, dtype):
    x = draw(rng, shape, dtype)
    y = max_pool(np, x, size, stride, padding)
    assert y.dtype == dtype and y.shape == pool_output_shape(shape, size, stride, padding)
    for position, inside in windows(x, size, stride, padding):
        assert y[position] == max((x[p] for p in inside), key=np.real)


def test_the_first_of_equal_real_parts_is_the_maximum():
    x = np.array([[0 + 1j, 2 + 2j], [2 + 3j, 2 + 4j]]).reshape(1, 2, 2, 1)
    assert max_pool(np, x, 2).item() == 2 + 2j


@pytest.mark.parametrize("shape, size, stride, padding", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_avg_pool_is_the_mean_of_each_window_with_zeros_around(rng, shape, size, stride, padding, dtype):
    x = draw(rng, shape, dtype)
    y = avg_pool(np, x, size, stride, padding)
    assert y.dtype == dtype and y.shape == pool_output_shape(shape, size, stride, padding)
    for position, inside in windows(x, size, stride, padding):
        expected = sum(x[p] for p in inside) / np.prod(pair(size))
        assert abs(y[position] - expected) <= 10 * np.finfo(dtype).eps * max(abs(x[p]) for p in inside)


@pytest.mark.parametrize("shape, size, stride, padding", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pool_grad_goes_to_the_first_maximum(rng, shape, size, stride, padding, dtype):
    x = np.round(2 * draw(rng, shape)).astype(dtype)  # small integers: many ties
    y = max_pool(np, x, size, stride, padding)
    ybar = np.round(8 * draw(rng, y.shape)).astype(dtype)
    expected = np.zeros_like(x)
    for position, inside in windows(x, size, stride, padding):
        expected[max(inside, key=lambda p: x[p].real)] += ybar[position]  # max() keeps the first
    np.testing.assert_array_equal(max_pool_grad(np, ybar, x, y, size, stride, padding), expected)


@pytest.mark.parametrize("shape, size, stride, padding", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pool_pick_takes_the_place_of_the_first_maximum(rng, shape, size, stride, padding, dtype):
    x = np.round(2 * draw(rng, shape)).astype(dtype)
    z = draw(rng, shape, dtype)
    picked = max_pool_pick(np, z, x, max_pool(np, x, size, stride, padding), size, stride, padding)
    assert picked.dtype == dtype
    for position, inside in windows(x, size, stride, padding):
        assert picked[position] == z[max(inside, key=lambda p: x[p].real)]


@st.composite
def poolings(draw_from):
    size = draw_from(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw_from(st.one_of(st.none(), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    padding = tuple(draw_from(st.integers(0, n - 1)) for n in size)
    extent = [draw_from(st.integers(max(1, n - 2 * p), 8)) for n, p in zip(size, padding, strict=True)]
    shape = (draw_from(st.integers(1, 3)), *extent, draw_from(st.integers(1, 3)))
    return shape, size, stride, padding, draw_from(st.integers(0, 99))


@given(poolings())
@settings(max_examples=100, deadline=None)
def test_avg_pool_grad_is_the_transpose(case):
    shape, *window, seed = case
    rng = np.random.default_rng(seed)
    x = draw(rng, shape)
    y = avg_pool(np, x, *window)
    ybar = draw(rng, y.shape)
    xbar = avg_pool_grad(np, ybar, *window, input_shape=shape[1:3])
    scale = np.linalg.norm(ybar) * np.linalg.norm(x)
    assert abs(np.sum(xbar * x) - np.sum(ybar * y)) <= 20 * EPS64 * scale


@given(poolings())
@settings(max_examples=100, deadline=None)
def test_max_pool_grad_agrees_with_complex_step(case):
    shape, *window, seed = case
    rng = np.random.default_rng(seed)
    x, xdot = draw(rng, shape), draw(rng, shape)
    ydot = max_pool(np, x + 1e-20j * xdot, *window).imag / 1e-20
    ybar = draw(rng, ydot.shape)
    xbar = max_pool_grad(np, ybar, x, max_pool(np, x, *window), *window)
    scale = np.linalg.norm(ybar) * np.linalg.norm(ydot)
    assert abs(np.sum(xbar * xdot) - np.sum(ybar * ydot)) <= 20 * EPS64 * scale


@pytest.mark.parametrize("shape, size, stride, padding", CASES)
@pytest.mark.parametrize("which", ["max", "max_grad", "max_pick", "avg", "avg_grad"])
def test_out_is_overwritten_whatever_it_holds(rng, shape, size, stride, padding, which):
    x = draw(rng, shape)
    window = (size, stride, padding)
    y = max_pool(np, x, *window)
    call = {
        "max": lambda **out: max_pool(np, x, *window, **out),
        "max_grad": lambda **out: max_pool_grad(np, y, x, y, *window, **out),
        "max_pick": lambda **out: max_pool_pick(np, x, x, y, *window, **out),
        "avg": lambda **out: avg_pool(np, x, *window, **out),
        "avg_grad": lambda **out: avg_pool_grad(np, y, *window, input_shape=shape[1:3], **out),
    }[which]
    expected = call()
    out = np.full_like(expected, np.nan)
    assert call(out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_nan_is_a_maximum(rng):
    x = draw(rng, (1, 4, 4, 1))
    x[0, 0, 1, 0] = np.nan
    assert np.isnan(max_pool(np, x, 2)[0, 0, 0, 0])


X = np.zeros((2, 5, 5, 3))
REFUSED = [
    (
        lambda: max_pool(np, X[0], 2),
        ArgumentError,
        r"pooling expects images \(B, H, W, C\); got shape \(5, 5, 3\)",
    ),
    (lambda: max_pool(np, X, 6), ArgumentError, r"window \(6, 6\) does not fit"),
    (lambda: max_pool(np, X, 2, 2, 2), ArgumentError, "`padding` must be smaller than `size`"),
    (
        lambda: avg_pool(np, X.astype(int), 2),
        ArgumentTypeError,
        "floating-point arrays are expected; got x int64",
    ),
    (lambda: avg_pool(np, X, 2, out=X), ArgumentError, r"`out` must be float64 of shape \(2, 2, 2, 3\)"),
    (
        lambda: avg_pool_grad(np, X, 2, input_shape=(5, 5)),
        ArgumentError,
        r"`ybar` must have the shape of the pooling, \(2, 2, 2, 3\)",
    ),
    (
        lambda: max_pool_grad(np, X, X, X, 2),
        ArgumentError,
        r"`ybar` must have the shape of the pooling, \(2, 2, 2, 3\)",
    ),
    (
        lambda: max_pool_grad(np, X[:, :2, :2], X, X, 2),
        ArgumentError,
        r"`y` must have the shape of `ybar`, \(2, 2, 2, 3\)",
    ),
    (
        lambda: max_pool_pick(np, X[:1], X, X, 2),
        ArgumentError,
        r"`z` must have the shape of `x`, \(2, 5, 5, 3\)",
    ),
    (
        lambda: max_pool_pick(np, X, X, X, 2),
        ArgumentError,
        r"`y` must have the shape of the pooling, \(2, 2, 2, 3\)",
    ),
]


@pytest.mark.parametrize("call, error, message", REFUSED)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
