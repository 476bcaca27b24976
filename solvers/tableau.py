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
    """The coefficients of a `Tableau` correctly rounded to read-only float64 arrays.

    s stages, e extra ones; interpolant of degree p.
    """

    c: np.ndarray  # (s,)
    a: tuple[np.ndarray, ...]  # s rows; row i has shape (i,)
    b: np.ndarray  # (s,)
    b_error: np.ndarray | None  # (s,)
    coarse_error: np.ndarray | None  # (s,)
    interpolant: np.ndarray | None  # (s + e, p): column j belongs to theta**(j + 1)
    extra_c: np.ndarray  # (e,)
    extra_a: tuple[np.ndarray, ...]  # e rows; row i has shape (s + i,)


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method with s stages, as `Fraction`s.

    Stage i is k_i = f(t + c_i h, y + h sum_j a_ij k_j), and the step ends at y + h sum_i b_i k_i.

    Args:
        name: what a user passes as `method`.
        order: order p of the weights `b`.
        c, a, b: nodes (s,), strictly lower triangle (s rows, row i with i entries), weights (s,).
        source: where the numbers are published, down to the table; says which embedded formula it is.
        embedded_order, b_embedded: the second set of weights (s,),
            whose distance from `b` estimates the error.
        coarse_order, b_coarse: a third set (s,) of lower order. With the norms E and C of both estimates the
            error is taken to be E**2 / sqrt(E**2 + C**2 / 100), of the order that E * (E / C) has.
        interpolant_order, interpolant: dense output, y(t + theta h) = y + h sum_i b_i(theta) k_i over all
            stages and extra ones; row i holds the coefficients of theta, theta**2, ... in b_i(theta).
        extra_c, extra_a: nodes (e,) and rows (row i with s + i entries)
            of stages that the interpolant alone needs.
        tolerance: how far sums of the coefficients may be off: 0 for exact ones,
            the last digit of published decimals.
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
    coarse_order: int | None = None
    b_coarse: Row | None = None
    extra_c: Row = ()
    extra_a: tuple[Row, ...] = ()
    tolerance: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        problems = _shape_problems(self) or [*_step_problems(self), *_interpolant_problems(self)]
        if problems:
            raise ArgumentError(
                f"tableau {self.name!r} is inconsistent: {'; '.join(problems)}. "
                f"Compare every coefficient with its source: {self.source}"
            )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.order, self.c))  # of all coefficients it would take a millisecond

    @property
    def stages(self) -> int:
        """Number of stages s of a step."""
        return len(self.b)

    @property
    def n_slopes(self) -> int:
        """Number of stages s + e of a step that is read inside."""
        return len(self.b) + len(self.extra_c)

    @cached_property
    def fsal(self) -> bool:
        """First same as last: the last stage is f at the end of the step,
        so the next step need not evaluate it.
        """
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
        """b - b_embedded: h sum_i b_error_i k_i estimates the local error;
        None without an embedded formula.
        """
        return self._distance(self.b_embedded)

    @cached_property
    def coarse_error(self) -> Row | None:
        """b - b_coarse, as `b_error`; None without a third set of weights."""
        return self._distance(self.b_coarse)

    def _distance(self, weights: Row | None) -> Row | None:
        if weights is None:
            return None
        return tuple(b_i - w_i for b_i, w_i in zip(self.b, weights, strict=True))

    @property
    def error_order(self) -> int | None:
        """Power of h with which the error estimate vanishes (dopri5: 5); None without an embedded formula."""
        if self.embedded_order is None:
            return None
        fine = min(self.order, self.embedded_order) + 1
        return fine if self.coarse_order is None else 2 * fine - (self.coarse_order + 1)

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
            coarse_error=None if self.coarse_error is None else _frozen_array(self.coarse_error),
            interpolant=None if self.interpolant is None else _frozen_array(self.interpolant),
            extra_c=_frozen_array(self.extra_c),
            extra_a=tuple(_frozen_array(row) for row in self.extra_a),
        )


def rationals(text: str) -> Row:
    """Fractions from text: "0 1/2 -3/4" -> (0, 1/2, -3/4)."""
    return tuple(Fraction(word) for word in text.split())


def rows_of(text: str) -> tuple[Row, ...]:
    """Rows of fractions from text, with a semicolon between rows:
    "; 1/2; 0 3/4" -> ((), (1/2,), (0, 3/4)).
    """
    return tuple(rationals(row) for row in text.split(";"))


def hermite_interpolant(b: Row, correction: Row | None = None) -> tuple[Row, ...]:
    """Interpolant through both ends of a step and both slopes there, for a method with c_1 = 0 that is FSAL.

    b_i(theta) = b_i (3 theta**2 - 2 theta**3) + [i first] theta (1 - theta)**2 - [i last] theta**2 (1
    - theta)
                 + d_i theta**2 (1 - theta)**2
    Without `correction` d this is cubic Hermite interpolation, of order 3; d (s,) adds a quartic that leaves
    both ends and both slopes as they are and can raise the order to 4.
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
    lengths = {"c": stages, "a": stages, "b_embedded": stages, "b_coarse": stages}
    lengths |= {"extra_a": len(tableau.extra_c), "interpolant": tableau.n_slopes}
    problems = []
    for field, length in lengths.items():
        value = getattr(tableau, field)
        if value is not None and len(value) != length:
            problems.append(f"`{field}` has {len(value)} entries, expected {length}")
    for field, first in (("a", 0), ("extra_a", stages)):
        rows = enumerate(getattr(tableau, field), start=first)
        problems += [f"row {i} of `{field}` has {len(row)} entries" for i, row in rows if len(row) != i]
    if len(set(map(len, tableau.interpolant or ()))) > 1:
        problems.append("the rows of `interpolant` differ in length")
    for name in ("embedded", "coarse", "interpolant"):
        order, field = f"{name}_order", name if name == "interpolant" else f"b_{name}"
        if (getattr(tableau, order) is None) != (getattr(tableau, field) is None):
            problems.append(f"`{order}` and `{field}` go together; only one is given")
    return problems


def _step_problems(tableau: Tableau) -> list[str]:
    """Row sums of `a`, and the sums of all sets of weights."""
    problems = [
        f"row {i} of `a` sums to {_short(sum(row))}, c_{i} is {_short(c_i)}"
        for i, (c_i, row) in enumerate(
            zip(tableau.c + tableau.extra_c, tableau.a + tableau.extra_a, strict=True)
        )
        if abs(sum(row) - c_i) > tableau.tolerance
    ]
    for field in ("b", "b_embedded", "b_coarse"):
        weights = getattr(tableau, field)
        if weights is not None and abs(sum(weights) - 1) > tableau.tolerance:
            problems.append(f"`{field}` sums to {_short(sum(weights))}, not 1")
    return problems


def _interpolant_problems(tableau: Tableau) -> list[str]:
    """b_i(1) = b_i, sum_i b_i(theta) = theta, and the slopes at the ends that f is known at."""
    if tableau.interpolant is None:
        return []
    problems = []
    last = len(tableau.b) - 1
    for i, row in enumerate(tableau.interpolant):
        b_i = tableau.b[i] if i <= last else Fraction(0)
        slope = sum(power * coefficient for power, coefficient in enumerate(row, start=1))
        checks = [("value", 1, sum(row), b_i), ("slope", 0, row[0], Fraction(i == 0))]
        if tableau.fsal:
            checks.append(("slope", 1, slope, Fraction(i == last)))
        problems += [
            f"the {what} of b_{i}(theta) at {theta} is {_short(got)}, not {_short(expected)}"
            for what, theta, got, expected in checks
            if abs(got - expected) > tableau.tolerance
        ]
    for power, column in enumerate(zip_longest(*tableau.interpolant), start=1):
        if abs(sum(column) - (power == 1)) > tableau.tolerance:
            problems.append(
                f"the coefficients of theta**{power} sum to {_short(sum(column))}, not {int(power == 1)}"
            )
    return problems


def _short(value: Fraction | int) -> str:
    """A fraction as text, one of many digits as a decimal number."""
    return str(value) if len(str(value)) <= 30 else f"{float(value):.17g}"
