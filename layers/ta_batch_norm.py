"""Temporal adaptive batch normalisation: population statistics and affine parameters that are functions of
time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import namespace_of, to_xp
from ..engine.errors import ArgumentError
from ..engine.trace import base_value, dtype_of, shape_of
from ..engine.tree import Tree
from .batch_norm import check_norm
from .layer import Layer, Shape, check_channels, check_choice, check_mode
from .moments import batch_moments, check_finite, moving_average, observations
from .time_grid import check_nodes, fill_unvisited, grid_array, hats, uniform_nodes


@dataclass(frozen=True)
class TABatchNorm(Layer):
    """y = gamma(t) (x - mu) / sqrt(var + eps) + alpha(t) for each channel of x (B, ..., C), inside an ODE.

    gamma, alpha, and the population's mean and variance live on the K nodes of a grid of times; between nodes
    they are interpolated linearly, outside they keep the value of the end.
    The derivative in t at a node is the right one.

    Attributes:
        nodes: times of the grid, increasing; configuration of the layer, never inferred from a solve.
        normalize: mu and var in training. "batch": moments of this very call, differentiated through, so that
            the rows of a batch are coupled. "population": those of the grid as it stood when the pass began,
            so that forward and backward integrate one ODE whose rows are independent;
            what the batch shows is recorded all the same.
        unvisited: how the population is read, in evaluation and by `normalize="population"`. A node is
            visited once the hat weights of its observations sum to 1. "skip": interpolate between visited
            nodes, clamped at the ends (none visited: 0 and 1), and in evaluation take out what is left of the
            0 and 1 that they started with. "initial": use every node as it is,
            whose values start as 0 and 1 (the paper).
        momentum: share of an observation exactly at a node.

    Cost: one product (K,) @ (K, C) each for gamma and alpha, in evaluation also for mean and variance; the
        rest as `BatchNorm`. Layers with equal nodes share the hat weights within a traced program.
    Source: Zheng et al. (2024), NeurIPS, eq. 5 (interpolation). Departs from it in the default `unvisited`.
    """

    channels: int
    nodes: tuple[float, ...] = field(default=uniform_nodes(), repr=False)
    normalize: str = "batch"
    unvisited: str = "skip"
    momentum: float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(map(float, self.nodes)))
        check_nodes(self.nodes)
        check_choice("normalize", self.normalize, ("batch", "population"))
        check_choice("unvisited", self.unvisited, ("skip", "initial"))
        check_norm(self.channels, self.momentum, self.eps)

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """{"gamma": ones (K, C), "alpha": zeros (K, C)}."""
        shape = (len(self.nodes), self.channels)
        return {"gamma": xp.ones(shape, dtype), "alpha": xp.zeros(shape, dtype)}

    def init_stats(self, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """{"mean": zeros (K, C), "var": ones (K, C), "visits": zeros (K,), "initial_share": ones (K,)}.

        visits are sums of hat weights, initial_share is what is left of the 0 and 1 in mean and var.
        """
        shape = (len(self.nodes), self.channels)
        return {
            "mean": xp.zeros(shape, dtype),
            "var": xp.ones(shape, dtype),
            "visits": xp.zeros(shape[:1], dtype),
            "initial_share": xp.ones(shape[:1], dtype),
        }

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, ..., C) at time t -> the same shape, and in training the `Moments` seen."""
        check_mode(mode)
        self.output_shape(shape_of(x)[1:])
        if t is None:
            raise ArgumentError("TABatchNorm needs a time; got t = None. Use BatchNorm outside of a solve")
        grid = grid_array(self.nodes, namespace_of(base_value(x)))
        at_t = ops.hat_weights(t, grid, dtype=dtype_of(weights["gamma"]).name)
        seen = None
        if mode == "train":
            mean, var, seen = batch_moments(x)
        if mode == "eval" or self.normalize == "population":
            mean, var = (ops.matmul(at_t, values) for values in self.population(stats, mode=mode))
        gamma, alpha = ops.matmul(at_t, weights["gamma"]), ops.matmul(at_t, weights["alpha"])
        return ops.normalize(x, mean, var, self.eps, gamma, alpha), seen

    def population(self, stats: Tree, *, mode: str = "eval") -> tuple[Any, Any]:
        """Mean and variance on the whole grid, (K, C) each, as they are read in this mode.

        In training the initial values stay in the averages:
        they keep the dynamics tame while little has been seen.
        """
        if self.unvisited == "initial":
            return stats["mean"], stats["var"]
        grid = grid_array(self.nodes, namespace_of(base_value(stats["mean"])))
        visits, share = stats["visits"], stats["initial_share"] * float(mode == "eval")
        return (
            fill_unvisited(stats["mean"], visits, share, grid, initial=0.0),
            fill_unvisited(stats["var"], visits, share, grid, initial=1.0),
        )

    def output_shape(self, shape: Shape) -> Shape:
        """(..., C) -> (..., C)."""
        check_channels(self, shape, self.channels)
        return shape

    def update_stats(self, stats: Tree, seen: Tree) -> Tree:
        """Each observation at time t in turn moves node k by momentum times its hat weight at t towards what
        was seen.

        Raises: ArgumentError for moments without times, NonFiniteDynamics for moments that are not finite.
        """
        ts, moments = observations(seen)
        if moments is None:
            return stats
        if ts is None:
            raise ArgumentError(
                "TABatchNorm.update_stats needs to know when the moments were seen; pass the `aux` of a solution "
                "(an ODEBlock does), or use BatchNorm outside of a solve"
            )
        check_finite(moments)
        weights = hats(ts, self.nodes)
        xp, dtype = namespace_of(stats["mean"]), stats["visits"].dtype
        left = np.prod(1.0 - self.momentum * weights, axis=0)
        visits = stats["visits"].astype(np.float64) + to_xp(xp, weights.sum(0))
        share = stats["initial_share"].astype(np.float64) * to_xp(xp, left)
        return {
            "mean": moving_average(stats["mean"], moments.mean, self.momentum * weights),
            "var": moving_average(stats["var"], moments.var, self.momentum * weights),
            "visits": visits.astype(dtype),
            "initial_share": share.astype(dtype),
        }

    def penalty(self, weights: Tree) -> Any:
        """Sum over nodes of MSE(gamma, 1) + MSE(alpha, 0), the means over channels."""
        gamma, alpha = weights["gamma"], weights["alpha"]
        return (ops.sum(ops.square(gamma - 1.0)) + ops.sum(ops.square(alpha))) * (1.0 / self.channels)
