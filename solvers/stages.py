"""Where the slopes of a step come from: the stages of one Runge-Kutta step, replayed or evaluated eagerly.

Both kinds offer the same to the solvers. The state and the slopes are the rows [y, k_1, ..., k_s] of one
array, so that every weighted sum of a step is one matrix-vector product:
    rows (s + 1, n)         row 0 is y at the start of the step, row i + 1 the slope of stage i
    input(i)                the array (n,) in which stage i is given its state
    evaluate(i, t)          rows[i + 1] = f(t, input(i))
Behind the s stages of a step there may be extra ones, `n_extra` of them, for what is read inside of a step.
    aux(i)                  what f returned beside the slope of stage i
and, when made for a derivative,
    seeds (s, n)            row i: the cotangent of the slope of stage i
    bars (s + 1, n)         row `bar_row(i)` receives the cotangent of the state of stage i; row 0 is free
    pull(i, t)              does so, and adds the cotangents of the parameters to `param_bars`
    time_bar(i, t)          <seeds[i], df/dt>, after pull
    hold(), use(), drop()   keep the stages of an accepted step until they are pulled back
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.backend import Array, to_number
from ..engine.cuda.replay import CudaWorkspace
from ..engine.partition import Plan
from ..engine.replay import StageSet, Workspace
from ..engine.trace import shape_of
from ..engine.transforms import vjp
from .compiled import Compiled, Purpose
from .dynamics import Dynamics


class Stages(ABC):
    """What the two kinds have in common; see above for the rest."""

    xp: Any
    rows: Array
    n_stages: int
    n_extra: int = 0
    fsal: bool

    @abstractmethod
    def input(self, index: int) -> Array: ...

    @abstractmethod
    def evaluate(self, index: int, t: float) -> None: ...

    def shift(self) -> None:  # noqa: B027 - most kinds have nothing to do
        """The slope at the end of a step becomes the first of the next;
        nothing to do where only its value counts.
        """


class ForwardStages(Stages):
    """Stages of the dynamics themselves, which can be pulled back."""

    seeds: Array
    bars: Array
    param_bars: list[Array]

    @abstractmethod
    def aux(self, index: int) -> list[Any]: ...

    def bar_row(self, index: int) -> int:
        """The stages that a step sums lie behind each other, the last one first; then come the slope at its
        end and the extra stages.
        """
        n = self.n_stages - self.n_extra  # of the step itself
        if index >= n or (self.fsal and index == n - 1):
            return index + 1
        return n - self.fsal - index

    @abstractmethod
    def pull(self, index: int, t: float) -> None: ...

    @abstractmethod
    def time_bar(self, index: int, t: float) -> float: ...

    def hold(self) -> Any:
        """The buffers of the step just made, which are then not written again;
        None where nothing can be kept.
        """
        return None

    def use(self, held: Any) -> None:
        """Make held buffers current."""
        raise AssertionError("nothing was held")

    def held_nbytes(self) -> int:
        """Bytes that one held step costs."""
        return 0


class _Stage:
    """Buffers of one evaluation in replay."""

    def __init__(self, stages: ReplayStages, index: int) -> None:
        compiled, layout = stages.compiled, stages.layout
        xp, metas = stages.xp, compiled.plan.program.metas
        self.y = xp.empty(layout.size, layout.dtype) if stages.keeps_input else stages.shared_input
        self.aux = [xp.empty(metas[s].shape, _dtype(compiled, s)) for s in compiled.aux]
        inputs = dict(zip(compiled.state, layout.views(self.y), strict=True))
        slope = [*zip(compiled.slopes, layout.views(stages.rows[index + 1]), strict=True)]
        targets: dict[str, Any] = {"slope": [*slope, *zip(compiled.aux, self.aux, strict=True)]}
        accumulate = {}
        if stages.seeds is not None and stages.bars is not None:
            inputs.update(zip(compiled.seeds, layout.views(stages.seeds[index]), strict=True))
            targets["pullback"] = [
                *zip(compiled.state_bars, layout.views(stages.bars[stages.bar_row(index)]), strict=True)
            ]
            accumulate["pullback"] = [*zip(compiled.param_bars, stages.param_bars, strict=True)]
            if compiled.time_bar is not None:
                targets["time"] = [(compiled.time_bar, stages.time_bar_buffer)]
        self.set = StageSet(stages.workspace, inputs, targets, accumulate)
        self.nbytes = self.set.nbytes + (self.y.nbytes if stages.keeps_input else 0)


class ReplayStages(ForwardStages):
    """Stages that replay a compiled program, without creating any array.

    Raises: Unsupported for arrays on a GPU where the program has no replay there (complex numbers beside
        arrays).
    """

    def __init__(
        self,
        compiled: Compiled,
        dynamics: Dynamics,
        purpose: Purpose,
        n_stages: int,
        fsal: bool,
        n_extra: int = 0,
    ) -> None:
        self.compiled = compiled
        self.layout = dynamics.layout
        self.n_stages, self.fsal, self.n_extra = n_stages, fsal, n_extra
        self.pool_key: object = None
        xp = self.xp = dynamics.xp
        size, dtype = self.layout.size, self.layout.dtype
        self.workspace = workspace_for(compiled.plan, xp)
        self.rows = xp.empty((n_stages + 1, size), dtype)
        self.keeps_input = purpose.time or compiled.is_saved(compiled.state)
        self.shared_input = xp.empty(size, dtype)
        is_derivative = purpose.kind == "discrete"
        self.seeds = xp.zeros((n_stages, size), dtype) if is_derivative else None
        self.bars = xp.zeros((n_stages + 1, size), dtype) if is_derivative else None
        metas = compiled.plan.program.metas
        self.param_bars = [
            xp.zeros(metas[slot].shape, _dtype(compiled, slot)) for slot in compiled.param_bars
        ]
        self.time_bar_buffer = xp.zeros((), dtype)
        self._spare: list[list[_Stage]] = [[] for _ in range(n_stages)]
        self._stage_bytes = 0  # of all stages that were ever made: spare ones are kept
        self._current = [self._new_stage(index) for index in range(n_stages)]
        self._held_nbytes = self._stage_bytes

    def _new_stage(self, index: int) -> _Stage:
        stage = _Stage(self, index)
        self._stage_bytes += stage.nbytes
        return stage

    def load(self, dynamics: Dynamics) -> None:
        """Take in the parameters and captured values of a solve."""
        self.workspace.load(dict(zip(self.compiled.constants, dynamics.constants(), strict=True)))
        self.clear_bars()

    def clear_bars(self) -> None:
        for bar in self.param_bars:
            bar.fill(0)

    @property
    def nbytes(self) -> int:
        """All memory that these stages hold."""
        own = [self.rows, self.shared_input, self.seeds, self.bars, *self.param_bars]
        arrays = sum([array.nbytes for array in own if array is not None])
        return self.workspace.nbytes + arrays + self._stage_bytes

    def input(self, index: int) -> Array:
        return self._current[index].y

    def evaluate(self, index: int, t: float) -> None:
        self._current[index].set.run["slope"](t)

    def aux(self, index: int) -> list[Any]:
        return self._current[index].aux

    def pull(self, index: int, t: float) -> None:
        self._current[index].set.run["pullback"](t)

    def time_bar(self, index: int, t: float) -> float:
        self._current[index].set.run["time"](t)
        return to_number(self.time_bar_buffer)

    def buffers(self) -> tuple[Any, ...]:
        """What stands for the buffers in use: equal only while they are the same memory."""
        return tuple(self._current)

    def hold(self) -> list[_Stage]:
        held = list(self._current)
        self._current = [
            self._spare[index].pop() if self._spare[index] else self._new_stage(index)
            for index in range(self.n_stages)
        ]
        return held

    def use(self, held: list[_Stage]) -> None:
        """Make held buffers current; those they replace are spare ones."""
        self.drop(self._current)
        self._current = held

    def drop(self, held: list[_Stage]) -> None:
        for index, stage in enumerate(held):
            self._spare[index].append(stage)

    def held_nbytes(self) -> int:
        return self._held_nbytes


class EagerStages(ForwardStages):
    """Stages that call f (forward) or trace it anew (pull-back) each time, on arrays of any module."""

    def __init__(
        self, dynamics: Dynamics, purpose: Purpose, n_stages: int, fsal: bool, n_extra: int = 0
    ) -> None:
        self.dynamics = dynamics
        self.purpose = purpose
        self.xp = dynamics.xp
        self.n_stages, self.fsal, self.n_extra = n_stages, fsal, n_extra
        size, dtype = dynamics.layout.size, dynamics.layout.dtype
        self.rows = self.xp.empty((n_stages + 1, size), dtype)
        self.seeds = self.xp.zeros((n_stages, size), dtype)
        self.bars = self.xp.zeros((n_stages + 1, size), dtype)
        constants = dynamics.constants()
        self._wanted = [constants[position] for position in purpose.wanted]
        self.param_bars = [
            self.xp.zeros(shape_of(value), getattr(value, "dtype", dtype)) for value in self._wanted
        ]
        self._inputs = [self.xp.empty(size, dtype) for _ in range(n_stages)]
        self._aux: list[list[Any]] = [[] for _ in range(n_stages)]
        self._time_bars = [0.0] * n_stages

    def input(self, index: int) -> Array:
        return self._inputs[index]

    def evaluate(self, index: int, t: float) -> None:
        self.rows[index + 1], self._aux[index] = self.dynamics.call(t, self._inputs[index])

    def aux(self, index: int) -> list[Any]:
        return self._aux[index]

    def pull(self, index: int, t: float) -> None:
        """One traced evaluation of f and its pull-back."""
        dynamics, n_params = self.dynamics, len(self.dynamics.param_values)

        def slope(time: Any, y: Any, wanted: Sequence[Any]) -> Any:
            constants = dynamics.constants()
            for position, value in zip(self.purpose.wanted, wanted, strict=True):
                constants[position] = value
            flat = dynamics.slope(time, y, constants[:n_params], constants[n_params:])
            return flat + 0.0 * y  # reaches y even where f is constant

        _, pull_back = vjp(slope, float(t), self._inputs[index], self._wanted)
        t_bar, y_bar, wanted_bars = pull_back(self.seeds[index])
        self.bars[self.bar_row(index)] = y_bar
        for total, bar in zip(self.param_bars, wanted_bars, strict=True):
            total += bar
        self._time_bars[index] = t_bar

    def time_bar(self, index: int, t: float) -> float:
        bar = self._time_bars[index]
        return to_number(bar)


def workspace_for(plan: Plan, xp: Any) -> Workspace:
    """Buffers for the replay of a plan on arrays of a module. Raises:
    Unsupported where there is no replay on a GPU.
    """
    return Workspace(plan) if xp is np else CudaWorkspace(plan, xp)


def _dtype(compiled: Compiled, slot: int) -> Any:
    """dtype of a slot; a Python number becomes the array that eager evaluation makes of it."""
    meta = compiled.plan.program.metas[slot]
    return meta.dtype or np.dtype(meta.number)
