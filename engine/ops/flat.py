"""Comparisons, logic, rounding: operations whose derivative is zero wherever it exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..primitive import Primitive, primitive
from ..trace import is_weak
from .ufuncs import replay_as


def _flat(name: str, forward: Callable[..., Any], doc: str) -> Primitive:
    op = primitive(name, is_flat=True)(forward)
    op.__doc__ = doc
    return op


sign_real = _flat("sign", lambda xp, x: xp.sign(x), "The sign of a real x: -1, 0 or 1.")
floor = _flat("floor", lambda xp, x: xp.floor(x), "The largest integer not above x.")
ceil = _flat("ceil", lambda xp, x: xp.ceil(x), "The smallest integer not below x.")
rint = _flat("rint", lambda xp, x: xp.rint(x), "The nearest integer, ties to even.")
isnan = _flat("isnan", lambda xp, x: xp.isnan(x), "Where x is NaN.")
isfinite = _flat("isfinite", lambda xp, x: xp.isfinite(x), "Where x is neither NaN nor infinite.")
greater = _flat("greater", lambda xp, a, b: xp.greater(a, b), "a > b.")
greater_equal = _flat("greater_equal", lambda xp, a, b: xp.greater_equal(a, b), "a >= b.")
less = _flat("less", lambda xp, a, b: xp.less(a, b), "a < b.")
less_equal = _flat("less_equal", lambda xp, a, b: xp.less_equal(a, b), "a <= b.")
equal = _flat("equal", lambda xp, a, b: xp.equal(a, b), "a == b.")
not_equal = _flat("not_equal", lambda xp, a, b: xp.not_equal(a, b), "a != b.")
logical_and = _flat("logical_and", lambda xp, a, b: xp.logical_and(a, b), "a and b, elementwise.")
logical_or = _flat("logical_or", lambda xp, a, b: xp.logical_or(a, b), "a or b, elementwise.")
logical_not = _flat("logical_not", lambda xp, x: xp.logical_not(x), "not x, elementwise.")
zeros_like = _flat(
    "zeros_like", lambda xp, x: type(x)(0) if is_weak(x) else xp.zeros_like(x), "Zeros shaped like x."
)
ones_like = _flat(
    "ones_like", lambda xp, x: type(x)(1) if is_weak(x) else xp.ones_like(x), "Ones shaped like x."
)


for _op, _function in (
    (sign_real, np.sign),
    (floor, np.floor),
    (ceil, np.ceil),
    (rint, np.rint),
    (isnan, np.isnan),
    (isfinite, np.isfinite),
    (greater, np.greater),
    (greater_equal, np.greater_equal),
    (less, np.less),
    (less_equal, np.less_equal),
    (equal, np.equal),
    (not_equal, np.not_equal),
    (logical_and, np.logical_and),
    (logical_or, np.logical_or),
    (logical_not, np.logical_not),
):
    replay_as(_op, _function)
