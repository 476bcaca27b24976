"""The scaled norm in which every error of a solve is measured, and the product of a cotangent with a tangent."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np

from ..engine.backend import Array, to_host


def scaled_norm(
    xp: ModuleType,
    error: Array,
    y: Array,
    y_new: Array,
    rtol: float | Array,
    atol: float | Array,
) -> float:
    """Root mean square of error / (atol + rtol max(|y|, |y_new|)) over all values of the state.

    Args:
        xp: array module of the state.
        error: what is measured, shaped like y; real or complex. With y_new = y = y0 it may be y0 or a slope.
        y, y_new: state at both ends of the step.
        rtol, atol: positive numbers, or arrays that broadcast against y.
    Returns: a Python float; NaN or infinity where the values are so (without a warning), 0.0 for an empty state.
    Cost: one read from the device.
    """
    if error.size == 0:
        return 0.0
    with np.errstate(all="ignore"):  # the loop reports NaN and overflow with their step, as an error
        ratio = error / (atol + rtol * xp.maximum(abs(y), abs(y_new)))
        flat = ratio.reshape(-1)
        mean_square = float(xp.vdot(flat, flat).real) / flat.size
    return math.sqrt(mean_square)


def inner(bar: Array, tangent: Array) -> float:
    """Real part of sum(bar * tangent), no conjugate: what a change of the tangent does to the loss; one read."""
    return float(np.real(to_host((bar * tangent).sum()).item()))
