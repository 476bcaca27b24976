"""The kernels for stage sums and error norms, against the solvers' plain formulas."""

import numpy as np
import pytest
from cuda_on_cpu import Guarded
from cuda_on_device import PLACES, kernels_at
from odegrad.engine.cuda.error_norm import error_norm, step_error_norm
from odegrad.engine.cuda.stage_sum import MOST_STAGES, fits_slopes, stage_sum
from odegrad.engine.errors import ArgumentError
from odegrad.solvers.norms import scaled_norm
from odegrad.solvers.stepping import weighted_sum
from oracles import assert_close

BOUND = {np.float32: 1e-6, np.float64: 1e-14}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
H = -0.25


@pytest.fixture(autouse=True, params=PLACES)
def kernels(request, monkeypatch):
    kernels_at(request.param, monkeypatch)


def guarded(rng, shape, dtype, offset=0):
    array = Guarded(shape, dtype, offset)
    array.array[...] = rng.standard_normal(shape)
    return array


def drawn(rng, stages, n, dtype, offset=0):
    """(y, slopes, weights): rows [y, k_1, ..., k_s] of one array, as a step has them."""
    rows = guarded(rng, (stages + 1, n), dtype, offset).array
    return rows[0], rows[1:], rng.standard_normal(stages)


def total(y, slopes, weights, h):
    """y + h sum_j weights_j k_j in double precision."""
    return y.astype(np.float64) + h * weighted_sum(weights, slopes.astype(np.float64))


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("n", [1, 7, 64, 1027])
@pytest.mark.parametrize("stages", [1, 6, 13])
@DTYPES
def test_a_stage_sum_is_that_of_the_plain_step(rng, stages, n, dtype, offset):
    y, slopes, weights = drawn(rng, stages, n, dtype, offset)
    out = Guarded((n,), dtype, offset)
    assert stage_sum(y, slopes, weights, H, out=out.array) is out.array
    scale = abs(y).max() + abs(H * weights).sum() * abs(slopes).max()
    assert_close(out.check(), total(y, slopes, weights, H), scale=scale, tol=BOUND[dtype])


@DTYPES
def test_h_on_the_device(rng, dtype):
    y, slopes, weights = drawn(rng, 3, 50, dtype)
    results = [stage_sum(y, slopes, weights, h, out=np.empty(50, dtype)) for h in (H, np.array([H]))]
    np.testing.assert_array_equal(*results)


@DTYPES
def test_without_a_state_it_is_the_sum_alone(rng, dtype):
    _, slopes, weights = drawn(rng, 3, 50, dtype)
    expected = total(np.zeros(50), slopes, weights, H)
    found = stage_sum(None, slopes, weights, H, out=np.empty(50, dtype))
    assert_close(found, expected, scale=abs(expected).max(), tol=BOUND[dtype])


@pytest.mark.parametrize("n", [50, 3000])
@DTYPES
def test_it_accumulates_in_place(rng, n, dtype):
    y, slopes, weights = drawn(rng, 3, n, dtype)
    bar = guarded(rng, (n,), dtype)
    expected = total(bar.array, slopes, weights, H)
    stage_sum(bar.array, slopes, weights, H, out=bar.array)
    assert_close(bar.check(), expected, scale=abs(expected).max(), tol=BOUND[dtype])


def test_a_slope_without_weight_is_not_read(rng):
    y, slopes, weights = drawn(rng, 3, 50, np.float32)
    weights[1], slopes[1] = 0.0, np.nan
    assert np.isfinite(stage_sum(y, slopes, weights, H, out=np.empty(50, np.float32))).all()


def test_more_blocks_than_are_launched_at_once(rng, monkeypatch):
    monkeypatch.setattr("odegrad.engine.cuda.stage_sum.MOST_BLOCKS", 2)
    y, slopes, weights = drawn(rng, 2, 5003, np.float64)
    found = stage_sum(y, slopes, weights, H, out=np.empty(5003))
    assert_close(found, total(y, slopes, weights, H), scale=5.0, tol=1e-14)


@pytest.mark.parametrize(
    "slopes, weights, message",
    [
        (np.ones((MOST_STAGES + 1, 2)), np.ones(MOST_STAGES + 1), r"s <= 16.*got float64 \(17, 2\)"),
        (np.ones((2, 6))[:, ::2], np.ones(2), r"rows of neighbours.*strides \(48, 16\)"),
        (np.ones((2, 3), complex), np.ones(2), r"got complex128"),
        (np.ones((2, 3)), np.ones(3), r"weights must be float64 \(2,\).*got float64 \(3,\)"),
        (np.ones((2, 3)), np.ones(2, np.float32), r"weights must be float64.*got float32"),
    ],
    ids=["many", "strided", "complex", "weights", "dtype"],
)
def test_what_cannot_be_summed_is_refused(slopes, weights, message):
    with pytest.raises(ArgumentError, match=message):
        stage_sum(None, slopes, weights, H, out=np.empty(3))


def test_rows_that_lie_apart_fit():
    assert fits_slopes(np.ones((4, 6))[::2, 1:])


def expected_norm(error, y, y_new, rtol, atol, norm):
    """The norm by the solvers in double precision."""
    wide = [np.asarray(a, np.float64) for a in (error, y, y_new, rtol, atol)]
    if norm == "rms":
        return scaled_norm(np, *wide)
    error, y, y_new, rtol, atol = wide
    return abs(error / (atol + rtol * np.maximum(abs(y), abs(y_new)))).max()


@pytest.mark.parametrize("norm", ["rms", "max"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("n", [1, 7, 1027, 5003])
@DTYPES
def test_an_error_norm_is_that_of_the_solvers(rng, n, dtype, offset, norm):
    error, y, y_new = (guarded(rng, (n,), dtype, offset).array for _ in range(3))
    out = Guarded((1,), np.float64)
    error_norm(error, y, y_new, 1e-3, 1e-5, norm=norm, out=out.array)
    expected = expected_norm(error, y, y_new, 1e-3, 1e-5, norm)
    assert_close(out.check(), np.array([expected]), scale=expected, tol=BOUND[dtype])


@pytest.mark.parametrize("norm", ["rms", "max"])
@DTYPES
def test_tolerances_may_be_arrays(rng, dtype, norm):
    error, y, y_new = rng.standard_normal((3, 501)).astype(dtype)
    rtol, atol = (1e-3 + rng.random((2, 501))).astype(dtype)
    for tolerances in ((rtol, atol), (1e-2, atol), (rtol, 1e-2)):
        expected = expected_norm(error, y, y_new, *tolerances, norm)
        found = error_norm(error, y, y_new, *tolerances, norm=norm)
        assert_close(found, np.array([expected]), scale=expected, tol=BOUND[dtype])


@pytest.mark.parametrize("norm", ["rms", "max"])
@DTYPES
def test_the_error_of_a_step_needs_no_array_of_its_own(rng, dtype, norm):
    y, slopes, weights = drawn(rng, 7, 1027, dtype)
    y_new = rng.standard_normal(1027).astype(dtype)
    error = total(np.zeros(1027), slopes, weights, H)
    expected = expected_norm(error, y, y_new, 1e-3, 1e-5, norm)
    for h in (H, np.array([H])):
        found = step_error_norm(slopes, weights, h, y, y_new, 1e-3, 1e-5, norm=norm)
        assert_close(found, np.array([expected]), scale=expected, tol=BOUND[dtype])


@pytest.mark.parametrize("norm", ["rms", "max"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["error", "y_new"])
def test_what_is_not_finite_is_never_a_small_error(rng, where, value, norm):
    arrays = dict(zip(("error", "y", "y_new"), rng.standard_normal((3, 1500)), strict=True))
    arrays[where][700] = value
    assert not np.isfinite(error_norm(*arrays.values(), 1e-3, 1e-5, norm=norm)).any()


def test_small_errors_are_not_lost_in_squares(rng):
    error = np.full(1000, 1e-30, np.float32)  # its square is no float32
    ones = np.ones(1000, np.float32)
    np.testing.assert_allclose(error_norm(error, ones, ones, 0.5, 0.5), [1e-30], rtol=1e-6)


def test_another_norm_is_refused():
    with pytest.raises(ArgumentError, match=r"must be one of rms, max; got 'leaves'"):
        error_norm(*np.ones((3, 4)), 1e-3, 1e-3, norm="leaves")
