"""Winograd's convolution against plain sums: where it is used, and what its round-off is."""

import numpy as np
import pytest
from odegrad.engine.kernels import conv2d, conv2d_input_grad, conv2d_weight_grad, winograd
from odegrad.engine.kernels.precision import accepted_error, accepting
from threadpoolctl import threadpool_limits

EPS64 = np.finfo(np.float64).eps
ANY = 1.0  # an error that everything is below of

# (B, H, W, Cin), Cout, padding
CASES = [
    ((8, 16, 16, 24), 25, 1),  # whole blocks
    ((9, 28, 28, 16), 17, 1),
    ((32, 7, 7, 24), 24, 1),  # blocks that stick out
    ((33, 7, 5, 25), 24, (1, 2)),  # a last tile of another size, unequal padding
    ((1, 47, 50, 24), 24, 0),  # tiles within one image
    ((2, 33, 40, 24), 24, 2),
    ((9, 16, 16, 100), 24, 1),  # tiles of fewer blocks
    ((9, 16, 15, 180), 24, 1),  # more again
]


@pytest.fixture
def uses(monkeypatch):
    """The names of the Winograd functions that are called."""
    called = []

    def watch(name):
        plain = getattr(winograd, name)

        def spy(*args):
            called.append(name)
            return plain(*args)

        monkeypatch.setattr(winograd, name, spy)

    watch("_correlate_tile")
    watch("_cotangent_spectrum")
    return called


def arrays(shape, n_out, padding, dtype=np.float64):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape).astype(dtype)
    w = rng.standard_normal((3, 3, shape[3], n_out)).astype(dtype)
    ybar = rng.standard_normal(conv2d(np, x, w, padding=padding).shape).astype(dtype)
    return x, w, ybar


def three(x, w, ybar, padding):
    """Forward and both gradients."""
    y = conv2d(np, x, w, padding=padding)
    xbar = conv2d_input_grad(np, ybar, w, input_shape=x.shape[1:3], padding=padding)
    wbar = conv2d_weight_grad(np, x, ybar, kernel_shape=(3, 3), padding=padding)
    return y, xbar, wbar


@pytest.mark.parametrize("shape, n_out, padding", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_plain_sums(uses, shape, n_out, padding, dtype):
    x, w, ybar = arrays(shape, n_out, padding, dtype)
    exact = three(*(a.astype(np.float64) for a in (x, w, ybar)), padding)
    assert not uses
    with accepting(ANY):
        found = three(x, w, ybar, padding)
    assert set(uses) == {"_correlate_tile", "_cotangent_spectrum"}
    for got, expected in zip(found, exact, strict=True):
        assert got.dtype == dtype
        error = np.abs(got - expected).max()
        assert error <= winograd.ROUND_OFF * np.finfo(dtype).eps * np.abs(expected).max()


@pytest.mark.parametrize(
    "accepted, dtype, is_used",
    [
        (0.0, np.float64, False),
        (1e-5, np.float32, False),
        (4e-5, np.float32, True),
        (1e-12, np.float64, True),
    ],
)
def test_is_used_where_its_round_off_is_accepted(uses, accepted, dtype, is_used):
    x, w, _ = arrays(*CASES[0], dtype)
    uses.clear()
    with accepting(accepted):
        conv2d(np, x, w, padding=1)
    assert bool(uses) == is_used


@pytest.mark.parametrize(
    "shape, n_out, options",
    [
        ((8, 16, 16, 24), 24, {"padding": 1, "stride": 2}),
        ((8, 16, 16, 15), 24, {"padding": 1}),  # few channels
        ((32, 7, 7, 23), 24, {"padding": 1}),  # few channels, and blocks that stick out
        ((2, 16, 16, 24), 24, {"padding": 1}),  # few blocks
        ((64, 5, 5, 24), 24, {"padding": 1}),  # blocks that are mostly outside
    ],
)
def test_is_not_used_where_it_does_not_pay(uses, shape, n_out, options):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape), rng.standard_normal((3, 3, shape[3], n_out))
    with accepting(ANY):
        conv2d(np, x, w, **options)
    assert not uses


def test_complex_arrays_are_summed_plainly(uses):
    x, w, _ = arrays(*CASES[0])
    with accepting(ANY):
        conv2d(np, x + 0j, w + 0j, padding=1)
    assert not uses


def test_what_is_accepted_ends_with_the_block():
    with accepting(0.5):
        with accepting(0.25):
            assert accepted_error() == 0.25
        assert accepted_error() == 0.5
    assert accepted_error() == 0.0


def test_bits_do_not_depend_on_the_number_of_threads():
    x, w, ybar = arrays(*CASES[1])
    found = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"), accepting(ANY):
            found.append(three(x, w, ybar, 1)[:2])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_writes_into_any_strides():
    x, w, _ = arrays(*CASES[0])
    wide = np.zeros((8, 16, 16, 2 * 25))
    with accepting(ANY):
        conv2d(np, x, w, padding=1, out=wide[..., ::2])
    np.testing.assert_allclose(wide[..., ::2], conv2d(np, x, w, padding=1), atol=1e3 * EPS64)
    assert not wide[..., 1::2].any()
