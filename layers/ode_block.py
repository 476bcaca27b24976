"""The layer that solves an ODE whose dynamics are another layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import numpy as np

from ..engine.backend import namespace_of, to_xp
from ..engine.errors import ArgumentError
from ..engine.trace import Var, base_value
from ..engine.tree import Tree, leaves
from ..solvers import odeint
from ..solvers.odeint import check_options
from ..solvers.solution import Aux
from ..solvers.stats import Stats
from .layer import Layer, Shape, check_mode


@dataclass(frozen=True)
class Solved:
    """What an ODEBlock saw: the moments that its layers recorded, with their times,
    and the counts of the solve.

    `stats` is that of the solution, so that a backward pass adds to it.
    """

    aux: Aux | None
    stats: Stats


@dataclass(frozen=True)
class ODEBlock(Layer):
    """h(t1) for dh/dt = net(t, h), h(t0) = x. Weights, stats and penalty are those of `net`,
    which keeps the shape.

    The other attributes are arguments of `odeint`; the nodes of a TA-BN layer, at which its interpolation has
    kinks, are `breakpoints` that keep the order of the method. In training the moments that layers of `net`
    see are collected from accepted steps; the whole batch is one ODE with one step size.
    """

    net: Layer
    t0: float = 0.0
    t1: float = 1.0
    method: str = "dopri5"
    rtol: float = 1e-3
    atol: float = 1e-3
    gradient: str = "discrete"
    keep: str = "auto"
    execution: str = "replay"
    max_steps: int = 10_000
    step_size: float | None = None
    breakpoints: tuple[float, ...] = ()
    drift_limit: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.t0) and math.isfinite(self.t1)):
            raise ArgumentError(f"an ODEBlock needs finite times; got t0 = {self.t0}, t1 = {self.t1}")
        if self.t0 == self.t1:
            raise ArgumentError(f"an ODEBlock needs t0 != t1; got {self.t0} for both")
        check_options(**self._options())

    def _options(self) -> dict[str, Any]:
        """The attributes that are options of `odeint`."""
        names = (field.name for field in fields(self) if field.name not in ("net", "t0", "t1"))
        return {name: getattr(self, name) for name in names}

    @property
    def uses_key(self) -> bool:
        """Whether `net` does."""
        return self.net.uses_key

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """The weights of `net`."""
        return self.net.init(key, dtype, xp)

    def init_stats(self, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """The running statistics of `net`."""
        return self.net.init_stats(dtype, xp)

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, ...) -> h(t1), the same shape, and `Solved`. The time t of an enclosing layer is not used.

        Raises: the errors of `odeint`.
        """
        check_mode(mode)
        xp = namespace_of(base_value(x))
        if key is not None and not isinstance(key, Var):
            key = to_xp(xp, key)  # params of a solve are arrays of one module

        def dynamics(time: Any, h: Any, params: Tree) -> tuple[Any, Tree]:
            slope, seen = self.net.apply(
                params["weights"], params["stats"], time, h, mode=mode, key=params["key"]
            )
            return slope, {} if seen is None else seen

        solution = odeint(
            dynamics,
            x,
            (self.t0, self.t1),
            {"weights": weights, "stats": stats, "key": key},
            has_aux=True,
            **self._options(),
        )
        return solution.ys[-1], Solved(solution.aux, solution.stats)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the state, which `net` has to keep."""
        slope = self.net.output_shape(shape)
        if slope != shape:
            raise ArgumentError(
                f"the dynamics of an ODEBlock keep the shape of the state; got {shape} -> {slope}"
            )
        return shape

    def update_stats(self, stats: Tree, seen: Tree) -> Tree:
        """The new statistics of `net`, from the moments of the accepted steps."""
        if seen is None or seen.aux is None:
            return stats
        return self.net.update_stats(stats, seen.aux)

    def penalty(self, weights: Tree) -> Any:
        """The penalty of `net`."""
        return self.net.penalty(weights)


def solves(seen: Tree) -> list[Solved]:
    """What every ODEBlock of a network reported in one call, in order."""
    return [leaf for leaf in leaves(seen) if isinstance(leaf, Solved)]
