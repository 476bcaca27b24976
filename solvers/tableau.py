"""Runge-Kutta tableaus: exact rational coefficients, checked when they are made, as floats once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from ..engine.errors import ArgumentError

Row = tuple[Fraction, ...]


class FloatTableau(NamedTuple):
    """The coefficients of a `Tableau` correctly rounded to read-only float64 arrays; s stages, degree p."""

    c: np.ndarray  # (s,)
    a: tuple[np.ndarray, ...]  # s rows; row i has shape (i,)
    b: np.ndarray  # (s,)
    b_error: np.ndarray | None  # (s,)
    interpolant: np.ndarray | None  # (s, p): column j belongs to theta**(j + 1)


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method with s stages, as `Fraction`s.

    Stage i is k_i = f(t + c_i h, y + h sum_j a_ij k_j), and the step ends at y + h sum_i b_i k_i.

    Args:
        name: what a user passes as `method`.
        order: order p of the weights `b`.
        c, a, b: nodes (s,), strictly lower triangle (s rows, row i with i entries), weights (s,).
        source: where the numbers are published, down to the table; says which embedded formula it is.
        embedded_order, b_embedded: the second set of weights (s,), whose distance from `b` estimates the error.
        interpolant_order, interpolant: dense output without further stages, y(t + theta h) = y + h sum_i b_i(theta) k_i;
            row i holds the coefficients of theta, theta**2, ... in b_i(theta).
    Raises: ArgumentError that lists every condition the numbers break.
    """

    name: str
    order: int
    c: Row
    a: tuple[Row, ...]
    b: Row
    source: str
    embedded_order: int | None = None
    b_embedded: Row | None = None
    interpolant_order: int | None = None
    interpolant: tuple[Row, ...] | None = None

    def __post_init__(self) -> None:
        problems = _shape_problems(self) or [*_step_problems(self), *_interpolant_problems(self)]
        if problems:
            raise ArgumentError(
                f"tableau {self.name!r} is inconsistent: {'; '.join(problems)}. "
                f"Compare every coefficient with its source: {self.source}"
            )

    @property
    def stages(self) -> int:
        """Number of stages s."""
        return len(self.b)

    @cached_property
    def fsal(self) -> bool:
        """First same as last: the last stage is f at the end of the step, so the next step need not evaluate it."""
        return self.b[-1] == 0 and self.a[-1] == self.b[:-1]

    @property
    def interpolates(self) -> bool:
        """Whether there is dense output."""
        return self.interpolant is not None

    @property
    def is_adaptive(self) -> bool:
        """Whether there is an embedded formula, hence an error estimate."""
        return self.b_embedded is not None

    @cached_property
    def b_error(self) -> Row | None:
        """b - b_embedded: h sum_i b_error_i k_i estimates the local error; None without an embedded formula."""
        if self.b_embedded is None:
            return None
        return tuple(b_i - e_i for b_i, e_i in zip(self.b, self.b_embedded, strict=True))

    @property
    def error_order(self) -> int | None:
        """Power of h with which the error estimate vanishes (dopri5: 5); None without an embedded formula."""
        return None if self.embedded_order is None else min(self.order, self.embedded_order) + 1

    def as_floats(self) -> FloatTableau:
        """The coefficients as float64 arrays, each correctly rounded; computed once and shared."""
        return self._floats

    @cached_property
    def _floats(self) -> FloatTableau:
        return FloatTableau(
            c=_frozen_array(self.c),
            a=tuple(_frozen_array(row) for row in self.a),
            b=_frozen_array(self.b),
            b_error=None if self.b_error is None else _frozen_array(self.b_error),
            interpolant=None if self.interpolant is None else _frozen_array(self.interpolant),
        )


def rationals(text: str) -> Row:
    """Fractions from text: "0 1/2 -3/4" -> (0, 1/2, -3/4)."""
    return tuple(Fraction(word) for word in text.split())


def hermite_interpolant(b: Row, correction: Row | None = None) -> tuple[Row, ...]:
    """Interpolant through both ends of a step and both slopes there, for a method with c_1 = 0 that is FSAL.

    b_i(theta) = b_i (3 theta**2 - 2 theta**3) + [i first] theta (1 - theta)**2 - [i last] theta**2 (1 - theta)
                 + d_i theta**2 (1 - theta)**2
    Without `correction` d this is cubic Hermite interpolation, of order 3; d (s,) adds a quartic that leaves both ends
    and both slopes as they are and can raise the order to 4.
    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section II.6.
    """
    rows: list[Row] = []
    for i, b_i in enumerate(b):
        first, last = Fraction(i == 0), Fraction(i == len(b) - 1)
        cubic = (first, 3 * b_i - 2 * first - last, -2 * b_i + first + last)
        if correction is None:
            rows.append(cubic)
        else:
            d_i = correction[i]
            rows.append((cubic[0], cubic[1] + d_i, cubic[2] - 2 * d_i, d_i))
    return tuple(rows)


def _frozen_array(rows: Sequence[Fraction] | Sequence[Row]) -> np.ndarray:
    array = np.array(rows, dtype=np.float64)
    array.flags.writeable = False
    return array


def _shape_problems(tableau: Tableau) -> list[str]:
    """Wrong lengths; the other checks rely on there being none."""
    stages = len(tableau.b)
    problems = []
    for field in ("c", "a", "b_embedded", "interpolant"):
        value = getattr(tableau, field)
        if value is not None and len(value) != stages:
            problems.append(f"`{field}` has {len(value)} entries, `b` has {stages}")
    problems += [f"row {i} of `a` has {len(row)} entries" for i, row in enumerate(tableau.a) if len(row) != i]
    if len(set(map(len, tableau.interpolant or ()))) > 1:
        problems.append("the rows of `interpolant` differ in length")
    for order, field in (("embedded_order", "b_embedded"), ("interpolant_order", "interpolant")):
        if (getattr(tableau, order) is None) != (getattr(tableau, field) is None):
            problems.append(f"`{order}` and `{field}` go together; only one is given")
    return problems


def _step_problems(tableau: Tableau) -> list[str]:
    """Row sums of `a`, and the sums of both sets of weights."""
    problems = [
        f"row {i} of `a` sums to {sum(row)}, c_{i} is {c_i}"
        for i, (c_i, row) in enumerate(zip(tableau.c, tableau.a, strict=True))
        if sum(row) != c_i
    ]
    for field in ("b", "b_embedded"):
        weights = getattr(tableau, field)
        if weights is not None and sum(weights) != 1:
            problems.append(f"`{field}` sums to {sum(weights)}, not 1")
    return problems


def _interpolant_problems(tableau: Tableau) -> list[str]:
    """b_i(1) = b_i, sum_i b_i(theta) = theta, and the slopes at the ends that f is known at."""
    if tableau.interpolant is None:
        return []
    stages = len(tableau.b)
    problems = []
    for i, row in enumerate(tableau.interpolant):
        if sum(row) != tableau.b[i]:
            problems.append(f"b_{i}(theta = 1) is {sum(row)}, b_{i} is {tableau.b[i]}")
        if row[0] != (i == 0):
            problems.append(f"the slope of b_{i}(theta) at 0 is {row[0]}, not {int(i == 0)}")
        slope = sum(power * coefficient for power, coefficient in enumerate(row, start=1))
        if tableau.fsal and slope != (i == stages - 1):
            problems.append(f"the slope of b_{i}(theta) at 1 is {slope}, not {int(i == stages - 1)}")
    for power, column in enumerate(zip_longest(*tableau.interpolant), start=1):
        if sum(column) != (power == 1):
            problems.append(f"the coefficients of theta**{power} sum to {sum(column)}, not {int(power == 1)}")
    return problems
