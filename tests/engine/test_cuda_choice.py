"""A primitive's CUDA kernel: used for the arrays it fits, on the device only."""

import sys
import types

import numpy as np
import pytest
from odegrad.engine.primitive import Primitive


class DeviceArray:
    """What CuPy arrays have that the choice asks for."""

    shape = (3,)

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)


@pytest.fixture
def device(monkeypatch):
    """A module named cupy whose arrays are `DeviceArray`s."""
    module = types.ModuleType("cupy")
    module.ndarray = DeviceArray
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def scaled():
    """x * by, with a kernel for float32."""
    op = Primitive("scaled", lambda xp, x, *, by: ("plain", xp, by), is_flat=False, may_view=False)
    op.on_cuda(lambda x, *, by: x.dtype == np.float32)(lambda x, out=None, *, by: ("kernel", out, by))
    return op


def test_the_kernel_computes_what_it_fits(device, scaled):
    assert scaled(DeviceArray("float32"), by=2) == ("kernel", None, 2)


def test_other_dtypes_are_left_to_the_plain_forward(device, scaled):
    assert scaled(DeviceArray("float64"), by=2) == ("plain", device, 2)


def test_host_arrays_never_reach_the_kernel(scaled):
    assert scaled(np.ones(3, np.float32), by=2) == ("plain", np, 2)


def test_a_primitive_without_a_kernel_computes_plainly(device):
    op = Primitive("bare", lambda xp, x: ("plain", xp), is_flat=False, may_view=False)
    assert op(DeviceArray("float32")) == ("plain", device)


def test_a_second_kernel_is_a_mistake(scaled):
    with pytest.raises(AssertionError, match="two CUDA kernels for scaled"):
        scaled.on_cuda(lambda x, *, by: True)(lambda x, out=None, *, by: x)
