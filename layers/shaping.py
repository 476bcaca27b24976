"""Layers that rearrange their input, or put time beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..engine import ops
from ..engine.errors import ArgumentError
from ..engine.trace import shape_of
from ..engine.tree import Tree
from .layer import Layer, Shape


@dataclass(frozen=True)
class Flatten(Layer):
    """All axes but the batch become one: x (B, ...) -> (B, n)."""

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, ...) -> (B, n)."""
        shape = shape_of(x)
        return ops.reshape(x, (shape[0], math.prod(shape[1:]))), None

    def output_shape(self, shape: Shape) -> Shape:
        """(a, b, ...) -> (a * b * ...,)."""
        return (math.prod(shape),)


@dataclass(frozen=True)
class TimeConcat(Layer):
    """t as one more, constant channel: x (B, ..., C) -> (B, ..., C + 1), in the dtype of x.

    Layers with `with_time` give what this one followed by them would, for less: no copy of x.
    """

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, ..., C) -> (B, ..., C + 1)."""
        if t is None:
            raise ArgumentError("TimeConcat needs a time; got t = None")
        return ops.concatenate((x, ops.zeros_like(x[..., :1]) + t), axis=-1), None

    def output_shape(self, shape: Shape) -> Shape:
        """(..., C) -> (..., C + 1)."""
        if not shape:
            raise ArgumentError("TimeConcat needs a channel axis after the batch axis; got inputs (B,)")
        return (*shape[:-1], shape[-1] + 1)
