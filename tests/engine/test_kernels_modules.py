"""Kernels and random numbers on an array module that is not NumPy: CuPy on a device, a stand-in on the host."""

import types

import numpy as np
import pytest
from odegrad.engine import backend, kernels, random
from odegrad.engine.errors import NeuralODEError


def stand_in():
    """NumPy under another name: takes the path of device arrays (no threads, no kept buffers, large tiles)."""
    module = types.ModuleType("stand_in")
    module.__dict__.update(vars(np))
    return module


def device_module():
    try:
        return backend.module_for_device("cuda")
    except NeuralODEError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def xp(request):
    return stand_in() if request.param == "stand-in" else device_module()


@pytest.fixture
def rng():
    return np.random.default_rng(5)


# x shape, w shape, stride, padding: gathered, scattered, strided with positions that no tap reaches, few channels in, out
CONVOLUTIONS = [
    ((3, 8, 7, 6), (3, 3, 6, 5), 1, 1),
    ((3, 8, 7, 2), (3, 3, 2, 5), 2, 1),
    ((3, 8, 7, 6), (2, 2, 6, 5), 3, 0),
    ((3, 8, 7, 2), (3, 3, 2, 5), 1, 1),
    ((3, 8, 7, 6), (3, 3, 6, 1), 1, 0),
]
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-13, np.dtype(np.complex128): 1e-13}


def assert_agree(got, expected):
    got = backend.to_host(got)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    assert np.abs(got - expected).max() <= TOLERANCE[expected.dtype] * np.abs(expected).max()


@pytest.mark.parametrize("x_shape, w_shape, stride, padding", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("which", ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"])
def test_convolution_agrees_with_numpy(xp, rng, x_shape, w_shape, stride, padding, dtype, which):
    y_shape = kernels.conv2d_output_shape(x_shape, w_shape, stride, padding)
    x, w, ybar = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, y_shape))
    arrays = {"conv2d": (x, w), "conv2d_input_grad": (ybar, w), "conv2d_weight_grad": (x, ybar)}[which]
    extra = {
        "conv2d": {},
        "conv2d_input_grad": {"input_shape": x_shape[1:3]},
        "conv2d_weight_grad": {"kernel_shape": w_shape[:2]},
    }[which]
    kernel = getattr(kernels, which)
    got = kernel(xp, *(xp.asarray(array) for array in arrays), stride=stride, padding=padding, **extra)
    assert_agree(got, kernel(np, *arrays, stride=stride, padding=padding, **extra))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("which", ["max_pool", "max_pool_grad", "max_pool_pick", "avg_pool", "avg_pool_grad"])
def test_pooling_agrees_with_numpy(xp, rng, dtype, which):
    x, window = rng.standard_normal((2, 7, 8, 3)).astype(dtype), (3, 2, 1)
    y = kernels.max_pool(np, x, *window)
    arrays = {
        "max_pool": (x,),
        "max_pool_grad": (y, x, y),
        "max_pool_pick": (x, x, y),
        "avg_pool": (x,),
        "avg_pool_grad": (y,),
    }[which]
    extra = {"input_shape": (7, 8)} if which == "avg_pool_grad" else {}
    kernel = getattr(kernels, which)
    got = kernel(xp, *(xp.asarray(array) for array in arrays), *window, **extra)
    assert_agree(got, kernel(np, *arrays, *window, **extra))


@pytest.mark.parametrize("n", [0, 5, 70_001])
def test_random_bits_are_the_same(xp, n):
    key = random.key(12)
    np.testing.assert_array_equal(backend.to_host(random.bits(key, n, xp)), random.bits(key, n))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_numbers_are_the_same(xp, dtype):
    key = random.key(12)
    got = backend.to_host(random.uniform(key, (50, 3), dtype, xp))
    np.testing.assert_array_equal(got, random.uniform(key, (50, 3), dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_numbers_agree_to_two_units_in_the_last_place(xp, dtype):
    key = random.key(12)
    got = backend.to_host(random.normal(key, (5000,), dtype, xp))
    np.testing.assert_array_max_ulp(got, random.normal(key, (5000,), dtype), maxulp=2)
