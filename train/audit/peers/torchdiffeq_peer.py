"""torchdiffeq's `odeint_adjoint` on a portable problem: the continuous adjoint, params in its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torchdiffeq

from ....engine.tree import Tree, leaves, tree_map
from ....layers import TABatchNorm
from ....layers.time_grid import uniform_nodes
from ..case import Case, Portable
from ..gradient import Gradient, flat
from .peer import Peer, PeerFailure


class TorchFunctions:
    """`Functions` on torch tensors."""

    def tanh(self, x: Any) -> Any:
        return torch.tanh(x)

    def stack(self, parts: Sequence[Any]) -> Any:
        return torch.stack(list(parts))

    def time_conv(self, t: Any, x: Any, weights: Tree) -> Any:
        """The time channel is made and convolved like any other."""
        image = torch.cat((x, t * torch.ones_like(x[..., :1])), dim=-1).permute(0, 3, 1, 2)
        kernel = torch.cat((weights["w"], weights["w_t"]), dim=2).permute(3, 2, 0, 1)
        return torch.nn.functional.conv2d(image, kernel, weights["b"], padding=1).permute(0, 2, 3, 1)

    def ta_batch_norm(self, t: Any, x: Any, weights: Tree, stats: Tree, mode: str) -> Any:
        if mode == "train":
            variance, mean = torch.var_mean(x, dim=tuple(range(x.ndim - 1)), correction=0)
        else:
            variance, mean = _at(t, stats["var"]), _at(t, stats["mean"])
        normalized = (x - mean) / torch.sqrt(variance + TABatchNorm.eps)
        return _at(t, weights["gamma"]) * normalized + _at(t, weights["alpha"])


def _at(t: Any, grid: Any) -> Any:
    """Linear interpolation of grid (K, C) on the default nodes at t."""
    nodes = torch.tensor(uniform_nodes(), dtype=grid.dtype)
    rising = torch.clamp((t - nodes[:-1]) / (nodes[1:] - nodes[:-1]), 0.0, 1.0)
    return grid[0] + rising @ (grid[1:] - grid[:-1])


class _Counted(torch.nn.Module):
    """f(t, y) that counts its calls, and those whose graph is recorded to be pulled back."""

    def __init__(self, f: Any, params: Tree) -> None:
        super().__init__()
        self.f, self.params = f, params
        self.n_calls = self.n_recorded = 0

    def forward(self, t: Any, y: Any) -> Any:
        self.n_calls += 1
        self.n_recorded += torch.is_grad_enabled()
        return self.f(t, y, self.params)


class TorchdiffeqAdjoint(Peer):
    """`odeint_adjoint`, dopri5 both ways; with `seminorm` the parameters are kept out of the backward error
    norm.

    The derivative with respect to time is part of that norm in any case.
    """

    def __init__(self, portable: Portable, case: Case, most_steps: int, *, seminorm: bool) -> None:
        self.name = "torchdiffeq seminorm" if seminorm else "torchdiffeq adjoint"
        self.case, self.most_steps, self.seminorm = case, most_steps, seminorm
        self.params = tree_map(_leaf, case.params)
        self._counts: dict[tuple[float, float], dict[str, int]] = {}
        self.f = portable.on(TorchFunctions(), _constants(portable, case))

    def compile(self) -> None:
        """Nothing is compiled."""

    def gradient(self, rtol: float, atol: float) -> Gradient:
        f, y0 = _Counted(self.f, self.params), _leaf(self.case.y0)
        times = torch.tensor(self.case.ts, dtype=y0.dtype, requires_grad=True)
        params = tuple(leaves(self.params))
        steps = {"max_num_steps": self.most_steps}
        backward = {**steps, "norm": "seminorm"} if self.seminorm else steps
        with _solving():
            ys = torchdiffeq.odeint_adjoint(
                f, y0, times, rtol=rtol, atol=atol, method="dopri5", options=steps, adjoint_options=backward,
                adjoint_params=params,
            )  # fmt: skip
            n_forward, f.n_recorded = f.n_calls, 0
            y0_bar, ts_bar, *params_bar = torch.autograd.grad(self.case.loss(ys), (y0, times, *params))
        self._counts[rtol, atol] = {
            "nfe_forward": n_forward,
            "nfe_backward": f.n_calls - n_forward,
            "n_vjp_state": f.n_recorded,
            "n_vjp_params": f.n_recorded,
        }
        return {"y0": flat(y0_bar), "params": flat(params_bar), "ts": flat(ts_bar)}

    def counts(self, rtol: float, atol: float) -> dict[str, int]:
        """Of the gradient at these tolerances: f counts its calls itself."""
        return self._counts[rtol, atol]

    def slope(self, t: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.f(torch.tensor(t, dtype=_leaf(y).dtype), torch.from_numpy(y), self.params).numpy()

    def loss(self, ys: np.ndarray) -> float:
        return float(self.case.loss(torch.from_numpy(ys)))


def torchdiffeq_peers(portable: Portable, case: Case, most_steps: int) -> Iterator[Peer]:
    """With the error norm it has by default, and with the one it offers for speed."""
    yield TorchdiffeqAdjoint(portable, case, most_steps, seminorm=False)
    yield TorchdiffeqAdjoint(portable, case, most_steps, seminorm=True)


@contextmanager
def _solving() -> Iterator[None]:
    """One thread, since on small arrays more of them mostly wait for each other; assertions as failures.

    They are of underflow, too many steps, and a state that is not finite.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    except AssertionError as error:
        raise PeerFailure(" ".join(str(error).split())[:160]) from error
    finally:
        torch.set_num_threads(before)


def _leaf(array: np.ndarray) -> Any:
    return torch.tensor(array, requires_grad=True)


def _constants(portable: Portable, case: Case) -> Tree:
    dtype = _leaf(case.y0).dtype
    return tree_map(lambda array: torch.tensor(array, dtype=dtype), portable.constants)
