"""The Jacobian of the dynamics as a matrix, a row for each pull-back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...engine.backend import Array
from ...engine.transforms import vjp
from ..compiled import Purpose, compiled_for
from ..dynamics import Dynamics
from ..stages import ReplayStages


class ReplayedJacobian:
    """df/dy (n, n) at a state, from one traced program whose pull-back is replayed for each row.

    Cost: one evaluation of f and n pull-backs.
    """

    def __init__(self, dynamics: Dynamics, *, with_time: bool = False) -> None:
        purpose = Purpose("discrete", (), with_time)
        self._stages = ReplayStages(compiled_for(dynamics, purpose), dynamics, purpose, 1, False)
        self._stages.load(dynamics)
        n, dtype, self.xp = dynamics.layout.size, dynamics.layout.dtype, dynamics.xp
        self.matrix = self.xp.empty((n, n), dtype)
        self.time = self.xp.zeros(n, dtype) if with_time else None  # df/dt

    def at(self, t: float, y: Array) -> None:
        """`matrix` (and `time`) at this state."""
        stages = self._stages
        assert stages.seeds is not None and stages.bars is not None
        stages.input(0)[...] = y
        stages.evaluate(0, t)
        seed, bar = stages.seeds[0], stages.bars[stages.bar_row(0)]
        for i in range(len(y)):
            seed[i] = 1.0
            stages.pull(0, t)
            self.matrix[i] = bar
            if self.time is not None:
                self.time[i] = stages.time_bar(0, t)
            seed[i] = 0.0


class EagerJacobian:
    """The same from one traced evaluation of f, pulled back n times."""

    def __init__(self, dynamics: Dynamics, *, with_time: bool = False) -> None:
        self._dynamics = dynamics
        n, dtype, self.xp = dynamics.layout.size, dynamics.layout.dtype, dynamics.xp
        self.matrix = self.xp.empty((n, n), dtype)
        self.time = self.xp.zeros(n, dtype) if with_time else None

    def at(self, t: float, y: Array) -> None:
        _, pull_back = vjp(slope_of(self._dynamics), float(t), y)
        for i, seed in enumerate(self.xp.eye(len(y), dtype=y.dtype)):
            t_bar, self.matrix[i] = pull_back(seed)
            if self.time is not None:
                self.time[i] = t_bar


def slope_of(dynamics: Dynamics) -> Callable[[Any, Any], Any]:
    """f as a function of (t, flat state) that can be traced;
    its derivative with respect to y exists where f is constant.
    """
    constants, n_params = dynamics.constants(), len(dynamics.param_values)

    def slope(t: Any, y: Any) -> Any:
        return dynamics.slope(t, y, constants[:n_params], constants[n_params:]) + 0.0 * y

    return slope
