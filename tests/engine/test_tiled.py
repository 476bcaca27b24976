"""Tiled segments: the values of the whole program wherever it is cut, with bits that repeat, on as many threads as there are."""

import math
import threading
from unittest.mock import patch

import numpy as np
import pytest
from drawn_cases import conv_cases, perceptron_cases
from hypothesis import given
from hypothesis import strategies as st
from odegrad import odeint, ops, value_and_grad
from odegrad.engine import tiled
from odegrad.engine.kernels import threads
from odegrad.engine.kernels.precision import accepting
from odegrad.engine.program import trace
from odegrad.engine.replay import StageSet
from odegrad.engine.row_cuts import cut_of
from odegrad.engine.tiled import Tiled, TileLoop, replaces_blas_threads
from odegrad.engine.tree import leaves, unflatten
from odegrad.solvers import compiled
from oracles import EPS32, EPS64, assert_close, norm
from replaying import Replayed, joint_program
from strategies import seeds
from threadpoolctl import threadpool_limits

WIDTH = 4


def cut_into(rows, tiles_for=lambda plan, segment, n_threads: 1 << 30):
    """Within it every segment is cut into parts of this many rows or a few more, however small it is."""
    sizes = {"FEWEST_ROWS": rows, "FEWEST_OUTPUTS": rows, "SMALL_SUM": 1 << 20, "FEWEST_FLOPS": 0.0,
             "MOST_FLOPS_A_VALUE": math.inf, "FLOPS_A_CALL": 0.0}  # fmt: skip
    return patch.multiple(tiled, **sizes, _tiles_for=tiles_for)


def segments(replayed, groups="FSQ"):
    return [s for group in groups for s in replayed.workspace.schedules[group] if isinstance(s, Tiled)]


def interpreted(replayed, t, y, ybar, params):
    """The joint program, a step at a time on fresh arrays."""
    return joint_program(replayed.recording.program).run([t, y, *params, ybar], replayed.recording.hidden)


def check(replayed, y, ybar, params, tol=200 * EPS64):
    """Replay twice, the second time with other values in all buffers, and compare with the interpreted program."""
    replayed(1.3, ybar, y)
    plain = interpreted(replayed, 0.7, y, ybar, params)
    for found, expected in zip(replayed(0.7, y, ybar), plain, strict=True):
        assert_close(found, expected, scale=norm(*plain), tol=tol)


# --- drawn programs -------------------------------------------------------------------------------------------------

PIECES = {  # x (B, 4), w (4, 4), b (4,), rows (B, 4) a parameter, t -> (B, 4)
    "product": lambda x, w, b, rows, t: x @ w,
    "shift": lambda x, w, b, rows, t: x + b * t,
    "tanh": lambda x, w, b, rows, t: np.tanh(x),
    "relu": lambda x, w, b, rows, t: ops.relu(x - b),
    "sigmoid": lambda x, w, b, rows, t: x * ops.sigmoid(x),
    "parameter a row": lambda x, w, b, rows, t: x * rows,
    "parameter sum": lambda x, w, b, rows, t: x + np.sum(rows, axis=0),
    "row sum": lambda x, w, b, rows, t: x / (1.0 + np.sum(x * x, axis=1, keepdims=True)),
    "row mean of all": lambda x, w, b, rows, t: x - np.mean(x, axis=0),
    "batch norm": lambda x, w, b, rows, t: ops.normalize(x, *ops.moments(x), 0.5, b),
    "softmax": lambda x, w, b, rows, t: ops.softmax(x) - t,
    "reshaped": lambda x, w, b, rows, t: (x.reshape(-1, 2, 2) @ w[:2, :2]).reshape(x.shape),
    "entries of rows": lambda x, w, b, rows, t: (x.reshape(-1, 2) @ w[:2, :2]).reshape(x.shape),
    "swapped": lambda x, w, b, rows, t: ops.swapaxes(x.reshape(-1, 2, 2), 1, 2).reshape(x.shape) + x,
    "turned": lambda x, w, b, rows, t: (w @ x.T).T,
    "gram": lambda x, w, b, rows, t: 0.1 * x @ np.tanh(x.T @ x),
    "all pairs": lambda x, w, b, rows, t: np.tanh(x @ rows.T / 8) @ np.tanh(x),
    "mixed rows": lambda x, w, b, rows, t: x + np.tanh(x)[::-1],
    "pairs of rows": lambda x, w, b, rows, t: x + np.tanh(x @ x.T) @ x / len(rows),
    "joined rows": lambda x, w, b, rows, t: ops.concatenate([x, np.sin(x)])[1 : 1 + len(rows)],
    "turned entries": lambda x, w, b, rows, t: x.T.reshape(x.shape),
    "copied entries": lambda x, w, b, rows, t: np.broadcast_to(x[:, :2, None], (len(rows), 2, 2)).reshape(
        x.shape
    ),
    "columns": lambda x, w, b, rows, t: ops.concatenate([x[:, 2:], np.sin(x[..., :2])], axis=1),
    "running": lambda x, w, b, rows, t: np.cumsum(x, axis=1) - 0.5 * np.cumsum(x, axis=0) / len(rows),
    "largest": lambda x, w, b, rows, t: x - 0.5 * np.max(x, axis=1, keepdims=True),
    "repeated": lambda x, w, b, rows, t: x + np.broadcast_to(b, x.shape) * np.sum(x),
}


def chain_of(names):
    """The pieces behind each other, with a shortcut from the first."""

    def f(t, y, w, b, rows):
        x = first = PIECES[names[0]](y, w, b, rows, t)
        for name in names[1:]:
            x = PIECES[name](x, w, b, rows, t)
        return x + first

    return f


def check_chain(names, batch, rows, n_threads, seed):
    rng = np.random.default_rng(seed)
    y, ybar, own = (rng.standard_normal((batch, WIDTH)) for _ in range(3))
    params = [rng.standard_normal((WIDTH, WIDTH)), rng.standard_normal(WIDTH), own]
    with threadpool_limits(n_threads, user_api="blas"), cut_into(rows):
        check(Replayed(chain_of(names), 0.4, y, params), y, ybar, params, tol=1000 * EPS64)


@pytest.mark.parametrize("batch, rows", [(5, 1), (8, 3), (WIDTH, 2), (2, 1)])
@pytest.mark.parametrize("name", PIECES)
def test_a_piece_between_others_has_the_values_of_the_interpreted_program(name, batch, rows):
    check_chain(["tanh", name, "product"], batch, rows, n_threads=2, seed=0)


@given(
    names=st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=7),
    batch=st.integers(2, 13),
    rows=st.integers(1, 13),
    n_threads=st.integers(1, 3),
    seed=seeds,
)
def test_drawn_programs_have_the_values_of_the_interpreted_one(names, batch, rows, n_threads, seed):
    check_chain(names, batch, rows, n_threads, seed)


@given(
    case=st.one_of(perceptron_cases(("array",)), conv_cases("train", "batch"), conv_cases("eval", "batch")),
    rows=st.integers(1, 4),
)
def test_drawn_networks_have_the_values_of_the_interpreted_program(case, rows):
    y, weights, _ = case.arguments()
    stats = case.cast(case.network.stats())

    def f(t, y, *params):
        return case.network.slope(t, y, unflatten(weights, params), stats)[0]

    ybar = np.random.default_rng(case.seed + 1).standard_normal(y.shape).astype(y.dtype)
    with threadpool_limits(2, user_api="blas"), cut_into(rows):
        replayed = Replayed(f, 0.4, y, leaves(weights))
        check(replayed, y, ybar, leaves(weights), tol=4500 * np.finfo(y.dtype).eps)


# --- images ---------------------------------------------------------------------------------------------------------

IMAGES = {  # x (B, 6, 4, 4), w (3, 3, 4, 4), b (4,), t -> (B, 6, 4, 4)
    "convolution": lambda x, w, b, t: ops.conv2d(x, w, padding=1) + b,
    "with time": lambda x, w, b, t: ops.conv2d(x, w, padding=1) + t * ops.conv2d(x[:1] * 0 + b, w, padding=1),
    "down and up": lambda x, w, b, t: ops.conv_transpose2d(
        ops.relu(ops.conv2d(x, w, stride=2, padding=1)), w, size=(6, 4), stride=2, padding=1
    ),
    "narrow": lambda x, w, b, t: ops.conv2d(x[..., :1], w[:, :, :1], padding=1) * x,
    "group norm": lambda x, w, b, t: ops.group_normalize(x, 2, 0.5) * b,
    "batch norm": lambda x, w, b, t: ops.normalize(x, *ops.moments(x), 0.5, b),
    "relu": lambda x, w, b, t: ops.relu(x - b),
    "tanh": lambda x, w, b, t: np.tanh(x) * t,
    "max pool": lambda x, w, b, t: x - ops.max_pool(x, 3, stride=1, padding=1),
    "average pool": lambda x, w, b, t: x - ops.avg_pool(x, 3, stride=1, padding=1),
    "mixed images": lambda x, w, b, t: x + np.tanh(x)[::-1],
    "kernel of images": lambda x, w, b, t: ops.conv2d(x, w * np.sum(np.tanh(x)) / x.size, padding=1),
}


def of_images(names):
    """The pieces behind each other, with a shortcut from the first."""

    def f(t, y, w, b):
        x = first = IMAGES[names[0]](y, w, b, t)
        for name in names[1:]:
            x = IMAGES[name](x, w, b, t)
        return x + first

    return f


def drawn_images(rng, batch, dtype=np.float64):
    """(y, ybar, params) of the pieces above."""
    y, ybar = (rng.standard_normal((batch, 6, 4, 4)).astype(dtype) for _ in range(2))
    params = [rng.standard_normal(shape).astype(dtype) for shape in ((3, 3, 4, 4), (4,))]
    return y, ybar, [params[0] / 4, params[1]]


def check_images(names, batch, n_threads, seed):
    y, ybar, params = drawn_images(np.random.default_rng(seed), batch)
    with threadpool_limits(n_threads, user_api="blas"), cut_into(1):
        check(Replayed(of_images(names), 0.4, y, params), y, ybar, params, tol=1000 * EPS64)


@pytest.mark.parametrize("batch, n_threads", [(5, 2), (4, 3), (2, 3)])
@pytest.mark.parametrize("name", IMAGES)
def test_a_piece_of_images_has_the_values_of_the_interpreted_program(name, batch, n_threads):
    check_images(["convolution", name, "tanh"], batch, n_threads, seed=0)


@given(
    names=st.lists(st.sampled_from(sorted(IMAGES)), min_size=1, max_size=5),
    batch=st.integers(2, 6),
    n_threads=st.integers(2, 3),
    seed=seeds,
)
def test_drawn_programs_of_images_have_the_values_of_the_interpreted_one(names, batch, n_threads, seed):
    check_images(names, batch, n_threads, seed)


LAYERS = ["convolution", "group norm", "relu", "down and up", "max pool"]


def test_layers_of_images_are_one_segment_forward_and_one_back(rng):
    """Their kernels' gradients as well; threads meet once for each."""
    y, ybar, params = drawn_images(rng, 6)
    with threadpool_limits(2, user_api="blas"), cut_into(1):
        replayed = Replayed(of_images(LAYERS), 0.4, y, params)
        assert [len(segments(replayed, group)) for group in "FSQ"] == [1, 1, 1]
        replayed(0.7, y, ybar)
        for group in "FSQ":
            with patch.object(threads._workers, "submit", wraps=threads._workers.submit) as submit:
                replayed.set.run[group](0.7)
            assert submit.call_count == 1


def test_large_sums_over_images_are_made_in_their_tiles(rng):
    """One part a thread: of the gradients of a kernel and of an offset for each pixel."""
    y, ybar, params = drawn_images(rng, 6)
    with threadpool_limits(2, user_api="blas"), cut_into(1), patch.object(tiled, "SMALL_SUM", 1):
        replayed = Replayed(of_images(["with time", "tanh"]), 0.4, y, params)
        sums = [piece.segment.sums for piece in segments(replayed, "SQ")]
        check(replayed, y, ybar, params)
    metas = replayed.workspace.plan.program.metas
    assert sorted(metas[slot].shape for slots in sums for slot in slots) == [(1, 6, 4, 4), (3, 3, 4, 4)]


def test_a_thread_takes_its_images_through_all_steps(rng):
    y, _, params = drawn_images(rng, 7)
    with threadpool_limits(3, user_api="blas"), cut_into(1):
        (piece,) = segments(Replayed(of_images(LAYERS), 0.4, y, params), "F")
    assert piece.bounds == ((0, 2), (2, 4), (4, 7))


@pytest.mark.parametrize("n_threads, flops_a_call", [(1, 0.0), (2, math.inf)])
def test_images_are_left_whole_on_one_thread_and_where_convolutions_are_small(n_threads, flops_a_call, rng):
    y, _, params = drawn_images(rng, 6)
    with (
        threadpool_limits(n_threads, user_api="blas"),
        cut_into(1),
        patch.object(tiled, "FLOPS_A_CALL", flops_a_call),
    ):
        found = segments(Replayed(of_images(LAYERS), 0.4, y, params))
    assert not any(step.op.name.startswith("conv2d") for piece in found for step in piece.steps)


@pytest.mark.parametrize(
    "n_relus, n_threads, is_worth", [(0, 2, True), (8, 2, True), (40, 2, False), (8, 16, False)]
)
def test_convolutions_must_outweigh_the_other_steps(n_relus, n_threads, is_worth):
    """604 MFLOP; a relu shifted by a number is two steps."""

    def f(x, w):
        x = ops.conv2d(x, w, padding=1)
        for _ in range(n_relus // 2):
            x = ops.relu(x) - 0.5
        return x

    program = trace(f, np.zeros((8, 32, 32, 64), np.float32), np.zeros((3, 3, 64, 64), np.float32))
    assert tiled.are_worth_images(program, program.steps, n_threads) is is_worth


def test_where_convolutions_are_small_products_have_their_tiles(rng):
    def f(t, y, w, b):
        return np.tanh(ops.conv2d(y, w, padding=1).reshape(-1, 4) @ w[0, 0]).reshape(y.shape)

    y, ybar, params = drawn_images(rng, 6)
    small = patch.object(tiled, "FLOPS_A_CALL", math.inf)
    with threadpool_limits(2, user_api="blas"), cut_into(1), small:
        replayed = Replayed(f, 0.4, y, params)
        (piece,) = segments(replayed, "F")
        assert {step.op.name for step in piece.steps} == {"reshape", "matmul", "tanh"}
        check(replayed, y, ybar, params)


@pytest.mark.parametrize("stride, pixels", [(1, 7 * 5), (2, 4 * 3)])
def test_a_convolution_and_its_gradients_have_as_many_flops(stride, pixels):
    def f(x, w):
        return ops.conv2d(x, w, stride=stride, padding=1)

    program = trace(f, np.zeros((6, 7, 5, 2)), np.zeros((3, 3, 2, 4)))
    steps = program.vjp(program.inputs).steps
    found = [tiled._convolution_flops(program.vjp(program.inputs), step) for step in steps]
    assert [n for n in found if n] == [2 * 6 * pixels * 3 * 3 * 2 * 4] * 3


def test_what_a_solve_accepts_holds_in_every_tile(rng):
    """Winograd's algorithm, which rounds in another way."""
    y, ybar = (rng.standard_normal((64, 8, 8, 32)).astype(np.float32) for _ in range(2))
    w = rng.standard_normal((3, 3, 32, 32)).astype(np.float32)
    with threadpool_limits(2, user_api="blas"), cut_into(1):
        replayed = Replayed(lambda t, y, w: ops.conv2d(y, w, padding=1), 0.4, y, [w])
        assert [len(piece.bounds) for piece in segments(replayed, "F")] == [2]
        plain = replayed(0.7, y, ybar)[0]
        with accepting(1e-3):
            fast = replayed(0.7, y, ybar)[0]
    assert all(np.any(plain[part] != fast[part]) for part in (slice(32), slice(32, 64)))


# --- what is cut, and where -----------------------------------------------------------------------------------------


def perceptron(t, y, w1, b1, w2, b2):
    return np.tanh(y @ w1 + b1) @ w2 + b2 * t


def normalised(t, y, w1, b1, w2, b2):
    x = y @ w1 + b1
    return np.tanh(ops.normalize(x, *ops.moments(x), 1e-5)) @ w2 + b2


def drawn(rng, batch, width, dtype=np.float64):
    """(y, ybar, params) of the two functions above."""
    y, ybar = (rng.standard_normal((batch, width)).astype(dtype) for _ in range(2))
    shapes = [(width, width), (width,), (width, width), (width,)]
    return y, ybar, [(rng.standard_normal(s) / np.sqrt(width)).astype(dtype) for s in shapes]


@pytest.mark.parametrize("batch", [WIDTH, 3 * WIDTH])
def test_the_slope_of_a_perceptron_is_one_segment(batch, rng):
    """Also where a shape does not tell rows of the batch from entries of a parameter."""
    y, _, params = drawn(rng, batch, WIDTH)
    with cut_into(2):
        (segment,) = segments(Replayed(perceptron, 0.4, y, params), "F")
    assert [s.op.name for s in segment.steps] == ["matmul", "add", "tanh", "matmul", "add"]


def test_what_needs_a_sum_over_the_batch_is_in_a_later_segment(rng):
    y, _, params = drawn(rng, 12, WIDTH)
    with cut_into(3):
        found = segments(Replayed(normalised, 0.4, y, params), "F")
    assert len(found) == 3  # up to the mean, up to the variance, the rest
    for piece in found:
        assert set(piece.segment.sums).isdisjoint(slot for step in piece.steps for slot in step.inputs)


@pytest.mark.parametrize("batch, rows", [(12, 4), (13, 4), (7, 2), (5, 3)])
def test_means_over_parts_of_different_sizes_are_weighted(batch, rows, rng):
    y, ybar, params = drawn(rng, batch, WIDTH)
    with cut_into(rows):
        check(Replayed(normalised, 0.4, y, params), y, ybar, params)


def test_a_setting_may_be_left_to_its_default(rng):
    y, ybar, params = drawn(rng, 12, WIDTH)

    def f(t, y, *params):
        return perceptron(t, y, *params) * ops.astype(ops.argmax(y), y.dtype)[:, None]

    with cut_into(4):
        replayed = Replayed(f, 0.4, y, params)
        (segment,) = segments(replayed, "F")
        assert "argmax" in [s.op.name for s in segment.steps]
        check(replayed, y, ybar, params)


def test_large_sums_are_made_a_part_of_the_result_at_a_time(rng):
    """The gradient of a matrix is no sum over tiles, which would cost more than the products."""
    y, ybar, params = drawn(rng, 12, 24)
    with threadpool_limits(2, user_api="blas"), cut_into(4), patch.object(tiled, "SMALL_SUM", 100):
        replayed = Replayed(perceptron, 0.4, y, params)
        apart = [s for s in segments(replayed, "Q") if s.segment.n == 24]
        assert [step.op.name for s in apart for step in s.steps] == ["matmul", "matmul"]
        check(replayed, y, ybar, params)


def test_a_gradient_of_few_rows_is_divided_among_as_many_threads_as_it_can(rng):
    """BLAS is at one thread then."""
    y, _, params = drawn(rng, 4096, 256, np.float32)
    with patch.multiple(tiled, blas_threads=lambda: 16, MOST_FLOPS_A_VALUE=math.inf):
        found = segments(Replayed(perceptron, 0.4, y, params), "Q")
    assert [len(piece.bounds) for piece in found] == [4, 4]


def accumulated(replayed, y, ybar, weights):
    """The gradients of the parameters added to ones, once with each weight."""
    program = replayed.joint
    found = [np.ones(program.metas[slot].shape) for slot in program.outputs[2:]]
    targets = {"F": [(program.outputs[0], replayed.slope)], "S": [(program.outputs[1], replayed.state_bar)]}
    accumulate = {"Q": [*zip(program.outputs[2:], found, strict=True)]}
    inputs, weight = {program.inputs[1]: y, program.inputs[-1]: ybar}, np.zeros(())
    bound = StageSet(replayed.workspace, inputs, targets, accumulate, weight)
    for value in weights:
        weight[()] = value
        for group in ("F", "S", "Q"):
            bound.run[group](0.7)
    return found


@pytest.mark.parametrize("small_sum", [1, 1 << 20], ids=["rows of the result", "sums of parts"])
def test_gradients_are_added_with_their_weight(small_sum, rng):
    y, ybar, params = drawn(rng, 12, 24)
    with threadpool_limits(2, user_api="blas"), cut_into(4), patch.object(tiled, "SMALL_SUM", small_sum):
        replayed = Replayed(perceptron, 0.4, y, params)
        found = accumulated(replayed, y, ybar, [2.0, -0.5])
    plain = interpreted(replayed, 0.7, y, ybar, params)[2:]
    for total, gradient in zip(found, plain, strict=True):
        assert_close(total, 1.0 + 1.5 * gradient, scale=norm(*plain), tol=200 * EPS64)


def test_a_gradient_that_tiles_add_is_never_whole(rng):
    """It is added to its sum while its rows are in cache."""
    y, ybar, params = drawn(rng, 12, 64)
    with threadpool_limits(2, user_api="blas"), cut_into(4), patch.object(tiled, "SMALL_SUM", 1):
        replayed = Replayed(perceptron, 0.4, y, params)
        before = replayed.workspace.arena.nbytes
        accumulated(replayed, y, ybar, [1.0])
        assert replayed.workspace.arena.nbytes - before < params[0].nbytes


@pytest.mark.parametrize(
    "f",
    [
        lambda t, y, w: y[::-1],
        lambda t, y, w: np.cumsum(y, axis=0),
        lambda t, y, w: ops.concatenate([y[:3], y[3:]]),
        lambda t, y, w: np.max(y, axis=0) + y,
        lambda t, y, w: y.reshape(3, 8).T.reshape(6, 4),
        lambda t, y, w: ops.take(y, np.array([5, 4, 3, 2, 1, 0])),
    ],
    ids=["flip", "cumsum", "concatenate", "max", "turned", "take"],
)
def test_what_mixes_rows_is_left_whole(f, rng):
    replayed = Replayed(f, 0.4, np.ones((6, WIDTH)), [np.ones((WIDTH, WIDTH))])
    assert any(cut_of(replayed.plan, step, 6) is None for step in replayed.plan.steps["F"])


def test_float32_agrees_with_float64_at_full_size(rng):
    """Sizes at which tiles are worthwhile."""
    y, ybar, params = drawn(rng, 4096, 32, np.float32)
    with threadpool_limits(2, user_api="blas"):
        replayed = Replayed(perceptron, 0.4, y, params)
        found = replayed(0.7, y, ybar)
    assert len(segments(replayed)) == 3  # slope, state cotangent, and the gradients as sums over tiles
    double = [x.astype(np.float64) for x in (y, ybar, *params)]
    expected = interpreted(replayed, 0.7, double[0], double[1], double[2:])
    for single, exact in zip(found, expected, strict=True):
        assert single.dtype == np.float32
        assert_close(single, exact, scale=norm(exact), tol=100 * EPS32)


@pytest.mark.parametrize(
    "batch, width, n_threads, n_tiles",
    [
        (256, 32, 2, []),  # too small
        (4096, 256, 2, []),  # nearly all of it products: BLAS divides them better
        (8192, 32, 2, [12, 14]),  # 6 and 7 MiB in tiles of half a MiB
        (8192, 32, 1, [12, 14]),
        (8192, 32, 128, []),  # too few rows for all threads: BLAS divides columns, too
    ],
)
def test_the_tiles_of_slope_and_state_cotangent(batch, width, n_threads, n_tiles, rng):
    y, _, params = drawn(rng, batch, width, np.float32)
    with patch.object(tiled, "blas_threads", lambda: n_threads):
        found = segments(Replayed(perceptron, 0.4, y, params), "FS")
    assert [len(piece.bounds) for piece in found] == n_tiles


@pytest.mark.parametrize(
    "batch, width, n_threads, is_held",
    [
        (20, 50, 2, False),
        (256, 64, 2, False),  # nothing is large
        (256, 1024, 2, False),  # BLAS divides what is
        (8192, 32, 2, True),  # tiles do
        (8192, 32, 128, False),  # too few rows for tiles on all threads
    ],
)
def test_blas_is_held_at_one_thread_where_tiles_divide(batch, width, n_threads, is_held, rng):
    y, _, params = drawn(rng, batch, width)
    program = Replayed(perceptron, 0.4, y, params).recording.program
    with patch.object(tiled, "blas_threads", lambda: n_threads):
        assert replaces_blas_threads(program, batch) is is_held


# --- bits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [perceptron, normalised])
def test_new_buffers_and_busy_threads_change_no_bit(f, rng):
    y, ybar, params = drawn(rng, 64, 16, np.float32)
    results = []
    with threadpool_limits(2, user_api="blas"), cut_into(5):
        bound = [Replayed(f, 0.4, y, params) for _ in range(2)]
        results += [replayed(0.7, y, ybar) for replayed in bound for _ in range(3)]
    with threadpool_limits(1, user_api="blas"):  # the same tiles, one after the other
        results.append(bound[0](0.7, y, ybar))
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert np.array_equal(first, second)


def test_new_buffers_and_busy_threads_change_no_bit_of_images(rng):
    y, ybar, params = drawn_images(rng, 7, np.float32)
    results = []
    with threadpool_limits(2, user_api="blas"), cut_into(1):
        for _ in range(2):
            replayed = Replayed(of_images([*LAYERS, "batch norm", "convolution"]), 0.4, y, params)
            results += [replayed(0.7, y, ybar) for _ in range(3)]
    with threadpool_limits(1, user_api="blas"):  # the same tiles, one after the other
        results.append(replayed(0.7, y, ybar))
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert np.array_equal(first, second)


def test_the_gradient_of_a_solve_repeats_its_bits_for_a_number_of_threads(rng):
    y, _, params = drawn(rng, 30, 8, np.float32)

    def loss(params):
        def f(t, y, params):
            return normalised(t, y, *params)

        return ops.sum(odeint(f, y, np.array([0.0, 0.1]), params, method="euler", step_size=0.05).ys ** 2)

    one_tile_a_thread = cut_into(1, lambda plan, segment, n_threads: n_threads)
    found = {1: [], 2: []}
    for order in ((1, 2), (2, 1)):
        compiled.pool.drop(lambda key: True)
        for n_threads in order:  # the second one must not be given the buffers of the first
            with threadpool_limits(n_threads, user_api="blas"), one_tile_a_thread:
                found[n_threads].append(value_and_grad(loss)(params)[1])
    for first, again in found.values():
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    scale = norm(*found[1][0])
    for one, two in zip(found[1][0], found[2][0], strict=True):
        assert_close(one, two, scale=scale, tol=200 * EPS32)


# --- threads --------------------------------------------------------------------------------------------------------


def blas_limits():
    """Threads of the libraries that are limited: those that were loaded at the first time."""
    return {library.num_threads for library in threads._blas._libraries}


def test_lanes_run_at_once_on_threads_of_their_own_with_blas_at_one():
    meeting, seen = threading.Barrier(2, timeout=20), []

    def tile(t):
        meeting.wait()  # nobody else comes if one thread does all the lanes
        seen.append((t, threading.get_ident(), blas_limits()))

    with threadpool_limits(2, user_api="blas"):
        TileLoop([[tile], [tile]])(0.3)
    assert [t for t, _, _ in seen] == [0.3, 0.3]
    assert len({thread for _, thread, _ in seen}) == 2
    assert all(limits == {1} for _, _, limits in seen)


def test_tiles_of_a_lane_keep_their_order_on_one_thread():
    seen = []
    lanes = [
        [lambda t, k=k: seen.append((k, threading.get_ident())) for k in part] for part in ([0, 1, 2], [3, 4])
    ]
    with threadpool_limits(2, user_api="blas"):
        TileLoop(lanes)(0.0)
    assert [k for k, _ in seen if k < 3] == [0, 1, 2]
    assert len({thread for k, thread in seen if k < 3}) == 1


def test_overflow_on_another_thread_is_treated_as_the_caller_asked(rng):
    """f of a solve may overflow; the loop reports it with the step."""
    y, ybar, params = drawn(rng, 12, WIDTH)
    with threadpool_limits(2, user_api="blas"), cut_into(2):
        with np.errstate(all="ignore"):
            replayed = Replayed(lambda t, y, *params: np.exp(1e3 * y @ params[0]), 0.4, y, params)
            assert np.isinf(replayed(0.7, abs(y), ybar)[0]).any()


# --- small programs -------------------------------------------------------------------------------------------------


def test_a_small_solve_meets_no_thread_and_leaves_blas_alone(rng):
    """The spiral: 20 rows, 2-50-2."""
    params = [0.1 * rng.standard_normal(s) for s in ((2, 50), (50,), (50, 2), (2,))]
    y = rng.standard_normal((20, 2))

    def loss(params):
        def f(t, y, params):
            return perceptron(t, y**3, *params)

        return ops.sum(odeint(f, y, np.linspace(0.0, 1.0, 10), params).ys)

    with (
        patch.object(threads._BlasLimit, "enter", side_effect=AssertionError("BLAS is limited")),
        patch.object(TileLoop, "__call__", side_effect=AssertionError("tiles")),
        patch.object(threads, "run_shares", side_effect=AssertionError("shares")),
    ):
        value_and_grad(loss)(params)


@pytest.mark.parametrize("execution, n_threads", [("replay", 1), ("eager", 2)])
def test_a_solve_in_tiles_keeps_blas_at_one_thread(execution, n_threads, rng):
    """In replay; eager evaluation has no tiles that would use the other threads."""
    y, _, params = drawn(rng, 8192, 32)
    seen = set()
    threads.blas_threads()

    def look(step):
        seen.update(blas_limits())

    with threadpool_limits(2, user_api="blas"):
        odeint(
            lambda t, y, p: perceptron(t, y, *p), y, [0.0, 0.1], params, execution=execution, callback=look
        )
    assert seen == {n_threads}


def test_a_small_program_is_scheduled_without_tiles(rng):
    y, _, params = drawn(rng, 256, 64)
    with threadpool_limits(2, user_api="blas"):
        assert segments(Replayed(perceptron, 0.4, y, params)) == []
