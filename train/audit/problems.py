"""The named problems: closed form, neural, chaotic, stiff, and networks with TA-BN."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.linalg import expm

from ...engine import random
from ...engine.errors import ArgumentError
from ...engine.tree import Tree, tree_map
from ...layers import Chain, Conv2d, Layer, TABatchNorm, Tanh
from .case import Portable, Problem, portable_problem
from .functions import Functions
from .node_offsets import offsets, with_offsets


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

    about = "y' = A y, 3 states, with its gradient in closed form."
    return portable_problem("linear", about, Portable(_linear_slope), y0, ts, matrix, closed_form=closed_form)


def _linear_slope(fn: Functions, t: Any, y: Any, matrix: Any, constants: Tree) -> Any:
    return matrix @ y


def spiral() -> Problem:
    """The neural ODE of the workload `spiral` of `benchmarks`."""
    y0 = np.random.default_rng(0).standard_normal((20, 2)) * 0.5 + np.array([1.0, 0.0])
    about = "A 2-50-2 tanh network of the cubed state, batch 20, 10 output times."
    params = _mlp_weights((2, 50, 2), scale=0.3)
    return portable_problem("spiral", about, Portable(_spiral_slope), y0, np.linspace(0.0, 1.0, 10), params)


def _spiral_slope(fn: Functions, t: Any, y: Any, p: Tree, constants: Tree) -> Any:
    return fn.tanh(y**3 @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]


def lorenz(horizon: float = 3.0) -> Problem:
    """The Lorenz system with the classical parameters; its Lyapunov exponent is 0.9."""
    about = f"The Lorenz system over {horizon:g} units of time: chaotic, backwards a strong expansion."
    ts, params = np.array([0.0, horizon]), np.array([10.0, 28.0, 8.0 / 3.0])
    return portable_problem(f"lorenz-{horizon:g}", about, _LORENZ, np.ones(3), ts, params)


def _lorenz_slope(fn: Functions, t: Any, y: Any, p: Any, constants: Tree) -> Any:
    a, b, c = y[0], y[1], y[2]
    return fn.stack([p[0] * (b - a), a * (p[1] - c) - b, a * b - p[2] * c])


_LORENZ = Portable(_lorenz_slope)  # of all horizons


def van_der_pol(stiffness: float = 10.0) -> Problem:
    """Van der Pol's oscillator, stiffer with mu; backwards in time its limit cycle repels."""
    name = f"van-der-pol-{stiffness:g}"
    about = f"Van der Pol's oscillator with mu = {stiffness:g} over 2 units of time."
    y0, ts = np.array([2.0, 0.0]), np.array([0.0, 2.0])
    return portable_problem(name, about, _VAN_DER_POL, y0, ts, np.array([stiffness]))


def _van_der_pol_slope(fn: Functions, t: Any, y: Any, mu: Any, constants: Tree) -> Any:
    x, v = y[0], y[1]
    return fn.stack([v, mu[0] * (1.0 - x * x) * v - x])


_VAN_DER_POL = Portable(_van_der_pol_slope)  # of all mu


def ta_batch_norm(mode: str) -> Problem:
    """A small convolutional network with TA-BN; `mode` is one of functions.MODES."""
    weights, stats, nodes = _tabn_network()
    y0 = np.random.default_rng(4).standard_normal((6, 5, 5, 2))

    def f(fn: Functions, t: Any, h: Any, params: Tree, constants: Tree) -> Any:
        conv1, norm1, _, conv2, norm2 = with_offsets(constants["weights"], params)
        h = fn.ta_batch_norm(t, fn.time_conv(t, h, conv1), norm1, constants["stats"][1], mode)
        return fn.ta_batch_norm(t, fn.time_conv(t, fn.tanh(h), conv2), norm2, constants["stats"][4], mode)

    described = {
        "train": "in training by the moments of the batch",
        "population": "in training by the population's moments",
        "eval": "in evaluation",
    }[mode]
    about = (
        f"Two convolutions with TA-BN {described}, batch 6 of 5x5x2, 101 nodes, output times between nodes; "
        "gamma and alpha move as a whole (sums over nodes)."
    )
    portable = Portable(f, {"weights": weights, "stats": stats})
    ts = np.array([0.003, 0.503, 0.997])
    return portable_problem(f"tabn-{mode}", about, portable, y0, ts, offsets(weights), breakpoints=nodes)


def _tabn_network() -> tuple[Tree, Tree, tuple[float, ...]]:
    """(weights, stats, nodes) of convolution, TA-BN, tanh, convolution, TA-BN; all nodes visited."""
    norms = [TABatchNorm(channels) for channels in (6, 2)]
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
    return weights, stats, norms[0].nodes


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
# Problems with a size, a positive number: name -> (problem of this size, what the number is).
FAMILIES: dict[str, tuple[Callable[[float], Problem], str]] = {
    "lorenz": (lorenz, "horizon"),
    "van-der-pol": (van_der_pol, "mu"),
}


def named_problem(name: str) -> Problem:
    """The problem of this name, such as spiral or lorenz-10; ArgumentError with the nearest one."""
    if name in PROBLEMS:
        return PROBLEMS[name]()
    family, _, size = name.rpartition("-")
    if family in FAMILIES:
        return FAMILIES[family][0](_size(name, size))
    if os.path.isfile(name):
        raise ArgumentError(
            f"{name!r} is a file; one with a problem is a Python file, whose name ends in .py"
        )
    close = difflib.get_close_matches(name, PROBLEMS, n=1)
    sized = ", ".join(f"{family}-NUMBER" for family in FAMILIES)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(PROBLEMS)}, {sized}"
    raise ArgumentError(f"no problem, run folder or Python file {name!r}; {hint}")


def growing_problems(name: str) -> tuple[str, Sequence[float], Sequence[Problem]] | None:
    """(what grows, sizes, problems) of a name such as lorenz-1,3,10; None for any other.

    Raises: ArgumentError for a family without sizes, or sizes that are not positive and increasing.
    """
    family, _, listed = name.rpartition("-")
    if "," not in listed or family not in PROBLEMS:
        return None
    if family not in FAMILIES:
        raise ArgumentError(
            f"{name!r}: only {' and '.join(FAMILIES)} have sizes, as in {next(iter(FAMILIES))}-1,3,10"
        )
    make, meaning = FAMILIES[family]
    sizes = [_size(name, size) for size in listed.split(",")]
    if not all(a < b for a, b in zip(sizes, sizes[1:], strict=False)):
        raise ArgumentError(f"{name!r}: sizes must increase")
    return meaning, sizes, [make(size) for size in sizes]


def _size(name: str, text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise ArgumentError(f"{name!r}: what follows the last dash must be a positive number; got {text!r}")
    return size
