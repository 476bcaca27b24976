"""The kernel for Adam and AdamW, on the CPU, against the plain optimisers."""

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler, on_cpu
from odegrad.engine.cuda.adamw import CHUNK, AdamNumbers, adamw, fits_adamw
from odegrad.train.optimizers import Adam, AdamW
from oracles import assert_close

pytestmark = needs_compiler
BOUND = {np.float32: 1e-6, np.float64: 1e-14}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
SHAPES = [(3, 3, 5, 7), (), (0, 2), (1,), (2 * CHUNK + 5,), (64,), (CHUNK,)]


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    on_cpu(monkeypatch)


def drawn(rng, dtype):
    """(params, grads) of all shapes; the second leaf of each lies off the multiples of 16 bytes."""
    columns = [[np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES] for _ in range(2)]
    for column in columns:
        column[5] = rng.standard_normal(65).astype(dtype)[1:]
    return columns


def stepped(optimizer, params, grads, state, lr, decays):
    """A step by the kernel: the state is {"m", "v", "count"} of lists."""
    numbers = AdamNumbers(
        lr, optimizer.beta1, optimizer.beta2, optimizer.eps, state["count"] + 1, isinstance(optimizer, AdamW)
    )
    params, m, v = adamw(params, grads, state["m"], state["v"], decays, numbers)
    return params, {"m": m, "v": v, "count": numbers.count}


@pytest.mark.parametrize(
    "optimizer", [AdamW(weight_decay=0.3), Adam(weight_decay=0.3), Adam(beta1=0.5)], ids=str
)
@DTYPES
def test_three_steps_are_those_of_the_plain_optimiser(rng, dtype, optimizer):
    params, _ = drawn(rng, dtype)
    found, state = (
        params,
        {"m": [np.zeros_like(p) for p in params], "v": [np.zeros_like(p) for p in params], "count": 0},
    )
    expected = [np.asarray(p, np.float64) for p in params]
    plain = optimizer.init(expected)
    for lr in (0.1, 0.2, 0.05):
        _, grads = drawn(rng, dtype)
        found, state = stepped(optimizer, found, grads, state, lr, [optimizer.weight_decay] * len(params))
        expected, plain = optimizer.update([np.asarray(g, np.float64) for g in grads], plain, expected, lr)
    for got, wanted in ((found, expected), (state["m"], plain["m"]), (state["v"], plain["v"])):
        for leaf, oracle in zip(got, wanted, strict=True):
            assert leaf.dtype == dtype and leaf.shape == oracle.shape
            assert_close(leaf, oracle, scale=max(1.0, abs(oracle).max(initial=0.0)), tol=4 * BOUND[dtype])


def test_each_leaf_has_its_own_decay(rng):
    params, grads = drawn(rng, np.float64)
    zeros = {"m": [np.zeros_like(p) for p in params], "v": [np.zeros_like(p) for p in params], "count": 0}
    decays = [0.0, 0.5, 0.0, 0.1, 0.0, 0.9, 0.3]
    found, _ = stepped(AdamW(), params, grads, zeros, 0.1, decays)
    without, _ = stepped(AdamW(), params, grads, zeros, 0.1, [0.0] * len(params))
    for got, plain, p, decay in zip(found, without, params, decays, strict=True):
        np.testing.assert_allclose(plain - got, 0.1 * decay * p, rtol=0, atol=1e-14)


def test_nothing_given_is_written_to(rng):
    params, grads = drawn(rng, np.float32)
    m, v = ([np.asarray(abs(g)) for g in grads] for _ in range(2))
    before = [[leaf.copy() for leaf in column] for column in (params, grads, m, v)]
    stepped(AdamW(), params, grads, {"m": m, "v": v, "count": 4}, 0.1, [0.1] * len(params))
    for column, copies in zip((params, grads, m, v), before, strict=True):
        for leaf, copy in zip(column, copies, strict=True):
            np.testing.assert_array_equal(leaf, copy)


def test_leaves_without_values_need_no_kernel():
    empty = [np.zeros((0, 3), np.float32)]
    found, _ = stepped(AdamW(), empty, empty, {"m": empty, "v": empty, "count": 0}, 0.1, [0.1])
    assert found[0].shape == (0, 3)


def test_what_fits():
    x = np.ones((2, 4), np.float32)
    assert fits_adamw([x], [x, x]) and not fits_adamw([x], [x.astype(np.float64)])
    assert not fits_adamw([x], [x[:, ::2]]) and not fits_adamw([], [])
