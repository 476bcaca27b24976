"""Choices between values: extrema, magnitudes, conditions.
The docstring of a rule says what it gives at a kink.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import to_xp
from ..primitive import primitive
from ..trace import is_weak, shape_of
from .casts import conj, is_complex, real
from .flat import equal, greater, less, sign_real
from .shaping import unbroadcast
from .ufuncs import replay_as


@primitive("abs")
def absolute(xp, x):
    """y = |x|."""
    return abs(x)


@absolute.vjp(saves=("x",))
def absolute_vjp(ybar, x):
    """xbar = ybar * sign(x), for complex x Re(ybar) * conj(x) / |x|; 0 at x = 0."""
    if is_complex(x):
        return (conj(sign(x)) * real(ybar),)
    return (ybar * sign(x),)


def sign(x: Any) -> Any:
    """The sign of x: -1, 0 or 1, with the derivative 0; for complex x the direction x / |x|,
    which is not flat.
    """
    if not is_complex(x):
        return sign_real(x)
    magnitude = absolute(x)
    return x / where(equal(magnitude, 0.0), 1.0, magnitude)


@primitive("maximum")
def maximum(xp, a, b):
    """y = max(a, b) with broadcasting; a NaN stays one. Complex values compare by real part first."""
    return xp.maximum(a, b)


@maximum.vjp(saves=("a", "b"))
def maximum_vjp(ybar, a, b):
    """The larger one gets ybar; at a tie each gets half."""
    return _split(ybar, a, b, greater(a, b), greater(b, a))


@primitive("minimum")
def minimum(xp, a, b):
    """y = min(a, b) with broadcasting; a NaN stays one. Complex values compare by real part first."""
    return xp.minimum(a, b)


@minimum.vjp(saves=("a", "b"))
def minimum_vjp(ybar, a, b):
    """The smaller one gets ybar; at a tie each gets half."""
    return _split(ybar, a, b, less(a, b), less(b, a))


def _split(ybar: Any, a: Any, b: Any, takes_a: Any, takes_b: Any) -> tuple[Any, Any]:
    half = 0.5 * ybar
    to_a = where(takes_a, ybar, where(takes_b, 0.0, half))
    to_b = where(takes_b, ybar, where(takes_a, 0.0, half))
    return unbroadcast(to_a, shape_of(a)), unbroadcast(to_b, shape_of(b))


@primitive("where")
def where(xp, condition, a, b):
    """y = a where the condition holds, else b; broadcasting."""
    if is_weak(condition) and is_weak(a) and is_weak(b):
        return a if condition else b
    if is_weak(condition) and xp is not np:  # CuPy wants an array
        condition = to_xp(xp, np.bool_(condition))
    return xp.where(condition, a, b)


@where.vjp(saves=("condition", "a.shape", "b.shape"))
def where_vjp(ybar, condition, a_shape, b_shape):
    """ybar goes where the value came from, zero (even of an infinite ybar) to the other side."""
    return (
        None,
        unbroadcast(where(condition, ybar, 0.0), a_shape),
        unbroadcast(where(condition, 0.0, ybar), b_shape),
    )


@where.writes_into
def where_into(out, condition, a, b):
    """Two copies, the second masked."""
    if condition.dtype != np.bool_:
        return None
    return [(np.copyto, (out, b), {}), (np.copyto, (out, a), {"where": condition})]


def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """x limited to [low, high]; at a limit itself half of the cotangent passes."""
    x = x if low is None else maximum(x, low)
    return x if high is None else minimum(x, high)


for _op, _function in (
    (absolute, np.absolute),
    (maximum, np.maximum),
    (minimum, np.minimum),
):
    replay_as(_op, _function)
