"""Every layer's pull-back, to weights, time and input, against complex step or central differences."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad.engine import random, vjp
from odegrad.engine.tree import leaves, leaves_with_paths, tree_map, unflatten
from odegrad.layers import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Chain,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    Identity,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    SiLU,
    Skip,
    Softplus,
    TABatchNorm,
    Tanh,
    TimeConcat,
    unet,
    uniform_nodes,
)
from oracles import EPS64, assert_close, central_difference, complex_step, inner_all, norm
from strategies import seeds

NODES = uniform_nodes(0.0, 1.0, 7)
KEY = random.key(11)


@dataclass(frozen=True)
class Case:
    """A layer, the shape of its input with the batch, whether it depends on time, and how it is judged."""

    layer: Layer
    shape: tuple[int, ...]
    timed: bool = False
    mode: str = "train"
    smooth: bool = True

    def __str__(self) -> str:
        options = [
            str(value) if not isinstance(value, bool) else f.name * value
            for f in fields(self.layer)
            if isinstance(value := getattr(self.layer, f.name), (bool, int, str)) and value != f.default
        ]
        return "-".join([type(self.layer).__name__, *filter(None, options), f"{len(self.shape)}d", self.mode])


CASES = [
    Case(Linear(3, 4), (5, 3)),
    Case(Linear(3, 4, bias=False), (5, 3)),
    Case(Linear(3, 4, with_time=True), (5, 3), timed=True),
    Case(Linear(3, 4, bias=False, with_time=True), (5, 3), timed=True),
    Case(Conv2d(2, 3), (2, 5, 4, 2)),
    Case(Conv2d(2, 3, stride=2, with_time=True), (2, 5, 4, 2), timed=True),
    Case(Conv2d(2, 1, kernel=1, padding=0, bias=False, with_time=True), (2, 3, 3, 2), timed=True),
    Case(ConvTranspose2d(3, 2, (7, 6)), (2, 4, 3, 3)),
    Case(ConvTranspose2d(3, 2, (7, 6), with_time=True), (2, 4, 3, 3), timed=True),
    *(Case(layer, (3, 4)) for layer in (Identity(), Tanh(), Sigmoid(), Softplus(), GELU(), SiLU())),
    Case(ReLU(), (3, 4), smooth=False),
    Case(Dropout(0.4), (4, 5)),
    Case(Dropout(0.4), (4, 5), mode="eval"),
    Case(MaxPool2d(2), (2, 4, 6, 2), smooth=False),
    Case(MaxPool2d(2, padding=(1, 0)), (2, 3, 4, 2), smooth=False),
    Case(AvgPool2d(3, stride=2, padding=1), (2, 5, 5, 2)),
    Case(GlobalAvgPool(), (2, 3, 4, 5)),
    Case(Flatten(), (2, 3, 2)),
    Case(TimeConcat(), (3, 4), timed=True),
    Case(TimeConcat(), (2, 3, 3, 2), timed=True),
    Case(GroupNorm(6, 3), (3, 2, 2, 6)),
    Case(GroupNorm(4), (3, 4)),
    Case(BatchNorm(3), (6, 3)),
    Case(BatchNorm(3), (6, 3), mode="eval"),
    Case(BatchNorm(3, "minibatch"), (2, 3, 3, 3), mode="eval"),
    Case(TABatchNorm(3, NODES), (6, 3), timed=True),
    Case(TABatchNorm(3, NODES), (2, 3, 3, 3), timed=True),
    Case(TABatchNorm(3, NODES, normalize="population"), (6, 3), timed=True),
    Case(TABatchNorm(3, NODES), (6, 3), timed=True, mode="eval"),
    Case(TABatchNorm(3, NODES, unvisited="initial"), (6, 3), timed=True, mode="eval"),
    Case(
        Chain([Linear(3, 5, with_time=True), TABatchNorm(5, NODES), Tanh(), Linear(5, 3)]), (4, 3), timed=True
    ),
    Case(Skip(Chain([Linear(3, 2), Tanh()])), (4, 3)),
    Case(unet((6, 6, 1), lambda n: GroupNorm(n), widths=(2, 3)), (2, 6, 6, 1), timed=True),
]


class Problem:
    """A case with drawn weights, statistics, time, input, directions and cotangent, all float64."""

    def __init__(self, case: Case, seed: int, t: float) -> None:
        rng = np.random.default_rng(seed)
        self.case = case
        self.weights = tree_map(
            lambda w: w + 0.3 * rng.standard_normal(w.shape), case.layer.init(random.key(seed), np.float64)
        )
        fresh = leaves_with_paths(case.layer.init_stats(np.float64))
        self.stats = unflatten(
            case.layer.init_stats(np.float64),
            [
                np.full(s.shape, 0.25)
                if path[-1:] == ("initial_share",)
                else np.abs(s + rng.uniform(0.3, 1.9, s.shape))
                for path, s in fresh
            ],
        )
        self.t = t
        n = int(np.prod(case.shape))
        spread = (rng.permutation(n) + rng.uniform(0.3, 0.7, n)) / n  # distinct: no ties under a maximum
        self.x = (4.0 * spread - 2.03).reshape(case.shape)
        self.directions = [rng.standard_normal(np.shape(leaf)) for leaf in self.arguments()]
        self.ybar = rng.standard_normal(np.shape(self.apply(*self.arguments())))

    def arguments(self) -> list[Any]:
        return [*leaves(self.weights), self.t, self.x]

    def apply(self, *arguments: Any) -> Any:
        *weights, t, x = arguments
        t = t.item() if isinstance(t, np.ndarray) else t
        y, _ = self.case.layer.apply(
            unflatten(self.weights, weights), self.stats, t, x, mode=self.case.mode, key=KEY
        )
        return y

    def keep(self, part: str) -> None:
        """Only the directions of one part: weights, time or input."""
        n = len(self.directions)
        chosen = {"weights": range(n - 2), "t": [n - 2], "x": [n - 1]}[part]
        self.directions = [d if k in chosen else 0.0 * d for k, d in enumerate(self.directions)]


def compare(problem: Problem, tol: float) -> None:
    """<ybar, dy> of the oracle against <pulled back ybar, directions>."""
    arguments = problem.arguments()
    oracle = complex_step if problem.case.smooth else central_difference
    step = {} if problem.case.smooth else {"h": 1e-4}
    ydot = oracle(problem.apply, arguments, problem.directions, **step)
    _, pull_back = vjp(problem.apply, *arguments)
    bars = pull_back(problem.ybar)
    scale = norm(problem.ybar) * max(norm(ydot), 1e-300) + norm(*map(np.asarray, bars)) * norm(
        *problem.directions
    )
    assert_close(inner_all([problem.ybar], [ydot]), inner_all(bars, problem.directions), scale=scale, tol=tol)


def parts(case: Case) -> list[str]:
    has_weights = bool(leaves(case.layer.init(random.key(0))))
    return ["x"] + ["weights"] * has_weights + ["t"] * case.timed


@pytest.mark.parametrize(
    ("case", "part"), [(case, part) for case in CASES for part in parts(case)], ids=lambda value: str(value)
)
@given(seed=seeds, t=st.one_of(st.floats(0.0, 0.99), st.sampled_from(NODES[:-1])))
def test_pull_back_agrees_with_the_oracle(case, part, seed, t):
    problem = Problem(case, seed, t)
    problem.keep(part)
    compare(problem, 1e-12 if case.smooth else 1e-7)


@pytest.mark.parametrize("case", [case for case in CASES if case.timed], ids=str)
def test_time_reaches_the_output(case):
    """Otherwise the comparison of derivatives in t would compare zeros."""
    problem = Problem(case, 5, 0.4)
    later = Problem(case, 5, 0.45)
    assert norm(problem.apply(*problem.arguments()) - later.apply(*later.arguments())) > 1e-3


def test_the_comparison_sees_a_relative_error_of_1e_10():
    problem = Problem(Case(TABatchNorm(3, NODES), (6, 3), timed=True), 1, 0.4)
    right = problem.apply

    def off(*arguments: Any) -> Any:
        is_oracle = isinstance(arguments[-1], np.ndarray) and np.iscomplexobj(arguments[-1])
        return right(*arguments) * (1.0 + 1e-10 * is_oracle)

    problem.apply = off
    with pytest.raises(AssertionError):
        compare(problem, 1e-12)


def test_eps_is_that_of_doubles():
    assert 1e-12 > 100 * EPS64
