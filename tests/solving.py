"""What the tests of the solvers share: random networks as dynamics, scalar losses of a solution, counted calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from odegrad import odeint
from odegrad.engine.tree import leaves
from strategies import seeds

ADAPTIVE, FIXED = ("dopri5", "bosh3"), ("euler", "midpoint", "rk4")
METHODS = (*ADAPTIVE, *FIXED)


def network(t: Any, y: Any, params: dict) -> Any:
    """A small network that depends on time, as an analytic function."""
    return np.tanh(y @ params["a"] + t * params["c"]) @ params["b"] - 0.1 * np.sin(t) * y


@dataclass(frozen=True)
class Case:
    """A solve of `network` with a scalar loss sum(weights * ys) + 0.5 sum(ys**2)."""

    y0: np.ndarray
    ts: np.ndarray
    params: dict
    weights: np.ndarray
    options: dict = field(default_factory=dict)

    def solve(self, y0: Any = None, params: Any = None, ts: Any = None, **options: Any) -> Any:
        y0 = self.y0 if y0 is None else y0
        params, ts = self.params if params is None else params, self.ts if ts is None else ts
        return odeint(network, y0, ts, params, **{**self.options, **options})

    def loss(self, y0: Any = None, params: Any = None, ts: Any = None, **options: Any) -> Any:
        return self.loss_of(self.solve(y0, params, ts, **options).ys)

    def loss_of(self, ys: Any) -> Any:
        return np.sum(self.weights * ys) + 0.5 * np.sum(ys * ys)

    def grid(self, **options: Any) -> np.ndarray:
        """The accepted times of the plain solve."""
        return self.solve(**options).grid


def random_case(
    seed: int = 0,
    *,
    batch: int = 2,
    size: int = 3,
    hidden: int = 4,
    n_times: int = 4,
    span: float = 1.5,
    dtype: Any = np.float64,
    **options: Any,
) -> Case:
    """A `Case` whose arrays and output times follow from the seed; span < 0 runs backwards."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    params = {"a": draw(size, hidden), "b": draw(hidden, size), "c": draw(hidden)}
    inner = np.sort(rng.uniform(0.05, 0.95, n_times - 2))
    ts = 0.3 + span * np.concatenate([[0.0], inner, [1.0]])
    if options.get("method") in FIXED:
        options.setdefault("step_size", abs(span) / 5)
    return Case(draw(batch, size), ts, params, draw(n_times, batch, size), options)


@st.composite
def cases(
    draw: st.DrawFn, methods: tuple[str, ...] = METHODS, rtols: tuple[float, ...] = (1e-3, 1e-5, 1e-8)
) -> Case:
    """Random networks, shapes, output times, directions, tolerances and methods."""
    return random_case(
        draw(seeds),
        batch=draw(st.integers(1, 3)),
        size=draw(st.integers(1, 4)),
        hidden=draw(st.integers(1, 5)),
        n_times=draw(st.integers(2, 6)),
        span=draw(st.sampled_from([-2.0, -0.3, 0.5, 1.5, 3.0])),
        method=draw(st.sampled_from(methods)),
        rtol=(rtol := draw(st.sampled_from(rtols))),
        atol=1e-2 * rtol,
    )


def distance(actual: Any, expected: Any) -> float:
    """The largest difference between two trees, relative to the largest entry of the whole expected tree."""
    pairs = list(zip(leaves(actual), leaves(expected), strict=True))
    assert all(np.shape(a) == np.shape(b) for a, b in pairs)
    scale = max(float(np.max(np.abs(b), initial=0.0)) for _, b in pairs)
    return max(float(np.max(np.abs(np.asarray(a) - b), initial=0.0)) for a, b in pairs) / scale


def same_bits(first: Any, second: Any) -> bool:
    """Whether two trees of arrays agree bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True))


class Counted:
    """A function that counts its calls and notes the times they were made at."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self.n_calls = 0

    def __call__(self, *args: Any) -> Any:
        self.n_calls += 1
        return self.f(*args)
