"""Means and variances that chains make in one read of their operands."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler
from odegrad import ops
from odegrad.engine.cuda import chain_sums
from odegrad.engine.fusion import Run
from odegrad.engine.ops.reductions import mean_leading, square_about_mean
from on_device import OnDevice
from oracles import EPS32, assert_close

SHAPES = [(7, 1), (2, 5, 4, 3), (29, 65), (300, 2), (1, 4)]
BOUND = {np.float32: 1e-6, np.float64: 1e-14}


def moments(t, y):
    """Mean and variance of a chain's result."""
    mean, var = ops.moments(2.0 * y)
    return ops.concatenate([mean, var])


def found(cupy, f, y, *, pulls=False):
    return OnDevice(cupy, f, 0.4, y, [], pulls=pulls)


def assert_moments(result, y, dtype):
    x = 2 * y.astype(np.float64).reshape(-1, y.shape[-1])
    mean, var = np.split(result.astype(np.float64), 2)
    assert_close(mean, x.mean(0), scale=abs(x).max(), tol=BOUND[dtype])
    assert_close(var, x.var(0), scale=x.var(0).max() or 1.0, tol=4 * BOUND[dtype])


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_they_are_those_of_double_precision(shape, dtype, cupy, rng):
    y = (3 + rng.standard_normal(shape)).astype(dtype)
    (result,) = found(cupy, moments, y)(0.4, y)
    assert_moments(result, y, dtype)


@needs_compiler
@pytest.mark.parametrize("shape", [(57, 3), (900, 2), (33, 40)], ids=str)
def test_parts_of_blocks_are_merged(shape, cupy, rng, monkeypatch):
    """Rows that are cut into pieces, the last of which is shorter."""
    monkeypatch.setattr(chain_sums, "ROWS_A_THREAD", 1)
    monkeypatch.setattr(chain_sums, "THREADS", 32)
    y = 3 + rng.standard_normal(shape)
    device = found(cupy, moments, y)
    (run,) = [p for p in device.workspace.schedules["F"] if isinstance(p, Run) and p.shape == shape]
    assert device.workspace.chain(run)[1].sharing.pieces > 1
    assert_moments(device(0.4, y)[0], y, np.float64)


@needs_compiler
def test_nothing_cancels_where_the_mean_is_large(cupy, rng):
    """A variance of 1 about 1e4: the mean's rounding moves each deviation by 1e-3, while the squares have steps of 8."""
    y = (5e3 + 0.5 * rng.standard_normal((4000, 3))).astype(np.float32)
    _, var = np.split(found(cupy, moments, y)(0.4, y)[0], 2)
    assert_close(var, (2 * y.astype(np.float64)).var(0), scale=1e4, tol=EPS32)


@needs_compiler
def test_a_column_that_is_not_finite_has_no_finite_variance(cupy, rng):
    y = rng.standard_normal((40, 3))
    y[7, 0], y[11, 2] = np.nan, np.inf
    device = found(cupy, moments, np.zeros_like(y))
    mean, var = np.split(device(0.4, y)[0], 2)
    assert np.isfinite(mean).tolist() == np.isfinite(var).tolist() == [False, True, False]


def beside(t, y):
    """Sums of each sample in the same blocks."""
    x = 2.0 * y
    each = np.sum(x, axis=(1, 2))[:, None, None]
    mean, var = ops.moments(x)
    return (x - mean) / ops.sqrt(var + 1.0) + each * mean


@needs_compiler
def test_sums_of_each_sample_share_the_blocks(cupy, rng):
    y, ybar = 1 + rng.standard_normal((2, 4, 5, 3, 2))
    device = found(cupy, beside, y, pulls=True)
    first = next(p for p in device.workspace.schedules["F"] if isinstance(p, Run))
    assert len(device.workspace.chain(first)[1].sums) == 2
    for result, expected in zip(device(0.4, y, ybar), device.plainly(0.4, y, ybar), strict=True):
        assert_close(result, expected, scale=abs(expected).max(), tol=1e-13)


def beside_wider(t, y):
    """Sums over the samples in the same blocks: a result for each position and channel."""
    x = 2.0 * y
    mean, var = ops.moments(x)
    return np.sum(x, axis=0) * mean + var


@needs_compiler
def test_sums_with_more_columns_share_the_blocks(cupy, rng, monkeypatch):
    """A channel then has several parts of each piece of rows, and the last piece is shorter."""
    monkeypatch.setattr(chain_sums, "ROWS_A_THREAD", 1)
    monkeypatch.setattr(chain_sums, "THREADS", 32)
    y = 3 + rng.standard_normal((57, 3, 2))
    device = found(cupy, beside_wider, y)
    first = next(p for p in device.workspace.schedules["F"] if isinstance(p, Run) and p.shape == y.shape)
    chain = device.workspace.chain(first)[1]
    assert len(chain.sums) == 2 and chain.sharing.pieces > 1
    (result,), (expected,) = device(0.4, y), device.plainly(0.4, y)
    assert_close(result, expected, scale=abs(expected).max(), tol=1e-13)


def n_runs(cupy, f):
    """Runs over arrays of the state's shape."""
    y = np.ones((6, 5, 3))
    return sum(isinstance(p, Run) and p.shape == y.shape for p in found(cupy, f, y).workspace.schedules["F"])


def squares_read(t, y):
    mean = mean_leading(y)
    squares = square_about_mean(y, mean)
    return squares * mean_leading(squares) * mean


def of_another(t, y):
    mean = mean_leading(2.0 * y)
    return y * mean_leading(square_about_mean(y, mean)) * mean


@pytest.mark.parametrize(("f", "runs"), [(squares_read, 3), (of_another, 3)])
def test_what_is_no_pair_of_moments_takes_a_run_more(f, runs, texts_only):
    assert n_runs(texts_only, f) == runs
