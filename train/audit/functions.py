"""What the dynamics of a named problem are written in: arithmetic, indexing, `@`, and a few functions that
each library gives in its own way. The numbers agree, so that gradients of one and the same problem are
compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ...engine import ops
from ...engine.trace import shape_of
from ...engine.tree import Tree
from ...layers import Conv2d, TABatchNorm

MODES = (
    "train",
    "population",
    "eval",
)  # of TA-BN: batch moments, or the population's in training and evaluation


class Functions(Protocol):
    """The functions of one library, on its arrays; t is a number or one of its 0-d arrays."""

    def tanh(self, x: Any) -> Any:
        """Elementwise."""

    def stack(self, parts: Sequence[Any]) -> Any:
        """Scalars (0-d arrays) as one array (n,)."""

    def time_conv(self, t: Any, x: Any, weights: Tree) -> Any:
        """x (B, H, W, n_in), with t as one more channel, -> (B, H, W, n_out).

        A 3x3 convolution with zeros around the image; weights {"w" (3, 3, n_in, n_out), "w_t" (3, 3, 1,
        n_out), "b" (n_out,)}.
        """

    def ta_batch_norm(self, t: Any, x: Any, weights: Tree, stats: Tree, mode: str) -> Any:
        """Temporal adaptive batch normalisation of x (..., C) on the default nodes (K,), all of them visited.

        Weights {"gamma", "alpha"}, stats {"mean", "var", ...}, each (K, C); `mode` is one of MODES.
        """


class OurFunctions:
    """`Functions` by the package's own operations and layers."""

    def tanh(self, x: Any) -> Any:
        return ops.tanh(x)

    def stack(self, parts: Sequence[Any]) -> Any:
        return ops.stack(parts)

    def time_conv(self, t: Any, x: Any, weights: Tree) -> Any:
        n_in, n_out = shape_of(weights["w"])[2:]
        return Conv2d(n_in, n_out, with_time=True).apply(weights, {}, t, x, mode="train")[0]

    def ta_batch_norm(self, t: Any, x: Any, weights: Tree, stats: Tree, mode: str) -> Any:
        normalize = "population" if mode == "population" else "batch"
        layer = TABatchNorm(shape_of(x)[-1], normalize=normalize)
        return layer.apply(weights, stats, t, x, mode="eval" if mode == "eval" else "train")[0]


OURS = OurFunctions()
