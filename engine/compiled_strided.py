"""The transforms of `kernels/winograd_strided.py` in machine code (`jit/winograd_strided.py`), one call each.

What arrays must be like is as in `compiled_winograd.py`; entries of a spectrum end with a block of zeros.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .compiled_winograd import address, is_fit, spectrum_by, steps, write_taps_by
from .kernels.geometry import Pair
from .kernels.scratch import scratch
from .kernels.winograd_strided import ENTRIES, in_machine_code

__all__ = ["is_fit"]
# Of a block: how many paired values it sees, how far apart, the first single one.
_Kind = tuple[int, int, int]


@cache
def _transform(name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    from .jit.winograd_strided import transform

    return transform(name, dtype)


def kernel_spectrum(kernel: np.ndarray) -> np.ndarray:
    """(36, C, N) of a kernel (3, 3, C, N) without gaps."""
    return spectrum_by(_transform("kernel", kernel.dtype), kernel)


def source_spectrum(x: np.ndarray, corner: Pair, down: int, across: int) -> np.ndarray:
    """(81, blocks + 1, C) of blocks that see 9x9 pixels of x, 8 apart, the first one from `corner` on."""
    return _spectrum("windows", (5, 2, 1), x, corner, down, across)


def dense_spectrum(ybar: np.ndarray, corner: Pair, offset: int, down: int, across: int) -> np.ndarray:
    """(81, blocks + 1, N) of blocks that see 5x5 pixels of ybar, 4 apart, single ones from `offset` on."""
    return _spectrum("windows", (5, 1, offset), ybar, corner, down, across)


def cotangent_spectrum(ybar: np.ndarray, corner: Pair, down: int, across: int) -> np.ndarray:
    """(81, blocks + 1, N) of blocks of 4x4 cotangents."""
    return _spectrum("cotangents", (4, 1, 0), ybar, corner, down, across)


def _spectrum(role: str, kind: _Kind, images: np.ndarray, corner: Pair, down: int, across: int) -> np.ndarray:
    n, height, width, channels = images.shape
    n_blocks = n * down * across
    spectrum = scratch(np, role, (ENTRIES, n_blocks + 1, channels), images.dtype)
    work = scratch(np, "planes", (10 * (4 * kind[1] * across + 1) * channels,), images.dtype)
    step_n, step_h = images.strides[0] // images.itemsize, images.strides[1] // images.itemsize
    transform = _transform("spectra", images.dtype)
    transform(
        address(images), address(spectrum), address(work),
        *kind, step_n, step_h, height, width, channels, *corner, n, down, across, (n_blocks + 1) * channels,
    )  # fmt: skip
    return spectrum


def write_sums(products: np.ndarray, target: np.ndarray, down: int, across: int) -> None:
    """target (n, rows, columns, N) from the products (81, blocks + 1, N) of a forward, cropped."""
    n, rows, columns, channels = target.shape
    work = scratch(np, "planes", ((36 * across + 4) * channels,), target.dtype)
    transform = _transform("sums", target.dtype)
    transform(
        address(products), address(target), address(work),
        *steps(target), rows, columns, channels, n, down, across, products.shape[1] * channels,
    )  # fmt: skip


def write_interleaved(products: np.ndarray, target: np.ndarray, lead: int, down: int, across: int) -> None:
    """target (n, rows, columns, N) from the products (81, blocks + 1, N) of an input gradient, cropped.

    Paired values belong to every second row and column from `lead` on.
    """
    n, rows, columns, channels = target.shape
    work = scratch(np, "planes", ((36 * across + 8) * channels,), target.dtype)
    transform = _transform("interleaved", target.dtype)
    transform(
        address(products), address(target), address(work),
        *steps(target), rows, columns, channels, lead, n, down, across, products.shape[1] * channels,
    )  # fmt: skip


def write_taps(total: np.ndarray, wbar: np.ndarray) -> None:
    """wbar (3, 3, C, N), any strides, from the sums (36, C, N)."""
    write_taps_by(_transform("taps", wbar.dtype), total, wbar)


in_machine_code(sys.modules[__name__])
