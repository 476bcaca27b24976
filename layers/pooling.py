"""Pooling of channels-last images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..engine import ops
from ..engine.errors import ArgumentError
from ..engine.kernels import pool_output_shape
from ..engine.kernels.geometry import as_pair
from ..engine.tree import Tree
from .layer import Layer, Shape

Size = int | tuple[int, int]


@dataclass(frozen=True)
class _Pool2d(Layer):
    """Windows of `size`, every `stride` (default: `size`), over x (B, H, W, C) with `padding` around it."""

    size: Size
    stride: Size | None = None
    padding: Size = 0

    def __post_init__(self) -> None:
        window = as_pair(self.size, "size", 1)
        pool_output_shape(
            (1, *window, 1), self.size, self.stride, self.padding
        )  # raises for what fits no image

    def output_shape(self, shape: Shape) -> Shape:
        """(H, W, C) -> (Ho, Wo, C), Ho = (H + 2 padding - size) // stride + 1."""
        if len(shape) != 3:
            raise ArgumentError(f"{self} takes images (H, W, C) after the batch axis; got {shape}")
        return pool_output_shape((1, *shape), self.size, self.stride, self.padding)[1:]


@dataclass(frozen=True)
class MaxPool2d(_Pool2d):
    """The maximum of each window; the border does not count.
    At a tie the first in row-major order is differentiated.
    """

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, H, W, C) -> (B, Ho, Wo, C)."""
        return ops.max_pool(x, self.size, self.stride, self.padding), None


@dataclass(frozen=True)
class AvgPool2d(_Pool2d):
    """The mean of each window; the border counts as zeros."""

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, H, W, C) -> (B, Ho, Wo, C)."""
        return ops.avg_pool(x, self.size, self.stride, self.padding), None


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """The mean over the image: x (B, H, W, C) -> (B, C)."""

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, H, W, C) -> (B, C)."""
        return ops.mean(x, (1, 2)), None

    def output_shape(self, shape: Shape) -> Shape:
        """(H, W, C) -> (C,)."""
        if len(shape) != 3:
            raise ArgumentError(f"{self} takes images (H, W, C) after the batch axis; got {shape}")
        return shape[-1:]
