"""The states at the output times, written as rows pass them."""

from __future__ import annotations

import numpy as np

from ...engine.backend import Array, to_xp
from .active import Active
from .step import RowsStep


class Outputs:
    """ys (T, B, n) at the times (T,), NaN where a row has not arrived."""

    def __init__(self, times: np.ndarray, rows: Array, step: RowsStep) -> None:
        self.step, self.xp, self.times = step, step.xp, times
        self.ys = self.xp.full((len(times), *rows.shape), np.nan, rows.dtype)
        self.ys[0] = rows
        self._direction = 1.0 if times[-1] > times[0] else -1.0
        self._ordered = self._direction * times

    def write(self, active: Active, is_accepted: np.ndarray, t_next: np.ndarray) -> None:
        """All output times in the steps from `active.t` to t_next (A,) that were accepted,
        of all rows together.
        """
        reached = np.searchsorted(self._ordered, self._direction * t_next, side="right")
        counts = np.where(is_accepted, reached - active.n_done, 0)
        total = int(counts.sum())
        if total == 0:
            return
        place = np.repeat(np.arange(len(counts)), counts)
        first = np.cumsum(counts) - counts
        output = np.arange(total) + np.repeat(active.n_done - first, counts)
        is_end = self.times[output] == t_next[place]
        self._store(active, output[is_end], place[is_end], self.step.y_new[to_xp(self.xp, place[is_end])])
        if not is_end.all():
            self._interpolate(active, output[~is_end], place[~is_end], t_next - active.t)
        active.n_done = active.n_done + counts

    def _interpolate(self, active: Active, output: np.ndarray, place: np.ndarray, h: np.ndarray) -> None:
        n_extra = len(self.step.tableau.extra_c)
        if n_extra:
            has_output = np.zeros(len(h), bool)
            has_output[place] = True
            self.step.evaluate_extra(active.t, h, has_output)
            active.nfe += n_extra * has_output
        thetas = (self.times[output] - active.t[place]) / h[place]
        self._store(active, output, place, self.step.interpolate(place, thetas, h[place]))

    def _store(self, active: Active, output: np.ndarray, place: np.ndarray, states: Array) -> None:
        """States (P, n) of the rows at `place` (P,) among those that are left."""
        self.ys[to_xp(self.xp, output), to_xp(self.xp, active.row[place])] = states
