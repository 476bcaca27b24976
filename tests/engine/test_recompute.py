"""Residuals that are computed anew: the values of the program stay, and less is kept."""

import math
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from drawn_cases import conv_cases, perceptron_cases
from hypothesis import given
from hypothesis import strategies as st
from odegrad import odeint, ops, value_and_grad
from odegrad.engine import fusion, recompute
from odegrad.engine.tree import leaves, unflatten
from odegrad.solvers import compiled
from oracles import EPS64, assert_close, norm
from replaying import Replayed, joint_program
from strategies import seeds

SHAPE = (6, 5, 4)


@contextmanager
def everywhere(most_steps=recompute.MOST_STEPS):
    """Within it arrays of any size count as large, also for fused runs, and recipes may have so many steps."""
    few_bytes = 0 if most_steps > 1 else 1 << 60
    limits = {"LARGE": 8, "FEW_BYTES": few_bytes, "MOST_STEPS": most_steps}
    with patch.multiple(recompute, **limits), patch.object(fusion, "LARGE", 8):
        yield


def drawn(rng, shape=SHAPE):
    """(y, ybar, [gamma, beta]), gamma and beta (channels,)."""
    return *(rng.standard_normal(shape) for _ in range(2)), list(rng.standard_normal((2, shape[-1])))


def replayed_with(f, rng, most_steps=recompute.MOST_STEPS):
    """(f as it is replayed, y, ybar, params)."""
    y, ybar, params = drawn(rng)
    with everywhere(most_steps):
        return Replayed(f, 0.4, y, params), y, ybar, params


def check(replayed, y, ybar, params, tol=200 * EPS64):
    """Replay twice, the second time with other values in all buffers, and compare with the interpreted program."""
    replayed(1.3, ybar, y)
    plain = joint_program(replayed.recording.program).run([0.7, y, *params, ybar], replayed.recording.hidden)
    for found, expected in zip(replayed(0.7, y, ybar), plain, strict=True):
        assert_close(found, expected, scale=norm(*plain), tol=tol)


def kept_by(replayed):
    """Operations of the slope whose large results are residuals, as replay has them."""
    plan = replayed.workspace.plan
    made, metas = {step.output: step.op.name for step in plan.steps["F"]}, plan.program.metas
    large = [slot for slot in plan.residuals if math.prod(metas[slot].shape) == math.prod(SHAPE)]
    return sorted(made.get(slot, "given") for slot in large if plan.home[slot] == "F")


def affine(t, y, gamma, beta):
    """A norm over the batch, an affine map, a ReLU, and a product that reads the result once more."""
    mean, var = ops.moments(y)
    x = ops.relu((y - mean) * (1.0 / np.sqrt(var + 0.1)) * gamma + beta * t)
    return x * np.tanh(x)


@pytest.mark.parametrize("most_steps", [1, 2, 6])
def test_a_norm_has_the_values_of_the_interpreted_program(most_steps, rng):
    check(*replayed_with(affine, rng, most_steps))


def test_of_a_norm_with_affine_map_and_relu_one_array_is_kept(rng):
    """x - mean; and what follows from the ReLU by a costly step."""
    replayed, *_ = replayed_with(affine, rng)
    assert kept_by(replayed) == ["sub", "tanh"]


def test_where_memory_suffices_only_single_steps_are_repeated(rng):
    replayed, *_ = replayed_with(affine, rng, most_steps=1)
    assert kept_by(replayed) == ["relu", "sub", "tanh"]


def test_without_it_all_of_them_are_kept(rng):
    y, _, params = drawn(rng)
    assert kept_by(Replayed(affine, 0.4, y, params)) == ["mul", "relu", "sub", "tanh"]


def test_small_arrays_of_time_are_kept_instead(rng):
    """The offset beta t of the affine map, which the pull-back alone would not need."""
    y, _, params = drawn(rng)
    before = Replayed(affine, 0.4, y, params).workspace.plan
    after = replayed_with(affine, rng)[0].workspace.plan
    offsets = [
        step.output for step in after.steps["F"] if step.op.name == "mul" and 0 in step.inputs
    ]  # slot 0 is the time
    assert set(offsets) & after.residuals and not set(offsets) & before.residuals


@pytest.mark.parametrize(
    "f, kept",
    [
        (lambda t, y, a, b: np.square(np.exp(y)) * (y * a), ["exp", "given"]),
        (lambda t, y, a, b: np.tanh(y * a) * (y + b), ["given", "tanh"]),
        (lambda t, y, a, b: np.sin(np.tanh(y) * a), ["tanh"]),
        (lambda t, y, a, b: np.sin((y * a).reshape(-1, 2)).reshape(y.shape), ["given", "mul"]),
        (lambda t, y, a, b: ops.relu(y * a), ["given", "relu"]),
        (lambda t, y, a, b: np.sin(y * a + np.sum(y * y)), ["given"]),
    ],
    ids=["product", "sum", "argument", "seen through a view", "result of the slope", "small sum"],
)
def test_what_follows_from_the_rest_is_not_kept(f, kept, rng):
    replayed, y, ybar, params = replayed_with(f, rng)
    assert kept_by(replayed) == kept
    check(replayed, y, ybar, params)


def test_more_steps_than_allowed_are_not_repeated(rng):
    def f(t, y, a, b):
        return np.sin(((y * a + b) * a + b) * a)

    for most, kept in ((5, ["given"]), (4, ["given", "mul"])):
        replayed, y, ybar, params = replayed_with(f, rng, most)
        assert kept_by(replayed) == kept
        check(replayed, y, ybar, params)


def test_what_a_recipe_reads_stays(rng):
    """A chain of residuals: the second follows from the first, and the third from the second, which is not there."""

    def f(t, y, a, b):
        first = np.tanh(y)
        second = first * a
        third = second + b
        return np.sin(first) + np.sin(second) + np.sin(third) * third

    replayed, y, ybar, params = replayed_with(f, rng)
    assert kept_by(replayed) == ["sin", "tanh"]
    check(replayed, y, ybar, params)


def test_the_slope_stays_as_it_is(rng):
    replayed, *_ = replayed_with(affine, rng)
    assert replayed.workspace.plan.steps["F"] == replayed.plan.steps["F"]


@pytest.mark.parametrize(
    "f, op, copies",
    [
        (lambda t, y, a, b: np.arctan(y * a) + ops.softplus(y * a), "mul", 2),
        (lambda t, y, a, b: np.arctan(y * a + b) + ops.softplus(y * a + b), "add", 1),
    ],
    ids=["one step", "several steps"],
)
def test_one_step_is_repeated_for_each_reader_and_several_are_made_once(f, op, copies, rng):
    """Functions whose pull-backs read their argument."""
    replayed, y, ybar, params = replayed_with(f, rng)
    before, after = replayed.plan, replayed.workspace.plan
    new = [step for step in after.steps["S"] if step.output >= len(before.program.metas)]
    assert sum(step.op.name == op for step in new) == copies
    check(replayed, y, ybar, params)


def test_the_groups_of_one_program_each_have_their_own_copies(rng):
    """S and Q read the same residuals at different moments."""
    replayed, y, ybar, params = replayed_with(affine, rng)
    plan = replayed.workspace.plan
    made = [step.output for group in plan.order for step in plan.steps[group]]
    assert len(made) == len(set(made))
    for group in plan.order[1:]:
        for step in plan.steps[group]:
            there = [s for s in step.inputs if s not in plan.weak and plan.home[plan.root[s]] != group]
            roots = {plan.root[slot] for slot in there}
            assert all(root in plan.residuals or plan.home[root] == "prologue" for root in roots)


PIECES = {  # x (B, 5, 4), a and b (4,) -> (B, 5, 4)
    "affine": lambda x, a, b, t: x * a + b * t,
    "relu": lambda x, a, b, t: ops.relu(x - b),
    "tanh": lambda x, a, b, t: np.tanh(x),
    "square": lambda x, a, b, t: x * x * 0.3 - x,
    "quotient": lambda x, a, b, t: x / (1.0 + np.square(a)),
    "batch norm": lambda x, a, b, t: ops.normalize(x, *ops.moments(x), 0.5, a, b),
    "group norm": lambda x, a, b, t: ops.group_normalize(x, 2, 0.5),
    "gate": lambda x, a, b, t: x * ops.sigmoid(x),
    "reshaped": lambda x, a, b, t: (x.reshape(-1, 2) * a[:2]).reshape(x.shape),
    "product": lambda x, a, b, t: x @ (np.ones((4, 4)) * a),
    "larger": lambda x, a, b, t: np.maximum(x, b) - np.minimum(x, a),
    "mixed rows": lambda x, a, b, t: x + np.sin(x)[::-1],
}


@given(
    names=st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=7),
    most_steps=st.integers(1, 6),
    seed=seeds,
)
def test_drawn_programs_have_the_values_of_the_interpreted_one(names, most_steps, seed):
    """The pieces behind each other, with a shortcut from the first."""

    def f(t, y, a, b):
        x = first = PIECES[names[0]](y, a, b, t)
        for name in names[1:]:
            x = PIECES[name](x, a, b, t)
        return x * first

    check(*replayed_with(f, np.random.default_rng(seed), most_steps), tol=2000 * EPS64)


@given(
    case=st.one_of(perceptron_cases(("array",)), conv_cases("train", "batch"), conv_cases("eval", "batch")),
    most_steps=st.integers(1, 6),
)
def test_drawn_networks_have_the_values_of_the_interpreted_program(case, most_steps):
    y, weights, _ = case.arguments()
    stats = case.cast(case.network.stats())

    def f(t, y, *params):
        return case.network.slope(t, y, unflatten(weights, params), stats)[0]

    ybar = np.random.default_rng(case.seed + 1).standard_normal(y.shape).astype(y.dtype)
    with everywhere(most_steps):
        replayed = Replayed(f, 0.4, y, leaves(weights))
    check(replayed, y, ybar, leaves(weights), tol=4500 * np.finfo(y.dtype).eps)


def test_small_programs_are_left_as_they_are(rng):
    y, _, params = drawn(rng)
    plan = Replayed(affine, 0.4, y, params).plan
    assert recompute.recomputing(plan) is plan


@pytest.mark.parametrize("gradient", ["discrete", "backsolve", "interpolated"])
def test_the_gradient_of_a_solve_is_that_without_it(gradient, rng):
    y, _, params = drawn(rng)

    def loss(y, params):
        def f(t, y, params):
            return affine(t, y, *params)

        return ops.sum(odeint(f, y, np.array([0.0, 0.3]), params, gradient=gradient, rtol=1e-6).ys ** 2)

    found = []
    for context in (everywhere(), patch.object(recompute, "LARGE", 1 << 60)):
        compiled.pool.drop(lambda key: True)
        with context:
            found.append(leaves(value_and_grad(loss, argnums=(0, 1))(y, params)[1]))
    compiled.pool.drop(lambda key: True)
    for first, second in zip(*found, strict=True):
        assert_close(first, second, scale=norm(*found[1]), tol=1000 * EPS64)


def test_fewer_bytes_are_saved_for_the_pull_back(rng):
    y, _, params = drawn(rng)

    def saved():
        compiled.pool.drop(lambda key: True)
        seen = []

        def loss(params):
            solution = odeint(lambda t, y, p: affine(t, y, *p), y, np.array([0.0, 0.3]), params)
            seen.append(solution.stats)
            return ops.sum(solution.ys)

        value_and_grad(loss)(params)
        return seen[0].peak_saved_bytes

    plain = saved()
    with everywhere():
        less = saved()
    compiled.pool.drop(lambda key: True)
    assert less < 0.75 * plain
