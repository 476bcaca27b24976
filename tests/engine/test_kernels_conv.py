"""Convolution kernels against SciPy's correlate2d, adjoint identities, and themselves on one thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odegrad.engine.errors import ArgumentError, ArgumentTypeError
from odegrad.engine.kernels import (
    conv2d,
    conv2d_input_grad,
    conv2d_output_shape,
    conv2d_weight_grad,
)
from scipy.signal import correlate2d
from threadpoolctl import threadpool_limits

EPS64, EPS32 = np.finfo(np.float64).eps, np.finfo(np.float32).eps

# x (B, H, W, Cin), w (kh, kw, Cin, Cout), stride, padding
CASES = [
    ((2, 6, 7, 3), (3, 3, 3, 4), 1, 1),
    ((2, 6, 7, 3), (3, 3, 3, 4), 2, 1),
    ((2, 6, 7, 5), (3, 3, 5, 4), 1, 1),
    ((2, 6, 7, 6), (3, 4, 6, 4), 2, 1),
    ((3, 5, 5, 1), (5, 5, 1, 2), 1, 0),
    ((1, 9, 4, 2), (2, 3, 2, 3), (3, 2), (0, 2)),
    ((2, 4, 4, 5), (1, 1, 5, 3), 1, 0),
    ((2, 5, 4, 5), (1, 1, 5, 3), 2, 0),
    ((2, 7, 7, 2), (2, 2, 2, 2), 3, 0),  # positions that no tap reaches
    ((2, 8, 7, 6), (2, 1, 6, 2), 3, 0),
    ((2, 7, 2, 6), (1, 1, 6, 2), 3, 1),
    ((1, 2, 2, 1), (1, 1, 1, 1), 1, 3),  # windows that lie wholly in the border
    ((1, 1, 1, 2), (4, 4, 2, 1), 1, 2),
    ((40, 8, 8, 3), (3, 3, 3, 6), 1, 1),  # several tiles of whole images
    ((2, 96, 80, 24), (3, 3, 24, 2), 1, 1),  # several tiles within one image
    ((2, 97, 80, 24), (3, 3, 24, 2), 2, 1),
    ((1, 131, 96, 5), (3, 3, 5, 48), 2, 1),  # cells of 2x2 pixels in the input gradient
    ((1, 201, 140, 2), (3, 3, 2, 3), 2, 1),
]
DTYPES = [np.float32, np.float64, np.complex128]


def draw(rng, shape, dtype=np.float64):
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def oracle(x, w, stride, padding):
    """One image and one pair of channels at a time by SciPy; its correlation conjugates the kernel, ours does not."""
    (step_h, step_w), (pad_h, pad_w) = pair(stride), pair(padding)
    padded = np.pad(x, ((0, 0), (pad_h, pad_h), (pad_w, pad_w), (0, 0)))
    full = [
        [
            sum(correlate2d(image[:, :, c], w[:, :, c, d].conj(), mode="valid") for c in range(w.shape[2]))
            for d in range(w.shape[3])
        ]
        for image in padded
    ]
    return np.moveaxis(np.array(full), 1, 3)[:, ::step_h, ::step_w]


def assert_close(got, expected, tol):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tol * np.abs(expected).max()


@pytest.fixture
def rng():
    return np.random.default_rng(20240611)


@pytest.mark.parametrize("x_shape, w_shape, stride, padding", CASES)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_forward_agrees_with_scipy(rng, x_shape, w_shape, stride, padding, dtype):
    x, w = draw(rng, x_shape, dtype), draw(rng, w_shape, dtype)
    y = conv2d(np, x, w, stride=stride, padding=padding)
    assert y.dtype == dtype
    assert_close(y, oracle(x, w, stride, padding), 50 * EPS64)


@pytest.mark.parametrize("x_shape, w_shape, stride, padding", CASES)
def test_output_shape_is_that_of_the_result(rng, x_shape, w_shape, stride, padding):
    y = conv2d(np, draw(rng, x_shape), draw(rng, w_shape), stride=stride, padding=padding)
    assert conv2d_output_shape(x_shape, w_shape, stride, padding) == y.shape


@st.composite
def convolutions(draw_from):
    kernel = draw_from(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw_from(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw_from(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    size = [draw_from(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel, padding, strict=True)]
    n_images, n_out = draw_from(st.integers(1, 3)), draw_from(st.integers(1, 7))
    n_in = draw_from(st.integers(1, 7))  # few channels on a side are shifted or scattered, more are gathered
    return (n_images, *size, n_in), (*kernel, n_in, n_out), stride, padding, draw_from(st.integers(0, 99))


@given(convolutions(), st.sampled_from([np.float64, np.complex128]))
@settings(max_examples=150, deadline=None)
def test_gradients_are_the_transposes(case, dtype):
    x_shape, w_shape, stride, padding, seed = case
    rng = np.random.default_rng(seed)
    x, w = draw(rng, x_shape, dtype), draw(rng, w_shape, dtype)
    y = conv2d(np, x, w, stride=stride, padding=padding)
    ybar = draw(rng, y.shape, dtype)
    xbar = conv2d_input_grad(np, ybar, w, input_shape=x_shape[1:3], stride=stride, padding=padding)
    wbar = conv2d_weight_grad(np, x, ybar, kernel_shape=w_shape[:2], stride=stride, padding=padding)
    scale = np.linalg.norm(ybar) * np.linalg.norm(oracle(abs(x), abs(w), stride, padding))
    product = np.sum(ybar * y)
    assert abs(np.sum(xbar * x) - product) <= 20 * EPS64 * scale
    assert abs(np.sum(wbar * w) - product) <= 20 * EPS64 * scale


def gradients(x, w, ybar, stride, padding):
    options = {"stride": stride, "padding": padding}
    return (
        conv2d(np, x, w, **options),
        conv2d_input_grad(np, ybar, w, input_shape=x.shape[1:3], **options),
        conv2d_weight_grad(np, x, ybar, kernel_shape=w.shape[:2], **options),
    )


def operands(rng, x_shape, w_shape, stride, padding, dtype):
    y_shape = conv2d_output_shape(x_shape, w_shape, stride, padding)
    return draw(rng, x_shape, dtype), draw(rng, w_shape, dtype), draw(rng, y_shape, dtype)


@pytest.mark.parametrize("x_shape, w_shape, stride, padding", CASES)
@pytest.mark.parametrize("which", ["y", "xbar", "wbar"])
def test_float32_agrees_with_float64(rng, x_shape, w_shape, stride, padding, which):
    single = operands(rng, x_shape, w_shape, stride, padding, np.float32)
    double = [array.astype(np.float64) for array in single]
    index = ["y", "xbar", "wbar"].index(which)
    got = gradients(*single, stride, padding)[index]
    assert got.dtype == np.float32
    assert_close(got, gradients(*double, stride, padding)[index], 50 * EPS32)


@pytest.mark.parametrize("x_shape, w_shape, stride, padding", CASES[:-4])
@pytest.mark.parametrize("which", ["y", "xbar", "wbar"])
def test_every_entry_agrees_with_the_definition(rng, x_shape, w_shape, stride, padding, which):
    """The definition, one output position and tap at a time."""
    x, w, ybar = operands(rng, x_shape, w_shape, stride, padding, np.float64)
    expected = {"y": np.zeros(ybar.shape), "xbar": np.zeros(x.shape), "wbar": np.zeros(w.shape)}
    (step_h, step_w), (pad_h, pad_w) = pair(stride), pair(padding)
    for i, j, k, l in np.ndindex(*ybar.shape[1:3], *w.shape[:2]):
        row, column = i * step_h + k - pad_h, j * step_w + l - pad_w
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            expected["y"][:, i, j] += x[:, row, column] @ w[k, l]
            expected["xbar"][:, row, column] += ybar[:, i, j] @ w[k, l].T
            expected["wbar"][k, l] += x[:, row, column].T @ ybar[:, i, j]
    got = gradients(x, w, ybar, stride, padding)[["y", "xbar", "wbar"].index(which)]
    scale = max(np.abs(expected[which]).max(), 1e-300)
    assert np.abs(got - expected[which]).max() <= 100 * EPS64 * scale


@pytest.mark.parametrize("x_shape, w_shape, stride, padding", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("contiguous", [True, False])
def test_out_is_overwritten_whatever_it_holds(rng, x_shape, w_shape, stride, padding, dtype, contiguous):
    x, w, ybar = operands(rng, x_shape, w_shape, stride, padding, dtype)
    options = {"stride": stride, "padding": padding}
    for kernel, args, extra, expected in zip(
        (conv2d, conv2d_input_grad, conv2d_weight_grad),
        ((x, w), (ybar, w), (x, ybar)),
        ({}, {"input_shape": x_shape[1:3]}, {"kernel_shape": w_shape[:2]}),
        gradients(x, w, ybar, stride, padding),
        strict=True,
    ):
        shape = expected.shape if contiguous else (*expected.shape[:3], 2 * expected.shape[3])
        out = np.full(shape, np.nan, dtype)[..., :: 1 if contiguous else 2]
        assert kernel(np, *args, **extra, **options, out=out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("x_shape, w_shape, stride, padding", CASES)
def test_strides_of_the_arguments_do_not_matter(rng, x_shape, w_shape, stride, padding):
    arrays = operands(rng, x_shape, w_shape, stride, padding, np.float64)
    strided = [np.asfortranarray(array)[::1, ::-1][:, ::-1] for array in arrays]
    for got, expected in zip(
        gradients(*strided, stride, padding), gradients(*arrays, stride, padding), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("x_shape, w_shape", [((0, 5, 5, 2), (3, 3, 2, 4)), ((2, 5, 5, 0), (3, 3, 0, 4))])
def test_nothing_to_sum_gives_zeros(rng, x_shape, w_shape):
    x, w, ybar = operands(rng, x_shape, w_shape, 1, 1, np.float32)
    y, xbar, wbar = gradients(x, w, ybar, 1, 1)
    assert (y.shape, xbar.shape, wbar.shape) == (ybar.shape, x.shape, w.shape)
    assert not (y.any() or xbar.any() or wbar.any())


def test_a_real_kernel_on_a_complex_image_gives_a_complex_result(rng):
    x, w = draw(rng, (2, 5, 5, 2), np.complex128), draw(rng, (3, 3, 2, 3))
    y = conv2d(np, x, w, padding=1)
    assert y.dtype == np.complex128
    assert_close(y.imag, conv2d(np, x.imag, w, padding=1), 50 * EPS64)


@pytest.mark.parametrize("size, expected", [(7, 4), (8, 4), (13, 7), (14, 7)])
def test_a_transposed_convolution_restores_either_mirror_size(rng, size, expected):
    """Stride 2 maps 7 and 8 to 4: `input_shape` decides which of them comes back."""
    w = draw(rng, (3, 3, 2, 3))
    y = conv2d(np, draw(rng, (1, size, size, 2)), w, stride=2, padding=1)
    back = conv2d_input_grad(np, y, w, input_shape=(size, size), stride=2, padding=1)
    assert (y.shape[1], back.shape[1]) == (expected, size)


@pytest.mark.parametrize("x_shape, w_shape, stride, padding", CASES[-6:])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_repeated_calls_give_the_same_bits(rng, x_shape, w_shape, stride, padding, n_threads):
    arrays = operands(rng, x_shape, w_shape, stride, padding, np.float32)
    with threadpool_limits(n_threads):
        first = gradients(*arrays, stride, padding)
        second = gradients(*arrays, stride, padding)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("x_shape, w_shape, stride, padding", CASES[-6:])
@pytest.mark.parametrize("which", [0, 1])
def test_forward_and_input_gradient_do_not_depend_on_the_number_of_threads(
    rng, x_shape, w_shape, stride, padding, which
):
    arrays = operands(rng, x_shape, w_shape, stride, padding, np.float32)
    results = []
    for n_threads in (1, 3):
        with threadpool_limits(n_threads):
            results.append(gradients(*arrays, stride, padding)[which])
    np.testing.assert_array_equal(*results)


def test_callers_on_several_threads_do_not_disturb_each_other(rng):
    problems = [operands(rng, *CASES[i], np.float64) + CASES[i][2:] for i in (0, 1, 9, 9, 10)]
    expected = [gradients(*problem) for problem in problems]
    with ThreadPoolExecutor(len(problems)) as pool:
        for _ in range(5):
            for got, want in zip(pool.map(lambda p: gradients(*p), problems), expected, strict=True):
                for one, other in zip(got, want, strict=True):
                    np.testing.assert_array_equal(one, other)


X, W = np.zeros((2, 5, 5, 3)), np.zeros((3, 3, 3, 4))
REFUSED = [
    (lambda: conv2d(np, X[0], W), ArgumentError, r"images \(B, H, W, Cin\).* got \(5, 5, 3\)"),
    (lambda: conv2d(np, X, W[:, :, :2]), ArgumentError, r"same Cin; got .*\(3, 3, 2, 4\)"),
    (
        lambda: conv2d(np, X[:, :2], W),
        ArgumentError,
        r"window \(3, 3\) does not fit into an image of \(2, 5\)",
    ),
    (lambda: conv2d(np, X, W, stride=0), ArgumentError, "`stride` must be at least 1; got 0"),
    (lambda: conv2d(np, X, W, padding=-1), ArgumentError, "`padding` must be at least 0; got -1"),
    (lambda: conv2d(np, X, W, stride=1.5), ArgumentTypeError, "`stride` must be an integer or a pair"),
    (lambda: conv2d(np, X, W, stride=(1, 2, 3)), ArgumentTypeError, "`stride` must be an integer or a pair"),
    (
        lambda: conv2d(np, X.astype(int), W.astype(int)),
        ArgumentTypeError,
        "floating-point arrays are expected",
    ),
    (lambda: conv2d(np, X, W, out=X), ArgumentError, r"`out` must be float64 of shape \(2, 3, 3, 4\)"),
    (
        lambda: conv2d(np, X, W, out=np.zeros((2, 3, 3, 4), np.float32)),
        ArgumentError,
        "`out` must be float64 .* got float32",
    ),
    (
        lambda: conv2d_input_grad(np, np.zeros((2, 3, 3, 4)), W, input_shape=(7, 5)),
        ArgumentError,
        r"`ybar` must have the shape of the convolution, \(2, 5, 3, 4\)",
    ),
    (
        lambda: conv2d_weight_grad(np, X, np.zeros((1, 3, 3, 4)), kernel_shape=3),
        ArgumentError,
        r"`ybar` must have the shape of the convolution, \(2, 3, 3, 4\)",
    ),
    (
        lambda: conv2d_weight_grad(np, X, np.zeros((2, 3, 3)), kernel_shape=3),
        ArgumentError,
        "`ybar` must have 4 axes",
    ),
]


@pytest.mark.parametrize("call, error, message", REFUSED)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
