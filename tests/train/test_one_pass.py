"""Steps in one pass: the bits of NumPy's calls, and nothing of numba where arrays are small or numba is missing."""

import os
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_code import needs_numba
from odegrad.engine.jit.choice import CHOICE
from odegrad.engine.tree import leaves
from odegrad.train import one_pass as module
from odegrad.train.one_pass import LARGE, one_pass
from odegrad.train.optimizers import SGD, Adam, AdamW
from strategies import float_dtypes, seeds, shapes

pytestmark = pytest.mark.usefixtures("kernel_folder")
OPTIMIZERS = [
    SGD(),
    SGD(weight_decay=0.1),
    SGD(momentum=0.9, weight_decay=0.1),
    SGD(momentum=0.9, nesterov=True),
    Adam(),
    Adam(weight_decay=0.1),
    AdamW(weight_decay=0.1),
]


def steps(optimizer, params, grads, scales, choice):
    """Parameters and states after each of several steps, all arrays as if they were large."""
    found = []
    with patch.dict(os.environ, {CHOICE: choice}), patch.object(module, "LARGE", 1):
        state = optimizer.init(params)
        for g in grads:
            params, state = optimizer.update(g, state, params, 0.1, scales)
            found += leaves((params, state))
    return found


def assert_same_bits(optimizer, params, grads, scales):
    compiled = steps(optimizer, params, grads, scales, "numba")
    for ours, theirs in zip(compiled, steps(optimizer, params, grads, scales, "numpy"), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert np.array_equal(ours, theirs, equal_nan=True)


@needs_numba
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@given(
    shape=st.one_of(shapes(), st.sampled_from([(LARGE,), (3, 5000)])),
    dtype=float_dtypes,
    scale=st.sampled_from([1.0, 0.3]),
    seed=seeds,
)
def test_bits_are_those_of_numpys_calls(optimizer, shape, dtype, scale, seed):
    rng = np.random.default_rng(seed)
    params, *grads = (np.asarray(rng.standard_normal(shape)).astype(dtype) for _ in range(4))
    assert_same_bits(optimizer, params, grads, [scale])


@needs_numba
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_values_that_are_not_finite_pass_as_in_numpy(optimizer, rng):
    params, gradient = rng.standard_normal(40), np.zeros(40)
    gradient[:4] = np.nan, np.inf, -np.inf, 1e300
    params[-2:] = np.inf, np.nan
    with np.errstate(all="ignore"):
        assert_same_bits(optimizer, [params], [[gradient]] * 2, None)


@needs_numba
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_arrays_with_gaps_are_read_as_they_are(optimizer, rng):
    params, gradient = rng.standard_normal((5, 8)).T, rng.standard_normal((16, 10))[::2, ::2]
    assert_same_bits(optimizer, [params], [[gradient]] * 2, [0.5])


@needs_numba
def test_large_arrays_are_stepped_by_the_kernel(monkeypatch):
    kernels, make = [], module._update_kernel()
    monkeypatch.setattr(module, "_update_kernel", lambda: lambda *what: kernels.append(what) or make(*what))
    monkeypatch.delenv(CHOICE, raising=False)
    params = [np.ones(LARGE), np.ones(LARGE - 1), np.ones(LARGE, np.float32)]
    Adam().update(params, Adam().init(params), params, 0.1)
    assert kernels == [("adam", np.float64), ("adam", np.float32)]


@pytest.mark.parametrize("other", [np.zeros(LARGE, np.float32), np.zeros(LARGE - 1), np.zeros((1, LARGE))])
def test_arrays_that_are_not_alike_are_left_to_numpy(monkeypatch, other):
    """A kernel would read beyond their ends."""
    monkeypatch.setattr(module, "_update_kernel", None)
    assert one_pass("adam", [np.zeros(LARGE)] * 3 + [other]) is None


def test_small_arrays_do_not_ask_for_numba(monkeypatch):
    monkeypatch.setattr(module, "_update_kernel", None)
    assert one_pass("adam", [np.zeros(LARGE - 1)] * 4) is None


def test_the_environment_chooses_numpy(monkeypatch):
    monkeypatch.setattr(module, "_update_kernel", None)
    monkeypatch.setenv(CHOICE, "numpy")
    assert one_pass("adam", [np.zeros(LARGE)] * 4) is None


def test_without_numba_steps_are_left_to_numpy(monkeypatch):
    monkeypatch.setattr(module, "_update_kernel", lambda: None)
    monkeypatch.delenv(CHOICE, raising=False)
    assert one_pass("adam", [np.zeros(LARGE)] * 4) is None
