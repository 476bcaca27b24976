"""Fused runs: the same values as the plain interpretation, whatever the sizes, and the same bits for any thread count."""

import numpy as np
import pytest
from odegrad import ops
from odegrad.engine import fusion
from odegrad.engine.fusion import Run
from oracles import EPS32, EPS64, assert_close, norm
from replaying import Replayed, joint_program
from threadpoolctl import threadpool_limits

SHAPES = [(70, 8, 8, 16), (37, 14, 13, 11), (3, 150, 150, 1), (2, 190, 190, 3), (1, 40, 41, 65), (300, 257)]


def normalised(t, y, w, gamma, b):
    """A layer's chain: an offset a position, moments over the batch, scale and shift a channel, ReLU."""
    x = y * (1.0 + np.sin(t)) + w
    mean, var = ops.moments(x)
    return ops.relu(ops.normalize(x, mean, var, 1e-5, gamma, b)) * 0.5 - np.tanh(y)


def summed(t, y, w, gamma, b):
    """Sums of both kinds that feed back, and a mask."""
    total = np.sum(y * y, axis=tuple(range(y.ndim - 1)))
    scaled = y / (1.0 + total) * gamma + t * w
    return ops.relu(scaled - b) - np.exp(-np.square(scaled))


def reusing(t, y, w, gamma, b):
    """One intermediate read by several later steps, also through views."""
    a = y * gamma + b
    rows = a.reshape(-1, a.shape[-1])
    return (rows * rows[::-1]).reshape(a.shape) + a * np.mean(a, axis=0) + w


def each_sample_normalised(t, y, w, gamma, b):
    """Sums a sample and channel, which feed back into that sample."""
    x = y * (1.0 + np.sin(t)) + w
    return ops.relu(ops.group_normalize(x, 1, 1e-5) * gamma + b) - np.tanh(y)


FUNCTIONS = {f.__name__: f for f in (normalised, summed, reusing, each_sample_normalised)}


def drawn(rng, shape, dtype=np.float64):
    """(y, ybar, params) for a state of this shape."""
    y, ybar = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    params = [rng.standard_normal(s).astype(dtype) for s in (shape[1:], shape[-1:], shape[-1:])]
    return y, ybar, params


def interpreted(replayed, t, y, ybar, params):
    """The joint program, a step at a time on fresh arrays."""
    return joint_program(replayed.recording.program).run([t, y, *params, ybar], replayed.recording.hidden)


def run_count(replayed):
    return sum(isinstance(s, Run) for group in "FSQ" for s in replayed.workspace.schedules[group])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_fused_values_are_those_of_the_interpreted_program(name, shape, rng):
    y, ybar, params = drawn(rng, shape)
    replayed = Replayed(FUNCTIONS[name], 0.4, y, params)
    replayed(1.3, ybar, y)  # other values first: nothing of them may stay
    found = replayed(0.7, y, ybar)
    assert run_count(replayed) > 0
    plain = interpreted(replayed, 0.7, y, ybar, params)
    for result, expected in zip(
        found, plain, strict=True
    ):  # an offset before a batch norm has no gradient of its own
        assert_close(result, expected, scale=norm(*plain), tol=100 * EPS64)


def test_float32_stays_and_agrees_with_float64(rng):
    y, ybar, params = drawn(rng, SHAPES[0])
    small = [x.astype(np.float32) for x in (y, ybar, *params)]
    narrow = Replayed(normalised, 0.4, small[0], small[2:])(0.7, small[0], small[1])
    for result, expected in zip(narrow, Replayed(normalised, 0.4, y, params)(0.7, y, ybar), strict=True):
        assert result.dtype == np.float32
        assert_close(result, expected, scale=norm(expected), tol=100 * EPS32)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_bits_do_not_depend_on_the_number_of_threads(name, rng):
    y, ybar, params = drawn(rng, SHAPES[1], np.float32)
    replayed = Replayed(FUNCTIONS[name], 0.4, y, params)
    by_threads = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            by_threads.append(replayed(0.7, y, ybar))
    for first, second in zip(*by_threads, strict=True):
        assert np.array_equal(first, second)


def test_a_broadcast_operand_is_read_anew_at_each_run(rng):
    shape = (70, 8, 8, 16)
    y, ybar, params = drawn(rng, shape)

    def f(t, y, w, gamma, b):
        return y * np.broadcast_to(gamma, shape) + np.broadcast_to(w, shape) * t

    replayed = Replayed(f, 0.4, y, params)
    other = [2.0 * p for p in params]
    replayed.load(other)
    expected = y * other[1] + other[0] * 0.7
    assert_close(replayed(0.7, y, ybar)[0], expected, scale=norm(expected), tol=10 * EPS64)


def test_a_step_that_needs_a_sum_waits_for_the_next_run(rng):
    y, _, params = drawn(rng, SHAPES[0])
    replayed = Replayed(normalised, 0.4, y, params)
    runs = [s for s in replayed.workspace.schedules["F"] if isinstance(s, Run)]
    for run in runs:
        sums = {s.output for s in run.steps if fusion.sum_target(replayed.joint, s) is not None}
        assert sums.isdisjoint(slot for step in run.steps for slot in step.inputs)
    assert len(runs) == 3  # up to the mean, up to the variance, the rest


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_step_is_scheduled_once_after_what_it_reads(f, rng):
    y, _, params = drawn(rng, SHAPES[0])
    replayed = Replayed(f, 0.4, y, params)
    for group in ("F", "S", "Q"):
        segments = replayed.workspace.schedules[group]
        steps = [s for part in segments for s in (part.steps if isinstance(part, Run) else (part,))]
        planned = replayed.workspace.plan.steps[group]
        assert sorted(s.output for s in steps) == sorted(s.output for s in planned)
        made_here = {s.output for s in planned}
        seen = set()
        for step in steps:
            assert made_here.intersection(step.inputs) <= seen
            seen.add(step.output)


def test_what_a_later_run_reads_is_computed_there(rng):
    """The factor of a variance's cotangent is known from the start, and so is that of another shape."""
    y, _, params = drawn(rng, (70, 8, 8, 16))

    def f(t, y, w, gamma, b):
        pooled = ops.relu(ops.normalize(y, *ops.moments(y), 1e-5, gamma, b)).reshape(70, 8, 4, 32)
        return ops.normalize(pooled, *ops.moments(pooled), 1e-5).reshape(y.shape)

    replayed = Replayed(f, 0.4, y, params)
    metas, segments = replayed.joint.metas, replayed.workspace.schedules["S"]
    factors = {
        s.output for s in replayed.plan.steps["S"] if any(metas[slot].shape == () for slot in s.inputs)
    }
    large = {slot for slot in factors if len(metas[slot].shape) > 1}
    assert len(large) == 2
    assert large <= set().union(*(s.local for s in segments if isinstance(s, Run)))


def test_results_of_a_chain_are_no_whole_arrays(rng):
    y, _, params = drawn(rng, (512, 32, 32))
    replayed = Replayed(lambda t, y, w, g, b: np.tanh(np.sin(np.exp(y * g) + b) * w), 0.4, y, params)
    run = next(s for s in replayed.workspace.schedules["F"] if isinstance(s, Run))
    assert len(run.steps) == 6
    residuals = replayed.plan.residuals
    assert {s.output for s in run.steps} - run.local <= residuals | set(replayed.joint.outputs)


def test_truth_values_beside_a_number(rng):
    y, ybar, params = drawn(rng, SHAPES[0])
    replayed = Replayed(lambda t, y, w, g, b: y * ops.logical_or(y > w, t > 0.5), 0.4, y, params)
    assert run_count(replayed) > 0
    for t in (0.2, 0.7):
        assert np.array_equal(replayed(t, y, ybar)[0], y * ((y > params[0]) | (t > 0.5)))


def test_small_arrays_are_not_fused(rng):
    y, _, params = drawn(rng, (8, 4, 4, 3))
    assert run_count(Replayed(normalised, 0.4, y, params)) == 0


def test_a_run_may_read_small_operands_alone(rng):
    y, ybar, params = drawn(rng, (70, 1, 16))
    offsets, matrix = rng.standard_normal((64, 16)), rng.standard_normal((16, 1))

    def f(t, y, w, gamma, b):
        return y * ((y + offsets) @ matrix)[:, :1] + gamma + b + w

    replayed = Replayed(f, 0.4, y, params)
    assert run_count(replayed) > 0
    found = replayed(0.7, y, ybar)
    plain = interpreted(replayed, 0.7, y, ybar, params)
    for result, expected in zip(found, plain, strict=True):
        assert_close(result, expected, scale=norm(*plain), tol=100 * EPS64)
