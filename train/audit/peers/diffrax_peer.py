"""diffrax's adjoints on a portable problem: continuous, and backpropagation through checkpointed steps."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ....engine.tree import Tree, tree_map
from ....layers import TABatchNorm
from ....layers.time_grid import uniform_nodes
from ..case import Case, Portable, cast
from ..gradient import Gradient, flat
from .diffrax_solve import COUNTS, METHODS, Solve, counting_solve, plain_solve
from .peer import Peer, PeerFailure


class JaxFunctions:
    """`Functions` on JAX arrays."""

    def tanh(self, x: Any) -> Any:
        return jnp.tanh(x)

    def stack(self, parts: Sequence[Any]) -> Any:
        return jnp.stack(parts)

    def time_conv(self, t: Any, x: Any, weights: Tree) -> Any:
        """The time channel is made and convolved like any other."""
        image = jnp.concatenate((x, t * jnp.ones_like(x[..., :1])), axis=-1)
        kernel = jnp.concatenate((weights["w"], weights["w_t"]), axis=2)
        layout = ("NHWC", "HWIO", "NHWC")
        found = jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return found + weights["b"]

    def ta_batch_norm(self, t: Any, x: Any, weights: Tree, stats: Tree, mode: str) -> Any:
        if mode == "train":
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axes), x.var(axes)
        else:
            mean, variance = _at(t, stats["mean"]), _at(t, stats["var"])
        normalized = (x - mean) / jnp.sqrt(variance + TABatchNorm.eps)
        return _at(t, weights["gamma"]) * normalized + _at(t, weights["alpha"])


def _at(t: Any, grid: Any) -> Any:
    """Linear interpolation of grid (K, C) on the default nodes at t."""
    nodes = jnp.asarray(uniform_nodes(), grid.dtype)
    rising = jnp.clip((t - nodes[:-1]) / (nodes[1:] - nodes[:-1]), 0.0, 1.0)
    return grid[0] + rising @ (grid[1:] - grid[:-1])


JAX = JaxFunctions()


class DiffraxAdjoint(Peer):
    """`diffeqsolve` with Dopri5 and its default controller; `method` is one of METHODS.

    "seminorm" is the continuous adjoint with the parameters kept out of the backward error norm.
    """

    def __init__(self, portable: Portable, case: Case, most_steps: int, method: str) -> None:
        jax.config.update("jax_enable_x64", True)  # float64 is off in JAX until then
        self.name, self.case, self.portable = f"diffrax {method}", case, portable
        self.params = tree_map(jnp.asarray, case.params)
        self.given = (jnp.asarray(case.y0), self.params, jnp.asarray(case.ts, case.y0.dtype))
        self.f = portable.on(JAX, cast(portable.constants, case.y0.dtype))
        self._plain = plain_solve(portable, JAX, method, most_steps)
        self._counting = counting_solve(portable, JAX, method, most_steps)

    def compile(self) -> None:
        for compiled in (self.gradient, self.counts):
            with contextlib.suppress(PeerFailure):
                compiled(1e-2, 1e-2)

    def gradient(self, rtol: float, atol: float) -> Gradient:
        _, bars = self._solve(self._plain, rtol, atol)
        return {name: flat(bar) for name, bar in zip(("y0", "params", "ts"), bars, strict=False)}

    def counts(self, rtol: float, atol: float) -> dict[str, int]:
        """Counted by callbacks from f and its pull-back; the forward pass is 1 evaluation and 6 a step."""
        COUNTS.clear()
        (_, n_steps), _ = self._solve(self._counting, rtol, atol)
        jax.effects_barrier()
        n_forward = 6 * int(n_steps) + 1
        return {
            "nfe_forward": n_forward,
            "nfe_backward": COUNTS["f"] - n_forward,
            "n_vjp_state": COUNTS["vjp"],
            "n_vjp_params": COUNTS["vjp"],
        }

    def slope(self, t: float, y: np.ndarray) -> np.ndarray:
        return np.asarray(self.f(jnp.asarray(t, y.dtype), jnp.asarray(y), self.params))

    def loss(self, ys: np.ndarray) -> float:
        return float(self.case.loss(jnp.asarray(ys)))

    def _solve(self, solve: Solve, rtol: float, atol: float) -> Any:
        """((loss, forward steps), gradient), computed to the end."""
        try:
            return jax.block_until_ready(solve(*self.given, jnp.asarray(rtol), jnp.asarray(atol)))
        except (RuntimeError, ValueError) as error:
            said = re.search(r"RuntimeError: ([A-Z][^.\n]*\.)", f"RuntimeError: {error}"[:10_000])
            raise PeerFailure(said[1] if said else " ".join(str(error).split())[:160]) from error


def diffrax_peers(portable: Portable, case: Case, most_steps: int) -> Iterator[Peer]:
    """Every method of METHODS."""
    for method in METHODS:
        yield DiffraxAdjoint(portable, case, most_steps, method)
