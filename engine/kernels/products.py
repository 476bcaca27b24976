"""Matrix products of many rows, in pieces that BLAS multiplies without packing them first.

A product of few columns (a convolution of 16 to 128 channels) does little work on a value, and a general
routine that first copies both sides into its own order spends up to a third of its time on that. OpenBLAS has
routines without copies for small products, so a long one is cut into pieces of that size, all of them handed
over in one call: 1.1 to 1.7 times as fast where the operands are in cache. Measured by `benchmarks/conv.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np

from ..backend import Array
from .scratch import scratch

SMALL = 10**6  # multiplications, the largest product that OpenBLAS (x86 with AVX-512) takes without packing
_FEWEST_ROWS = 8  # below, the pieces cost more than packing
_FEWEST_SUMMED = 48  # the same for a sum over the rows, whose pieces must be added up
_COLUMNS = 64  # a matrix of too many columns is taken this many at a time


Product = Callable[[Array, Array, Array], None]  # (a, b, out): writes a @ b into out

_on_device: Product | None = None


def on_device(product: Product) -> Product:
    """Register what computes the products of CuPy arrays here, in the place of `cupy.matmul`."""
    global _on_device
    assert _on_device is None, "two ways to multiply on a device"
    _on_device = product
    return product


def matmul_into(xp: ModuleType, a: Array, b: Array, out: Array) -> None:
    """out (..., m, n) = a (..., m, k) @ b (..., k, n)."""
    if xp is np or _on_device is None:
        xp.matmul(a, b, out=out)
    else:
        _on_device(a, b, out)


def rows_times(xp: ModuleType, rows: Array, matrix: Array, out: Array) -> None:
    """out (M, N) = rows (M, K) @ matrix (K, N). Rows may lie apart; values in a row side by side."""
    width = matrix.shape[1]
    if xp is np and _piece(matrix.shape[0], width) < _FEWEST_ROWS:
        width = min(width, _COLUMNS)
    piece = _piece(matrix.shape[0], width)
    if xp is not np or piece < _FEWEST_ROWS or piece >= rows.shape[0]:
        matmul_into(xp, rows, matrix, out)
        return
    whole = rows.shape[0] - rows.shape[0] % piece
    for first in range(0, matrix.shape[1], width):
        columns = slice(first, first + width)
        pieces = out[:whole, columns].reshape(-1, piece, matrix[0, columns].size)
        np.matmul(rows[:whole].reshape(-1, piece, rows.shape[1]), matrix[:, columns], out=pieces)
        if whole < rows.shape[0]:
            np.matmul(rows[whole:], matrix[:, columns], out=out[whole:, columns])


def summed_over_rows(xp: ModuleType, left: Array, right: Array, out: Array) -> None:
    """out (K, N) = left (M, K)^T @ right (M, N)."""
    n_rows, depth = left.shape
    width = right.shape[1]
    piece = _piece(depth, width)
    if xp is not np or piece < _FEWEST_SUMMED or piece >= n_rows:
        matmul_into(xp, left.T, right, out)
        return
    n_pieces = n_rows // piece
    whole = n_pieces * piece
    terms = scratch(np, "terms", (n_pieces + (whole < n_rows), depth, width), out.dtype)
    stacked = left[:whole].reshape(n_pieces, piece, depth).transpose(0, 2, 1)
    np.matmul(stacked, right[:whole].reshape(n_pieces, piece, width), out=terms[:n_pieces])
    if whole < n_rows:
        np.matmul(left[whole:].T, right[whole:], out=terms[n_pieces])
    np.add.reduce(terms, axis=0, out=out)


def _piece(depth: int, width: int) -> int:
    """Rows of the largest product that is small, a multiple of 4."""
    return SMALL // (depth * width) // 4 * 4
