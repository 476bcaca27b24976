"""Replay in reused buffers: the same numbers as interpretation and as eager NumPy, with nothing frozen or created."""

import gc
import sys
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad.engine import ops, replay, vjp
from odegrad.engine.partition import PROLOGUE, partition
from odegrad.engine.program import record
from odegrad.engine.replay import StageSet, Workspace
from oracles import EPS32, EPS64, assert_close, norm
from replaying import Replayed
from strategies import seeds

RNG = np.random.default_rng(8)
DIAGONAL = RNG.standard_normal(3)
COLUMNS = np.array([2, 0, 0])
LABELS = np.array([1, 0, 2, 1])


def mlp(t, y, w1, b1, w2):
    return np.tanh(y @ w1 + b1) @ w2 * np.cos(t)


def gru(t, h, w, u, b):
    z = ops.sigmoid(h @ w + b)
    r = ops.sigmoid(h @ u + t * b)
    return (1.0 - z) * (np.tanh((r * h) @ w) - h)


def residual(t, y, w, g):
    x = y.reshape(2, 4, 2, 3)
    mean, var = ops.moments(x)
    x = ops.relu(ops.normalize(x, mean, var, 1e-5, g, t))
    return (ops.conv2d(x, w, padding=1) + x).reshape(y.shape)


def pooled(t, y, w):
    x = ops.conv2d(y.reshape(2, 4, 2, 3), w, padding=1)
    big = ops.max_pool(x, 2) + ops.avg_pool(x, 2)
    return ops.conv_transpose2d(big, w[:2, :2], size=(4, 2), stride=2).reshape(y.shape)


def tabn(t, y, gamma):
    at_t = ops.hat_weights(t, np.linspace(0.0, 1.0, 5), dtype=y.dtype.name)
    return y * (at_t @ gamma)


def attention(t, y, q):
    x = y.reshape(4, 2, 6)
    scores = ops.softmax(np.einsum("bid,de,bje->bij", x, q, x))
    return np.einsum("bij,bjd->bid", scores, x).reshape(y.shape)


# name: (f, shape of y, shapes of the parameters)
NETWORKS = {
    "mlp": (mlp, (16, 3), [(3, 5), (5,), (5, 3)]),
    "gru": (gru, (16, 3), [(3, 3), (3, 3), (3,)]),
    "residual": (residual, (16, 3), [(3, 3, 3, 3), (3,)]),
    "pooled": (pooled, (16, 3), [(3, 3, 3, 3)]),
    "tabn": (tabn, (16, 3), [(5, 3)]),
    "attention": (attention, (16, 3), [(6, 6)]),
}

# what users write in dynamics: f(t, y, w) with w (3, 3)
EXPRESSIONS = {
    "identity": lambda t, y, w: y,
    "constant": lambda t, y, w: np.ones((4, 3)),
    "parameter": lambda t, y, w: w[0] * np.ones((4, 3)),
    "time": lambda t, y, w: t * np.ones((4, 3)),
    "zero": lambda t, y, w: 0.0 * y,
    "powers": lambda t, y, w: y**2 + y**3 - y**4 + (y * y + 1) ** -2 + (y * y + 1) ** 0.5 + 2**y,
    "division": lambda t, y, w: y / 3 + 1 / (2 + y * y) + y / (1 + np.exp(-y)),
    "time arithmetic": lambda t, y, w: y * (1 - t) / (1 + t**2) + np.exp(-t) * np.sin(3 * t) - t,
    "time where": lambda t, y, w: y * ops.where(t > 0.25, 1.0, t),
    "time and parameter": lambda t, y, w: y @ (w * t) + np.tanh(t * w[0]),
    "captured array": lambda t, y, w: y * DIAGONAL + DIAGONAL**2,
    "transpose": lambda t, y, w: (w @ y.T).T,
    "transposed weights": lambda t, y, w: y @ w.T,
    "rows and columns": lambda t, y, w: np.stack([y[..., 1], y[..., 0] - y[..., 2], y[:, 1] * t], axis=-1),
    "full index": lambda t, y, w: y * y[0, 0] + y[-1, -2],
    "reversed": lambda t, y, w: y[::-1, ::-1] * y,
    "new axes": lambda t, y, w: (y[:, :, None] * w[None]).sum(axis=1),
    "reshape of a transpose": lambda t, y, w: y.T.reshape(4, 3) * y,
    "reshape of a slice": lambda t, y, w: y[:, ::2].reshape(-1)[:4, None] * y,
    "broadcast": lambda t, y, w: np.broadcast_to(y[0], (4, 3)) - y,
    "view of a view": lambda t, y, w: y[1:][::-1].T[:, 1][None] + y,
    "concatenate with a constant": lambda t, y, w: np.concatenate([y[:, :2], np.ones((4, 1))], axis=1) @ w,
    "concatenate time": lambda t, y, w: np.concatenate([y, t * np.ones((4, 1))], axis=1)[:, 1:] @ w,
    "pad": lambda t, y, w: np.pad(y, ((0, 0), (1, 1)))[:, 2:] - np.pad(y, 1)[1:-1, :-2],
    "take": lambda t, y, w: np.take(y, COLUMNS, axis=1) + y[:, [0, 1, 1]],
    "take from one": lambda t, y, w: np.take(y[:, 2:], np.array([0, 0, 0]), axis=1) * y,
    "where": lambda t, y, w: np.where(y > 0, y, 0.1 * y) + np.where(y > t, 1.0, 0.0),
    "sign as integers": lambda t, y, w: y * ((y > 0) * 2 - 1),
    "masks": lambda t, y, w: y * ((y > 0) & (y < 1) | ~(y > -1)),
    "clip": lambda t, y, w: np.clip(y, -0.5, 0.5) + np.maximum(y, 0.1) - np.minimum(y, w[0]),
    "abs": lambda t, y, w: abs(y) + np.sign(y),
    "means": lambda t, y, w: y - np.mean(y, axis=0) + y.mean(axis=-1, keepdims=True) + np.var(y),
    "extrema": lambda t, y, w: y * np.max(y) - np.min(y, axis=1, keepdims=True),
    "scalar functions": lambda t, y, w: (
        y * np.tanh(np.sum(y)) + np.sqrt(np.sum(y * y)) + np.exp(-y[0] @ y[1])
    ),
    "norm": lambda t, y, w: y / np.linalg.norm(y, axis=-1, keepdims=True),
    "cumsum": lambda t, y, w: np.cumsum(y, axis=1) - y.cumsum(axis=0),
    "softmax": lambda t, y, w: ops.softmax(y @ w) - y,
    "cross entropy": lambda t, y, w: y * ops.softmax_cross_entropy(y @ w, LABELS),
    "one class": lambda t, y, w: y * ops.softmax_cross_entropy(y[:, :1], np.zeros(4, int)),
    "batched products": lambda t, y, w: (y[:, None, :] @ np.stack([w, w.T, w, w]))[:, 0],
    "einsum": lambda t, y, w: np.einsum("bi,ij,bj->bi", y, w, y),
    "outer": lambda t, y, w: np.outer(y[:, 0], w[0]),
    "casts": lambda t, y, w: y.astype(np.float32).astype(y.dtype) + y * y.astype(int),
    "stop gradient": lambda t, y, w: y * ops.stop_gradient(y),
    "list": lambda t, y, w: y + [1.0, 2.0, 3.0],
    "dropout": lambda t, y, w: ops.dropout(y, np.array([1, 2], np.uint32), 0.5),
    "unused parameter": lambda t, y, w: np.sin(y),
}
for name, function in EXPRESSIONS.items():
    NETWORKS[name] = (function, (4, 3), [(3, 3)])


def draw(rng, shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype)


def eager(f, t, y, params, ybar):
    """[slope, state cotangent, *parameter cotangents] by one traced call on arrays."""

    def reaching(y, *params):  # a function that depends on nothing has the derivative zero
        return f(t, y, *params) + 0.0 * y, 0.0

    slope, pull_back, _ = vjp(reaching, y, *params, has_aux=True)
    return [slope, *pull_back(ybar)]


def case(name, dtype=np.float64):
    f, shape, shapes = NETWORKS[name]
    params = [draw(RNG, s, dtype) for s in shapes]
    return f, shape, params


@pytest.mark.parametrize("name", NETWORKS)
def test_replay_equals_interpretation_and_eager(name):
    f, shape, params = case(name)
    replayed = Replayed(f, 0.1, draw(RNG, shape), params)
    for t in (0.1, 0.4):  # the second time with other values in the same buffers
        y, ybar = draw(RNG, shape), draw(RNG, shape)
        found = replayed(t, y, ybar)
        interpreted = replayed.joint.run([t, y, *params, ybar], replayed.recording.hidden)
        expected = eager(f, t, y, params, ybar)
        for result, by_steps, by_tape in zip(found, interpreted, expected, strict=True):
            scale = norm(by_tape) + norm(ybar) + norm(y)
            assert_close(result, by_steps, scale=scale, tol=32 * EPS64)
            assert_close(result, by_tape, scale=scale, tol=32 * EPS64)


# float64 arrays of the user's own, and NumPy's promotion of float32 with integer arrays or where(mask, 1.0, 0.0)
WIDENED = {
    "constant",
    "parameter",
    "time",
    "concatenate with a constant",
    "concatenate time",
    "captured array",
}
WIDENED |= {"list", "where", "sign as integers", "casts"}


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - WIDENED))
def test_float32_replay_agrees_with_float64(name):
    f, shape, params = case(name, np.float32)
    y, ybar = draw(RNG, shape, np.float32), draw(RNG, shape, np.float32)
    replayed = Replayed(f, 0.1, y, params)
    found = replayed(0.1, y, ybar)
    assert {result.dtype.name for result in found} == {"float32"}
    if name == "dropout":
        return  # the mask is drawn in the dtype
    wide = eager(f, 0.1, y.astype(float), [p.astype(float) for p in params], ybar.astype(float))
    for result, expected in zip(found, wide, strict=True):
        assert_close(result, expected, scale=norm(expected) + norm(ybar) + norm(y), tol=64 * EPS32)


@pytest.mark.parametrize("name", ["mlp", "gru", "powers", "time arithmetic", "transpose", "full index"])
def test_complex_replay_equals_eager(name):
    f, shape, shapes = NETWORKS[name]
    y, ybar, *params = (draw(RNG, s) + 0.1j * draw(RNG, s) for s in (shape, shape, *shapes))
    found = Replayed(f, 0.1, y, params)(0.3, y, ybar)
    for result, expected in zip(found, eager(f, 0.3, y, params, ybar), strict=True):
        assert_close(result, expected, scale=norm(expected) + norm(ybar), tol=64 * EPS64)


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("f", [mlp, gru, lambda t, y, *p: y[..., ::-1] * t], ids=["mlp", "gru", "view"])
def test_empty_and_single_batches(f, batch):
    shapes = {mlp: [(3, 5), (5,), (5, 3)], gru: [(3, 3), (3, 3), (3,)]}.get(f, [(3, 3)])
    y, ybar, *params = (draw(RNG, s) for s in ((batch, 3), (batch, 3), *shapes))
    found = Replayed(f, 0.1, y, params)(0.3, y, ybar)
    for result, expected in zip(found, eager(f, 0.3, y, params, ybar), strict=True):
        assert_close(result, expected, scale=1.0 + norm(expected), tol=64 * EPS64)


def test_state_without_axes():
    y = np.array(0.3)
    slope, state_bar = Replayed(lambda t, y: np.sin(y) * t, 0.1, y, [])(2.0, y, np.array(1.0))
    assert_close([slope, state_bar], [2 * np.sin(0.3), 2 * np.cos(0.3)], scale=1.0, tol=4 * EPS64)


# --- random programs ------------------------------------------------------------------------------------------------

UNARY = [
    np.tanh,
    np.sin,
    lambda x: x.T,
    lambda x: x[::-1],
    lambda x: x[:, 1][:, None] * np.ones((1, 3)),
    lambda x: x.reshape(9)[::-1].reshape(3, 3),
    lambda x: x.T.reshape(3, 3),
    lambda x: x - x.mean(axis=0),
    ops.sigmoid,
    ops.relu,
    lambda x: np.broadcast_to(x[0], (3, 3)),
    lambda x: np.concatenate([x[1:], x[:1]]),
    lambda x: x**2 * 0.1,
]
BINARY = [
    np.add,
    np.subtract,
    lambda a, b: 0.3 * a * b,
    lambda a, b: 0.3 * a @ b,
    lambda a, b: np.where(a > b, a, -b),
]


@given(
    choices=st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12
    ),
    seed=seeds,
)
def test_random_program_replays_like_eager(choices, seed):
    """Each step combines earlier values, so that views, residuals and reuse of buffers meet in many orders."""

    def f(t, y, w):
        values = [y, w, y * t]
        for kind, first, second in choices:
            a, b = values[-1 - first % min(3, len(values))], values[second % len(values)]
            values.append(UNARY[kind % len(UNARY)](a) if kind % 2 else BINARY[kind % len(BINARY)](a, b))
        return values[-1] + 0.0 * y

    rng = np.random.default_rng(seed)
    y, w = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    replayed = Replayed(f, 0.5, y, [w])
    for t in (0.5, 0.9):
        y, ybar = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
        for result, expected in zip(replayed(t, y, ybar), eager(f, t, y, [w], ybar), strict=True):
            assert_close(result, expected, scale=1.0 + norm(expected), tol=1e-12)


# --- several results ------------------------------------------------------------------------------------------------


def replay_results(f, y):
    """The results of f(t, y), a tuple, replayed as one group."""
    program = record(f, [0.0, y], "ty").program
    slots = program.outputs
    plan = partition(program, {"F": slots}, {"F": [program.inputs[1]]}, time=program.inputs[0])
    workspace = Workspace(plan)
    workspace.load({})
    targets = [np.full(program.metas[slot].shape, np.nan) for slot in slots]
    buffer = np.zeros_like(y)
    stage = StageSet(workspace, {program.inputs[1]: buffer}, {"F": [*zip(slots, targets, strict=True)]})
    buffer[...] = y
    stage.run["F"](0.0)
    return targets


def twice(t, y):
    slope = np.sin(y)
    return slope, slope


def view_then_chain(t, y):
    """The first result views a scratch buffer, which the steps after it must not be given."""
    return np.sin(y)[::-1], np.cos(np.exp(np.tanh(y)))


def result_and_its_view(t, y):
    slope = np.sin(y)
    return slope, slope[::-1], np.cos(np.exp(y))


@pytest.mark.parametrize(
    "f", [twice, view_then_chain, result_and_its_view, lambda t, y: (y, np.sin(y), y[::-1])]
)
def test_every_result_reaches_its_target(f):
    y = draw(RNG, (5,))
    for found, expected in zip(replay_results(f, y), f(0.0, y), strict=True):
        assert_close(found, expected, scale=1.0, tol=4 * EPS64)


# --- what is reloaded -----------------------------------------------------------------------------------------------


def test_parameters_are_reloaded():
    f, shape, params = case("mlp")
    y, ybar = draw(RNG, shape), draw(RNG, shape)
    replayed = Replayed(f, 0.1, y, params)
    changed = [2.0 * p for p in params]
    replayed.load(changed)
    for result, expected in zip(replayed(0.3, y, ybar), eager(f, 0.3, y, changed, ybar), strict=True):
        assert_close(result, expected, scale=norm(expected), tol=32 * EPS64)


def test_parameters_are_copied_at_loading():
    params = [np.ones((3, 3))]
    replayed = Replayed(lambda t, y, w: y @ w, 0.0, np.ones((1, 3)), params)
    params[0][...] = 7.0
    assert replayed(0.0, np.ones((1, 3)), np.ones((1, 3)))[0].tolist() == [[3.0] * 3]


def test_captured_array_is_reloaded():
    captured = np.array([1.0, 2.0, 3.0])
    replayed = Replayed(lambda t, y: y * captured, 0.0, np.ones((1, 3)), [])
    replayed.load([], [np.array([5.0, 6.0, 7.0])])
    assert replayed(0.0, np.ones((1, 3)), np.ones((1, 3)))[0].tolist() == [[5.0, 6.0, 7.0]]


@pytest.mark.parametrize(
    "f", [lambda t, y: y * number, lambda t, y: y * (number + t) / 2, lambda t, y: y * number**2]
)
def test_captured_number_is_reloaded(f):
    global number
    number = 3.0
    replayed = Replayed(f, 0.0, np.ones(2), [])
    number = 5.0
    replayed.load([], Replayed.record(f, 0.0, np.ones(2), []).hidden)
    assert replayed(4.0, np.ones(2), np.ones(2))[0].tolist() == f(4.0, np.ones(2)).tolist()


def test_time_is_given_anew_to_each_group():
    replayed = Replayed(lambda t, y: y * t, 0.0, np.ones(2), [])
    replayed.y[...], replayed.ybar[...] = 1.0, 1.0
    replayed.set.run["F"](2.0)
    replayed.set.run["S"](3.0)
    assert (replayed.slope.tolist(), replayed.state_bar.tolist()) == ([2.0, 2.0], [3.0, 3.0])


def test_two_stages_keep_their_own_residuals():
    f, shape, params = case("mlp")
    first = Replayed(f, 0.1, draw(RNG, shape), params)
    y, ybar = draw(RNG, shape), draw(RNG, shape)
    second_set = first.stage_set()  # the same inputs and targets, residuals of its own
    first.y[...], first.ybar[...] = y, ybar
    first.set.run["F"](0.3)
    first.y[...] = draw(RNG, shape)
    second_set.run["F"](0.7)
    first.y[...] = y
    first.set.run["S"](0.3)
    expected = eager(f, 0.3, y, params, ybar)[1]
    assert_close(first.state_bar, expected, scale=norm(expected), tol=32 * EPS64)


def test_parameter_only_work_is_done_at_loading():
    replayed = Replayed(lambda t, y, w: y @ np.tanh(w).T, 0.1, np.ones((1, 3)), [np.ones((3, 3))])
    names = {group: [step.op.name for step in steps] for group, steps in replayed.plan.steps.items()}
    assert "tanh" in names[PROLOGUE] and "tanh" not in names["F"]


# --- nothing is created ---------------------------------------------------------------------------------------------


@pytest.fixture
def replayed_mlp():
    f, shape, params = case("mlp")
    replayed = Replayed(f, 0.1, draw(RNG, shape), params)
    replayed(0.1, draw(RNG, shape), draw(RNG, shape))
    return replayed


def run_all(replayed, n):
    run_f, run_s, run_q = (replayed.set.run[group] for group in ("F", "S", "Q"))
    for _ in range(n):
        run_f(0.5)
        run_s(0.5)
        run_q(0.5)


def test_replay_allocates_no_array_memory():
    """NumPy reports its memory to tracemalloc: an array of this batch is 480 kB, a buffer inside a ufunc 64 kB."""
    f, _, params = case("mlp")
    replayed = Replayed(f, 0.1, draw(RNG, (20000, 3)), params)
    run_all(replayed, 2)
    tracemalloc.start()
    try:
        run_all(replayed, 2)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        run_all(replayed, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before < 400_000


@pytest.mark.parametrize("group", ["F", "S", "Q"])
def test_every_call_of_a_group_returns_a_known_buffer(replayed_mlp, group):
    run = replayed_mlp.set.run[group]
    known = [cell.cell_contents for cell in run.__closure__ if isinstance(cell.cell_contents, np.ndarray)]
    fresh = []

    def watched(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            if isinstance(result, (np.ndarray, np.generic)) and not any(result is array for array in known):
                fresh.append((function, result))
            return result

        return call

    calls = [cell for cell in run.__closure__ if callable(cell.cell_contents)]
    for cell in calls:
        cell.cell_contents = watched(cell.cell_contents)
    run(0.5)
    assert calls and fresh == []


def test_generic_kernels_are_not_used_by_the_mlp(replayed_mlp):
    """`_assign` computes into a fresh array and copies: right for rare operations, not for this network."""
    for group in ("F", "S", "Q"):
        names = {getattr(c.cell_contents, "__name__", "") for c in replayed_mlp.set.run[group].__closure__}
        assert "_assign" not in names


def test_memory_does_not_grow(replayed_mlp):
    run_all(replayed_mlp, 10)
    gc.collect()
    before = sys.getallocatedblocks()
    run_all(replayed_mlp, 1000)
    gc.collect()
    assert sys.getallocatedblocks() - before < 500  # less than a block every other replay


def test_scratch_memory_is_shared_by_stages(replayed_mlp):
    before = replayed_mlp.workspace.nbytes
    replayed_mlp.stage_set()
    assert replayed_mlp.workspace.nbytes == before


def test_chain_of_elementwise_steps_reuses_two_buffers():
    def f(t, y):
        for _ in range(20):
            y = np.sin(y)
        return y

    y = np.ones(1000)
    replayed = Replayed(f, 0.0, y, [])
    forward_only = replayed.workspace.arena.nbytes
    assert forward_only <= 4 * y.nbytes


def test_a_text_that_is_in_use_stays_compiled(monkeypatch):
    monkeypatch.setattr(replay, "_sources", OrderedDict())
    used = replay._compiled("0")
    for number in range(1, 300):
        replay._compiled(str(number))
        assert replay._compiled("0") is used
