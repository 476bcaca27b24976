"""The adjoint of one Runge-Kutta step: the cotangents of its stages from the last to the first,
and of its start.

    kbar_i = h (b_i lam + sum_{j > i} a_ji Ybar_j),   Ybar_i = (df/dy)^T kbar_i,   ybar = lam + sum_i Ybar_i
Row 0 of the `bars` of stages is lam, the rows of Ybar follow, those of the last stage first, so that each sum
is one matrix-vector product.
"""

from __future__ import annotations

import numpy as np

from ..engine.backend import Array, to_xp
from ..engine.product_precision import plain_dot
from .stages import ForwardStages
from .stepping import RowStep


class AdjointStep:
    """The adjoint of the steps that `step` makes on these stages.

    Args:
        weights: (n, n), row i those of [lam, Ybar_last, ..., Ybar_(i + 1)] in kbar_i / h.
    Attributes:
        carry: (n,), the cotangent of the first slope, which belongs to the step before as well.
    """

    def __init__(self, stages: ForwardStages, step: RowStep, weights: np.ndarray) -> None:
        self.stages, self.step, self.n = stages, step, len(weights)
        self.carry: Array = stages.xp.zeros_like(stages.bars[0])
        self._weights = weights
        self._scaled = np.empty(weights.shape, stages.bars.dtype)  # times h
        self._dot = plain_dot(stages.xp)

    def pull_stages(self, t: float, t_next: float, dense: Array | None) -> None:
        """Pull all stages but the first back, and collect the cotangent of the first slope in `carry`.

        `dense` (s + 1, n): cotangents that outputs inside of the step give to [y, k_1, ..., k_s].
        """
        stages, bars = self.stages, self.stages.bars
        scaled = np.multiply(self._weights, t_next - t, out=self._scaled, casting="same_kind")
        weights = to_xp(stages.xp, scaled)
        for i in range(self.n - 1, -1, -1):
            seed = stages.seeds[i] if i else self.carry
            self._dot(weights[i, : self.n - i], bars[: self.n - i], out=seed)
            if dense is not None:
                seed += dense[i + 1]
            if i:
                stages.pull(i, self.step.stage_time(i, t, t_next))

    def move_to_start(self, dense: Array | None) -> None:
        """lam of the end of a step becomes that of its start, but for what comes through the first slope."""
        bars = self.stages.bars
        total = bars[: self.n].sum(axis=0)
        bars[0] = total if dense is None else total + dense[0]
