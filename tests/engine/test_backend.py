"""The array module: recognised from the arguments, never mixed."""

import builtins
import sys
import types

import numpy as np
import pytest
from odegrad.engine.backend import (
    cupy_module,
    device_of,
    is_array,
    module_for_device,
    namespace_of,
    to_host,
    to_xp,
)
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, NeuralODEError


class StandIn:
    """What CuPy arrays have that this code asks for."""

    dtype = np.dtype(np.float32)
    shape = (2,)
    __module__ = "cupy"


@pytest.fixture
def other_module(monkeypatch):
    """A module named cupy whose arrays are `StandIn`s."""
    module = types.ModuleType("cupy")
    module.ndarray = StandIn
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.mark.parametrize("values", [(), (1.0,), (np.ones(2),), (np.ones(2), 3, np.float32(1))])
def test_numpy_is_the_module_of_numpy_arrays_and_numbers(values):
    assert namespace_of(*values) is np


def test_other_arrays_name_their_module(other_module):
    assert namespace_of(1.0, StandIn()) is other_module


def test_mixed_modules_are_refused_by_position(other_module):
    with pytest.raises(ArgumentTypeError, match=r"#0: numpy float64\[3\], #2: cupy float32\[2\]"):
        namespace_of(np.ones(3), 1.0, StandIn())


def test_error_is_a_type_error_and_one_of_the_projects(other_module):
    with pytest.raises(TypeError) as caught:
        namespace_of(np.ones(3), StandIn())
    assert isinstance(caught.value, NeuralODEError)


@pytest.mark.parametrize(
    "value, expected", [(np.ones(2), True), (np.float64(1), False), (1.0, False), ([1], False)]
)
def test_is_array(value, expected):
    assert is_array(value) is expected


def test_missing_cupy_says_which_extra_to_install(monkeypatch):
    real_import = builtins.__import__

    def without_cupy(name, *args, **kwargs):
        if name == "cupy":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_cupy)
    with pytest.raises(ArgumentTypeError, match=r"odegrad\[cuda13\]"):
        cupy_module()


@pytest.mark.parametrize("device", ["gpu", "CPU", "", None])
def test_unknown_device_is_refused(device):
    with pytest.raises(ArgumentTypeError, match="'cpu' or 'cuda'"):
        module_for_device(device)


def no_driver():
    raise RuntimeError("cudaErrorInsufficientDriver")


@pytest.mark.parametrize(
    "count, reason", [(lambda: 0, r"use\."), (no_driver, "use: cudaErrorInsufficientDriver")]
)
def test_a_machine_without_a_gpu_is_told_what_to_do(fake_cupy, monkeypatch, count, reason):
    monkeypatch.setattr(fake_cupy.cuda.runtime, "getDeviceCount", count)
    with pytest.raises(ArgumentError, match=rf"finds no GPU that it can {reason}.*'cpu'"):
        module_for_device("cuda")


def test_devices_of_numpy():
    assert (module_for_device("cpu"), device_of(np.ones(1)), device_of(2.0)) == (np, "cpu", "cpu")


def test_host_arrays_are_not_copied():
    x = np.ones(2)
    assert to_host(x) is x and to_xp(np, x) is x


def test_round_trip_to_the_module(xp):
    x = np.arange(6.0).reshape(2, 3)
    assert to_host(to_xp(xp, x)).tolist() == x.tolist()
