"""Elementwise operations as expressions on scalars, the same for array elements and for numbers.

In a template {0}, {1}, ... are the operands, {d} is the type of the result and the prefix of the functions of
that type (`functions.py`). Python and CUDA C++ share nearly all templates (C++ knows `and`, `or`, `not` too);
a `Dialect` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..program import Step
from .layout import Unsupported

SMALL_POWER = 8  # integer exponents up to this one are products

_REAL = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "square": "{0} * {0}",
    "square_about_mean": "({0} - {1}) * ({0} - {1})",
    "zeros_like": "{d}(0.0)",
    "ones_like": "{d}(1.0)",
    "conj": "{0}",
    "real": "{0}",
    "copy": "{0}",
    "stop_gradient": "{0}",
    "astype": "{0}",
}
_FUNCTIONS = (
    "abs arctan ceil cos cosh exp expm1 floor log log1p relu rint sigmoid sign sin sinh softplus sqrt tan tanh"
).split()
_REAL.update({name: "{d}_" + name + "({0})" for name in _FUNCTIONS})
_REAL.update({name: "{d}_" + name + "({0}, {1})" for name in ("maximum", "minimum", "relu_gate")})
_COMPARISONS = {
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "isnan": "{0} != {0}",
    "isfinite": "{0} - {0} == {d}(0.0)",
}
_LOGIC = {
    "astype_discrete": "{0}",
    "logical_and": "{0} and {1}",
    "logical_or": "{0} or {1}",
    "logical_not": "not {0}",
}
SAME_DTYPE = frozenset(
    ("copy", "stop_gradient", "zeros_like", "ones_like", "conj", "real")
)  # of truth values too

Operand = Callable[[int, bool], str]  # (position, whether it is wanted as a truth value) -> text


class Dialect(NamedTuple):
    """What the languages write differently: a if c else b (of c, a, b), a ** b, and false and true."""

    choice: str
    power: str
    truths: tuple[str, str]


PYTHON = Dialect("{1} if {0} else {2}", "{0} ** {1}", ("False", "True"))
CPP = Dialect("({0} ? {1} : {2})", "{d}_pow({0}, {1})", ("false", "true"))


def is_elementwise(step: Step) -> bool:
    """Whether the step is one expression an element."""
    name = step.op.name
    return name in _REAL or name in _COMPARISONS or name in _LOGIC or name in ("where", "power", "power_of")


def expression(
    step: Step, operand: Operand, kind: str, *, gives_truth: bool, dialect: Dialect = PYTHON
) -> str:
    """The text of one element of the result.

    Args:
        operand: the text of an input, wanted as a number or as a truth value.
        kind: the type computed in, as templates name it: "d", the dtype of the state, or "n",
            a number of the host.
        gives_truth: whether the result is a truth value.
    """
    name, n = step.op.name, len(step.inputs)
    if name == "where":
        chosen = [operand(k, gives_truth) for k in (1, 2)]
        return dialect.choice.format(operand(0, True), *chosen)
    if gives_truth and name in SAME_DTYPE:
        return dict(zip(("zeros_like", "ones_like"), dialect.truths, strict=True)).get(name) or operand(
            0, True
        )
    if name in _LOGIC:
        return _filled(_LOGIC[name], [operand(k, True) for k in range(n)], kind)
    operands = [operand(k, False) for k in range(n)]
    if name in _COMPARISONS:
        return _filled(_COMPARISONS[name], operands, kind)
    if gives_truth:
        raise Unsupported(f"`{name}` of truth values")
    if name == "power":
        return _power(operands[0], step.static["exponent"], kind, dialect)
    if name == "power_of":
        return _filled(dialect.power, operands, kind)
    return _filled(_REAL[name], operands, kind)


def _filled(template: str, operands: Sequence[str], kind: str) -> str:
    return template.format(*operands, d=kind)


def _power(base: str, exponent: Any, kind: str, dialect: Dialect) -> str:
    if float(exponent).is_integer() and abs(exponent) <= SMALL_POWER:
        product = " * ".join([base] * abs(int(exponent)))
        return product if exponent > 0 else f"{kind}(1.0) / ({product})"
    return _filled(dialect.power, [base, f"{kind}({float(exponent)!r})"], kind)
