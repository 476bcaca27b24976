"""The two loops as C functions, compiled at first use for the dtype of a state and kept on disk."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import types

from ...engine.jit.disk import compiled_loop
from .. import controller, first_step
from .sweep import sweep
from .walk import walk


@cache
def loop(name: str, dtype: Any) -> Callable[[int, int, int], int]:
    """`walk` or `sweep` as a function of the addresses of the three arrays of `job.py`."""
    number, c_number = (
        (types.float32, ctypes.c_float) if dtype == np.float32 else (types.float64, ctypes.c_double)
    )
    arrays = (types.CPointer(types.int64), types.CPointer(types.int64), types.CPointer(types.float64))
    signature, formulas = (
        types.int64(*arrays, number),
        [Path(str(module.__file__)) for module in (controller, first_step)],
    )
    compiled = compiled_loop({"walk": walk, "sweep": sweep}[name], signature, formulas)
    function = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3, c_number)(compiled.address)

    def run(addresses: int, counts: int, reals: int) -> int:
        return function(addresses, counts, reals, 0.0)

    run.compiled = compiled  # type: ignore[attr-defined]  # the machine code lives as long as the function
    return run
