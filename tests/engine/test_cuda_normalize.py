"""The kernels for normalise, interpolated affine and ReLU, against the plain ops and their rules."""

import numpy as np
import pytest
from cuda_on_cpu import Guarded
from cuda_on_device import PLACES, kernels_at
from odegrad.engine import ops
from odegrad.engine.cuda.normalize import (
    Normalization,
    fits_normalize,
    normalize,
    normalize_cotangents,
    normalize_input_grad,
    partial_sums_shape,
)
from odegrad.engine.transforms import vjp
from oracles import assert_close

BOUND = {np.float32: 1e-6, np.float64: 1e-14}
SHAPES = [(7, 1), (2, 5, 4, 3), (2, 9, 8, 64), (29, 65)]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
EPS = 1e-5
NODES = 5


@pytest.fixture(autouse=True, params=PLACES)
def kernels(request, monkeypatch):
    kernels_at(request.param, monkeypatch)


class Case:
    """A drawn tensor, cotangent and affine map, in one dtype; `plain` is the same by ops on double precision."""

    def __init__(self, rng, shape, dtype, *, time=0.3, offset=0):
        channels = shape[-1]
        self.x, self.ybar = (Guarded(shape, dtype, offset).array for _ in range(2))
        self.x[...] = 3 + 2 * rng.standard_normal(shape)
        self.ybar[...] = rng.standard_normal(shape)
        self.mean = (3 + rng.standard_normal(channels)).astype(dtype)
        self.var = (1 + rng.random(channels)).astype(dtype)
        self.gamma, self.alpha = rng.standard_normal((2, NODES, channels)).astype(dtype)
        self.hats = Guarded((NODES,), dtype).array  # beyond the last node lies NaN
        self.hats[:] = ops.hat_weights(time, np.linspace(0, 1, NODES), dtype=np.dtype(dtype).name)
        self.offset = offset

    def how(self, relu=True, interpolated=True):
        if interpolated:
            return Normalization(self.mean, self.var, EPS, self.gamma, self.alpha, self.hats, relu)
        return Normalization(self.mean, self.var, EPS, self.gamma[0], self.alpha[0], None, relu)

    def wide(self, how):
        """The arrays of a Normalization that can be differentiated, and x, in double precision."""
        arrays = (self.x, how.mean, how.var, how.gamma, how.alpha)
        return [None if a is None else a.astype(np.float64) for a in arrays]

    def guarded(self, shape):
        return Guarded(shape, self.x.dtype, self.offset)


def plain(how):
    """The same by ops, as a function of (x, mean, var, gamma, alpha)."""

    def function(x, mean, var, gamma, alpha):
        if how.hats is not None:
            hats = how.hats.astype(np.float64)
            gamma, alpha = ops.matmul(hats, gamma), ops.matmul(hats, alpha)
        y = ops.normalize(x, mean, var, how.eps, 1.0 if gamma is None else gamma, alpha)
        return ops.relu(y) if how.relu else y

    return function


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@DTYPES
def test_the_forward_pass_is_that_of_the_ops(rng, shape, dtype, offset, relu):
    case = Case(rng, shape, dtype, offset=offset)
    how = case.how(relu)
    expected = plain(how)(*case.wide(how))
    out = case.guarded(shape)
    assert fits_normalize(case.x, how) and normalize(case.x, how, out=out.array) is out.array
    assert_close(out.check(), expected, scale=abs(expected).max(), tol=BOUND[dtype])


@pytest.mark.parametrize("time", [-1.0, 0.0, 0.5, 0.99, 1.0, 2.0])
def test_the_affine_map_is_that_of_the_time(rng, time):
    case = Case(rng, (6, 3), np.float64, time=time)
    how = case.how(relu=False)
    expected = plain(how)(*case.wide(how))
    assert_close(normalize(case.x, how), expected, scale=abs(expected).max(), tol=1e-14)


def test_gamma_and_alpha_are_one_and_zero_by_default(rng):
    case = Case(rng, (6, 3), np.float64)
    how = Normalization(case.mean, case.var, EPS)
    assert_close(normalize(case.x, how), plain(how)(*case.wide(how)), scale=5.0, tol=1e-14)


def test_nan_passes_the_relu(rng):
    case = Case(rng, (6, 3), np.float32)
    case.x[2, 1] = np.nan
    assert np.argwhere(np.isnan(normalize(case.x, case.how()))).tolist() == [[2, 1]]


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@DTYPES
def test_channel_cotangents_are_those_of_the_rules(rng, shape, dtype, offset, relu):
    case = Case(rng, shape, dtype, offset=offset)
    how = case.how(relu, interpolated=False)
    _, pull_back = vjp(plain(how), *case.wide(how))
    _, mean_bar, var_bar, gamma_bar, alpha_bar = pull_back(case.ybar.astype(np.float64))
    partial, bars = case.guarded(partial_sums_shape(case.x)), case.guarded((4, shape[-1]))
    found = normalize_cotangents(case.ybar, case.x, how, bars=bars.array, partial=partial.array)
    assert not np.isnan(partial.check()).any() and not np.isnan(bars.check()).any()
    terms = abs(case.ybar).sum(tuple(range(case.x.ndim - 1)))  # what the sums could be without cancellation
    for name, bar in {"gamma": gamma_bar, "alpha": alpha_bar, "mean": mean_bar, "var": var_bar}.items():
        assert_close(getattr(found, name), bar, scale=5 * terms.max(), tol=BOUND[dtype])


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@DTYPES
def test_the_input_cotangent_goes_through_the_moments(rng, shape, dtype, offset):
    case = Case(rng, shape, dtype, offset=offset)
    x = case.x.astype(np.float64)
    case.mean, case.var = (a.astype(dtype) for a in ops.moments(x))
    how = case.how()

    def through_moments(x):
        mean, var = ops.moments(x)
        return plain(how)(x, mean, var, how.gamma.astype(np.float64), how.alpha.astype(np.float64))

    _, pull_back = vjp(through_moments, x)
    (expected,) = pull_back(case.ybar.astype(np.float64))
    bars = normalize_cotangents(case.ybar, case.x, how)
    out = case.guarded(shape)
    normalize_input_grad(case.ybar, case.x, how, mean_bar=bars.mean, var_bar=bars.var, out=out.array)
    assert_close(out.check(), expected, scale=abs(case.ybar).max() * abs(how.gamma).max(), tol=BOUND[dtype])


@DTYPES
def test_the_input_cotangent_with_constant_moments(rng, dtype):
    case = Case(rng, (29, 65), dtype)
    how = case.how()
    _, pull_back = vjp(plain(how), *case.wide(how))
    expected = pull_back(case.ybar.astype(np.float64))[0]
    found = normalize_input_grad(case.ybar, case.x, how)
    assert_close(found, expected, scale=abs(expected).max(), tol=BOUND[dtype])


def test_the_gate_is_closed_at_zero(rng):
    case = Case(rng, (6, 3), np.float64)
    case.x[:], how = case.mean, Normalization(case.mean, case.var, EPS, relu=True)
    assert not normalize_input_grad(case.ybar, case.x, how).any()


def test_many_blocks_with_several_passes_each(rng, monkeypatch):
    module = "odegrad.engine.cuda"
    monkeypatch.setattr(f"{module}.channels.MOST_BLOCKS", 2)
    monkeypatch.setattr(f"{module}.normalize.MOST_BLOCKS_ELEMENTWISE", 2)
    case = Case(rng, (5, 13, 11, 24), np.float32)
    how = case.how()
    _, pull_back = vjp(plain(how), *case.wide(how))
    x_bar, mean_bar, *_ = pull_back(case.ybar.astype(np.float64))
    assert_close(normalize_input_grad(case.ybar, case.x, how), x_bar, scale=abs(x_bar).max(), tol=1e-6)
    found = normalize_cotangents(case.ybar, case.x, how).mean
    assert_close(found, mean_bar, scale=abs(x_bar).sum() / 24, tol=1e-6)
    expected = plain(how)(*case.wide(how))
    assert_close(normalize(case.x, how), expected, scale=abs(expected).max(), tol=1e-6)


def test_arrays_of_two_dtypes_do_not_fit(rng):
    case = Case(rng, (6, 3), np.float32)
    case.gamma = case.gamma.astype(np.float64)
    assert not fits_normalize(case.x, case.how())
