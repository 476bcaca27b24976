"""The kernels for maximum pooling, against the plain ones: the same bits."""

import numpy as np
import pytest
from cuda_on_cpu import Guarded
from cuda_on_device import PLACES, kernels_at
from odegrad.engine import kernels as plain
from odegrad.engine.cuda import max_pool as cuda
from odegrad.engine.ops import convolution as ops

# x shape, size, stride, padding
CASES = [
    ((2, 6, 8, 64), (2, 2), (2, 2), (0, 0)),
    ((2, 7, 5, 3), (2, 2), (2, 2), (0, 0)),  # positions that no window reaches
    ((1, 4, 4, 65), (2, 2), (2, 2), (0, 0)),
    ((2, 7, 7, 1), (3, 3), (2, 2), (1, 1)),
    ((1, 5, 6, 4), (3, 3), (1, 1), (1, 2)),
    ((2, 9, 4, 2), (4, 1), (3, 2), (2, 0)),
]
WINDOWS = pytest.mark.parametrize("shape, size, stride, padding", CASES)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
OFFSETS = pytest.mark.parametrize("offset", [0, 1])


@pytest.fixture(autouse=True, params=PLACES)
def kernels(request, monkeypatch):
    kernels_at(request.param, monkeypatch)


def drawn(rng, shape, dtype, offset=0):
    """Small whole numbers, so that there are many ties."""
    array = Guarded(shape, dtype, offset).array
    array[...] = np.round(2 * rng.standard_normal(shape))
    return array


@OFFSETS
@WINDOWS
@DTYPES
def test_the_maximum_of_each_window(rng, shape, size, stride, padding, dtype, offset):
    x = drawn(rng, shape, dtype, offset)
    expected = plain.max_pool(np, x, size, stride, padding)
    y = Guarded(expected.shape, dtype, offset)
    assert cuda.max_pool(x, y.array, size=size, stride=stride, padding=padding) is y.array
    np.testing.assert_array_equal(y.check(), expected)


@OFFSETS
@WINDOWS
@DTYPES
def test_cotangents_go_to_the_first_maximum(rng, shape, size, stride, padding, dtype, offset):
    x = drawn(rng, shape, dtype, offset)
    y = plain.max_pool(np, x, size, stride, padding)
    ybar = drawn(rng, y.shape, dtype)
    xbar = Guarded(shape, dtype, offset)
    cuda.max_pool_grad(ybar, x, y, xbar.array, size=size, stride=stride, padding=padding)
    np.testing.assert_array_equal(xbar.check(), plain.max_pool_grad(np, ybar, x, y, size, stride, padding))


@OFFSETS
@WINDOWS
@DTYPES
def test_values_are_picked_at_the_first_maximum(rng, shape, size, stride, padding, dtype, offset):
    x, z = (drawn(rng, shape, dtype, offset) for _ in range(2))
    y = plain.max_pool(np, x, size, stride, padding)
    picked = Guarded(y.shape, dtype, offset)
    cuda.max_pool_pick(z, x, y, picked.array, size=size, stride=stride, padding=padding)
    np.testing.assert_array_equal(picked.check(), plain.max_pool_pick(np, z, x, y, size, stride, padding))


def test_a_nan_is_the_maximum_and_passes_nothing_on(rng):
    x = drawn(rng, (1, 4, 4, 4), np.float32)
    x[0, 1, 0, 2] = np.nan
    y = cuda.max_pool(x, size=2)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 0, 2]]
    ybar = np.ones_like(y)
    np.testing.assert_array_equal(
        cuda.max_pool_grad(ybar, x, y, size=2), plain.max_pool_grad(np, ybar, x, y, 2)
    )


def test_minus_infinity_is_a_maximum_as_others():
    x = np.full((1, 2, 2, 3), -np.inf)
    y = cuda.max_pool(x, size=2)
    assert (y == -np.inf).all()
    assert cuda.max_pool_grad(np.ones_like(y), x, y, size=2)[0, 0, 0].tolist() == [1.0, 1.0, 1.0]


def test_more_blocks_than_are_launched_at_once(rng, monkeypatch):
    monkeypatch.setattr(cuda, "MOST_BLOCKS", 2)
    x = drawn(rng, (3, 16, 14, 3), np.float32)
    np.testing.assert_array_equal(cuda.max_pool(x, size=2), plain.max_pool(np, x, 2))


def test_what_fits(monkeypatch):
    x = np.ones((1, 2, 2, 3), np.float32)
    assert cuda.fits_max_pool(x, x) and not cuda.fits_max_pool(x, x.astype(np.float64))
    assert not cuda.fits_max_pool(x[:, :, ::2]) and not cuda.fits_max_pool(x[:0])
    assert not cuda.fits_max_pool(x[0]) and not cuda.fits_max_pool(x, 1.0)
    monkeypatch.setattr(cuda, "MOST_VALUES", x.size)
    assert not cuda.fits_max_pool(x)


@pytest.mark.parametrize("op", [ops.max_pool_windows, ops.max_pool_grad, ops.max_pool_pick], ids=str)
def test_the_primitives_have_these_kernels(op):
    assert op.cuda.__module__ == cuda.__name__
