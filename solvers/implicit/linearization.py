"""The Jacobian of the dynamics as a linear map: products with vectors, without the matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine.replay import StageSet, Workspace
from ...engine.transforms import vjp
from ..compiled import Purpose, compiled_for
from ..dynamics import Dynamics
from .jacobian import slope_of


class ReplayedLinearization:
    """v (n,) -> J v (n,) at a state, from one traced program that is replayed.

    Cost: one evaluation of f a state, about one more a product.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        compiled, layout = compiled_for(dynamics, Purpose("linearize")), dynamics.layout
        workspace = Workspace(compiled.plan)
        self._y, self._tangent, self._product = (np.zeros(layout.size, layout.dtype) for _ in range(3))
        unused = np.zeros(layout.size, layout.dtype)
        inputs = dict(zip(compiled.state, layout.views(self._y), strict=True))
        inputs.update(zip(compiled.tangents, layout.views(self._tangent), strict=True))
        inputs.update(zip(compiled.seeds, layout.views(unused), strict=True))
        pushed = [*zip(compiled.slope_tangents, layout.views(self._product), strict=True)]
        self._set = StageSet(workspace, inputs, {"push": pushed})
        workspace.load(dict(zip(compiled.constants, dynamics.constants(), strict=True)))
        self._t = 0.0

    def at(self, t: float, y: np.ndarray) -> None:
        """Products are those of the Jacobian at this state from now on."""
        self._t = t
        self._y[...] = y
        self._set.run["slope"](t)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        self._tangent[...] = v
        self._set.run["push"](self._t)
        return self._product.copy()


class EagerLinearization:
    """The same from one traced evaluation of f and of its pull-back a state."""

    def __init__(self, dynamics: Dynamics) -> None:
        self._dynamics = dynamics
        self._push: Any = None

    def at(self, t: float, y: np.ndarray) -> None:
        slope = slope_of(self._dynamics)
        _, pull_back = vjp(lambda state: slope(t, state), y.copy())
        _, self._push = vjp(pull_back, np.zeros_like(y))

    def __call__(self, v: np.ndarray) -> np.ndarray:
        (product,) = self._push((v,))
        return product
