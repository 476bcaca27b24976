"""Steps of optimisers as machine code: each value goes through all of its update in registers.

Operations, their order and their rounding are those of `train/optimizers.py` in NumPy, so that results have
the same bits. A kernel works on the values first .. end - 1 of arrays without gaps, whose addresses are in
`job`: what it reads, then what it writes. The type of `numbers` is that of all arrays.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types

from .disk import compiled_loop
from .memory import load, pointer
from .streams import read, write

Entry = Callable[[int, int, int, int], None]  # first, end, addresses of job and numbers


def adam(first, end, job, numbers):
    """p, g, m, v -> p, m, v.

    numbers: factor of g, factor of p, share of p in g, beta1, 1 - beta1, beta2, 1 - beta2,
        divisor of the root, eps, -rate.
    """
    scale, shrink, pull = load(numbers, 0), load(numbers, 1), load(numbers, 2)
    keep1, take1, keep2, take2 = load(numbers, 3), load(numbers, 4), load(numbers, 5), load(numbers, 6)
    root, eps, rate = load(numbers, 7), load(numbers, 8), load(numbers, 9)
    p, g, m = pointer(load(job, 0), scale), pointer(load(job, 1), scale), pointer(load(job, 2), scale)
    v, p_new = pointer(load(job, 3), scale), pointer(load(job, 4), scale)
    m_new, v_new = pointer(load(job, 5), scale), pointer(load(job, 6), scale)
    is_pulled = pull != 0
    for i in range(first, end):
        x, slope = read(p, i, 0), read(g, i, 0) * scale
        slope = x * pull + slope if is_pulled else slope
        mean = read(m, i, 0) * keep1 + slope * take1
        square = read(v, i, 0) * keep2 + slope * slope * take2
        step = mean / (np.sqrt(square) / root + eps)
        write(p_new, i, step * rate + x * shrink, 1)
        write(m_new, i, mean, 2)
        write(v_new, i, square, 3)


def sgd(first, end, job, numbers):
    """p, g -> p; numbers: factor of g, share of p in g, -rate."""
    scale, pull, rate = load(numbers, 0), load(numbers, 1), load(numbers, 2)
    p, g, p_new = pointer(load(job, 0), scale), pointer(load(job, 1), scale), pointer(load(job, 2), scale)
    is_pulled = pull != 0
    for i in range(first, end):
        x, slope = read(p, i, 0), read(g, i, 0) * scale
        slope = x * pull + slope if is_pulled else slope
        write(p_new, i, slope * rate + x, 1)


def momentum(first, end, job, numbers):
    """p, g, velocity -> p, velocity; numbers: those of `sgd`, momentum,
    and momentum again with Nesterov's step, else 0.
    """
    scale, pull, rate = load(numbers, 0), load(numbers, 1), load(numbers, 2)
    keep, ahead = load(numbers, 3), load(numbers, 4)
    p, g, v = pointer(load(job, 0), scale), pointer(load(job, 1), scale), pointer(load(job, 2), scale)
    p_new, v_new = pointer(load(job, 3), scale), pointer(load(job, 4), scale)
    is_pulled, is_ahead = pull != 0, ahead != 0
    for i in range(first, end):
        x, slope = read(p, i, 0), read(g, i, 0) * scale
        slope = x * pull + slope if is_pulled else slope
        velocity = read(v, i, 0) * keep + slope
        direction = velocity * ahead + slope if is_ahead else velocity
        write(p_new, i, direction * rate + x, 1)
        write(v_new, i, velocity, 2)


KERNELS = {"adam": (adam, 3), "sgd": (sgd, 1), "momentum": (momentum, 2)}  # with the number of results


@cache
def update_kernel(name: str, dtype: Any) -> tuple[Entry, int]:
    """One of KERNELS for float32 or float64, as a C function that releases the interpreter's lock,
    and its results' number.

    Cost: some tenths of a second, milliseconds where the machine code is on disk.
    """
    function, n_results = KERNELS[name]
    real = types.float32 if dtype == np.float32 else types.float64
    signature = types.void(types.int64, types.int64, types.CPointer(types.int64), types.CPointer(real))
    compiled = compiled_loop(function, signature)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(
        compiled.address
    )

    def run(first: int, end: int, job: int, numbers: int) -> None:
        entry(first, end, job, numbers)

    run.compiled = compiled  # type: ignore[attr-defined]  # the machine code lives as long as the function
    return run, n_results
