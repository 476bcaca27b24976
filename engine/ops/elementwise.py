"""Elementwise operations with broadcasting, each beside its rule.

Complex values follow the bilinear pairing dL = Re(ybar dy): holomorphic rules conjugate nothing, which is what
complex-step differentiation needs, and of the cotangent of a real value only the real part means anything. That part is
taken where a complex value became a real one (`abs`, `real`, casts) and at the leaves: the rules in between are linear
with real coefficients, which commutes with it. Where a function has a kink the docstring of its rule says which value
is taken there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..primitive import Primitive, primitive
from ..trace import dtype_of, is_weak, shape_of
from .shaping import real, unbroadcast
from .wide import against_zero, channel_operand


def _ufunc(op: Primitive, function: np.ufunc) -> None:
    """Replay `op` as one NumPy ufunc call with `out=`, where it pays on long rows, or as a part of a fused run."""
    op.chunk_calls = ((function, tuple(f"x{k}" for k in range(function.nin)), "out"),)
    if function.nin == 2:
        op.writes_into(
            lambda out, a, b: channel_operand(function, out, a, b) or [(function, (a, b), {"out": out})]
        )
    else:
        op.writes_into(lambda out, x: [(function, (x,), {"out": out})])


# --- arithmetic -----------------------------------------------------------------------------------------------------


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


# --- functions of one argument --------------------------------------------------------------------------------------


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
    if not _is_complex(x):
        return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))
    positive = xp.where(xp.real(x) > 0, x, 0 * x)
    return positive + xp.log1p(xp.exp(x - 2 * positive))


@softplus.vjp(saves=("x",))
def softplus_vjp(ybar, x):
    """xbar = ybar * sigmoid(x)."""
    return (ybar * sigmoid(x),)


# --- kinks ----------------------------------------------------------------------------------------------------------


@primitive("abs")
def absolute(xp, x):
    """y = |x|."""
    return abs(x)


@absolute.vjp(saves=("x",))
def absolute_vjp(ybar, x):
    """xbar = ybar * sign(x), for complex x Re(ybar) * conj(x) / |x|; 0 at x = 0."""
    if _is_complex(x):
        return (conj(sign(x)) * real(ybar),)
    return (ybar * sign(x),)


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


@primitive("relu")
def relu(xp, x):
    """y = max(x, 0); complex values by their real part, so that complex-step differentiation passes."""
    return xp.maximum(x, 0) if not _is_complex(x) else xp.where(x.real > 0, x, xp.zeros_like(x))


@relu.vjp(saves=("y",))
def relu_vjp(ybar, y):
    """xbar = ybar where y > 0; 0 at x = 0."""
    return (relu_gate(ybar, y),)


@relu.writes_into
def relu_into(out, x):
    """One comparison with zeros."""
    return None if _is_complex(out) else against_zero(np.maximum, out, x)


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
    if _is_complex(gate):
        return None
    mask = np.empty(gate.shape, np.bool_)
    return [
        (np.greater, (gate, np.zeros((), gate.dtype)), {"out": mask}),
        (np.multiply, (x, mask), {"out": out}),
    ]


@primitive("where")
def where(xp, condition, a, b):
    """y = a where the condition holds, else b; broadcasting."""
    if is_weak(condition) and is_weak(a) and is_weak(b):
        return a if condition else b
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


# --- flat: the derivative is zero wherever it exists -----------------------------------------------------------------


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


def sign(x: Any) -> Any:
    """The sign of x: -1, 0 or 1, with the derivative 0; for complex x the direction x / |x|, which is not flat."""
    if not _is_complex(x):
        return sign_real(x)
    magnitude = absolute(x)
    return x / where(equal(magnitude, 0.0), 1.0, magnitude)


# --- complex parts --------------------------------------------------------------------------------------------------


@primitive("conj")
def conj(xp, x):
    """The complex conjugate."""
    return x.conjugate() if is_weak(x) else xp.conjugate(x)


@conj.vjp()
def conj_vjp(ybar):
    """xbar = conj(ybar): the map is linear over the real numbers only."""
    return (conj(ybar),)


def gelu(x: Any) -> Any:
    """x * Phi(x) with the tanh approximation (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * power(x, 3))))


def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    return x * sigmoid(x)


def leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """x where x > 0, else slope * x; the derivative at x = 0 is the slope."""
    return where(greater(x, 0.0), x, slope * x)


def elu(x: Any) -> Any:
    """x where x > 0, else exp(x) - 1, which is smooth: the derivative at x = 0 is 1."""
    is_positive = greater(x, 0.0)
    return where(
        is_positive, x, expm1(where(is_positive, 0.0, x))
    )  # the inner one keeps exp from overflowing


def _is_complex(x: Any) -> bool:
    return dtype_of(x).kind == "c"


for _op, _function in (
    (add, np.add),
    (sub, np.subtract),
    (mul, np.multiply),
    (div, np.true_divide),
    (neg, np.negative),
    (square, np.square),
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
    (absolute, np.absolute),
    (maximum, np.maximum),
    (minimum, np.minimum),
    (sign_real, np.sign),
    (conj, np.conjugate),
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
    _ufunc(_op, _function)

relu.chunk_calls = ((np.maximum, ("x0", "zero"), "out"),)
relu_gate.chunk_calls = ((np.greater, ("x1", "zero"), "mask"), (np.multiply, ("x0", "mask"), "out"))
