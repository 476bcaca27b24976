"""Ways to break the VJP rule of a primitive, to see that its judges notice.

A mutation wraps the rule that is stored in the primitive: it changes one cotangent, hands the rule a wrong operand, or
takes the sum out of `unbroadcast`. What does not apply to a rule is not made: `mutations_of` asks the cases of the
primitive which cotangents there are, which operands are saved, and whether a sum is ever needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from odegrad.engine import ops
from odegrad.engine.primitive import Primitive
from odegrad.engine.trace import base_value, shape_of
from op_cases import CASES, Case, Real

Rule = Callable[..., Any]
Break = Callable[[Primitive], Any]  # op -> a context in which its rule is broken


@dataclass(frozen=True)
class Mutation:
    """One way to break one rule.

    Attributes:
        second_order: only its own derivative shows the flaw: values are right on real numbers.
    """

    op: Primitive
    flaw: str
    broken: Break
    second_order: bool = False

    def __str__(self) -> str:
        return f"{self.op.name}: {self.flaw}"


def cases_of(op: Primitive) -> list[Case]:
    return [case for case in CASES if case.op is op]


def argument_name(op: Primitive, position: int) -> str:
    """The name of an input in the signature of the forward; the parts of a variadic one are numbered."""
    names = [p for p in inspect.signature(op.forward).parameters.values() if p.kind != p.KEYWORD_ONLY][1:]
    last = names[-1]
    if last.kind == last.VAR_POSITIONAL and position >= len(names) - 1:
        return f"{last.name}[{position - len(names) + 1}]"
    return names[position].name


def judged_positions(op: Primitive) -> list[int]:
    """Inputs that some case differentiates and that are not empty there."""
    found = {k for case in cases_of(op) for k in case.wrt if 0 not in case.args[k].shape}
    return sorted(found)


def returned_positions(op: Primitive) -> set[int]:
    """Inputs to which the rule gives a cotangent in some case."""
    found = set()
    for case in cases_of(op):
        values = case.draw(np.random.default_rng(0))
        y = case.forward(values)
        needs = tuple(isinstance(arg, Real) for arg in case.args) + (False,) * (len(values) - len(case.args))
        bars = op.pull_back(np.ones(np.shape(y)), op.keep(tuple(values), y), case.static, needs)
        found |= {
            k for k, (bar, need) in enumerate(zip(bars, needs, strict=True)) if need and bar is not None
        }
    return found


# --- a cotangent is wrong -------------------------------------------------------------------------------------------


@contextmanager
def ruled(op: Primitive, make: Callable[[Rule], Rule]) -> Iterator[None]:
    """Within it the rule of `op` is make(rule)."""
    assert op.rule is not None
    with patch.object(op, "rule", make(op.rule)):
        yield


def changed_cotangent(position: int, change: Callable[[Any], Any]) -> Break:
    """The cotangent of one input passes through `change`."""

    def make(rule: Rule) -> Rule:
        def broken(*args: Any, **kwargs: Any) -> list[Any]:
            bars = list(rule(*args, **kwargs))
            if position < len(bars) and bars[position] is not None:
                bars[position] = change(bars[position])
            return bars

        return broken

    return lambda op: ruled(op, make)


COTANGENTS: dict[str, Callable[[Any], Any]] = {
    "wrong sign": lambda bar: -bar,
    "1.001 times too large": lambda bar: 1.001 * bar,
    "dropped": lambda bar: 0.0 * bar,
}


def conjugated(op: Primitive) -> Any:
    """Every cotangent is conjugated, as a rule for the other pairing of complex values would have it."""
    return ruled(op, lambda rule: lambda *args, **kwargs: [_conj(bar) for bar in rule(*args, **kwargs)])


def _conj(bar: Any) -> Any:
    return None if bar is None else ops.conj(bar)


# --- an operand is wrong --------------------------------------------------------------------------------------------


def wrong_operand(position: int) -> Break:
    """The rule gets one of the values that it saved with the entries in reverse order."""

    def make(rule: Rule) -> Rule:
        def broken(ybar: Any, *saved: Any, **kwargs: Any) -> Any:
            changed = [_reversed(value) if k == position else value for k, value in enumerate(saved)]
            return rule(ybar, *changed, **kwargs)

        return broken

    return lambda op: ruled(op, make)


def _reversed(value: Any) -> Any:
    """Each axis of an array backwards: shape and entries stay, places do not. Of several arrays the first."""
    if isinstance(value, tuple):
        return (_reversed(value[0]), *value[1:])
    return value[tuple(slice(None, None, -1) for _ in shape_of(value))]


def saved_values(op: Primitive) -> dict[int, str]:
    """What the rule saves as values (not as shapes) with more than one entry, by place among the saved."""
    found = {}
    for case in cases_of(op):
        values = case.draw(np.random.default_rng(0))
        kept = op.keep(tuple(values), case.forward(values))
        names = [name for name in inspect.signature(op.rule).parameters if name != "needs"][1:]  # type: ignore[arg-type]
        for k, value in enumerate(kept):
            first = value[0] if isinstance(value, tuple) and value else value
            if isinstance(base_value(first), np.ndarray) and first.size > 1:
                found[k] = names[k]
    return found


# --- a sum over what broadcasting added is missing ------------------------------------------------------------------


@contextmanager
def without_sums(op: Primitive) -> Iterator[None]:
    """`unbroadcast` in the rule and its helpers takes the first entry along an axis instead of the sum over it."""
    assert op.rule is not None
    with patch.dict(op.rule.__globals__, {"unbroadcast": _first_entries}):
        yield


def _first_entries(x: Any, shape: tuple[int, ...]) -> Any:
    if shape_of(x) == shape:
        return x
    extra = len(shape_of(x)) - len(shape)
    x = x[(0,) * extra + (Ellipsis,)]
    return x[tuple(slice(0, n) for n in shape)]


def sums_what_broadcasting_added(op: Primitive) -> bool:
    """Whether the rule, or a helper beside it whose name starts with an underscore, names `unbroadcast`."""
    assert op.rule is not None
    names = set(op.rule.__code__.co_names)
    for name in [n for n in names if n.startswith("_")]:
        helper = op.rule.__globals__.get(name)
        names |= set(getattr(getattr(helper, "__code__", None), "co_names", ()))
    return "unbroadcast" in names


# --- a transposition is missing --------------------------------------------------------------------------------------


def _permuted_again(op: Primitive) -> Any:
    return ruled(op, lambda rule: lambda ybar, *, axes: (op(ybar, axes=axes),))


def _not_transposed(op: Primitive) -> Any:
    assert op.rule is not None
    return patch.dict(op.rule.__globals__, {"swapaxes": lambda x, *axes: x})


TRANSPOSITIONS: dict[str, tuple[str, Break]] = {
    "matmul": ("operands not transposed", _not_transposed),
    "transpose": ("the permutation instead of its inverse", _permuted_again),
}


# --- an operation whose derivative is zero passes something ---------------------------------------------------------


@contextmanager
def passing(op: Primitive) -> Iterator[None]:
    """The flat `op` gets a rule that gives every float input a cotangent of ones."""

    def rule(ybar: Any, args: tuple[Any, ...], **static: Any) -> list[Any]:
        return [ops.ones_like(a) if getattr(a, "dtype", None) == np.float64 else None for a in args]

    with (
        patch.object(op, "is_flat", False),
        patch.object(op, "rule", rule),
        patch.object(op, "keep", lambda args, output: (args,)),
    ):
        yield


# --- all of them ----------------------------------------------------------------------------------------------------

INSENSITIVE = {
    ("astype", "x"): "only its dtype is read",
    ("real", "x"): "only its dtype is read",
    ("on_device", "x"): "only its device is read",
}
"""Saved values whose entries a rule does not read, with the reason."""

NOT_ANALYTIC = {
    "abs": "the modulus has no complex derivative; tests/engine/test_ops_complex.py judges it",
    "real": "the real part has no complex derivative; tests/engine/test_ops_complex.py judges it",
    "conj": "conjugation has no complex derivative; tests/engine/test_ops_complex.py judges it",
}
"""Rules in which a conjugate too many cannot be judged by complex step, with the reason."""


def mutations_of(op: Primitive) -> list[Mutation]:
    """Every mutation that applies to the rule of `op`."""
    found = [
        Mutation(op, f"{argument_name(op, k)}bar {flaw}", changed_cotangent(k, change))
        for k in judged_positions(op)
        for flaw, change in COTANGENTS.items()
    ]
    found += [
        Mutation(op, f"{name} in reverse order", wrong_operand(k))
        for k, name in saved_values(op).items()
        if (op.name, name) not in INSENSITIVE
    ]
    if sums_what_broadcasting_added(op):
        found.append(Mutation(op, "no sum over what broadcasting added", without_sums))
    if op.name in TRANSPOSITIONS:
        found.append(Mutation(op, *TRANSPOSITIONS[op.name]))
    if op.name not in NOT_ANALYTIC:
        found.append(Mutation(op, "conjugated", conjugated, second_order=True))
    return found
