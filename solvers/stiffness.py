"""Stiffness as an explicit method meets it: steps held small by stability, and not by the tolerances.

Two stages i < j at the same time, c_i = c_j, show how fast f changes along the direction in which they
differ:
    rho = |k_j - k_i| / |Y_j - Y_i|,   Y_j - Y_i = h sum_l (a_jl - a_il) k_l
which tends to the largest eigenvalue of df/dy there. Where h rho stays at the end of the stability interval
of the method, an implicit method could go much further. It is looked at once in `EVERY` accepted steps, then
at every step while it is suspected: `HITS` of them, with fewer than `MISSES` others in a row, are enough.

Source: Hairer & Wanner (1996), Solving ODEs II, section IV.2, "Stiffness detection",
    with the counts of their code
DOPRI5; there the pair is (6, 7) and the limit 3.25.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from ..engine.backend import Array, to_host, to_xp
from ..engine.errors import StiffnessWarning
from . import implicit
from .caller import level_of_caller
from .method import Method
from .methods import METHODS
from .tableau import Tableau

EVERY, HITS, MISSES = 1000, 15, 6
SHARE = 0.983  # of the stability interval: 3.25 of 3.31 for dopri5


def stages_at_one_time(tableau: Tableau) -> tuple[int, int] | None:
    """The last two stages i < j with c_i = c_j > 0; None for a method that has none."""
    c = tableau.c
    pairs = [(i, j) for j in range(len(c)) for i in range(j) if c[i] == c[j] and c[i] > 0]
    return pairs[-1] if pairs else None


@lru_cache(maxsize=64)
def stability_interval(tableau: Tableau) -> float:
    """The largest x <= 100 with |R(z)| <= 1 for -x <= z <= 0, to 0.001, where a step of y' = z y, h = 1,
    gives R(z) y.
    """
    numbers, s = tableau.as_floats(), tableau.stages
    a = np.zeros((s, s))
    for i, row in enumerate(numbers.a):
        a[i, : len(row)] = row
    coefficients, power = [1.0], np.ones(s)
    for _ in range(s):
        coefficients.append(float(numbers.b @ power))  # of z**k: b^T A**(k - 1) 1
        power = a @ power
    x = np.arange(1, 100_001) * 1e-3
    grows = np.abs(np.polynomial.polynomial.polyval(-x, np.array(coefficients))) > 1.0 + 1e-9
    return float(x[int(np.argmax(grows))] - 1e-3) if grows.any() else 100.0


class StiffnessWatch:
    """The suspicion of one solve. `next_look` is the number of accepted steps from which on to call
    `look`.
    """

    def __init__(self, tableau: Tableau, pair: tuple[int, int]) -> None:
        i, j = pair
        numbers = tableau.as_floats()
        self.tableau, self._pair = tableau, pair
        self._difference = np.zeros(tableau.stages)
        self._difference[: len(numbers.a[j])] += numbers.a[j]
        self._difference[: len(numbers.a[i])] -= numbers.a[i]
        self._limit = SHARE * stability_interval(tableau)
        self._hits = self._misses = 0
        self.next_look: float = EVERY
        self.h_rho = 0.0

    @classmethod
    def of(cls, method: Tableau | Method) -> StiffnessWatch | None:
        """The watch over a solve with this method; None where it has no two stages at one time."""
        if not isinstance(method, Tableau):
            return None
        pair = stages_at_one_time(method)
        return None if pair is None else cls(method, pair)

    def look(self, n_accepted: int, h: float, rows: Array, xp: Any) -> bool:
        """Whether the step just accepted, with its state and slopes in `rows`,
        settles that the problem is stiff.
        """
        self.h_rho = abs(h) * self._rho(h, rows, xp)
        if self.h_rho > self._limit:
            self._hits, self._misses = self._hits + 1, 0
        else:
            self._misses += 1
            if self._misses == MISSES:
                self._hits = 0
        is_stiff = self._hits == HITS
        if is_stiff:
            self.next_look = np.inf
        elif self._hits:
            self.next_look = n_accepted + 1
        else:
            self.next_look = (n_accepted // EVERY + 1) * EVERY
        return is_stiff

    def _rho(self, h: float, rows: Array, xp: Any) -> float:
        """0.0 where the two stages differ by round-off only."""
        i, j = self._pair
        slopes = rows[1 : self.tableau.stages + 1]
        apart = abs(h) * xp.linalg.norm(to_xp(xp, self._difference.astype(rows.dtype)) @ slopes)
        round_off = 100.0 * np.finfo(rows.dtype).eps * xp.linalg.norm(rows[0])
        change = xp.linalg.norm(slopes[j] - slopes[i])
        change, apart, round_off = to_host(xp.stack([change, apart, round_off])).tolist()  # one read
        return change / apart if apart > round_off else 0.0

    def warn(self, name: str, t: float, h: float) -> None:
        """The warning, at the line of the caller."""
        better = [
            key
            for key, method in METHODS.items()
            if method.is_adaptive and type(method).__module__.startswith(implicit.__name__)
        ]
        warnings.warn(
            f"{name}: the problem is stiff: at t={t:.6g} the step h={h:.1e} has been held by the stability of "
            f"{self.tableau.name} for {HITS} steps (h rho = {self.h_rho:.3g}, at most "
            f"{stability_interval(self.tableau):.3g}), not by rtol and atol. Use method={' or '.join(map(repr, better))}, "
            "whose steps the tolerances alone decide; warn_stiff=False says nothing.",
            StiffnessWarning,
            stacklevel=level_of_caller(),
        )
