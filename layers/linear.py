"""The affine layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.errors import ArgumentError
from ..engine.trace import shape_of
from ..engine.tree import Tree
from .initialisation import uniform_within
from .layer import Layer, Shape, check_channels


@dataclass(frozen=True)
class Linear(Layer):
    """y = x @ w + b;  x (B, n_in) -> y (B, n_out).

    With `with_time` the input has t as one more feature: y = x @ w + (b + t * w_t), where b + t * w_t is
    (n_out,). The result is that of `TimeConcat` before a layer with n_in + 1 inputs, without the copy of x.

    Initialisation: uniform within 1 / sqrt(inputs), bias included (the default of PyTorch).
    """

    n_in: int
    n_out: int
    bias: bool = True
    with_time: bool = False

    def __post_init__(self) -> None:
        if self.n_in < 1 or self.n_out < 1:
            raise ArgumentError(
                f"Linear needs at least one input and one output; got {self.n_in} and {self.n_out}"
            )

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """{"w": (n_in, n_out)} and, where the layer has them, "b" (n_out,) and "w_t" (n_out,)."""
        shapes: dict[str, Shape] = {"w": (self.n_in, self.n_out)}
        if self.bias:
            shapes["b"] = (self.n_out,)
        if self.with_time:
            shapes["w_t"] = (self.n_out,)
        return uniform_within(1.0 / math.sqrt(self.n_in + self.with_time), shapes, key, dtype, xp)

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, n_in) -> (B, n_out)."""
        self.output_shape(shape_of(x)[1:])
        return add_offset(ops.matmul(x, weights["w"]), weights, weights.get("w_t"), t), None

    def output_shape(self, shape: Shape) -> Shape:
        """(n_in,) -> (n_out,)."""
        check_channels(self, shape, self.n_in, ndim=1)
        return (self.n_out,)


def add_offset(y: Any, weights: Tree, time_response: Any, t: Any) -> Any:
    """y + (b + t * time_response), either of which may be missing: one pass over y."""
    offset = weights.get("b")
    if time_response is not None:
        if t is None:
            raise ArgumentError("a layer with `with_time` needs a time; got t = None")
        by_time = t * time_response
        offset = by_time if offset is None else by_time + offset
    return y if offset is None else y + offset
