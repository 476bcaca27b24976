"""Steps of optimisers in one pass over memory, as machine code,
where numba is installed and arrays are large.

As NumPy calls, a step of Adam goes over its arrays a dozen times. Kernels (`engine/jit/updates.py`) give the
same bits. NumPy's calls chunk by chunk, in cache, gain nothing: below a million values the caches hold the
arrays of a leaf anyway. Measured by `benchmarks/optimizers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..engine.backend import Array
from ..engine.jit.choice import imported, maker_if_chosen

LARGE = 1 << 13  # values; below it the calls, not the passes, are what a step costs

OnePass = Callable[[Sequence[float]], tuple[Array, ...]]


def one_pass(kernel: str, arrays: Sequence[Array]) -> OnePass | None:
    """The step `kernel` of `engine.jit.updates` on these arrays; None where it is left to NumPy's calls.

    These also say what is wrong with arrays that are not alike.
    Returns: a function of the kernel's numbers, which gives new arrays; numbers are rounded to the dtype of
        the arrays, as NumPy does it.
    Cost: the first one imports numba, about a second.
    """
    like = arrays[0]
    if not isinstance(like, np.ndarray) or like.size < LARGE or like.dtype not in (np.float32, np.float64):
        return None
    if any((array.dtype, array.shape) != (like.dtype, like.shape) for array in arrays):
        return None
    make = maker_if_chosen(_update_kernel)
    if make is None:
        return None
    entry, n_results = make(kernel, like.dtype)

    def step(numbers: Sequence[float]) -> tuple[Array, ...]:
        read = [np.ascontiguousarray(array) for array in arrays]
        results = tuple(np.empty(like.shape, like.dtype) for _ in range(n_results))
        job = np.array([array.ctypes.data for array in (*read, *results)], np.int64)
        rounded = np.array(numbers, like.dtype)
        entry(0, like.size, job.ctypes.data, rounded.ctypes.data)
        return results

    return step


@cache
def _update_kernel() -> Callable[[str, Any], tuple[Callable[[int, int, int, int], None], int]] | None:
    def import_it() -> Any:
        from ..engine.jit.updates import update_kernel

        return update_kernel

    return imported("steps of optimisers", import_it)
