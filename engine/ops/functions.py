"""Elementary functions of one argument, each beside its rule."""

from __future__ import annotations

import numpy as np

from ..primitive import primitive
from .ufuncs import replay_as


@primitive("exp")
def exp(xp, x):
    """y = exp(x)."""
    return xp.exp(x)


@exp.vjp(saves=("y",))
def exp_vjp(ybar, y):
    """xbar = ybar * y."""
    return (ybar * y,)


@primitive("expm1")
def expm1(xp, x):
    """y = exp(x) - 1, accurate near 0."""
    return xp.expm1(x)


@expm1.vjp(saves=("y",))
def expm1_vjp(ybar, y):
    """xbar = ybar * (y + 1)."""
    return (ybar * (y + 1.0),)


@primitive("log")
def log(xp, x):
    """y = log(x)."""
    return xp.log(x)


@log.vjp(saves=("x",))
def log_vjp(ybar, x):
    """xbar = ybar / x."""
    return (ybar / x,)


@primitive("log1p")
def log1p(xp, x):
    """y = log(1 + x), accurate near 0."""
    return xp.log1p(x)


@log1p.vjp(saves=("x",))
def log1p_vjp(ybar, x):
    """xbar = ybar / (1 + x)."""
    return (ybar / (1.0 + x),)


@primitive("sqrt")
def sqrt(xp, x):
    """y = sqrt(x)."""
    return xp.sqrt(x)


@sqrt.vjp(saves=("y",))
def sqrt_vjp(ybar, y):
    """xbar = ybar / (2 y); infinite at x = 0, as the derivative is."""
    return (ybar * 0.5 / y,)


@primitive("sin")
def sin(xp, x):
    """y = sin(x)."""
    return xp.sin(x)


@sin.vjp(saves=("x",))
def sin_vjp(ybar, x):
    """xbar = ybar * cos(x)."""
    return (ybar * cos(x),)


@primitive("cos")
def cos(xp, x):
    """y = cos(x)."""
    return xp.cos(x)


@cos.vjp(saves=("x",))
def cos_vjp(ybar, x):
    """xbar = -ybar * sin(x)."""
    return (-(ybar * sin(x)),)


@primitive("tan")
def tan(xp, x):
    """y = tan(x)."""
    return xp.tan(x)


@tan.vjp(saves=("y",))
def tan_vjp(ybar, y):
    """xbar = ybar * (1 + y**2)."""
    return (ybar * (1.0 + y * y),)


@primitive("arctan")
def arctan(xp, x):
    """y = arctan(x)."""
    return xp.arctan(x)


@arctan.vjp(saves=("x",))
def arctan_vjp(ybar, x):
    """xbar = ybar / (1 + x**2)."""
    return (ybar / (1.0 + x * x),)


@primitive("sinh")
def sinh(xp, x):
    """y = sinh(x)."""
    return xp.sinh(x)


@sinh.vjp(saves=("x",))
def sinh_vjp(ybar, x):
    """xbar = ybar * cosh(x)."""
    return (ybar * cosh(x),)


@primitive("cosh")
def cosh(xp, x):
    """y = cosh(x)."""
    return xp.cosh(x)


@cosh.vjp(saves=("x",))
def cosh_vjp(ybar, x):
    """xbar = ybar * sinh(x)."""
    return (ybar * sinh(x),)


@primitive("tanh")
def tanh(xp, x):
    """y = tanh(x), elementwise; shape and dtype of x."""
    return xp.tanh(x)


@tanh.vjp(saves=("y",))
def tanh_vjp(ybar, y):
    """xbar = ybar * (1 - y**2). The output suffices, so x may be freed or overwritten."""
    return (ybar * (1.0 - y * y),)


for _op, _function in (
    (exp, np.exp),
    (expm1, np.expm1),
    (log, np.log),
    (log1p, np.log1p),
    (sqrt, np.sqrt),
    (sin, np.sin),
    (cos, np.cos),
    (tan, np.tan),
    (arctan, np.arctan),
    (sinh, np.sinh),
    (cosh, np.cosh),
    (tanh, np.tanh),
):
    replay_as(_op, _function)
