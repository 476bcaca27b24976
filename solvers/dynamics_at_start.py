"""The dynamics of a solve at its start, called by themselves:
inside the solve a trace does not see what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.check.arguments import is_differentiable
from ..engine.check.directions import norm_of
from ..engine.check.function import SAME, call_pure, guarded
from ..engine.check.lines import UNNAMED, not_analytic, without_rule
from ..engine.errors import ImpureFunctionError
from ..engine.trace import dtype_of, shape_of
from ..engine.tree import Tree, leaves, unflatten
from .frozen_solve import slope_of


class DynamicsAtStart:
    """f at t0 and {"params", "y"}."""

    def __init__(self, f: Callable[..., Any], t0: float, at: dict[str, Any], has_aux: bool) -> None:
        self.f, self.t0, self.at, self.has_aux = f, t0, at, has_aux

    def __call__(self, at: dict[str, Any]) -> Tree:
        return slope_of(self.f, self.t0, at["y"], at["params"], has_aux=self.has_aux)

    def check_pure(self) -> None:
        """ImpureFunctionError if f writes into what it is given, with the line,
        or if two calls give two slopes.

        Results that are no slopes pass: `odeint` says what is wrong with them.
        """
        given = leaves(self.at)
        first, again = (
            leaves(call_pure(self, unflatten(self.at, [guarded(leaf) for leaf in given]), given))
            for _ in range(2)
        )
        if not all(map(is_differentiable, (*first, *again))) or list(map(shape_of, first)) != list(
            map(shape_of, again)
        ):
            return
        distance, size = norm_of([b - a for a, b in zip(first, again, strict=True)]), norm_of(first)
        eps = max((float(np.finfo(dtype_of(leaf)).eps) for leaf in first), default=0.0)
        if distance > SAME * eps * size:
            raise ImpureFunctionError(
                f"f is not pure: two calls at t={self.t0:g} gave slopes that differ by {distance:.3e}, of norm "
                f"{size:.3e}. Draw random numbers from a key or a seed that is fixed outside of f, and let it change "
                "nothing that it reads",
                values=(first, again),
            )

    def without_rule(self) -> list[str]:
        """The operations of f without a VJP rule, with their lines."""
        return without_rule(self, self.at)

    def not_analytic(self) -> str:
        """What in f is not analytic, or ""."""
        found = not_analytic(self, as_complex(self.at))
        return "" if found == UNNAMED else found


def as_complex(tree: Tree) -> Tree:
    """The tree with complex128 leaves."""
    return unflatten(tree, (ops.astype(leaf, np.complex128) for leaf in leaves(tree)))
