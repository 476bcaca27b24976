"""Sums, products, quotients and powers with broadcasting, each beside its rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..primitive import primitive
from ..trace import shape_of
from .flat import ones_like
from .functions import log, sqrt
from .shaping import unbroadcast
from .ufuncs import replay_as


@primitive("add")
def add(xp, a, b):
    """y = a + b with broadcasting."""
    return a + b


@add.vjp(saves=("a.shape", "b.shape"))
def add_vjp(ybar, a_shape, b_shape):
    """abar = bbar = ybar, each summed over the axes that broadcasting added."""
    return unbroadcast(ybar, a_shape), unbroadcast(ybar, b_shape)


@primitive("sub")
def sub(xp, a, b):
    """y = a - b with broadcasting."""
    return a - b


@sub.vjp(saves=("a.shape", "b.shape"))
def sub_vjp(ybar, a_shape, b_shape, *, needs):
    """abar = ybar, bbar = -ybar."""
    return unbroadcast(ybar, a_shape), unbroadcast(-ybar, b_shape) if needs[1] else None


@primitive("mul")
def mul(xp, a, b):
    """y = a * b with broadcasting."""
    return a * b


@mul.vjp(saves=("a", "b"))
def mul_vjp(ybar, a, b, *, needs):
    """abar = ybar * b and bbar = ybar * a, each summed over the axes that broadcasting added."""
    return (
        unbroadcast(ybar * b, shape_of(a)) if needs[0] else None,
        unbroadcast(ybar * a, shape_of(b)) if needs[1] else None,
    )


@primitive("div")
def div(xp, a, b):
    """y = a / b with broadcasting."""
    return a / b


@div.vjp(saves=("a.shape", "b", "y"))
def div_vjp(ybar, a_shape, b, y, *, needs):
    """abar = ybar / b, bbar = -ybar * y / b."""
    scaled = ybar / b
    return (
        unbroadcast(scaled, a_shape) if needs[0] else None,
        unbroadcast(-(scaled * y), shape_of(b)) if needs[1] else None,
    )


@primitive("neg")
def neg(xp, x):
    """y = -x."""
    return -x


@neg.vjp()
def neg_vjp(ybar):
    """xbar = -ybar."""
    return (-ybar,)


@primitive("square")
def square(xp, x):
    """y = x * x."""
    return x * x


@square.vjp(saves=("x",))
def square_vjp(ybar, x):
    """xbar = 2 x ybar."""
    return (ybar * (2.0 * x),)


@primitive("power")
def power_number(xp, x, *, exponent):
    """y = x ** exponent for a Python number; 3 and 4 as products, which is faster and rounds no worse."""
    if exponent == 3:
        return x * x * x
    if exponent == 4:
        squared = x * x
        return squared * squared
    return x**exponent


@power_number.vjp(saves=("x",))
def power_number_vjp(ybar, x, *, exponent):
    """xbar = ybar * exponent * x ** (exponent - 1)."""
    return (ybar * (float(exponent) * power(x, exponent - 1)),)


@primitive("power_of")
def power_of(xp, a, b):
    """y = a ** b for arrays, a > 0 where b is differentiated."""
    return a**b


@power_of.vjp(saves=("a", "b", "y"))
def power_of_vjp(ybar, a, b, y, *, needs):
    """abar = ybar * b * a ** (b - 1); bbar = ybar * y * log(a)."""
    return (
        unbroadcast(ybar * (b * power_of(a, b - 1.0)), shape_of(a)) if needs[0] else None,
        unbroadcast(ybar * (y * log(a)), shape_of(b)) if needs[1] else None,
    )


def power(x: Any, exponent: Any) -> Any:
    """x ** exponent. A Python number as exponent is part of the program's structure."""
    if type(exponent) not in (int, float):  # numpy.float64 is a float, but promotes float32 values
        return power_of(x, exponent)
    if exponent == 0:
        return ones_like(x)
    if exponent == 1:
        return x
    if exponent == 2:
        return square(x)
    if exponent == 0.5:
        return sqrt(x)
    return power_number(x, exponent=exponent)


for _op, _function in (
    (add, np.add),
    (sub, np.subtract),
    (mul, np.multiply),
    (div, np.true_divide),
    (neg, np.negative),
    (square, np.square),
):
    replay_as(_op, _function)
