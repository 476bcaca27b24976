"""The adjoint of a Runge-Kutta step on a GPU: its sums are kernels,
and all of it is one launch from the second time on.

As in `device_step`, times and step size are arguments of a launch before it. The host waits for nothing: a
backward pass is on its way while the device still works on its first step.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..engine.backend import Array, namespace_of, to_xp
from ..engine.cuda.crossings import Sent
from ..engine.cuda.graph import Recordings
from ..engine.cuda.replay import CudaWorkspace
from ..engine.cuda.stage_sum import fits_slopes, stage_sum
from .adjoint_step import AdjointStep
from .stages import ForwardStages, ReplayStages
from .stepping import RowStep
from .tableau import Tableau


class _Record:
    """What the adjoint steps of one method on one set of stages share."""

    def __init__(
        self, stages: ReplayStages, workspace: CudaWorkspace, step: RowStep, weights: np.ndarray
    ) -> None:
        n = len(weights)
        self.rows = [
            to_xp(stages.xp, row[: n - i].astype(np.float64)) for i, row in enumerate(weights)
        ]  # graphs read them
        self.times = Sent(stages.xp, n + 1)  # of each stage, then h
        self.carry: Array = stages.xp.empty(stages.rows.shape[1], stages.rows.dtype)
        self.ones: Array = stages.xp.ones(n, np.float64)
        self.dense: Array | None = None
        self.graphs = Recordings(workspace.recorder, f"adjoint steps of {step.tableau.name}")
        reason = workspace.unrecordable("pullback")
        if reason is not None:
            self.graphs.refuse(reason)

    def copied(self, dense: Array) -> Array:
        """`dense`, where graphs look for it."""
        if self.dense is None:
            self.dense = namespace_of(dense).empty_like(dense)
        self.dense[...] = dense
        return self.dense


_records: WeakKeyDictionary[ReplayStages, dict[Tableau, _Record]] = WeakKeyDictionary()


def adjoint_step(stages: ForwardStages, step: RowStep, weights: np.ndarray) -> AdjointStep:
    """The adjoint step for these stages: a `DeviceAdjointStep` where they replay on a GPU."""
    if isinstance(stages, ReplayStages) and isinstance(stages.workspace, CudaWorkspace):
        if fits_slopes(stages.bars[: len(weights)]):
            return DeviceAdjointStep(stages, step, weights)
    return AdjointStep(stages, step, weights)


class DeviceAdjointStep(AdjointStep):
    """An adjoint step on rows in the memory of a GPU."""

    def __init__(self, stages: ReplayStages, step: RowStep, weights: np.ndarray) -> None:
        super().__init__(stages, step, weights)
        self.stages: ReplayStages = stages
        assert isinstance(stages.workspace, CudaWorkspace)
        own = _records.setdefault(stages, {})
        if step.tableau not in own:
            own[step.tableau] = _Record(stages, stages.workspace, step, weights)
        self._record = own[step.tableau]
        self.carry = self._record.carry
        self.carry.fill(0)

    def pull_stages(self, t: float, t_next: float, dense: Array | None) -> None:
        record, h = self._record, t_next - t
        times = [self.step.stage_time(i, t, t_next) for i in range(self.n)]
        if record.graphs.is_refused:
            self._work(times, h, dense)
        else:
            given = None if dense is None else record.copied(dense)
            record.times.send([*times, h])
            *moments, size = record.times.each
            key = self.stages.buffers(), given is None
            record.graphs.run(key, lambda: self._work(moments, size, given))

    def move_to_start(self, dense: Array | None) -> None:
        bars, ones = self.stages.bars, self._record.ones
        if self.n > 1:
            stage_sum(bars[0], bars[1 : self.n], ones[: self.n - 1], 1.0, out=bars[0])
        if dense is not None:
            bars[0] += dense[0]

    def _work(self, times: list[Any], h: Any, dense: Array | None) -> None:
        """The launches; times and h are numbers, or lie on the device."""
        stages, bars = self.stages, self.stages.bars
        for i in range(self.n - 1, -1, -1):
            seed, given = stages.seeds[i] if i else self.carry, None if dense is None else dense[i + 1]
            stage_sum(given, bars[: self.n - i], self._record.rows[i], h, out=seed)
            if i:
                stages.pull(i, times[i])
