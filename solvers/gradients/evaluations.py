"""f and its pull-back at pairs (y, a), one pair for each stage of a backward solve: replayed or eager.

Both kinds offer the same to the continuous adjoints:
    pairs[k] (2 n,)         [y, a]: written by the stages before an evaluation
    found[k] (2 n,)         [f(t, y), (df/dy)^T a] after `evaluate(k, t)`
    param_bars              the wanted parameters' cotangents, to which `add_params` adds
                            weight (df/dparams)^T a
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ...engine.backend import Array
from ...engine.replay import StageSet
from ...engine.trace import shape_of
from ...engine.transforms import vjp
from ..compiled import Compiled, Purpose
from ..dynamics import Dynamics, StateLayout
from ..stages import workspace_for


class Evaluations(ABC):
    """What the two kinds have in common."""

    param_bars: list[Array]

    def __init__(self, xp: Any, layout: StateLayout, n_stages: int) -> None:
        self.xp, self.size, self.dtype, self.n_stages = xp, layout.size, layout.dtype, n_stages
        self.pairs = [xp.empty(2 * layout.size, layout.dtype) for _ in range(n_stages)]
        self.found = [xp.empty(2 * layout.size, layout.dtype) for _ in range(n_stages)]

    @abstractmethod
    def evaluate(self, k: int, t: float) -> None: ...

    @abstractmethod
    def add_params(self, k: int, t: float, weight: float) -> None:
        """param_bars += weight (df/dparams)^T a, for the pair that was evaluated last in k."""


class ReplayEvaluations(Evaluations):
    """`Evaluations` that replay a compiled program.

    Raises: Unsupported for arrays on a GPU where the program has no replay there.
    """

    def __init__(self, compiled: Compiled, layout: StateLayout, n_stages: int, xp: Any) -> None:
        super().__init__(xp, layout, n_stages)
        self.compiled = compiled
        self.pool_key: object = None
        self.workspace = workspace_for(compiled.plan, xp)
        metas = compiled.plan.program.metas
        self.param_bars = [
            xp.zeros(metas[s].shape, metas[s].dtype or np.float64) for s in compiled.param_bars
        ]
        self._weight = xp.zeros((), layout.dtype).real.copy()  # real: a real parameter's cotangent is real
        self._sets = [self._bind(k, layout) for k in range(n_stages)]

    def _bind(self, k: int, layout: StateLayout) -> StageSet:
        compiled, n = self.compiled, self.size
        inputs = dict(zip(compiled.state, layout.views(self.pairs[k][:n]), strict=True))
        inputs.update(zip(compiled.seeds, layout.views(self.pairs[k][n:]), strict=True))
        targets = {
            "slope": [*zip(compiled.slopes, layout.views(self.found[k][:n]), strict=True)],
            "state": [*zip(compiled.state_bars, layout.views(self.found[k][n:]), strict=True)],
        }
        accumulate = {"params": [*zip(compiled.param_bars, self.param_bars, strict=True)]}
        return StageSet(self.workspace, inputs, targets, accumulate, self._weight)

    def load(self, dynamics: Dynamics) -> None:
        """Take in the parameters and captured values of a solve."""
        self.workspace.load(dict(zip(self.compiled.constants, dynamics.constants(), strict=True)))
        for bar in self.param_bars:
            bar.fill(0)

    @property
    def nbytes(self) -> int:
        """All memory that these evaluations hold."""
        own = [*self.pairs, *self.found, *self.param_bars]
        return self.workspace.nbytes + sum(array.nbytes for array in own) + sum(s.nbytes for s in self._sets)

    def evaluate(self, k: int, t: float) -> None:
        self._sets[k].run["slope"](t)
        self._sets[k].run["state"](t)

    def add_params(self, k: int, t: float, weight: float) -> None:
        self._weight[()] = weight
        self._sets[k].run["params"](t)


class EagerEvaluations(Evaluations):
    """`Evaluations` that trace f anew each time, on arrays of any module."""

    def __init__(self, dynamics: Dynamics, purpose: Purpose, n_stages: int) -> None:
        super().__init__(dynamics.xp, dynamics.layout, n_stages)
        self.dynamics, self.purpose = dynamics, purpose
        self._constants = dynamics.constants()
        self._wanted = [self._constants[position] for position in purpose.wanted]
        self.param_bars = [
            self.xp.zeros(shape_of(value), getattr(value, "dtype", self.dtype)) for value in self._wanted
        ]
        self._wanted_bars: list[list[Any]] = [[] for _ in range(n_stages)]

    def evaluate(self, k: int, t: float) -> None:
        dynamics, n, n_params = self.dynamics, self.size, len(self.dynamics.param_values)

        def slope(y: Any, wanted: Any) -> Any:
            constants = list(self._constants)
            for position, value in zip(self.purpose.wanted, wanted, strict=True):
                constants[position] = value
            return dynamics.slope(float(t), y, constants[:n_params], constants[n_params:]) + 0.0 * y

        value, pull_back = vjp(slope, self.pairs[k][:n], self._wanted)
        y_bar, self._wanted_bars[k] = pull_back(self.pairs[k][n:])
        self.found[k][:n], self.found[k][n:] = value, y_bar

    def add_params(self, k: int, t: float, weight: float) -> None:
        for total, bar in zip(self.param_bars, self._wanted_bars[k], strict=True):
            total += weight * bar
