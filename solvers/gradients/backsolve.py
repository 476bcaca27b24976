"""`backsolve`: the continuous adjoint, solved backwards together with the state; O(1) memory. Never exact:
its error falls as rtol and atol fall.

State and adjoint, z = [y, a], are one system under error control. At each output time the state is
re-anchored to the stored one, and the drift is measured there: a way back that is unstable, though the way
forward is not, ends in an error (`drift_limit`) and not in the gradient of another solution.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine.backend import Array
from ..tableau import Tableau
from ..tolerances import smallest
from .continuous import AdjointStages
from .drift import DriftGuard
from .evaluations import Evaluations


class BacksolveStages(AdjointStages):
    """Stages of [y, a] (2 n,). `guard` compares each interval's last state with the stored one."""

    name = "backsolve"
    note = (
        "backsolve solves the state back together with its adjoint, which can be unstable where the forward solve is "
        "not; gradient='interpolated' and 'discrete' do not."
    )
    anchors_at_outputs = True

    def __init__(self, evaluations: Evaluations, tableau: Tableau, guard: DriftGuard) -> None:
        super().__init__(evaluations, tableau, 2 * evaluations.size)
        self.guard = guard

    def input(self, index: int) -> Array:
        return self.evaluations.pairs[self._order[index]]

    def evaluate(self, index: int, t: float) -> None:
        k, n = self._order[index], self.size
        self.evaluations.evaluate(k, t)
        self.rows[index + 1, :n] = self.evaluations.found[k][:n]
        self.xp.negative(self.evaluations.found[k][n:], out=self.rows[index + 1, n:])

    def begin(self, y: Array, a: Array) -> None:
        self.rows[0, : self.size], self.rows[0, self.size :] = y, a

    def tolerances(self, rtol: Any, atol: Any, size: float) -> tuple[Any, Any]:
        return self._for_both(rtol, 1.0), self._for_both(atol, size)

    def _for_both(self, tolerance: Any, size: float) -> np.ndarray:
        """(2 n,): as given for y, the smallest of them times `size` for a."""
        both = np.full(2 * self.size, smallest(tolerance) * size)
        both[: self.size] = tolerance
        return both

    def arrive(self, t: float, y: Array, z: Array) -> None:
        self.guard.check(t, z[: self.size], y)
