"""Joins whose parts are computed in place: the same numbers, and no copies where there need be none."""

import numpy as np
import pytest
from odegrad.engine.joins import parts_in_place
from odegrad.engine.ops.joins import join_calls
from odegrad.engine.partition import partition
from odegrad.engine.program import optimise, record
from odegrad.engine.replay import StageSet, Workspace
from oracles import EPS64
from replaying import Replayed

Y = np.random.default_rng(3).standard_normal((3, 4))


def lorenz(y):
    a, b, c = y[0], y[1], y[2]
    return np.stack([10.0 * (b - a), a * (28.0 - c) - b, a * b - 8.0 / 3.0 * c])


def one_part_twice(y):
    z = np.sin(y[0])
    return np.stack([z, z + 1.0, z])


def parts_of_the_input(y):
    return np.concatenate([y[1:], 2.0 * y[:1]])


def part_read_again(y):
    z = np.exp(y[:1])
    return np.concatenate([z, z * y[1:]])


def turned(y):
    return np.concatenate([np.sin(y[:, :3]).T, y[:1, :3]])


def along_columns(y):
    return np.concatenate([np.sin(y[:, :2]), np.cos(y[:, 2:])], axis=1)


def join_of_joins(y):
    inner = np.stack([np.sin(y[0]), np.cos(y[1])])
    return np.concatenate([inner, np.tanh(y[2:])])


def scalars(y):
    return np.stack([y[0, 0] * 2.0, y[1, 1] - y[0, 0]])


ALL = [
    lorenz,
    one_part_twice,
    parts_of_the_input,
    part_read_again,
    turned,
    along_columns,
    join_of_joins,
    scalars,
]


def plan_of(f):
    """The plan, and the numbers that f captured."""
    recording = record(f, [Y], ["y"])
    program = optimise(recording.program)
    plan = partition(program, {"F": program.outputs}, {"F": program.inputs}, time=-1)
    return plan, dict(zip(program.hidden, recording.hidden, strict=True))


@pytest.mark.parametrize("f", ALL, ids=lambda f: f.__name__)
def test_replay_gives_the_bits_of_numpy(f):
    plan, captured = plan_of(f)
    y, result = np.full_like(Y, np.nan), np.full(f(Y).shape, np.nan)
    inputs, targets = {plan.program.inputs[0]: y}, {"F": [(plan.program.outputs[0], result)]}
    workspace = Workspace(plan)
    run = StageSet(workspace, inputs, targets).run["F"]
    workspace.load(captured)
    for k in range(2):  # the second time over the results of the first
        y[...] = Y + k
        run(0.0)
        np.testing.assert_array_equal(result, f(Y + k))


@pytest.mark.parametrize(
    ("f", "n"),
    [
        (lorenz, 3),
        (one_part_twice, 2),
        (parts_of_the_input, 1),
        (part_read_again, 2),
        (turned, 0),
        (along_columns, 0),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_number_of_parts_in_place(f, n):
    plan, _ = plan_of(f)
    assert len(parts_in_place(plan, "F", {plan.program.outputs[0]: np.empty(f(Y).shape)})) == n


def test_only_what_is_not_in_place_is_copied():
    out, other = np.zeros((3, 4)), np.ones((1, 4))
    ((function, (target, source), _),) = join_calls(out, (out[:1], other, out[2:]), 0)
    assert function is np.copyto
    assert source is other
    assert np.shares_memory(target, out[1])


def test_nothing_in_place_is_one_call():
    out = np.zeros((2, 4))
    assert [call[0] for call in join_calls(out, (np.ones((1, 4)), np.ones((1, 4))), 0)] == [np.concatenate]


def test_what_the_pull_back_reads_has_a_place_of_its_own():
    def f(t, y):
        return np.stack([np.exp(y[0]), np.tanh(y[1]), y[2]])

    replayed = Replayed(f, 0.0, Y, [])
    replayed.y[...], replayed.ybar[...] = Y, 1.0
    replayed.set.run["F"](0.0)
    replayed.slope[...] = np.nan
    replayed.set.run["S"](0.0)
    expected = np.stack([np.exp(Y[0]), 1.0 - np.tanh(Y[1]) ** 2, np.ones(4)])
    np.testing.assert_allclose(replayed.state_bar, expected, rtol=4 * EPS64)
