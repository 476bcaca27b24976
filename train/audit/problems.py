"""What is audited: an initial value problem with a scalar loss of its solution, in any precision."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import expm

from ...engine import ops, random
from ...engine.errors import ArgumentError
from ...engine.tree import Tree, leaves, tree_map
from ...layers import Chain, Conv2d, Layer, TABatchNorm, Tanh


@dataclass(frozen=True)
class Case:
    """dy/dt = f(t, y, params), y(ts[0]) = y0, and the loss of ys (T, *y0.shape), in one precision.

    `breakpoints` are times at which f has kinks, if it has any: the reference steps from each to the next.
    """

    f: Callable[[Any, Tree, Tree], Tree]
    y0: Tree
    ts: np.ndarray
    params: Tree
    loss: Callable[[Tree], Any]
    breakpoints: tuple[float, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A problem in any precision.

    Attributes:
        about: one sentence for the page.
        build: dtype -> Case.
        closed_form: the gradient of the loss, {"y0", "params", "ts"}, where a formula exists.
    """

    name: str
    about: str
    build: Callable[[np.dtype[Any]], Case]
    closed_form: Callable[[], Tree] | None = None


def half_square(ys: Tree) -> Any:
    """Half the sum of squares of the solution at all output times: a loss that every problem has."""
    return 0.5 * sum(ops.sum(leaf * leaf) for leaf in leaves(ys))


def cast(tree: Tree, dtype: np.dtype[Any]) -> Tree:
    """The tree with its floating-point leaves in `dtype`."""
    return tree_map(
        lambda leaf: np.asarray(leaf, dtype if np.asarray(leaf).dtype.kind == "f" else None), tree
    )


def arrays_problem(
    name: str, about: str, case: Case, closed_form: Callable[[], Tree] | None = None
) -> Problem:
    """A problem whose f computes in the precision of its arguments."""

    def build(dtype: np.dtype[Any]) -> Case:
        return replace(case, y0=cast(case.y0, dtype), params=cast(case.params, dtype))

    return Problem(name, about, build, closed_form)


def linear() -> Problem:
    """y' = A y with three output times."""
    matrix = np.array([[-0.3, 2.0, 0.1], [-2.0, -0.3, 0.4], [0.2, -0.1, -0.5]])
    y0, ts = np.array([1.0, -0.5, 0.8]), np.array([0.0, 0.7, 1.5])

    def closed_form() -> Tree:
        """d loss of (y0, A, ts) from matrix exponentials; that of A by the exponential of a block matrix."""
        y0_bar, matrix_bar, ts_bar = np.zeros(3), np.zeros((3, 3)), np.zeros(3)
        for k, t in enumerate(ts - ts[0]):
            power = expm(matrix * t)
            y = power @ y0
            y0_bar += power.T @ y
            block = np.block([[matrix.T, np.outer(y, y0)], [np.zeros((3, 3)), matrix.T]])
            matrix_bar += expm(block * t)[:3, 3:]
            ts_bar[k] += y @ matrix @ y
            ts_bar[0] -= y @ matrix @ y
        return {"y0": y0_bar, "params": matrix_bar, "ts": ts_bar}

    case = Case(lambda t, y, a: a @ y, y0, ts, matrix, half_square)
    return arrays_problem(
        "linear", "y' = A y, 3 states, with its gradient in closed form.", case, closed_form
    )


def spiral() -> Problem:
    """The neural ODE of `benchmarks/spiral.py`."""
    params = _mlp_weights((2, 50, 2), scale=0.3)
    y0 = np.random.default_rng(0).standard_normal((20, 2)) * 0.5 + np.array([1.0, 0.0])

    def f(t: Any, y: Any, p: Tree) -> Any:
        return ops.tanh(y**3 @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]

    case = Case(f, y0, np.linspace(0.0, 1.0, 10), params, half_square)
    return arrays_problem(
        "spiral", "A 2-50-2 tanh network of the cubed state, batch 20, 10 output times.", case
    )


def lorenz(horizon: float = 3.0) -> Problem:
    """The Lorenz system with the classical parameters; its Lyapunov exponent is 0.9."""

    def f(t: Any, y: Any, p: Any) -> Any:
        a, b, c = y[0], y[1], y[2]
        return ops.stack([p[0] * (b - a), a * (p[1] - c) - b, a * b - p[2] * c])

    case = Case(
        f, np.array([1.0, 1.0, 1.0]), np.array([0.0, horizon]), np.array([10.0, 28.0, 8.0 / 3.0]), half_square
    )
    about = f"The Lorenz system over {horizon:g} units of time: chaotic, backwards a strong expansion."
    return arrays_problem(f"lorenz-{horizon:g}", about, case)


def van_der_pol(stiffness: float = 10.0) -> Problem:
    """Van der Pol's oscillator, stiffer with mu; backwards in time its limit cycle repels."""

    def f(t: Any, y: Any, mu: Any) -> Any:
        x, v = y[0], y[1]
        return ops.stack([v, mu[0] * (1.0 - x * x) * v - x])

    case = Case(f, np.array([2.0, 0.0]), np.array([0.0, 2.0]), np.array([stiffness]), half_square)
    return arrays_problem(
        f"van-der-pol-{stiffness:g}",
        f"Van der Pol's oscillator with mu = {stiffness:g} over 2 units of time.",
        case,
    )


def ta_batch_norm(mode: str) -> Problem:
    """A small convolutional network with TA-BN; `mode` is train, population or eval."""
    normalize = "population" if mode == "population" else "batch"
    norms = [TABatchNorm(channels, normalize=normalize) for channels in (6, 2)]
    net: Layer = Chain(
        [Conv2d(2, 6, with_time=True), norms[0], Tanh(), Conv2d(6, 2, with_time=True), norms[1]],
        input_shape=(5, 5, 2),
    )
    rng = np.random.default_rng(3)
    weights, stats = net.init(random.key(3), np.float64), net.init_stats(np.float64)
    for k in (1, 4):
        weights[k] = tree_map(lambda leaf: leaf + 0.2 * _smooth(rng, leaf.shape), weights[k])
        stats[k]["mean"] = 0.1 * _smooth(rng, stats[k]["mean"].shape)
        stats[k]["var"] = 1.0 + 0.3 * _smooth(rng, stats[k]["var"].shape) ** 2
        stats[k]["visits"] = np.full_like(stats[k]["visits"], 50.0)
        stats[k]["initial_share"] = np.zeros_like(stats[k]["initial_share"])
    y0 = rng.standard_normal((6, 5, 5, 2))

    def build(dtype: np.dtype[Any]) -> Case:
        f, params = dynamics_of(
            net, cast(weights, dtype), cast(stats, dtype), "eval" if mode == "eval" else "train"
        )
        return Case(f, cast(y0, dtype), np.array([0.003, 0.503, 0.997]), params, half_square, norms[0].nodes)

    described = {
        "train": "in training by the moments of the batch",
        "population": "in training by the population's moments",
        "eval": "in evaluation",
    }[mode]
    return Problem(
        f"tabn-{mode}",
        f"Two convolutions with TA-BN {described}, batch 6 of 5x5x2, 101 nodes, output times between nodes; "
        "gamma and alpha move as a whole (sums over nodes).",
        build,
    )


def dynamics_of(
    net: Layer, weights: Tree, stats: Tree, mode: str
) -> tuple[Callable[[Any, Any, Tree], Any], Tree]:
    """(f, params) of a network whose gamma and alpha on TA-BN's nodes move together, by one number a channel.

    A continuous adjoint samples the hat functions of single nodes no better than its steps do, and a solve of few steps
    misses most nodes; sums over nodes are what all methods can be asked for. Every other weight is a parameter itself.
    """

    def f(t: Any, h: Any, params: Tree) -> Any:
        return net.apply(_with_offsets(weights, params), stats, t, h, mode=mode)[0]

    return f, _offsets(weights)


def _offsets(weights: Tree) -> Tree:
    """The weights, with zeros (C,) in place of each grid (K, C) of gamma and alpha."""
    if _is_on_nodes(weights):
        return {name: np.zeros_like(grid[0]) for name, grid in weights.items()}
    if isinstance(weights, dict):
        return {name: _offsets(part) for name, part in weights.items()}
    return [_offsets(part) for part in weights] if isinstance(weights, list) else weights


def _with_offsets(weights: Tree, params: Tree) -> Tree:
    if _is_on_nodes(weights):
        return {name: grid + params[name] for name, grid in weights.items()}
    if isinstance(weights, dict):
        return {name: _with_offsets(part, params[name]) for name, part in weights.items()}
    if isinstance(weights, list):
        return [_with_offsets(part, own) for part, own in zip(weights, params, strict=True)]
    return params


def _is_on_nodes(weights: Tree) -> bool:
    return isinstance(weights, dict) and set(weights) == {"gamma", "alpha"} and weights["gamma"].ndim == 2


def _smooth(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """(K, C): a smooth random function of time for each channel."""
    t = np.linspace(0.0, 1.0, shape[0])[:, None]
    phase, frequency = rng.uniform(0, 2 * np.pi, shape[1]), rng.uniform(2.0, 5.0, shape[1])
    return np.sin(frequency * t + phase)


def _mlp_weights(widths: tuple[int, int, int], scale: float) -> Tree:
    rng = np.random.default_rng(1)
    n_in, hidden, n_out = widths
    return {
        "w1": rng.standard_normal((n_in, hidden)) * scale,
        "b1": rng.standard_normal(hidden) * scale,
        "w2": rng.standard_normal((hidden, n_out)) * scale,
        "b2": rng.standard_normal(n_out) * scale,
    }


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "linear": linear,
    "spiral": spiral,
    "lorenz": lorenz,
    "van-der-pol": van_der_pol,
    "tabn-train": lambda: ta_batch_norm("train"),
    "tabn-population": lambda: ta_batch_norm("population"),
    "tabn-eval": lambda: ta_batch_norm("eval"),
}


def named_problem(name: str) -> Problem:
    """The problem of this name; ArgumentError with the nearest one."""
    if name not in PROBLEMS:
        close = difflib.get_close_matches(name, PROBLEMS, n=1)
        if os.path.isfile(name):
            raise ArgumentError(
                f"{name!r} is a file; one with a problem is a Python file, whose name ends in .py"
            )
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(PROBLEMS)}"
        raise ArgumentError(f"no problem, run folder or Python file {name!r}; {hint}")
    return PROBLEMS[name]()
