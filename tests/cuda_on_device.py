"""CuPy where it can be used, and kernels under test on it: what a launch is given goes to the device and comes back."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import compile_with, on_cpu

PLACES = ("cpu", pytest.param("device", marks=pytest.mark.gpu))  # where a test of kernels runs


def kernels_at(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here to the end of the test, the launch functions of `engine/cuda` take NumPy arrays, at one of PLACES."""
    if place == "cpu":
        on_cpu(monkeypatch)
    else:
        compile_with(partial(DeviceModule, cupy_or_skip()), monkeypatch)


def cupy_or_skip() -> ModuleType:
    """CuPy with a working device; the test is skipped, with the reason, where there is none."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        if cupy.cuda.runtime.getDeviceCount() < 1:
            pytest.skip("CuPy sees no CUDA device")
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"CuPy cannot use a CUDA device: {error}")
    return cupy


class DeviceModule:
    """A compiled text whose kernels take NumPy arrays."""

    def __init__(self, cupy: ModuleType, code: str, options: tuple[str, ...]) -> None:
        self.cupy, self.module = cupy, cupy.RawModule(code=code, options=options)

    def get_function(self, name: str) -> Any:
        """The kernel of this name."""
        return partial(self._launch, self.module.get_function(name))

    def _launch(
        self, kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]
    ) -> None:
        """One launch between two copies of the whole memory that each array lies in, its margins too."""
        memories = {id(m): m for m in (_memory_of(a) for a in args if isinstance(a, np.ndarray))}
        copies = {key: self.cupy.asarray(_bytes_of(memory)) for key, memory in memories.items()}
        kernel(grid, block, tuple(self._on_device(arg, copies) for arg in args))
        for key, memory in memories.items():
            if memory.flags.writeable:
                _bytes_of(memory)[:] = copies[key].get()

    def _on_device(self, arg: Any, copies: dict[int, Any]) -> Any:
        """The address that an array has in the copy of its memory; numbers as they are."""
        if not isinstance(arg, np.ndarray):
            return arg
        memory = _memory_of(arg)
        return np.intp(copies[id(memory)].data.ptr + arg.ctypes.data - memory.ctypes.data)


def _memory_of(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory of `array`."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _bytes_of(memory: np.ndarray) -> np.ndarray:
    assert memory.flags.c_contiguous
    return memory.reshape(-1).view(np.uint8)
