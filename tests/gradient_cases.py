"""Gradient cases as plain data: a network, a solve and a loss that follow from a few numbers, and what judges them.

The repr of a case is an expression that makes it again, and reproduce.py quotes the pieces of this file in a script: so
they use odegrad, NumPy and one another, and of the other test files only what is listed there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from odegrad import grad, layers, odeint, ops, random
from odegrad.engine.tree import leaves, leaves_with_paths, tree_map, unflatten
from oracles import assert_close, central_difference, inner_all, norm
from solving import distance


@dataclass(frozen=True)
class Perceptron:
    """y' = w_L a(... a(w_1 y + b_1 + t c_1) ...) - sin(t) y / 10, on rows of an array or joined leaves of a tree."""

    widths: tuple[int, ...]
    activation: str

    def weights(self, rng: Any, y0: Any) -> Any:
        n = self.rows(y0).shape[-1]
        sizes = zip((n, *self.widths), (*self.widths, n), strict=True)
        draw = rng.standard_normal
        return [{"w": draw((i, o)) / np.sqrt(i), "b": draw(o), "c": draw(o)} for i, o in sizes]

    def stats(self) -> Any:
        return None

    def rows(self, y: Any) -> Any:
        first, *others = leaves(y)
        if not others and len(first.shape) > 1:
            return first
        return np.concatenate([np.reshape(leaf, (-1,)) for leaf in (first, *others)])

    def slope(self, t: Any, y: Any, weights: Any, stats: Any) -> Any:
        rows = x = self.rows(y)
        for k, layer in enumerate(weights):
            x = x @ layer["w"] + layer["b"] + t * layer["c"]
            x = getattr(ops, self.activation)(x) if k < len(weights) - 1 else x
        x = x - 0.1 * np.sin(t) * rows
        if len(x.shape) > 1:
            return unflatten(y, [x]), {}
        ends = np.cumsum([0, *(leaf.size for leaf in leaves(y))]).tolist()
        parts = zip(leaves(y), ends, ends[1:], strict=False)
        return unflatten(y, [np.reshape(x[start:end], leaf.shape) for leaf, start, end in parts]), {}

    def is_smooth_in_time(self, ts: Any) -> bool:
        return True


@dataclass(frozen=True)
class ConvNet:
    """Two convolutions with TA-BN on images (B, *size, channels); after stride 2 the second one goes up."""

    size: tuple[int, int]
    channels: int
    width: int
    stride: int
    activation: str
    mode: str
    normalize: str
    unvisited: str
    nodes: tuple[float, ...]

    @property
    def net(self) -> Any:
        options = {"nodes": self.nodes, "normalize": self.normalize, "unvisited": self.unvisited}
        if self.stride == 1:
            last = layers.Conv2d(self.width, self.channels, with_time=True)
        else:
            last = layers.ConvTranspose2d(self.width, self.channels, self.size, with_time=True)
        return layers.Chain(
            [
                layers.Conv2d(self.channels, self.width, stride=self.stride, with_time=True),
                layers.TABatchNorm(self.width, **options),
                getattr(layers, self.activation.capitalize())(),
                last,
                layers.TABatchNorm(self.channels, **options),
            ]
        )

    def weights(self, rng: Any, y0: Any) -> Any:
        fresh = self.net.init(random.key(0), np.float64)
        return tree_map(lambda w: w + 0.3 * rng.standard_normal(w.shape), fresh)

    def stats(self) -> Any:
        """Running statistics away from their initial values, some nodes not visited."""
        rng, fresh = np.random.default_rng(1), self.net.init_stats(np.float64)
        ranges = {"mean": (-0.5, 0.5), "var": (0.5, 1.5), "visits": (0.0, 2.0), "initial_share": (0.0, 0.5)}
        return unflatten(
            fresh, [rng.uniform(*ranges[path[-1]], s.shape) for path, s in leaves_with_paths(fresh)]
        )

    def slope(self, t: Any, y: Any, weights: Any, stats: Any) -> Any:
        slope, seen = self.net.apply(weights, stats, t, y, mode=self.mode)
        return slope, {} if seen is None else seen

    def is_smooth_in_time(self, ts: Any) -> bool:
        """Whether no kink of the interpolation over the nodes is near."""
        return len(self.nodes) == 2 and self.nodes[0] < min(ts) and max(ts) < self.nodes[1]


@dataclass(frozen=True)
class GradientCase:
    """A solve with the loss sum(w * ys) + sum(ys**2) / 2; all arrays follow from the seed, rounded to single precision.

    `structure` "array": a state of one shape; "tuple", "dict", "nested": a tree with leaves of several shapes.
    """

    network: Any
    structure: str
    shapes: tuple[tuple[int, ...], ...]
    seed: int
    ts: tuple[float, ...]
    method: str = "dopri5"
    rtol: float = 1e-5
    dtype: str = "float64"
    execution: str = "replay"
    keep: str = "auto"

    def cast(self, tree: Any) -> Any:
        return tree_map(lambda x: np.asarray(x).astype(np.float32).astype(self.dtype), tree)

    def state(self, arrays: Any) -> Any:
        first, *others = arrays
        if self.structure == "nested":
            return {"a": first, "b": [tuple(others)]}
        return {"array": first, "tuple": (first, *others), "dict": dict(zip("abc", arrays, strict=False))}[
            self.structure
        ]

    def arguments(self) -> tuple[Any, Any, np.ndarray]:
        """(y0, weights, ts)."""
        rng = np.random.default_rng(self.seed)
        y0 = self.state([rng.standard_normal(shape) for shape in self.shapes])
        weights = self.network.weights(rng, self.cast(y0))
        return self.cast(y0), self.cast(weights), np.array(self.ts)

    def solve(self, y0: Any, weights: Any, ts: Any, **options: Any) -> Any:
        def f(t: Any, y: Any, params: Any) -> Any:
            return self.network.slope(t, y, params["weights"], params["stats"])

        step_size = abs(self.ts[-1] - self.ts[0]) / 5 if self.method in ("euler", "midpoint", "rk4") else None
        given = {
            "method": self.method,
            "rtol": self.rtol,
            "atol": 0.01 * self.rtol,
            "execution": self.execution,
            "keep": self.keep,
            "step_size": step_size,
        }
        params = {"weights": weights, "stats": self.cast(self.network.stats())}
        return odeint(f, y0, ts, params, has_aux=True, **{**given, **options})

    def loss(self, y0: Any, weights: Any, ts: Any, **options: Any) -> Any:
        total, rng = 0.0, np.random.default_rng(self.seed + 1)
        for ys in leaves(self.solve(y0, weights, ts, **options).ys):
            total = total + np.sum(self.cast(rng.standard_normal(ys.shape)) * ys) + 0.5 * np.sum(ys * ys)
        return total

    def gradients(self, **options: Any) -> Any:
        """With respect to y0, weights and ts."""
        return grad(lambda *args: self.loss(*args, **options), (0, 1, 2))(*self.arguments())


def check_gradients(case: GradientCase) -> None:
    """`discrete` of the adaptive solve against `tape` on its grid, and both against differences on that grid.

    Of the comparisons in single precision the last is one with double precision, which takes it from there.
    """
    grid = case.solve(*case.arguments()).grid
    on_grid = {"grid": grid, "step_size": None, "gradient": "tape"}
    tape = case.gradients(**on_grid)
    check_distance(case, "discrete from tape", case.gradients(gradient="discrete"), tape)
    if case.dtype == "float32":
        double = replace(case, dtype="float64")
        exact = double.gradients(**on_grid)
        check_distance(case, "float32 from float64", tape, exact)
        case, tape = double, exact
    compare_with_differences(case, grid, tape)


def check_distance(case: GradientCase, which: str, found: Any, expected: Any) -> None:
    """4500 rounding errors, which are 1e-12 in double precision, of the largest entry."""
    error, allowed = distance(found, expected), 4500 * np.finfo(case.dtype).eps
    assert error <= allowed, f"{which}: {error:.1e}, {allowed:.1e} allowed"


def compare_with_differences(case: GradientCase, grid: np.ndarray, found: Any) -> None:
    """The gradients of y0 and weights together, then those of ts, along a random direction of length one.

    The first and the last step stretch with ts. An inner output time within reach of an accepted one stays where it is:
    the derivative of dense output has kinks there.
    """
    rng, (y0, weights, ts) = np.random.default_rng(2), case.arguments()

    def of_values(*values: Any) -> Any:
        moved = unflatten((y0, weights), values)
        return case.loss(*moved, ts, grid=grid, step_size=None)

    compare(
        of_values,
        leaves((y0, weights)),
        [rng.standard_normal(x.shape) for x in leaves((y0, weights))],
        found[:2],
    )
    if not case.network.is_smooth_in_time(case.ts):
        return
    h = min(2e-3, 0.1 * abs(grid[1] - grid[0]), 0.1 * abs(grid[-1] - grid[-2]))
    gaps = np.abs(ts[:, None] - grid).min(axis=1)
    gaps[[0, -1]] = np.inf
    direction = rng.standard_normal(len(ts)) * (gaps > 4 * h)

    def of_times(times: Any) -> Any:
        stretched = np.array([times[0], *grid[1:-1], times[-1]])
        return case.loss(y0, weights, times, grid=stretched, step_size=None)

    compare(of_times, [ts], [direction], found[2], h)


def compare(f: Any, xs: Any, directions: Any, found: Any, h: float = 2e-3) -> None:
    """The derivative of f at xs along the directions, made one unit long together, against the gradient found."""
    directions = [d / norm(*directions) for d in directions]
    expected, bars = central_difference(f, xs, directions, h), leaves(found)
    assert_close(inner_all(bars, directions), expected, scale=norm(*bars), tol=1e-8)
