"""Batch normalisation that knows no time: after a solve, and as two of the ablation's readings inside one."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.errors import ArgumentError
from ..engine.trace import shape_of
from ..engine.tree import Tree
from .layer import Layer, Shape, check_channels, check_choice, check_mode
from .moments import batch_moments, check_finite, moving_average, observations


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + eps) + alpha for each channel of x (B, ..., C).

    `statistics="running"`: moments of the batch in training (differentiated through), running averages in
    evaluation. After a solve this is ordinary batch normalisation; inside one it is the ablation's `pop-ti`,
    one pair of averages shared by all times, to which every evaluation of an accepted step adds.
    `statistics="minibatch"`: moments of the batch in training and in evaluation; nothing is kept.

    Source: Ioffe & Szegedy (2015), ICML, algorithms 1 and 2 (running averages for the population).
    """

    channels: int
    statistics: str = "running"
    momentum: float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_choice("statistics", self.statistics, ("running", "minibatch"))
        check_norm(self.channels, self.momentum, self.eps)

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """{"gamma": ones (C,), "alpha": zeros (C,)}."""
        return {"gamma": xp.ones(self.channels, dtype), "alpha": xp.zeros(self.channels, dtype)}

    def init_stats(self, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """{"mean": zeros (C,), "var": ones (C,)}, or None for "minibatch"."""
        if self.statistics == "minibatch":
            return None
        return {"mean": xp.zeros(self.channels, dtype), "var": xp.ones(self.channels, dtype)}

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, ..., C) -> the same shape, and in training the `Moments` seen where they are kept."""
        check_mode(mode)
        self.output_shape(shape_of(x)[1:])
        seen = None
        if mode == "eval" and self.statistics == "running":
            mean, var = stats["mean"], stats["var"]
        else:
            mean, var, moments = batch_moments(x)
            seen = moments if self.statistics == "running" else None
        return ops.normalize(x, mean, var, self.eps, weights["gamma"], weights["alpha"]), seen

    def output_shape(self, shape: Shape) -> Shape:
        """(..., C) -> (..., C)."""
        check_channels(self, shape, self.channels)
        return shape

    def update_stats(self, stats: Tree, seen: Tree) -> Tree:
        """Each observation in turn moves mean and variance by `momentum`."""
        _, moments = observations(seen)
        if moments is None or stats is None:
            return stats
        check_finite(moments)
        rates = np.full((len(moments.mean), 1), self.momentum)
        return {
            "mean": moving_average(stats["mean"][None], moments.mean, rates)[0],
            "var": moving_average(stats["var"][None], moments.var, rates)[0],
        }


def check_norm(channels: int, momentum: float, eps: float) -> None:
    """ArgumentError that lists what is out of range."""
    wrong = []
    if channels < 1:
        wrong.append(f"`channels` must be at least 1; got {channels}")
    if not 0.0 < momentum <= 1.0:
        wrong.append(f"`momentum` must lie in (0, 1]; got {momentum}")
    if not eps > 0.0:
        wrong.append(f"`eps` must be positive; got {eps}")
    if wrong:
        raise ArgumentError("; ".join(wrong))
