"""Winograd's transforms in machine code (`jit/winograd.py`): the functions of `kernels/winograd_numpy.py`,
one call each.

A call of a tile takes the interpreter's lock once, where the ten calls of NumPy's way pass it between the
threads, and it reads and writes images without copies of their borders. Arrays have one dtype, and the pixels
of a row lie without gaps. Entries of a spectrum lie one pixel further apart than they are long: at a distance
that is a power of two all 36 would share a few lines of the cache (half the speed at 64 blocks of 64
channels).

`ODEGRAD_FUSION` does without machine code or asks for it (`jit/choice.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .jit.choice import imported, maker_if_chosen
from .kernels.geometry import Pair
from .kernels.scratch import scratch
from .kernels.winograd import in_machine_code
from .kernels.winograd_limits import BLOCK, SEEN, Limits

LIMITS = Limits(channels=5, values=1 << 10, filled=0.36, few_channels=40, filled_of_few=0.55, tile=1 << 13)
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_WIDTH = 512  # values of a kernel that are transformed at a time: 18 of them a value stay in cache


def is_available() -> bool:
    """Whether numba is installed, and not ruled out by `ODEGRAD_FUSION`."""
    return maker_if_chosen(_transforms) is not None


def is_fit(*arrays: np.ndarray) -> bool:
    """Whether there is machine code for these images (n, ., ., C),
    which must be alike and lie as it needs them.
    """
    is_alike = len({array.dtype for array in arrays}) == 1 and arrays[0].dtype in _DTYPES
    return is_alike and all(map(_is_dense, arrays)) and is_available()


def _is_dense(array: np.ndarray) -> bool:
    """Whether pixels lie without gaps along a row, and rows and images whole values apart."""
    size = array.itemsize
    *steps, step_w, step_c = array.strides
    is_row_dense = step_c == size and step_w == size * array.shape[-1]
    return is_row_dense and array.flags.aligned and not any(step % size for step in steps)


@cache
def _transforms() -> Callable[[str, Any], Callable[..., None]] | None:
    def import_it() -> Callable[[str, Any], Callable[..., None]]:
        from .jit.winograd import transform

        return transform

    return imported("transforms of convolutions", import_it)


def _transform(name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    maker = _transforms()
    assert maker is not None
    return maker(name, dtype)


def kernel_spectrum(kernel: np.ndarray) -> np.ndarray:
    """(36, C, N) = G w G^T of a kernel (3, 3, C, N) without gaps."""
    return spectrum_by(_transform("kernel", kernel.dtype), kernel)


def source_spectrum(
    images: np.ndarray, corner: Pair, down: int, across: int, dtype: np.dtype[Any]
) -> np.ndarray:
    """(36, blocks, C) = B^T d B for every block d; the first one of an image (., ., C)
    begins at the pixel `corner`.
    """
    return _spectrum("windows", SEEN, images, corner, down, across)


def cotangent_spectrum(ybar: np.ndarray, down: int, across: int, dtype: np.dtype[Any]) -> np.ndarray:
    """(36, blocks, N) = G b G^T for every block b of the cotangents ybar (n, ., ., N)."""
    return _spectrum("cotangents", BLOCK, ybar, (0, 0), down, across)


def _spectrum(role: str, seen: int, images: np.ndarray, corner: Pair, down: int, across: int) -> np.ndarray:
    """(36, blocks, C): the transform of blocks that see `seen` pixels a side."""
    n, height, width, channels = images.shape
    spectrum = _spaced(role, n * down * across, channels, images.dtype)
    work = scratch(np, "planes", (7 * (4 * across + 2) * channels,), images.dtype)
    step_n, step_h = images.strides[0] // images.itemsize, images.strides[1] // images.itemsize
    transform = _transform("spectra", images.dtype)
    transform(
        address(images), address(spectrum), address(work),
        seen, step_n, step_h, height, width, channels, *corner, n, down, across, _entry(spectrum),
    )  # fmt: skip
    return spectrum


def product_buffer(n_blocks: int, channels: int, dtype: np.dtype[Any]) -> np.ndarray:
    """(36, blocks, N), for what `write_outputs` reads."""
    return _spaced("products", n_blocks, channels, dtype)


def write_outputs(products: np.ndarray, target: np.ndarray, down: int, across: int) -> None:
    """target (n, rows, columns, N) = A^T m A of the products m (36, blocks, N), cropped."""
    n, rows, columns, channels = target.shape
    work = scratch(np, "planes", ((24 * across + 4) * channels,), target.dtype)
    transform = _transform("outputs", target.dtype)
    transform(
        address(products), address(target), address(work),
        *steps(target), rows, columns, channels, n, down, across, _entry(products),
    )  # fmt: skip


def write_taps(total: np.ndarray, wbar: np.ndarray) -> None:
    """wbar (3, 3, C, N), any strides, = A^T m A of the sums m (36, C, N)."""
    write_taps_by(_transform("taps", wbar.dtype), total, wbar)


def spectrum_by(transform: Callable[..., None], kernel: np.ndarray) -> np.ndarray:
    """(36, C, N): the transform of a kernel (3, 3, C, N) without gaps."""
    spectrum = scratch(np, "kernel", (SEEN**2, *kernel.shape[2:]), kernel.dtype)
    work = scratch(np, "planes", (18 * _WIDTH,), kernel.dtype)
    transform(address(kernel), address(spectrum), address(work), kernel[0, 0].size, _WIDTH)
    return spectrum


def write_taps_by(transform: Callable[..., None], total: np.ndarray, wbar: np.ndarray) -> None:
    """wbar (3, 3, C, N), any strides: the transform of the sums (36, C, N)."""
    taps = wbar if wbar.flags.c_contiguous else scratch(np, "taps", wbar.shape, wbar.dtype)
    work = scratch(np, "planes", (18 * _WIDTH,), wbar.dtype)
    transform(address(total), address(taps), address(work), taps[0, 0].size, _WIDTH)
    if taps is not wbar:
        wbar[...] = taps


def _spaced(role: str, n_blocks: int, channels: int, dtype: np.dtype[Any]) -> np.ndarray:
    """(36, blocks, channels) with the place of a block between entries."""
    return scratch(np, role, (SEEN**2, n_blocks + 1, channels), dtype)[:, :n_blocks]


def _entry(spectrum: np.ndarray) -> int:
    """How many values lie between the beginnings of two entries."""
    return spectrum.strides[0] // spectrum.itemsize


def address(array: np.ndarray) -> int:
    """Of the first value."""
    return array.ctypes.data


def steps(images: np.ndarray) -> tuple[int, ...]:
    """From image to image, row to row and pixel to pixel, in values."""
    return tuple(step // images.itemsize for step in images.strides[:3])


in_machine_code(sys.modules[__name__])
