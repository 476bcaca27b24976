"""Diagonally implicit Runge-Kutta tableaus: an explicit first stage, one number on the diagonal,
the end as last stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ...engine.errors import ArgumentError
from ..tableau import Row, hermite_interpolant, rationals

SLIP = Fraction(1, 10**16)  # published decimals of 17 digits meet their conditions no better
PREDICTED_DEGREE = 2  # of the polynomial in time through earlier slopes that predicts the next one


class DirkNumbers(NamedTuple):
    """The coefficients of a `DirkTableau` as float64 arrays; s stages."""

    c: np.ndarray  # (s,)
    a: np.ndarray  # (s, s)
    gamma: float
    predictor: np.ndarray  # (s, s): row i holds the weights of k_1 ... k_i-1 in the guess of k_i
    b_error: np.ndarray | None  # (s,)
    interpolant: (
        np.ndarray
    )  # (s, 4), or (s, 3) without an embedded formula: column j belongs to theta**(j + 1)


@dataclass(frozen=True)
class DirkTableau:
    """A Runge-Kutta method whose stages are solved one after the other,
    each with the same matrix I - h gamma J.

    Stage i is k_i = f(t + c_i h, Y_i), Y_i = y + h sum_{j <= i} a_ij k_j, and the step ends at Y_s. The first
    stage is the start of the step and the last one its end,
    so that the slope of the last stage is the first of the next step.

    Args:
        name: what a user passes as `method`.
        order: order of the solution.
        a: lower triangle with its diagonal (0, gamma, ..., gamma): s rows, row i with i + 1 entries.
        source: where the numbers are published, down to the table.
        embedded_order, b_embedded: the second set of weights (s,),
            whose distance from the last row estimates the error.
    Raises: ArgumentError that lists every condition the numbers break.
    """

    name: str
    order: int
    a: tuple[Row, ...]
    source: str
    embedded_order: int | None = None
    b_embedded: Row | None = None

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise ArgumentError(
                f"tableau {self.name!r} is inconsistent: {'; '.join(problems)}. "
                f"Compare every coefficient with its source: {self.source}"
            )

    @property
    def stages(self) -> int:
        """Number of stages s."""
        return len(self.a)

    @property
    def gamma(self) -> Fraction:
        """The number on the diagonal."""
        return self.a[-1][-1]

    @property
    def b(self) -> Row:
        """The weights: the last row."""
        return self.a[-1]

    @property
    def c(self) -> Row:
        """The nodes: the row sums; the last one is 1."""
        return (*(sum(row, Fraction(0)) for row in self.a[:-1]), Fraction(1))

    @property
    def error_order(self) -> int | None:
        """Power of h with which the error estimate vanishes; None without an embedded formula."""
        return None if self.embedded_order is None else min(self.order, self.embedded_order) + 1

    @property
    def embedded_is_stage(self) -> bool:
        """Whether the embedded solution is one of the stages."""
        assert self.b_embedded is not None
        s = self.stages
        return any((*row, *(Fraction(0),) * (s - len(row))) == self.b_embedded for row in self.a)

    @cached_property
    def numbers(self) -> DirkNumbers:
        """The coefficients as floats; computed once and shared."""
        s = self.stages
        a = np.zeros((s, s))
        for i, row in enumerate(self.a):
            a[i, : i + 1] = [float(x) for x in row]
        c = np.array([float(x) for x in self.c])
        b_error, interpolant = None, _cubic(self.b)
        if self.b_embedded is not None:
            b_error = np.array([float(b - e) for b, e in zip(self.b, self.b_embedded, strict=True)])
            interpolant = _quartic(interpolant, a, c)
        return DirkNumbers(c, a, float(self.gamma), _predictor(c), b_error, interpolant)


def lower_triangle(text: str) -> tuple[Row, ...]:
    """Rows of fractions or decimals, one a line."""
    return tuple(rationals(line) for line in text.strip().splitlines())


def _problems(tableau: DirkTableau) -> list[str]:
    a, problems = tableau.a, []
    problems += [f"row {i} of `a` has {len(row)} entries" for i, row in enumerate(a) if len(row) != i + 1]
    if problems or len(a) < 2:
        return problems or ["it needs two stages"]
    if a[0][0] != 0:
        problems.append("the first stage is not explicit")
    if any(row[-1] != tableau.gamma for row in a[1:]):
        problems.append("the diagonal is not constant")
    for field, weights in (("the last row of `a`", a[-1]), ("`b_embedded`", tableau.b_embedded)):
        if weights is not None and abs(sum(weights, Fraction(-1))) > SLIP:
            problems.append(f"{field} sums to {float(sum(weights)):.17g}, not 1")
    if tableau.b_embedded is not None and len(tableau.b_embedded) != len(a):
        problems.append(f"`b_embedded` has {len(tableau.b_embedded)} entries, `a` has {len(a)} rows")
    if (tableau.b_embedded is None) != (tableau.embedded_order is None):
        problems.append("`embedded_order` and `b_embedded` go together; only one is given")
    return problems


def _predictor(c: np.ndarray) -> np.ndarray:
    """Weights of earlier slopes that continue them as a polynomial in time; the smallest ones,
    where there is a choice.
    """
    weights = np.zeros((len(c), len(c)))
    for i in range(1, len(c)):
        powers = np.arange(min(i - 1, PREDICTED_DEGREE) + 1)[:, None]
        weights[i, :i] = np.linalg.lstsq(c[:i] ** powers, c[i] ** powers[:, 0], rcond=None)[0]
    return weights


def _cubic(b: Row) -> np.ndarray:
    """(s, 3): the cubic with both states and both slopes at the ends."""
    return np.array([[float(x) for x in row] for row in hermite_interpolant(b)])


def _quartic(cubic: np.ndarray, a: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(s, 4): quartic dense output of order 4, with both states and both slopes at the ends.

    Cubic Hermite interpolation gains the weights d_i theta**2 (1 - theta)**2. With stages of order 2 the
    conditions of order 4 are d . 1 = d . c = d . c**2 = 0, d . c**3 = 1/4 and d . A c**2 = 1/12;
    the smallest d that meets them.
    Source: the order conditions of continuous methods, Hairer, Norsett & Wanner (1993), Solving ODEs I,
        section II.6.
    """
    conditions = np.array([c**0, c, c**2, c**3, a @ c**2])
    d = np.linalg.lstsq(conditions, np.array([0.0, 0.0, 0.0, 1 / 4, 1 / 12]), rcond=None)[0]
    return np.column_stack([cubic[:, 0], cubic[:, 1] + d, cubic[:, 2] - 2.0 * d, d])
