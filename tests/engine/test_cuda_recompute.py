"""Results that chains compute anew instead of storing them: what is moved, and that the values stay."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler
from odegrad import grad, odeint, ops
from odegrad.engine import backend
from odegrad.engine.cuda import chains
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.engine.fusion import Run
from odegrad.engine.trace import base_value
from odegrad.layers import BatchNorm, GroupNorm, TABatchNorm
from odegrad.solvers import stages
from on_device import OnDevice
from oracles import EPS64, assert_close, norm

SHAPE, NODES, LAYERS = (2, 5, 4, 3), (0.0, 0.2, 0.6, 1.0), 4
NORMS = {
    "ta": TABatchNorm(3, NODES),
    "ta, population": TABatchNorm(3, NODES, normalize="population"),
    "batch": BatchNorm(3),
    "group": GroupNorm(3),
}


@pytest.fixture
def all_large(monkeypatch):
    """Arrays as large as the state count as large ones."""
    monkeypatch.setattr(chains, "LARGE", math.prod(SHAPE))


def network(layer):
    """LAYERS times a convolution with bias, a normalisation, ReLU."""

    def f(t, y, *params):
        for k in range(LAYERS):
            w, b, gamma, alpha = params[4 * k : 4 * k + 4]
            y = ops.conv2d(y, w, stride=1, padding=1) + b
            stats = layer.init_stats(y.dtype) if isinstance(layer, TABatchNorm) else layer.init_stats()
            y, _ = layer.apply({"gamma": gamma, "alpha": alpha}, stats, t, y, mode="train")
            y = ops.relu(y)
        return y

    return f


def drawn(rng, layer, dtype=np.float64):
    """(y, ybar, params) for the network of a layer."""
    affine = (len(NODES), 3) if isinstance(layer, TABatchNorm) else (3,)
    params = [rng.standard_normal(s) for _ in range(LAYERS) for s in ((3, 3, 3, 3), (3,), affine, affine)]
    y, ybar = rng.standard_normal((2, *SHAPE))
    return y.astype(dtype), ybar.astype(dtype), [p.astype(dtype) for p in params]


def tensors_moved(workspace, group):
    """Arrays of the state's size that the chains of a group read and write."""
    metas, moved = workspace.plan.program.metas, 0
    for piece in workspace.schedules[group]:
        if isinstance(piece, Run):
            slots = workspace.chain(piece)[1].slots
            moved += sum(metas[slot].shape == SHAPE for slot in slots)
    return moved


def both_moved(device):
    return tuple(tensors_moved(device.workspace, group) for group in ("F", "S"))


def n_kernels(device):
    """Launches of all groups, without the second passes of sums."""
    plan, schedules = device.workspace.plan, device.workspace.schedules
    pieces = [piece for group in plan.order[1:] for piece in schedules[group]]
    return sum(isinstance(piece, Run) or plan.root[piece.output] == piece.output for piece in pieces)


def kept(device):
    """Residuals of the state's size."""
    return [slot for slot in device.workspace.plan.residuals if device.program.metas[slot].shape == SHAPE]


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [("ta", 3, 5), ("batch", 3, 5), ("group", 4, 5), ("ta, population", 2, 3)],
)
def test_a_layer_moves_what_its_formulas_need(name, forward, backward, rng, texts_only, all_large):
    """A read for the moments, a read and a write; back two for the sums, two and a write.

    The variance of a group is about the mean of all its channels, and takes a read of its own. With constant moments the
    sums of the pull-back wait for nothing, and share the reads.
    """
    layer = NORMS[name]
    y, _, params = drawn(rng, layer)
    device = OnDevice(texts_only, network(layer), 0.4, y, params, apart=False)
    assert both_moved(device) == (forward * LAYERS, backward * LAYERS)


def test_small_arrays_are_stored_where_two_kernels_want_them(rng, texts_only):
    """They stay in the cache. The count is that of the chains as the schedule has them."""
    layer = NORMS["ta"]
    y, _, params = drawn(rng, layer)
    device = OnDevice(texts_only, network(layer), 0.4, y, params, apart=False)
    assert both_moved(device) == (5 * LAYERS, 7 * LAYERS)


@pytest.mark.parametrize("apart", [False, True])
def test_no_more_is_launched_and_less_is_kept(apart, rng, texts_only, monkeypatch):
    layer = NORMS["ta"]
    y, _, params = drawn(rng, layer)
    found = []
    for large in (1 << 60, math.prod(SHAPE)):
        monkeypatch.setattr(chains, "LARGE", large)
        device = OnDevice(texts_only, network(layer), 0.4, y, params, apart=apart)
        found.append((n_kernels(device), len(kept(device))))
    (launched, before), (launched_now, now) = found
    assert launched_now == launched
    assert now < before


@needs_compiler
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("name", NORMS)
def test_values_are_the_same_to_the_last_bit(name, apart, cupy, rng, monkeypatch):
    """As those of the chains that store, which are those of the plain program but for the order of sums."""
    layer = NORMS[name]
    y, ybar, params = drawn(rng, layer, np.float32)
    found = []
    for large in (1 << 60, math.prod(SHAPE)):
        monkeypatch.setattr(chains, "LARGE", large)
        device = OnDevice(cupy, network(layer), 0.4, y, params, apart=apart)
        device(0.9, ybar, y)  # other values first: nothing of them may stay
        found.append(device(0.3, y, ybar))
    for stored, again in zip(*found, strict=True):
        np.testing.assert_array_equal(again, stored)


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", NORMS)
def test_values_are_those_of_the_plain_program(name, dtype, cupy, rng, all_large):
    layer = NORMS[name]
    y, ybar, params = drawn(rng, layer, dtype)
    device = OnDevice(cupy, network(layer), 0.4, y, params)
    exact = device.plainly(0.3, *(x.astype(np.float64) for x in (y, ybar)))
    for result, expected in zip(device(0.3, y, ybar), exact, strict=True):
        assert_close(result, expected, scale=norm(*exact), tol=1e-6 if dtype is np.float32 else 100 * EPS64)


def moved(f, rng, cupy, *shapes):
    """Tensors that F, S and Q of f(t, y, *params) move."""
    params = [rng.standard_normal(shape) for shape in shapes]
    device = OnDevice(cupy, f, 0.4, rng.standard_normal(SHAPE), params)
    return [tensors_moved(device.workspace, group) for group in ("F", "S", "Q")]


def test_what_takes_long_is_stored(rng, texts_only, all_large):
    """tanh, read by a sum and behind it: written and read again. Its argument is not."""

    def f(t, y):
        x = np.tanh(y + 1.0)
        return x * np.sum(x)

    assert moved(f, rng, texts_only)[0] == 2 + 2


def test_what_a_group_was_given_is_not_read_by_a_later_one(rng, texts_only, all_large):
    """The state of a stage may lie in a buffer that the next stage uses: 3 y is a residual, as before."""

    def f(t, y):
        return ops.square(ops.stop_gradient(3.0 * y)) * y

    device = OnDevice(texts_only, f, 0.4, rng.standard_normal(SHAPE), [])
    assert device.workspace.plan.residuals == device.plan.residuals


@needs_compiler
def test_numbers_of_a_step_from_another_group_are_those_of_the_time(cupy, rng, all_large):
    """Stages share the table of numbers: between a slope and its pull-back it served others."""

    def f(t, y, w):
        x = ops.conv2d(y, w, stride=1, padding=1) + np.cos(t)
        return ops.relu(x * np.sum(x))

    y, ybar = rng.standard_normal((2, *SHAPE))
    device = OnDevice(cupy, f, 0.4, y, [rng.standard_normal((3, 3, 3, 3))])
    expected = device(0.3, y, ybar)
    device.set.run["F"](0.3)
    device.workspace.fill_numbers(0.9)
    for group in ("S", "Q"):
        device.set.run[group](0.3)
    for found, value in zip(device.results, expected, strict=True):
        np.testing.assert_array_equal(found.get(), value)


@needs_compiler
def test_moments_that_leave_a_solve_are_no_hindrance(cupy, rng, all_large, monkeypatch):
    """What was seen is a result of the slope, and what its pull-back centres by."""
    layer = NORMS["ta"]
    y, _, params = drawn(rng, layer)
    w, _, gamma, alpha = params[:4]
    spaces = []

    class Spied(CudaWorkspace):
        def __init__(self, *given):
            super().__init__(*given)
            spaces.append(self)

    monkeypatch.setattr(stages, "CudaWorkspace", Spied)

    def f(t, y, p):
        x = ops.conv2d(y, p["w"], stride=1, padding=1)
        x, seen = layer.apply(p, layer.init_stats(y.dtype), t, x, mode="train")
        return ops.relu(x), seen

    def loss(p):
        xp = backend.namespace_of(base_value(p["w"]))
        return ops.sum(ops.square(odeint(f, xp.asarray(y), [0.0, 1.0], p, rtol=1e-3, has_aux=True).ys))

    given = {"w": 0.1 * w, "gamma": gamma, "alpha": alpha}
    found = grad(loss)({name: cupy.asarray(value) for name, value in given.items()})
    for name, expected in grad(loss)(given).items():
        assert_close(found[name].get(), expected, scale=norm(expected), tol=1e5 * EPS64)
    moved = [tensors_moved(space, group) for space in spaces for group in space.plan.order[1:]]
    assert moved[-2:] == [3, 5]


def test_what_is_joined_is_stored_and_computed_anew_beside_it(rng, texts_only, all_large):
    """A join reads its parts at other positions, from memory; the gate of a ReLU reads none of them again."""

    def f(t, y, w, v):
        x = ops.relu(ops.square(ops.conv2d(y, w, stride=1, padding=1)) - 1.0)
        return ops.conv2d(np.concatenate([x, x], axis=-1), v, stride=1, padding=1)

    forward, backward, _ = moved(f, rng, texts_only, (3, 3, 3, 3), (3, 3, 6, 3))
    assert forward == 2 + 1  # ReLU of the convolution; twice as much is written by the join, which reads x
    assert backward == 4  # both parts of the cotangent and the convolution are read, and one is written
