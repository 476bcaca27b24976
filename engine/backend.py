"""The array module in use: the only file that names CuPy, and the only crossings between host and device."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from .errors import ArgumentTypeError

Array = Any  # numpy.ndarray or cupy.ndarray


def cupy_module() -> ModuleType:
    """CuPy, imported at first use; ArgumentTypeError says which extra to install if it is missing."""
    try:
        import cupy
    except ImportError as error:
        raise ArgumentTypeError(
            "device 'cuda' needs CuPy, which is not installed; pip install 'odegrad[cuda13]' (or [cuda12])"
        ) from error
    return cupy


def is_array(value: Any) -> bool:
    """Whether `value` is a numpy.ndarray or a cupy.ndarray (a NumPy scalar is neither)."""
    if isinstance(value, np.ndarray):
        return True
    cupy = sys.modules.get("cupy")  # an array of a module that was never imported cannot exist
    return cupy is not None and isinstance(value, getattr(cupy, "ndarray", ()))


def namespace_of(*arrays: Any) -> ModuleType:
    """The module (numpy or cupy) that all `arrays` belong to; numbers belong to both.

    Raises ArgumentTypeError that names every array and its module if they differ.
    """
    has_host = has_device = False
    for array in arrays:
        if isinstance(array, np.ndarray):
            has_host = True
        elif is_array(array):
            has_device = True
    if has_host and has_device:
        found = [
            f"#{i}: {type(a).__module__.partition('.')[0]} {a.dtype}{list(a.shape)}"
            for i, a in enumerate(arrays)
            if is_array(a)
        ]
        raise ArgumentTypeError("arrays of different modules meet: " + ", ".join(found))
    return sys.modules["cupy"] if has_device else np


def module_for_device(device: str) -> ModuleType:
    """numpy for "cpu", cupy for "cuda"."""
    if device == "cpu":
        return np
    if device == "cuda":
        return cupy_module()
    raise ArgumentTypeError(f"`device` must be 'cpu' or 'cuda'; got {device!r}")


def device_of(array: Array) -> str:
    """The device "cpu" for NumPy arrays and numbers, "cuda" for CuPy arrays."""
    return "cpu" if namespace_of(array) is np else "cuda"


def to_host(array: Array) -> np.ndarray:
    """`array` as a NumPy array; a transfer if it lives on a device, no copy if it does not."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def to_xp(xp: ModuleType, array: Any) -> Array:
    """`array` (host data) as an array of module `xp`."""
    return xp.asarray(array)


def raw_module(source: str, options: tuple[str, ...]) -> Any:
    """The CuPy module of a CUDA C text, compiled at its first use; `get_function(name)` gives its kernels."""
    return cupy_module().RawModule(code=source, options=options)
