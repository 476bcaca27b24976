"""`interpolated`: the continuous adjoint along the stored forward solution. Never exact: its error falls as
rtol and atol fall.

The state y(t) is read from the dense output of the accepted steps, so that the adjoint alone is solved
backwards, with steps and tolerances of its own. Nothing is integrated against its stability: where the
forward solve contracts, so does the adjoint. Memory: what the dense output keeps of each accepted step.

Steps end where a cotangent enters, and not at the accepted forward times. The dense output is only once
continuously differentiable there, but its kinks are as small as its error is, which is that of the forward
solve: the error test does not see them unless the backward tolerances are much tighter, and then it finds
them itself.
"""

from __future__ import annotations

from typing import Any

from ...engine.backend import Array
from ..dense_output import DenseOutput
from ..tableau import Tableau
from ..tolerances import smallest
from .continuous import AdjointStages
from .evaluations import Evaluations


class InterpolatedStages(AdjointStages):
    """Stages of a (n,), at the states of `path`."""

    name = "interpolated"
    note = "The adjoint alone is solved back here: it is the equation a' = -(df/dy)^T a that fails."
    anchors_at_outputs = False

    def __init__(self, evaluations: Evaluations, tableau: Tableau, path: DenseOutput) -> None:
        super().__init__(evaluations, tableau, evaluations.size)
        self.path = path

    def input(self, index: int) -> Array:
        return self.evaluations.pairs[self._order[index]][self.size :]

    def evaluate(self, index: int, t: float) -> None:
        k, n = self._order[index], self.size
        self.path.read(t, self.evaluations.pairs[k][:n])
        self.evaluations.evaluate(k, t)
        self.xp.negative(self.evaluations.found[k][n:], out=self.rows[index + 1])

    def begin(self, y: Array, a: Array) -> None:
        self.rows[0] = a

    def tolerances(self, rtol: Any, atol: Any, size: float) -> tuple[Any, Any]:
        return smallest(rtol), smallest(atol) * size
