"""A gradient judged leaf by leaf: entries and random directions against complex steps or differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import to_number
from ..errors import (
    ArgumentError,
    ArgumentTypeError,
    ImpureFunctionError,
    NeuralODEError,
    NonFiniteGradient,
    NoRuleError,
)
from ..ops import astype
from ..trace import describe, dtype_of, is_weak, shape_of
from ..transforms import value_and_grad
from ..tree import Tree, leaves, leaves_with_paths, path_name, same_structure, unflatten
from .arguments import SINGLE, SURE, check_function, check_settings, default_tol
from .complex_step import ComplexStepper
from .directions import host_vector, norm_of
from .function import ScalarFunction, check_real_scalar
from .judge import empty_leaf, judge_leaf, whole_scale
from .lines import without_rule
from .measure import Plan, measure_leaf, place_of
from .report import GradientReport

TRACED_AGREES = 1e-6  # the traced function may sum in another order


def gradients(
    loss: Callable[[Tree], Any],
    params: Tree,
    *,
    gradient: Tree = None,
    reference: str = "auto",
    entries: int | None = 16,
    directions: int = 2,
    tol: float | None = None,
    seed: int = 0,
) -> GradientReport:
    """Compare the gradient of a scalar function of a tree with derivatives that use no rule.

    Args:
        loss: pure function of a tree of arrays to a real scalar.
        params: the point: a tree of float or complex arrays (or numbers).
            At a point drawn at random kinks are unlikely.
        gradient: the gradient to judge, a tree like params (default: what `odegrad.grad` gives).
        reference: "auto" takes complex steps, exact to round-off, wherever they agree with differences;
            "differences" never does.
        entries: entries compared in each leaf, chosen by the seed (None: all; a leaf with fewer is compared
            whole).
        directions: random directions in each leaf, which every entry takes part in; at least 1.
        tol: relative error up to which a leaf is "ok" (default: 1e-7, or 1e-3 where float32 is involved).
        seed: chooses entries and directions; the same seed chooses the same.
    Returns: GradientReport: print it, look at `.ok`, or call `.assert_ok()` in a test.
    Raises: ImpureFunctionError for a loss that writes into its argument, that gives two values for one
        argument, or that computes something else when it is traced; ArgumentError or ArgumentTypeError for a
        tree that is empty, has integer or non-finite leaves, and for a loss that is not a real scalar;
        NonFiniteGradient if the gradient or the reference is not finite;
        TracedValueError for a loss that branches on a value; NoRuleError, with the line.
    Cost: a leaf costs about 20 evaluations a direction, and 1 (complex step) or 10 (differences) an entry.

    float32 leaves are compared with derivatives in float64, at the same point,
    if loss computes in float64 there.
    """
    check_function("gradients(loss, params)", loss, params)
    check_settings(seed=seed, tol=tol, reference=reference, entries=entries, directions=directions)
    function = ScalarFunction(loss, params)
    found = traced_gradient(function) if gradient is None else given_gradient(function, gradient)
    plan = Plan(reference, entries, directions, seed)
    return compare(function, found, plan, tol=tol)


def compare(
    function: ScalarFunction,
    gradient: Sequence[Any],
    plan: Plan,
    *,
    tol: float | None = None,
    title: str = "gradient",
) -> GradientReport:
    """The report on a gradient, given as the leaves of a tree like function.x."""
    reference, notes = in_double(function)
    tol = default_tol(function.eps) if tol is None else tol
    rng = np.random.default_rng(plan.seed)
    stepper = ComplexStepper(reference)
    measured = {
        k: measure_leaf(reference, k, bar, plan, stepper, rng)
        for k, bar in enumerate(gradient)
        if host_vector(bar).size
    }
    whole = whole_scale(reference, gradient, list(measured.values()))
    reports = [
        judge_leaf(reference, measured[k], whole, tol, function.eps)
        if k in measured
        else empty_leaf(name, shape_of(bar))
        for k, (name, bar) in enumerate(zip(function.names, gradient, strict=True))
    ]
    return GradientReport(tuple(reports), function.value, tol, title, notes)


def traced_gradient(function: ScalarFunction, inside: Callable[[], list[str]] | None = None) -> list[Any]:
    """The leaves of the gradient by the engine; ImpureFunctionError if the traced function has another value.

    `inside` lists operations without a rule, with their lines, that a trace of the function does not see.
    """
    try:
        with np.errstate(all="ignore"):
            value, gradient = value_and_grad(function.f)(function.x)
    except NoRuleError as error:
        places = " and ".join(without_rule(function.f, function.x) or (inside() if inside else []))
        raise NoRuleError(
            f"{error}: {places or 'in the function'}. Give the primitive a rule (@op.vjp), or keep its argument out of "
            "what is differentiated"
        ) from error
    check_real_scalar(value)
    found = leaves(gradient)
    check_finite(function, found)
    scale = abs(function.value) + norm_of(found) * norm_of(function.leaves)
    value = float(to_number(value))
    if not abs(value - function.value) <= max(TRACED_AGREES, SURE * function.eps) * scale:
        raise ImpureFunctionError(
            f"the function gives {function.value!r} when it is called and {value!r} when it is traced: it looks "
            "at the type of its argument, or changes something that it reads",
            values=(function.value, value),
        )
    return found


def given_gradient(function: ScalarFunction, gradient: Tree) -> list[Any]:
    """The leaves of a gradient that the caller brought; ArgumentError unless it is shaped like x."""
    shapes = [shape_of(bar) for bar in leaves(gradient)]
    if not same_structure(gradient, function.x) or shapes != [shape_of(leaf) for leaf in function.leaves]:
        listed = ", ".join(f"{path_name(path)}: {describe(bar)}" for path, bar in leaves_with_paths(gradient))
        pairs = zip(function.names, function.leaves, strict=True)
        expected = ", ".join(f"{name}: {describe(leaf)}" for name, leaf in pairs)
        raise ArgumentError(f"`gradient` must be shaped like params; got {listed}, expected {expected}")
    found = leaves(gradient)
    for name, leaf, bar in zip(function.names, function.leaves, found, strict=True):
        if dtype_of(bar).kind == "c" and dtype_of(leaf).kind != "c":
            raise ArgumentTypeError(
                f"`gradient` must be real where params are; got {describe(bar)} for {name}"
            )
    check_finite(function, found)
    return found


def check_finite(function: ScalarFunction, gradient: Sequence[Any]) -> None:
    """NonFiniteGradient that names the leaves with NaN or infinite entries."""
    problems = []
    for name, bar in zip(function.names, gradient, strict=True):
        values = host_vector(bar)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            index = list(place_of(int(bad[0]), shape_of(bar)))
            problems.append(
                f"{name} ({bad.size} of {values.size} entries, the first at {index}: {values[bad[0]]})"
            )
    if problems:
        raise NonFiniteGradient(
            f"the gradient is not finite in {', '.join(problems)}. Look for division, log or sqrt at 0 and for overflow; "
            "a gradient with NaN cannot be compared"
        )


def in_double(function: ScalarFunction) -> tuple[ScalarFunction, tuple[str, ...]]:
    """The function at the same point in double precision, if it computes in it;
    what is to be said about that.
    """
    if all(is_weak(leaf) or dtype_of(leaf).itemsize == _double(leaf).itemsize for leaf in function.leaves):
        return function, ()
    wide = [leaf if is_weak(leaf) else astype(leaf, _double(leaf)) for leaf in function.leaves]
    try:
        reference = ScalarFunction(function.f, unflatten(function.x, wide))
    except (NeuralODEError, TypeError, ValueError) as error:
        return function, (f"differences in single precision; in double: {type(error).__name__}: {error}",)
    if reference.eps > SINGLE:
        return function, (
            "differences in single precision: the function computes in it whatever it is given",
        )
    return reference, ("the reference is taken in double precision, at the same point",)


def _double(leaf: Any) -> np.dtype:
    return np.dtype(np.complex128 if dtype_of(leaf).kind == "c" else np.float64)
