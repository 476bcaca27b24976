"""Directional derivatives by extrapolated central differences, with the slopes from both sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import NonFiniteGradient
from ..tree import Tree
from .arguments import check_function, check_settings
from .differences import START, Curve, extrapolated_difference, one_sided_slopes
from .directions import checked_direction, relative_size
from .function import ScalarFunction

ONE_SIDED_START = 1e-2


@dataclass(frozen=True)
class Derivative:
    """d/dh f(x + h v) at h = 0.

    Attributes:
        value: the derivative.
        error: an estimate of its absolute error.
        method: "complex step" or "central differences".
        step: the smallest h that was used.
        left, right: one-sided slopes (NaN where none were taken).
        is_kink: whether these differ: then f is not differentiable along v,
            and `value` is their mean at best.
        note: why the method is not the one asked for, else "".
    """

    value: float
    error: float
    method: str
    step: float
    left: float = math.nan
    right: float = math.nan
    is_kink: bool = False
    note: str = ""

    def __str__(self) -> str:
        kink = (
            f"; a kink: {self.left:.6g} from the left, {self.right:.6g} from the right"
            if self.is_kink
            else ""
        )
        note = f" ({self.note})" if self.note else ""
        return f"{self.value:.15g} +- {self.error:.1e} by {self.method}{kink}{note}"


def central_difference(
    f: Callable[[Tree], Any], x: Tree, direction: Tree, *, step: float | None = None
) -> Derivative:
    """d/dh f(x + h v) at h = 0 by central differences,
    extrapolated to h = 0 from steps that are chosen automatically.

    Args:
        f: pure function of a tree of float or complex arrays to a real scalar.
        x: the point.
        direction: v, a tree shaped like x.
        step: largest h, positive (default: it changes x by a twentieth of its size).
    Returns: Derivative; it says whether the slopes from both sides differ.
    Raises: ImpureFunctionError, ArgumentError and ArgumentTypeError as `gradients` does; NonFiniteGradient if
        f is not finite on both sides of x at any step.
    Cost: about 20 evaluations of f.
    """
    check_function("central_difference(f, x, direction)", f, x)
    check_settings(seed=0, step=step)
    function = ScalarFunction(f, x)
    v = checked_direction(x, direction)
    start = (START * relative_size(function.leaves, v)) if step is None else step
    return difference_along(function, function.line(v), start)


def difference_along(
    function: ScalarFunction, phi: Curve, start: float, *, where: str = "the direction", sides: bool = True
) -> Derivative:
    """phi'(0) by differences, with one-sided slopes if `sides`;
    NonFiniteGradient if phi is finite at no steps.
    """
    taken = extrapolated_difference(phi, start, function.eps, function.noise)
    if not math.isfinite(taken.value):
        raise NonFiniteGradient(
            f"no difference along {where} could be taken: the function is NaN or infinite at the point moved by +h or "
            f"-h, for every h from {start:.1e} down. Move the point away from the border of the domain"
        )
    derivative = Derivative(taken.value, taken.error, "central differences", taken.step)
    if not sides:
        return derivative
    step = min(taken.step, start * ONE_SIDED_START / START)
    slopes = one_sided_slopes(phi, function.value, step, function.eps, function.noise)
    return replace(derivative, left=slopes.left, right=slopes.right, is_kink=slopes.is_kink)
