"""The one contract of all layers, so that any two compose and any of them can be the dynamics of an ODE."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any

import numpy as np

from ..engine.errors import ArgumentError
from ..engine.tree import Tree

Shape = tuple[int, ...]
MODES = ("train", "eval")


class Layer(ABC):
    """Configuration only; a subclass is a frozen dataclass.
    What it learns and what it observes are plain trees.

    Three trees go with a layer:
        weights: learned, differentiated; made by `init`.
        stats: running statistics, never differentiated; made by `init_stats`, None where there are none.
        seen: what one call of `apply` in training observed, None where there is nothing;
            `update_stats` takes it in.
    """

    @property
    def uses_key(self) -> bool:
        """Whether `apply` in training draws random numbers."""
        return False

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """Fresh weights drawn from `key` (uint32 (2,)), arrays of module `xp`;
        None for a layer without weights.
        """
        return None

    def init_stats(self, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """Running statistics before any observation; None for a layer that keeps none."""
        return None

    @abstractmethod
    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """The layer at time t.

        Args:
            weights, stats: trees shaped like those of `init` and `init_stats`.
            t: time, a number or a traced one; layers that do not depend on time take None as well.
            x: input with the batch as its first axis, (B, D) or (B, H, W, C).
            mode: "train" or "eval"; fixed per trace.
            key: uint32 (2,) for the layers with `uses_key`; the same key gives the same random numbers.
        Returns: (output, seen).
        """

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of this shape, both without the batch axis.

        Raises: ArgumentError if the layer cannot take such an input.
        """
        return shape

    def update_stats(self, stats: Tree, seen: Tree) -> Tree:
        """New running statistics; `stats` itself is left as it is.

        Args:
            seen: what `apply` returned, or the `aux` of a solve whose dynamics returned it beside the slope:
                then every observation counts once, in the order of time along the integration.
        """
        return stats

    def penalty(self, weights: Tree) -> Any:
        """What the layer adds to the loss to keep its weights near their neutral values: 0.0 for most."""
        return 0.0


def check_mode(mode: str) -> None:
    """ArgumentError unless `mode` is one of the two there are."""
    if mode not in MODES:
        raise ArgumentError(f'`mode` must be "train" or "eval"; got {mode!r}')


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """ArgumentError unless the option `name` has one of the values it may have."""
    if value not in choices:
        raise ArgumentError(f"`{name}` must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_channels(layer: Layer, shape: Shape, n: int, *, ndim: int | None = None) -> None:
    """ArgumentError unless an input of `shape` (without batch) has n channels,
    and `ndim` axes where that is given.
    """
    if not shape or shape[-1] != n or (ndim is not None and len(shape) != ndim):
        axes = {1: f"({n},)", 3: f"(H, W, {n})"}.get(ndim or 0, f"(..., {n})")
        raise ArgumentError(f"{layer} takes inputs {axes} after the batch axis; got {shape}")
