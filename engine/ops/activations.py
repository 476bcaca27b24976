"""Activation functions of neural networks beside tanh."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..primitive import primitive
from .arithmetic import power
from .casts import is_complex
from .flat import greater
from .functions import expm1, tanh
from .kinks import where
from .wide import against_zero


@primitive("relu")
def relu(xp, x):
    """y = max(x, 0); complex values by their real part, so that complex-step differentiation passes."""
    return xp.maximum(x, 0) if not is_complex(x) else xp.where(x.real > 0, x, xp.zeros_like(x))


@relu.vjp(saves=("y",))
def relu_vjp(ybar, y):
    """xbar = ybar where y > 0; 0 at x = 0."""
    return (relu_gate(ybar, y),)


@relu.writes_into
def relu_into(out, x):
    """One comparison with zeros."""
    return None if is_complex(out) else against_zero(np.maximum, out, x)


@primitive("relu_gate")
def relu_gate(xp, x, gate):
    """y = x where gate > 0, else 0: ReLU's pull-back, linear in x."""
    return x * (xp.real(gate) > 0)


@relu_gate.vjp(saves=("gate",))
def relu_gate_vjp(ybar, gate):
    """xbar = ybar where gate > 0; the gate is piecewise constant."""
    return relu_gate(ybar, gate), None


@relu_gate.writes_into
def relu_gate_into(out, x, gate):
    """The mask has its own small buffer."""
    if is_complex(gate):
        return None
    mask = np.empty(gate.shape, np.bool_)
    return [
        (np.greater, (gate, np.zeros((), gate.dtype)), {"out": mask}),
        (np.multiply, (x, mask), {"out": out}),
    ]


def leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """x where x > 0, else slope * x; the derivative at x = 0 is the slope."""
    return where(greater(x, 0.0), x, slope * x)


def elu(x: Any) -> Any:
    """x where x > 0, else exp(x) - 1, which is smooth: the derivative at x = 0 is 1."""
    is_positive = greater(x, 0.0)
    at_most_0 = where(is_positive, 0.0, x)  # keeps exp from overflowing
    return where(is_positive, x, expm1(at_most_0))


@primitive("sigmoid")
def sigmoid(xp, x):
    """y = 1 / (1 + exp(-x)), computed as (1 + tanh(x / 2)) / 2, which cannot overflow."""
    return 0.5 * xp.tanh(0.5 * x) + 0.5


@sigmoid.vjp(saves=("y",))
def sigmoid_vjp(ybar, y):
    """xbar = ybar * y * (1 - y)."""
    return (ybar * (y * (1.0 - y)),)


@sigmoid.writes_into
def sigmoid_into(out, x):
    """The same four passes in place."""
    half = out.dtype.type(0.5)
    return [
        (np.multiply, (x, half), {"out": out}),
        (np.tanh, (out,), {"out": out}),
        (np.multiply, (out, half), {"out": out}),
        (np.add, (out, half), {"out": out}),
    ]


@primitive("softplus")
def softplus(xp, x):
    """y = log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), which cannot overflow."""
    if not is_complex(x):
        return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))
    positive = xp.where(xp.real(x) > 0, x, 0 * x)
    return positive + xp.log1p(xp.exp(x - 2 * positive))


@softplus.vjp(saves=("x",))
def softplus_vjp(ybar, x):
    """xbar = ybar * sigmoid(x)."""
    return (ybar * sigmoid(x),)


def gelu(x: Any) -> Any:
    """x * Phi(x) with the tanh approximation (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * power(x, 3))))


def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    return x * sigmoid(x)


relu.chunk_calls = ((np.maximum, ("x0", "zero"), "out"),)
relu_gate.chunk_calls = ((np.greater, ("x1", "zero"), "mask"), (np.multiply, ("x0", "mask"), "out"))
