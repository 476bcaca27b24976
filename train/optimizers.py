"""Optimisers: SGD with momentum, Adam, AdamW. Each is two pure functions, `init` and `update`,
on parameter trees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from ..engine.backend import Array, namespace_of
from ..engine.cuda.adamw import AdamNumbers, adamw, fits_adamw
from ..engine.errors import ArgumentError
from ..engine.tree import Path, Tree, leaves, leaves_with_paths, tree_map, unflatten
from .config import TrainConfig
from .joined import step_leaves
from .one_pass import one_pass
from .optimizer_checks import check_grads, check_options, check_params

# NumPy functions below dispatch on their arguments (__array_ufunc__, __array_function__), so CuPy arrays stay
# on their device. Updates fill fresh arrays with `out=`: nothing given is written to, 0-d arrays stay arrays.

Leaves = list[Array]


class Setting(NamedTuple):
    """What leaves differ in: weight decay, and the factor of the gradient."""

    decay: float
    scale: float


class Optimizer(Protocol):
    """What the training loop needs. Both functions are pure; states are trees of arrays,
    so they can be saved.
    """

    def init(self, params: Tree) -> Tree:
        """The state before the first update, in the dtype and on the device of `params`."""

    def update(
        self, grads: Tree, state: Tree, params: Tree, lr: float, scales: Sequence[float] | None = None
    ) -> tuple[Tree, Tree]:
        """(params, state) after one step of learning rate `lr`.

        Args:
            grads: matches `params` leaf by leaf.
            scales: a factor for each leaf of `grads` in the order of `leaves`, as `clip_factors` finds them.
        """


@dataclass(frozen=True)
class SGD:
    """v = momentum * v + g;  p -= lr * v  (Nesterov: p -= lr * (g + momentum * v)),
    where g includes weight_decay * p.

    Args:
        momentum: in [0, 1); 0 keeps no state.
        nesterov: look ahead along v; needs momentum.
        weight_decay: added to the gradient of the leaves that `decays` selects.
        decays: predicate of a leaf's path; by default every leaf decays.
    Source: Sutskever et al. (2013), without their (1 - momentum) factor: the form of torch.optim.SGD.
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decays: Callable[[Path], bool] | None = None

    def __post_init__(self) -> None:
        check_options(self, fractions=("momentum",))
        if self.nesterov and not self.momentum:
            raise ArgumentError("`nesterov` needs `momentum` > 0; got 0.0")

    def init(self, params: Tree) -> Tree:
        """{"velocity": zeros like params}, or {} without momentum."""
        check_params(params)
        return {"velocity": tree_map(np.zeros_like, params)} if self.momentum else {}

    def update(
        self, grads: Tree, state: Tree, params: Tree, lr: float, scales: Sequence[float] | None = None
    ) -> tuple[Tree, Tree]:
        """One step; cost: copies of all leaves, and 2 new arrays;
        in large arrays one pass where numba is installed.
        """
        check_grads(grads, params)
        columns = [leaves(params), leaves(grads)]
        if self.momentum:
            columns.append(leaves(state["velocity"]))
        settings = _settings(self.weight_decay, self.decays, params, scales, len(columns[0]))
        stepped = step_leaves(partial(self._step, lr), len(columns) - 1, columns, settings)
        new_params, *velocity = (unflatten(params, column) for column in stepped)
        return new_params, {"velocity": velocity[0]} if self.momentum else {}

    def _step(self, lr: float, setting: Setting, *arrays: Array) -> tuple[Array, ...]:
        """(p, g) to (p,), or (p, g, v) to (p, v) with momentum."""
        step = one_pass("momentum" if self.momentum else "sgd", arrays)
        if step is None:
            return self._numpy_step(lr, setting, *arrays)
        ahead = self.momentum if self.nesterov else 0.0
        return step((setting.scale, setting.decay, -lr, self.momentum, ahead))

    def _numpy_step(
        self, lr: float, setting: Setting, p: Array, g: Array, *velocity: Array
    ) -> tuple[Array, ...]:
        g = _scaled(g, setting.scale)
        if setting.decay:
            g = _sum(_product(p, setting.decay), g)
        if not velocity:
            return (_sum(_product(g, -lr), p),)
        v = _sum(_product(velocity[0], self.momentum), g)
        direction = _sum(_product(v, self.momentum), g) if self.nesterov else v
        return _sum(_product(direction, -lr), p), v


@dataclass(frozen=True)
class Adam:
    """p -= lr * m_hat / (sqrt(v_hat) + eps), with running means m of g and v of g**2,
    corrected for their zero start.

    Args:
        beta1, beta2: decay rates of m and v, in [0, 1).
        eps: added to the root, positive.
        weight_decay: added to the gradient (L2 regularisation) of the leaves that `decays` selects.
        decays: predicate of a leaf's path; by default every leaf decays.
    Source: Kingma & Ba (2015), algorithm 1.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decays: Callable[[Path], bool] | None = None
    is_decoupled: ClassVar[bool] = False  # the decay is added to the gradient

    def __post_init__(self) -> None:
        check_options(self, fractions=("beta1", "beta2"))
        if not self.eps > 0.0:
            raise ArgumentError(f"`eps` must be positive; got {self.eps}")

    def init(self, params: Tree) -> Tree:
        """{"count": int64 (), "m": zeros like params, "v": zeros like params}."""
        check_params(params)
        return {
            "count": np.zeros((), np.int64),
            "m": tree_map(np.zeros_like, params),
            "v": tree_map(np.zeros_like, params),
        }

    def update(
        self, grads: Tree, state: Tree, params: Tree, lr: float, scales: Sequence[float] | None = None
    ) -> tuple[Tree, Tree]:
        """One step; cost: copies of all leaves and 3 new arrays, in large ones one pass where numba is
        installed; on a device one launch and 3 new blocks.
        """
        check_grads(grads, params)
        count = int(state["count"]) + 1
        columns = (leaves(params), leaves(grads), leaves(state["m"]), leaves(state["v"]))
        settings = _settings(self.weight_decay, self.decays, params, scales, len(columns[0]))
        stepped = self._steps(columns, settings, lr, count)
        new_params, m, v = (unflatten(params, column) for column in stepped)
        return new_params, {"count": np.asarray(count, np.int64), "m": m, "v": v}

    def _steps(
        self, columns: tuple[Leaves, Leaves, Leaves, Leaves], settings: list[Setting], lr: float, count: int
    ) -> Iterable[Sequence[Array]]:
        """The leaves of (params, m, v) from those of (params, grads, m, v);
        on a device by one kernel for all.
        """
        if namespace_of(*columns[0]) is not np and fits_adamw(*columns):
            numbers = AdamNumbers(lr, self.beta1, self.beta2, self.eps, count, self.is_decoupled)
            decays, scales = zip(*settings, strict=True)
            return adamw(*columns, decays, scales, numbers)
        return step_leaves(partial(self._step, lr, count), 3, columns, settings)

    def _step(self, lr: float, count: int, setting: Setting, *arrays: Array) -> tuple[Array, ...]:
        """(p, g, m, v) to (p, m, v)."""
        step = one_pass("adam", arrays)
        if step is None:
            return self._numpy_step(lr, count, setting, *arrays)
        shrink, pull = (1.0 - lr * setting.decay, 0.0) if self.is_decoupled else (1.0, setting.decay)
        beta1, beta2 = self.beta1, self.beta2
        root, rate = math.sqrt(1.0 - beta2**count), -lr / (1.0 - beta1**count)
        numbers = (setting.scale, shrink, pull, beta1, 1.0 - beta1, beta2, 1.0 - beta2, root, self.eps, rate)
        return step(numbers)

    def _numpy_step(
        self, lr: float, count: int, setting: Setting, p: Array, g: Array, m: Array, v: Array
    ) -> tuple[Array, ...]:
        g = _scaled(g, setting.scale)
        if setting.decay:
            p, g = self._decay(p, g, setting.decay, lr)
        m = _sum(_product(m, self.beta1), _product(g, 1.0 - self.beta1))
        squares = np.square(g, out=np.empty_like(g))
        squares *= 1.0 - self.beta2
        v = _sum(_product(v, self.beta2), squares)
        root = np.sqrt(v, out=squares)
        root /= math.sqrt(1.0 - self.beta2**count)
        root += self.eps
        step = np.divide(m, root, out=root)
        step *= -lr / (1.0 - self.beta1**count)
        return _sum(step, p), m, v

    def _decay(self, p: Array, g: Array, decay: float, lr: float) -> tuple[Array, Array]:
        """(p, g) with the decay in the gradient."""
        return p, _sum(_product(p, decay), g)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled decay: p is first multiplied by 1 - lr * weight_decay,
    and the gradient is left alone.

    Source: Loshchilov & Hutter (2019), algorithm 2, with the learning rate as its schedule multiplier.
    """

    weight_decay: float = 0.01
    is_decoupled: ClassVar[bool] = True

    def _decay(self, p: Array, g: Array, decay: float, lr: float) -> tuple[Array, Array]:
        return _product(p, 1.0 - lr * decay), g


def make_optimizer(config: TrainConfig) -> Optimizer:
    """The optimiser that a configuration names; all leaves decay."""
    if config.optimizer == "sgd":
        return SGD(momentum=config.momentum, weight_decay=config.weight_decay)
    make = AdamW if config.optimizer == "adamw" else Adam
    return make(weight_decay=config.weight_decay)


def _product(x: Array, factor: float) -> Array:
    """factor * x in a new array of the dtype of x."""
    return np.multiply(x, factor, out=np.empty_like(x))


def _sum(fresh: Array, x: Array) -> Array:
    """fresh + x, written over `fresh`, which no one else holds."""
    fresh += x
    return fresh


def _scaled(g: Array, scale: float) -> Array:
    return g if scale == 1.0 else _product(g, scale)


def _settings(
    decay: float,
    decays: Callable[[Path], bool] | None,
    params: Tree,
    scales: Sequence[float] | None,
    n_leaves: int,
) -> list[Setting]:
    """Of each leaf, in the order of `leaves`."""
    if scales is None:
        scales = [1.0] * n_leaves
    elif len(scales) != n_leaves:
        raise ArgumentError(f"`scales` must have a number for each of {n_leaves} leaves; got {len(scales)}")
    if decays is None:
        return [Setting(decay, scale) for scale in scales]
    chosen = [decay if decays(path) else 0.0 for path, _ in leaves_with_paths(params)]
    return [Setting(*pair) for pair in zip(chosen, scales, strict=True)]
