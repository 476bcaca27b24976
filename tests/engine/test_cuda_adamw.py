"""The kernel for Adam and AdamW, against the plain optimisers."""

import numpy as np
import pytest
from cuda_on_cpu import on_cpu
from cuda_on_device import PLACES, cupy_or_skip
from odegrad.engine.cuda.adamw import CHUNK, AdamNumbers, adamw, fits_adamw
from odegrad.engine.tree import leaves, tree_map
from odegrad.train import optimizers
from odegrad.train.optimizers import Adam, AdamW
from oracles import assert_close, host

BOUND = {np.float32: 1e-6, np.float64: 1e-14}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
SHAPES = [(3, 3, 5, 7), (), (0, 2), (1,), (2 * CHUNK + 5,), (64,), (CHUNK,)]


@pytest.fixture(params=PLACES)
def xp(request, monkeypatch):
    """The array module: addresses of arrays are passed in a table, so that they must be where the kernel is."""
    if request.param != "cpu":
        return cupy_or_skip()
    on_cpu(monkeypatch)
    return np


def drawn(rng, dtype, xp):
    """(params, grads) of all shapes; the sixth leaf of each lies off the multiples of 16 bytes."""
    columns = [
        [xp.asarray(np.asarray(rng.standard_normal(shape), dtype)) for shape in SHAPES] for _ in range(2)
    ]
    for column in columns:
        column[5] = xp.asarray(rng.standard_normal(65).astype(dtype))[1:]
    return columns


def stepped(optimizer, params, grads, state, lr, decays, scales=None):
    """A step by the kernel: the state is {"m", "v", "count"} of lists."""
    numbers = AdamNumbers(
        lr, optimizer.beta1, optimizer.beta2, optimizer.eps, state["count"] + 1, isinstance(optimizer, AdamW)
    )
    scales = [1.0] * len(params) if scales is None else scales
    params, m, v = adamw(params, grads, state["m"], state["v"], decays, scales, numbers)
    return params, {"m": m, "v": v, "count": numbers.step}


def wide(arrays):
    """The same on the host in double precision."""
    return [host(array).astype(np.float64) for array in arrays]


def at_start(xp, params):
    """The state before the first step."""
    return {"m": [xp.zeros_like(p) for p in params], "v": [xp.zeros_like(p) for p in params], "count": 0}


@pytest.mark.parametrize(
    "optimizer", [AdamW(weight_decay=0.3), Adam(weight_decay=0.3), Adam(beta1=0.5)], ids=str
)
@DTYPES
def test_three_steps_are_those_of_the_plain_optimiser(xp, rng, dtype, optimizer):
    found, _ = drawn(rng, dtype, xp)
    state, expected = at_start(xp, found), wide(found)
    plain = optimizer.init(expected)
    for lr in (0.1, 0.2, 0.05):
        _, grads = drawn(rng, dtype, xp)
        found, state = stepped(optimizer, found, grads, state, lr, [optimizer.weight_decay] * len(grads))
        expected, plain = optimizer.update(wide(grads), plain, expected, lr)
    for got, wanted in ((found, expected), (state["m"], plain["m"]), (state["v"], plain["v"])):
        for leaf, oracle in zip(got, wanted, strict=True):
            assert leaf.dtype == dtype
            assert_close(leaf, oracle, scale=max(1.0, abs(oracle).max(initial=0.0)), tol=BOUND[dtype])


def test_each_leaf_has_its_own_decay(xp, rng):
    params, grads = drawn(rng, np.float64, xp)
    decays = [0.0, 0.5, 0.0, 0.1, 0.0, 0.9, 0.3]
    found, _ = stepped(AdamW(), params, grads, at_start(xp, params), 0.1, decays)
    without, _ = stepped(AdamW(), params, grads, at_start(xp, params), 0.1, [0.0] * len(params))
    for got, plain, p, decay in zip(wide(found), wide(without), wide(params), decays, strict=True):
        np.testing.assert_allclose(plain - got, 0.1 * decay * p, rtol=0, atol=1e-14)


@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.3), Adam(weight_decay=0.3)], ids=str)
def test_each_leaf_has_its_own_factor_of_the_gradient(xp, rng, optimizer):
    params, grads = drawn(rng, np.float64, xp)
    scales, decays = [1.0, 0.5, 2.0, 3.0, 0.25, 0.1, 7.0], [0.3] * len(params)
    found, _ = stepped(optimizer, params, grads, at_start(xp, params), 0.1, decays, scales)
    scaled = [np.asarray(scale * g) for scale, g in zip(scales, wide(grads), strict=True)]
    expected, _ = optimizer.update(scaled, optimizer.init(wide(params)), wide(params), 0.1)
    for got, wanted in zip(wide(found), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-13)


def test_nothing_given_is_written_to(xp, rng):
    (params, grads), (m, v) = (drawn(rng, np.float32, xp) for _ in range(2))
    before = [wide(column) for column in (params, grads, m, v)]
    stepped(AdamW(), params, grads, {"m": m, "v": v, "count": 4}, 0.1, [0.1] * len(params))
    for column, copies in zip((params, grads, m, v), before, strict=True):
        for leaf, copy in zip(wide(column), copies, strict=True):
            np.testing.assert_array_equal(leaf, copy)


def test_leaves_without_values_need_no_kernel(xp):
    empty = [xp.zeros((0, 3), np.float32)]
    found, _ = stepped(AdamW(), empty, empty, at_start(xp, empty), 0.1, [0.1])
    assert found[0].shape == (0, 3)


@pytest.mark.parametrize("optimizer", [AdamW(), Adam(weight_decay=0.1)], ids=str)
def test_the_optimisers_of_training_step_by_it(rng, optimizer, fake_cupy, monkeypatch):
    on_cpu(monkeypatch)
    monkeypatch.setattr(optimizers, "fits_adamw", fits_adamw)
    calls = []
    monkeypatch.setattr(optimizers, "adamw", lambda *given: calls.append(given) or adamw(*given))
    params, grads = ({"w": rng.standard_normal((3, 5)), "b": [rng.standard_normal(3)]} for _ in range(2))
    scales = [0.5, 2.0]
    expected, expected_state = optimizer.update(grads, optimizer.init(params), params, 0.1, scales)
    params, grads = (tree_map(fake_cupy.asarray, tree) for tree in (params, grads))
    found, state = optimizer.update(grads, optimizer.init(params), params, 0.1, scales)
    assert len(calls) == 1 and state["count"] == expected_state["count"]
    for got, wanted in (
        (found, expected),
        (state["m"], expected_state["m"]),
        (state["v"], expected_state["v"]),
    ):
        for leaf, oracle in zip(leaves(got), leaves(wanted), strict=True):
            assert_close(leaf, oracle, scale=1.0, tol=1e-15)


def test_what_fits(xp):
    x = xp.ones((2, 4), np.float32)
    assert fits_adamw([x], [x, x]) and not fits_adamw([x], [x.astype(np.float64)])
    assert not fits_adamw([x], [x[:, ::2]]) and not fits_adamw([], [])
