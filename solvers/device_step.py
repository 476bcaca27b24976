"""A Runge-Kutta step on a GPU: sums and error norm are one kernel each, and from the second time on all of it is one launch.

The first attempt on a set of buffers is carried out launch by launch, the second is captured as a CUDA graph, later ones
launch the graph. Times and step size reach it in page-locked memory, the scaled error comes back the same way: a step
costs one launch and one read. Where a step cannot be captured (f calls cuBLAS, or reads the time on the host) it stays a
row of launches, and a line in the log says why.
"""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..engine.backend import Array, await_device, carry_out, to_xp
from ..engine.cuda.error_norm import step_error_norm
from ..engine.cuda.graph import Graph, Mailbox
from ..engine.cuda.replay import CudaWorkspace
from ..engine.cuda.stage_sum import fits_slopes, stage_sum
from ..engine.product_precision import current_products
from .norms import NORMS
from .stages import ReplayStages, Stages
from .stats import Stats
from .stepping import RowStep
from .tableau import Tableau

logger = logging.getLogger("odegrad")

MOST_GRAPHS = 256  # of one set of stages; a solve that keeps its steps has one for each


class _Record:
    """What the steps of one method on one set of stages share: weights, times and error on the device, and the graphs."""

    def __init__(self, stages: ReplayStages, tableau: Tableau) -> None:
        numbers, xp = tableau.as_floats(), stages.xp

        def weights(row: np.ndarray) -> Array:
            return to_xp(xp, np.array(row, np.float64))

        self.a = [weights(row) for row in numbers.a]
        self.b = weights(numbers.b)
        self.b_error = None if numbers.b_error is None else weights(numbers.b_error)
        self.coarse_error = None if numbers.coarse_error is None else weights(numbers.coarse_error)
        self.times = Mailbox(xp, tableau.stages + 1)  # of each stage, then h
        self.moments = [self.times.device[i:][:1].reshape(()) for i in range(tableau.stages + 1)]
        self.error = Mailbox(xp, 1)
        self.y_new: Array = xp.empty(stages.rows.shape[1], stages.rows.dtype)
        self.graphs: dict[Any, Graph | None] = {}
        self.can_capture = True
        self.is_running = False  # whether a step was launched that nobody has waited for


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
        own = _records.setdefault(stages, {})
        if tableau not in own:
            own[tableau] = _Record(stages, tableau)
        self._record = own[tableau]
        self._h = 0.0
        self._is_measured = False
        is_plain = type(rtol) is float and type(atol) is float and norm in NORMS[:2]
        can_measure = is_plain and self._record.b_error is not None and tableau.coarse_order is None
        self._tolerances = (norm, rtol, atol) if can_measure else None
        if not tableau.fsal:
            self.y_new = self._record.y_new
        assert isinstance(stages.workspace, CudaWorkspace)
        self._workspace = stages.workspace
        reason = self._workspace.unrecordable("slope")
        if reason is not None:
            self._give_up(reason)

    def advance(self, t: float, t_next: float, *, with_end: bool = True) -> None:
        self._h, self._is_measured = t_next - t, False
        if self.tableau.extra_c:
            self._ends, self._has_extra = (t, t_next), False
        times = [self.stage_time(i, t, t_next) for i in range(self.n)]
        if not with_end or not self._record.can_capture:
            self._launch_all(times, self._h, with_end=with_end)
            if with_end and self._tolerances is not None:
                self._measure(self._h)
        else:
            self._launch_recorded(times)
        if self.tableau.fsal:
            self.y_new = self.stages.input(self.n - 1)

    def measured_error(self) -> float | None:
        """The scaled error of the latest `advance`, one read; None where it is left to the norm of the solve."""
        if not self._is_measured:
            return None
        await_device()
        self._record.is_running = False
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

    def _launch_recorded(self, times: list[float]) -> None:
        """The whole step, with times from the device: as a graph if these buffers were used before."""
        record = self._record
        if self._record.is_running:  # an error that nobody read: the times may still be on their way
            await_device()
        record.times.host[:-1], record.times.host[-1] = times, self._h
        key = (self.stages.buffers(), self._tolerances, current_products())
        if key not in record.graphs:
            if len(record.graphs) >= MOST_GRAPHS:
                record.graphs.clear()
            record.graphs[key] = None
            self._work()
        else:
            graph = record.graphs[key] or self._captured(key)
            (self._work if graph is None else graph.launch)()
        record.is_running, self._is_measured = True, self._tolerances is not None

    def _captured(self, key: Any) -> Graph | None:
        try:
            memory = self._workspace.recorder.memory
            carry_out(self._work, memory)
            graph = Graph(self._work, memory)
        except Exception as error:  # noqa: BLE001 - CuPy raises errors of many kinds
            self._give_up(str(error) or type(error).__name__)
            return None
        self._record.graphs[key] = graph
        return graph

    def _give_up(self, reason: str) -> None:
        if self._record.can_capture:
            logger.info("odegrad: steps of %s are launched kernel by kernel: %s", self.tableau.name, reason)
        self._record.can_capture = False

    def _work(self) -> None:
        """The launches of a step, which read nothing of the host but the mailbox."""
        record = self._record
        record.times.send()
        *moments, h = record.moments
        self._launch_all(moments, h, with_end=True)
        if self._tolerances is not None:
            self._measure(h)

    def _launch_all(self, times: list[Any], h: Any, *, with_end: bool) -> None:
        """The stages, and the new state; times and h are numbers, or lie on the device."""
        stages, fsal = self.stages, self.tableau.fsal
        for i in range(1, self.n if with_end or not fsal else self.n - 1):
            self._sum(self._record.a[i], h, stages.input(i))
            stages.evaluate(i, times[i])
        if not fsal:
            self._sum(self._record.b, h, self.y_new)

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
        step_error_norm(
            self._slopes,
            b_error,
            h,
            self.stages.rows[0],
            y_new,
            rtol,
            atol,
            norm=norm,
            out=record.error.device,
        )
        record.error.fetch()
        self._is_measured = True
