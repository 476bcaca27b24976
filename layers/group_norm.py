"""Group normalisation: statistics of each sample alone."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.errors import ArgumentError
from ..engine.trace import shape_of
from ..engine.tree import Tree
from .batch_norm import check_norm
from .layer import Layer, Shape, check_channels


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Mean 0 and variance 1 over each sample's spatial axes and each group of channels, then gamma y + alpha.

    x (B, ..., C) -> the same shape; C is a multiple of `groups`. The rows of a batch stay independent, and
    training and evaluation agree.

    Source: Wu & He (2018), ECCV, eq. 7.
    """

    channels: int
    groups: int = 1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_norm(self.channels, 1.0, self.eps)
        if self.groups < 1 or self.channels % self.groups:
            raise ArgumentError(f"`groups` must divide the {self.channels} channels; got {self.groups}")

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """{"gamma": ones (C,), "alpha": zeros (C,)}."""
        return {"gamma": xp.ones(self.channels, dtype), "alpha": xp.zeros(self.channels, dtype)}

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, ..., C) -> the same shape."""
        self.output_shape(shape_of(x)[1:])
        return ops.group_normalize(x, self.groups, self.eps) * weights["gamma"] + weights["alpha"], None

    def output_shape(self, shape: Shape) -> Shape:
        """(..., C) -> (..., C)."""
        check_channels(self, shape, self.channels)
        return shape
