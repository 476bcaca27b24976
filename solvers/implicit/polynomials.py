"""Reading the polynomial of a step."""

from __future__ import annotations

import numpy as np


def interpolated(block: np.ndarray, thetas: np.ndarray, h: float, *, derivative: bool) -> np.ndarray:
    """sum_j theta**j block[j] (or its derivative by t = theta h) at each theta: (p + 1, n) and (m,) -> (m, n)."""
    column, powers = thetas[:, None], np.arange(len(block))
    basis = powers * column ** np.maximum(powers - 1, 0) / h if derivative else column**powers
    return np.dot(basis.astype(block.dtype), block)
