"""Derivatives by a step into the complex plane, and what is done where there is no such step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import NeuralODEError
from ..ops import astype
from ..trace import dtype_of, is_weak
from ..tree import Tree, unflatten
from .arguments import SURE, check_function
from .derivative import Derivative, difference_along
from .differences import START
from .directions import checked_direction, relative_size
from .function import ScalarFunction, described_error
from .lines import not_analytic

STEP = 1e-20  # its square is far below round-off, and nothing is subtracted
AGREEMENT = 1e-6  # with differences, relative, beside the error that these estimate


def complex_step(f: Callable[[Tree], Any], x: Tree, direction: Tree) -> Derivative:
    """d/dh f(x + h v) at h = 0 as Im f(x + i h v) / h with h = 1e-20: exact to round-off,
    for analytic f of real x.

    Where it does not apply - an operation that is not analytic (a modulus, a real part), complex leaves, a
    function that refuses complex values - the result is that of `central_difference`, and `note` says why.

    Cost: about 20 evaluations of f, most of them differences to see whether f is analytic.
    Source: Squire & Trapp (1998), SIAM Rev. 40(1), 110-112.
    """
    check_function("complex_step(f, x, direction)", f, x)
    function = ScalarFunction(f, x)
    v = checked_direction(x, direction)
    start = START * relative_size(function.leaves, v)
    expected = difference_along(function, function.line(v), start)
    stepper = ComplexStepper(function)
    found = stepper.along(v)
    if found is not None and agree(found, expected):
        return found
    return replace(expected, note=stepper.reason())


class ComplexStepper:
    """Complex steps of one function, and why there are none."""

    def __init__(self, function: ScalarFunction) -> None:
        self.function = function
        self.is_complex = any(dtype_of(leaf).kind == "c" for leaf in function.leaves)
        self._error = ""
        self._not_analytic = ""

    def along(self, direction: Sequence[Any]) -> Derivative | None:
        """Im f(x + i h v) / h, v given leaf by leaf (None: zero); None if f cannot be evaluated there."""
        if self.is_complex:
            return None
        values = [
            leaf if v is None else leaf + 1j * STEP * v
            for leaf, v in zip(self._leaves(), direction, strict=True)
        ]
        self._error = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
                result = self.function.at(values)
        except (NeuralODEError, TypeError, ValueError) as error:
            self._error = described_error(error)
            return None
        value = complex(result).imag / STEP
        return Derivative(value, 8.0 * self.function.eps * abs(value), "complex step", STEP)

    def reason(self, explain: Callable[[], str] | None = None) -> str:
        """Why the last step was none: x itself, the error that stopped it, or what is not analytic."""
        if self.is_complex:
            return "no complex step: x is complex itself"
        if self._error:
            return f"no complex step: {self._error}"
        if not self._not_analytic:
            at = unflatten(self.function.x, self._leaves())
            self._not_analytic = explain() if explain else not_analytic(self.function.f, at)
        return f"no complex step: {self._not_analytic}"

    def _leaves(self) -> list[Any]:
        """The leaves as complex arrays, imaginary part zero."""
        return [_as_complex(leaf) for leaf in self.function.leaves]


def _as_complex(leaf: Any) -> Any:
    return complex(leaf) if is_weak(leaf) else astype(leaf, np.complex128)


def agree(found: Derivative, expected: Derivative) -> bool:
    """Whether a complex step agrees with differences as far as these can tell."""
    scale = max(abs(found.value), abs(expected.value))
    return math.isfinite(found.value) and (
        abs(found.value - expected.value) <= SURE * expected.error + AGREEMENT * scale
    )
