"""The kernels for moments, against NumPy in double precision."""

import numpy as np
import pytest
from cuda_on_cpu import Guarded
from cuda_on_device import PLACES, kernels_at
from odegrad.engine.cuda.channels import fits_channels, shares_of
from odegrad.engine.cuda.moments import moments, partial_shape
from odegrad.engine.ops.reductions import mean_leading

BOUND = {np.float32: 1e-6, np.float64: 1e-14}
SHAPES = [(7, 1), (1, 3), (3, 5, 4, 3), (2, 9, 8, 64), (29, 65), (3000, 2), (2, 2048)]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


@pytest.fixture(autouse=True, params=PLACES)
def kernels(request, monkeypatch):
    kernels_at(request.param, monkeypatch)


def drawn(rng, shape, dtype, offset=0, mean=0.5):
    x = Guarded(shape, dtype, offset)
    x.array[...] = mean + rng.standard_normal(shape) * np.linspace(0.1, 3, shape[-1])
    return x.array


def found(x, offset=0):
    """Moments by the kernels, written between guards."""
    out = [Guarded(x.shape[-1:], x.dtype, offset) for _ in range(2)]
    partial = Guarded(partial_shape(x), x.dtype)
    moments(x, mean=out[0].array, var=out[1].array, partial=partial.array)
    partial.check()
    return [one.check() for one in out]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@DTYPES
def test_moments_are_those_of_double_precision(rng, shape, dtype, offset):
    x = drawn(rng, shape, dtype, offset)
    rows = x.reshape(-1, shape[-1]).astype(np.longdouble)
    mean, var = found(x, offset)
    root = np.sqrt(np.mean(rows**2, 0))
    assert np.all(abs(mean - rows.mean(0)) <= BOUND[dtype] * root)
    assert np.all(
        abs(var - rows.var(0)) <= BOUND[dtype] * np.maximum(rows.var(0), root * np.finfo(dtype).eps)
    )


@DTYPES
def test_a_large_mean_does_not_cancel(rng, dtype):
    x = drawn(rng, (500, 3), dtype, mean=1e3)
    mean, var = found(x)
    exact = x.astype(np.longdouble)
    assert np.all(abs(mean - exact.mean(0)) <= 1e3 * BOUND[dtype] / 4)
    assert np.all(
        abs(var - exact.var(0)) <= 1e3 * BOUND[dtype] * exact.std(0)
    )  # eps * mean moves each deviation


def test_the_mean_alone_is_what_the_primitive_asks_for(rng):
    x, out = drawn(rng, (6, 5, 3), np.float64), Guarded((3,), np.float64)
    assert mean_leading.fits_cuda((x,), {}) and not mean_leading.fits_cuda((1.0,), {})
    assert mean_leading.cuda(x, out.array) is out.array
    np.testing.assert_allclose(out.check(), x.mean((0, 1)), rtol=1e-14)


def test_many_blocks_with_several_passes_each(rng, monkeypatch):
    monkeypatch.setattr("odegrad.engine.cuda.channels.MOST_BLOCKS", 3)
    x = drawn(rng, (5, 13, 11, 24), np.float32)
    assert shares_of(x).blocks == 3 and x.size > 2 * 3 * shares_of(x).threads * 4
    mean, var = found(x)
    exact = x.reshape(-1, 24).astype(np.float64)
    assert np.all(abs(mean - exact.mean(0)) <= 1e-6 * exact.std(0))
    assert np.all(abs(var - exact.var(0)) <= 1e-6 * exact.var(0))


def test_values_that_are_not_finite_stay_in_their_channel(rng):
    x = drawn(rng, (40, 3), np.float32)
    x[7, 1] = np.inf
    mean, var = found(x)
    assert np.isfinite([mean, var]).tolist() == [[True, False, True]] * 2


@pytest.mark.parametrize("channels", [1, 2, 3, 16, 64, 65, 100, 256, 1000, 1024])
@DTYPES
def test_the_slots_of_a_block_are_whole_rows(channels, dtype):
    x = np.empty((9, channels), dtype)
    blocks, threads = shares_of(x)
    pack = 16 // np.dtype(dtype).itemsize
    assert fits_channels(x) and threads * pack % channels == 0 and threads <= 1024 and blocks >= 1


@pytest.mark.parametrize(
    "x",
    [
        np.empty((2, 3), np.complex128),
        np.empty((2, 6), np.float32)[:, ::2],
        np.empty((0, 3), np.float32),
        np.empty((2, 1025), np.float32),
        np.empty((), np.float32),
    ],
    ids=["complex", "strided", "empty", "wide", "number"],
)
def test_what_does_not_fit(x):
    assert not fits_channels(x)
