"""A Runge-Kutta step on a GPU: sums and error norm are one kernel each,
and from the second time on all of it is one launch.

The first attempt on a set of buffers is carried out launch by launch, the second is captured as a CUDA graph,
later ones launch the graph. Times and step size are arguments of a launch before it, the scaled error comes
back in page-locked memory: a step costs two launches and one read, and no read where its error is not wanted.
Where a step cannot be captured (f calls cuBLAS, or reads the time on the host) it stays a row of launches,
and a line in the log says why.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..engine.backend import Array, await_device, to_xp
from ..engine.cuda.crossings import Fetched, Sent
from ..engine.cuda.error_norm import NORMS, step_error_norm
from ..engine.cuda.graph import Recordings
from ..engine.cuda.replay import CudaWorkspace
from ..engine.cuda.stage_sum import fits_slopes, stage_sum
from .stages import ReplayStages, Stages
from .stats import Stats
from .stepping import RowStep
from .tableau import Tableau


class _Record:
    """What the steps of one method on one set of stages share: weights, times and error on the device,
    and the graphs.
    """

    def __init__(self, stages: ReplayStages, workspace: CudaWorkspace, tableau: Tableau) -> None:
        numbers, xp = tableau.as_floats(), stages.xp

        def weights(row: np.ndarray) -> Array:
            return to_xp(xp, np.array(row, np.float64))

        self.a = [weights(row) for row in numbers.a]
        self.b = weights(numbers.b)
        self.b_error = None if numbers.b_error is None else weights(numbers.b_error)
        self.coarse_error = None if numbers.coarse_error is None else weights(numbers.coarse_error)
        self.times = Sent(xp, tableau.stages + 1)  # of each stage, then h
        self.error = Fetched(xp, 1)
        self.y_new: Array = xp.empty(stages.rows.shape[1], stages.rows.dtype)
        self.graphs = Recordings(workspace.recorder, f"steps of {tableau.name}")
        reason = workspace.unrecordable("slope")
        if reason is not None:
            self.graphs.refuse(reason)


_records: WeakKeyDictionary[ReplayStages, dict[Tableau, _Record]] = WeakKeyDictionary()


def row_step(
    stages: Stages,
    tableau: Tableau,
    stats: Stats | None = None,
    norm: Any = None,
    rtol: Any = None,
    atol: Any = None,
) -> RowStep:
    """The step for these stages: a `DeviceStep` where they replay on a GPU."""
    if isinstance(stages, ReplayStages) and isinstance(stages.workspace, CudaWorkspace):
        if fits_slopes(stages.rows[1 : tableau.stages + 1]):
            return DeviceStep(stages, tableau, stats, norm, rtol, atol)
    return RowStep(stages, tableau, stats)


class DeviceStep(RowStep):
    """A step on rows in the memory of a GPU.

    Args:
        norm, rtol, atol: the scaled error that is measured along with a step; rtol None: none is.
    """

    def __init__(
        self, stages: ReplayStages, tableau: Tableau, stats: Stats | None, norm: Any, rtol: Any, atol: Any
    ) -> None:
        super().__init__(stages, tableau, stats)
        self.stages: ReplayStages = stages
        assert isinstance(stages.workspace, CudaWorkspace)
        own = _records.setdefault(stages, {})
        if tableau not in own:
            own[tableau] = _Record(stages, stages.workspace, tableau)
        self._record = own[tableau]
        self._h = 0.0
        self._is_measured = False
        is_plain = type(rtol) is float and type(atol) is float and norm in NORMS
        can_measure = is_plain and self._record.b_error is not None and tableau.coarse_order is None
        self._tolerances = (norm, rtol, atol) if can_measure else None
        if not tableau.fsal:
            self.y_new = self._record.y_new

    def advance(self, t: float, t_next: float, *, with_end: bool = True) -> None:
        self._h = t_next - t
        if self.tableau.extra_c:
            self._ends, self._has_extra = (t, t_next), False
        record, times = self._record, [self.stage_time(i, t, t_next) for i in range(self.n)]
        self._is_measured = with_end and self._tolerances is not None
        if record.graphs.is_refused:
            self._work(times, self._h, with_end=with_end)
        else:
            record.times.send([*times, self._h])
            *moments, h = record.times.each
            key = self.stages.buffers(), self._tolerances, with_end
            record.graphs.run(key, lambda: self._work(moments, h, with_end=with_end))
        if self.tableau.fsal:
            self.y_new = self.stages.input(self.n - 1)

    def measured_error(self) -> float | None:
        """The scaled error of the latest `advance`, one read;
        None where it is left to the norm of the solve.
        """
        if not self._is_measured:
            return None
        await_device()
        return float(self._record.error.host[0])

    def error_estimate(self) -> Array:
        assert self._record.b_error is not None
        return stage_sum(None, self._slopes, self._record.b_error, self._h, out=self.error)

    def coarse_error_estimate(self) -> Array:
        assert self._record.coarse_error is not None
        return stage_sum(None, self._slopes, self._record.coarse_error, self._h, out=self.error)

    def end_state(self) -> Array:
        if not self.tableau.fsal:
            return self.y_new
        self._sum(self._record.a[self.n - 1], self._h, self.stages.input(self.n - 1))
        return self.stages.input(self.n - 1)

    def _work(self, times: list[Any], h: Any, *, with_end: bool) -> None:
        """The launches of a step: the stages, the new state, its error. Times and h are numbers,
        or lie on the device.
        """
        stages, fsal = self.stages, self.tableau.fsal
        for i in range(1, self.n if with_end or not fsal else self.n - 1):
            self._sum(self._record.a[i], h, stages.input(i))
            stages.evaluate(i, times[i])
        if not fsal:
            self._sum(self._record.b, h, self.y_new)
        if with_end and self._tolerances is not None:
            self._measure(h)

    def _sum(self, weights: Array, h: Any, out: Array) -> None:
        rows = self.stages.rows
        stage_sum(rows[0], rows[1 : len(weights) + 1], weights, h, out=out)

    def _measure(self, h: Any) -> None:
        """Start to measure the scaled error, and to fetch it."""
        assert self._tolerances is not None
        norm, rtol, atol = self._tolerances
        record, b_error = self._record, self._record.b_error
        assert b_error is not None
        y_new = self.stages.input(self.n - 1) if self.tableau.fsal else self.y_new
        y, out = self.stages.rows[0], record.error.device
        step_error_norm(self._slopes, b_error, h, y, y_new, rtol, atol, norm=norm, out=out)
        record.error.fetch()
