"""Composites: layers one after the other, and beside their own input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..engine import ops, random
from ..engine.errors import ArgumentError
from ..engine.tree import Tree
from ..solvers.solution import Aux
from .keys import fold_key
from .layer import Layer, Shape, check_mode


@dataclass(frozen=True)
class Chain(Layer):
    """Layers one after the other. Weights and stats are lists, one entry a layer;
    `seen` is a dict by position.

    With `input_shape` (without the batch axis) the shapes are followed through all layers at construction,
    and a layer that does not fit is named.
    """

    layers: Sequence[Layer]
    input_shape: Shape | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        wrong = [
            f"#{k}: {type(layer).__name__}"
            for k, layer in enumerate(self.layers)
            if not isinstance(layer, Layer)
        ]
        if wrong:
            raise ArgumentError(f"a Chain is made of layers; got {', '.join(wrong)}")
        if self.input_shape is not None:
            self.output_shape(tuple(self.input_shape))

    @property
    def uses_key(self) -> bool:
        """Whether any layer does."""
        return any(layer.uses_key for layer in self.layers)

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """The layers' weights, each from a stream of its own."""
        return [layer.init(random.fold_in(key, k), dtype, xp) for k, layer in enumerate(self.layers)]

    def init_stats(self, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """The layers' running statistics."""
        return [layer.init_stats(dtype, xp) for layer in self.layers]

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """The last layer's output, and {position: seen} of those that saw something (None if none did)."""
        check_mode(mode)
        for name, parts in (("weights", weights), ("stats", stats)):
            if not isinstance(parts, (list, tuple)) or len(parts) != len(self.layers):
                got = f"{len(parts)} of them" if isinstance(parts, (list, tuple)) else type(parts).__name__
                raise ArgumentError(
                    f"`{name}` of a Chain of {len(self.layers)} layers must be a list with an entry for each, as `init` "
                    f"and `init_stats` make it; got {got}"
                )
        found = {}
        for k, (layer, own_weights, own_stats) in enumerate(zip(self.layers, weights, stats, strict=True)):
            own_key = fold_key(key, k) if layer.uses_key and mode == "train" else None
            x, seen = layer.apply(own_weights, own_stats, t, x, mode=mode, key=own_key)
            if seen is not None:
                found[k] = seen
        return x, found or None

    def output_shape(self, shape: Shape) -> Shape:
        """The shape after the last layer; the error of a layer that does not fit says where it stands."""
        for k, layer in enumerate(self.layers):
            try:
                shape = layer.output_shape(shape)
            except ArgumentError as error:
                raise ArgumentError(f"layer {k} of the chain: {error}") from error
        return shape

    def update_stats(self, stats: Tree, seen: Tree) -> Tree:
        """Each layer's new statistics."""
        return [
            layer.update_stats(own, part_of(seen, k))
            for k, (layer, own) in enumerate(zip(self.layers, stats, strict=True))
        ]

    def penalty(self, weights: Tree) -> Any:
        """The sum of the layers' penalties."""
        return sum(layer.penalty(own) for layer, own in zip(self.layers, weights, strict=True))


@dataclass(frozen=True)
class Skip(Layer):
    """inner(x) and x side by side: x (B, ..., C) -> (B, ..., C_inner + C). Weights,
    stats and seen are those of inner.
    """

    inner: Layer

    @property
    def uses_key(self) -> bool:
        """Whether the inner layer does."""
        return self.inner.uses_key

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """The weights of the inner layer."""
        return self.inner.init(key, dtype, xp)

    def init_stats(self, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """The running statistics of the inner layer."""
        return self.inner.init_stats(dtype, xp)

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, ..., C) -> (B, ..., C_inner + C)."""
        y, seen = self.inner.apply(weights, stats, t, x, mode=mode, key=key)
        return ops.concatenate((y, x), axis=-1), seen

    def output_shape(self, shape: Shape) -> Shape:
        """(..., C) -> (..., C_inner + C)."""
        inner = self.inner.output_shape(shape)
        if inner[:-1] != shape[:-1]:
            raise ArgumentError(
                f"Skip joins channels of equal images; its input is {shape}, the inner layer makes {inner}"
            )
        return (*shape[:-1], inner[-1] + shape[-1])

    def update_stats(self, stats: Tree, seen: Tree) -> Tree:
        """The new statistics of the inner layer."""
        return self.inner.update_stats(stats, seen)

    def penalty(self, weights: Tree) -> Any:
        """The penalty of the inner layer."""
        return self.inner.penalty(weights)


def part_of(seen: Tree, position: int) -> Tree:
    """What the layer at a position of a chain saw; the times of a solve go with it."""
    values = seen.values if isinstance(seen, Aux) else seen
    part = values.get(position) if values else None
    return Aux(seen.ts, part) if isinstance(seen, Aux) and part is not None else part
