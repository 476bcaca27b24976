"""The solution within one step as a polynomial in theta = (t - t_n) / h, from its coefficients."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from ..engine.backend import Array, to_xp
from ..engine.product_precision import plain_dot


def hermite_coefficients(
    xp: ModuleType, y: Array, slope: Array, y_new: Array, slope_new: Array, h: float
) -> Array:
    """(4, n): coefficients of the cubic through two states (n,) with these slopes there; one of order h**4.

    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section II.6, equation (6.7), by powers of theta.
    """
    block = xp.empty((4, *y.shape), y.dtype)
    rise, start, end = y_new - y, h * slope, h * slope_new
    block[0], block[1] = y, start
    block[2] = 3.0 * rise - 2.0 * start - end
    block[3] = start + end - 2.0 * rise
    return block


def read_polynomial(
    xp: ModuleType, block: Array, thetas: np.ndarray, h: float, *, derivative: bool = False
) -> Array:
    """sum_j theta**j block_j at thetas (m,), or its time derivative: (m, n) from coefficients (p + 1, n)."""
    powers = np.arange(len(block))
    if derivative:
        weights = powers * thetas[:, None] ** np.maximum(powers - 1, 0) / h
    else:
        weights = thetas[:, None] ** powers
    return plain_dot(xp)(to_xp(xp, weights.astype(block.dtype)), block)
