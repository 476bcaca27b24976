"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..engine import ops
from ..engine.errors import ArgumentError
from ..engine.tree import Tree
from .layer import Layer, check_mode


@dataclass(frozen=True)
class Dropout(Layer):
    """In training each entry is zero with probability `rate` and divided by 1 - rate otherwise;
    in evaluation y = x.

    The mask depends on the key and the shape of x alone. Inside the dynamics of an ODE it is therefore drawn
    once per solve and is the same in every stage, in rejected steps and in the backward pass:
    f stays a function of t and y.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate < 1.0:
            raise ArgumentError(f"`rate` of Dropout must lie in [0, 1); got {self.rate}")

    @property
    def uses_key(self) -> bool:
        """Whether anything is dropped."""
        return self.rate > 0.0

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x of any shape -> the same shape."""
        check_mode(mode)
        return ops.dropout(x, key, self.rate) if mode == "train" else x, None
