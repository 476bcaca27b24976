"""The first step size, and the norm it is made from."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad.solvers.first_step import first_step, probe_step
from odegrad.solvers.norms import scaled_norm
from problems import PROBLEMS
from scipy.integrate import RK45

NORMS = st.floats(min_value=0.0) | st.just(math.nan)
INTERVALS = st.floats(min_value=1e-12, max_value=1e12)
SIGNS = st.sampled_from([-1.0, 1.0])


def start_of(problem, rtol, atol, order=5):
    """The first step size as a solver finds it, with one evaluation beyond f(t0, y0)."""
    y0, interval = problem.y0, problem.t1 - problem.t0
    f0 = problem.f(problem.t0, y0)
    f_norm = scaled_norm(np, f0, y0, y0, rtol, atol)
    h0 = probe_step(scaled_norm(np, y0, y0, y0, rtol, atol), f_norm, interval)
    change = problem.f(problem.t0 + h0, y0 + h0 * f0) - f0
    return first_step(h0, f_norm, scaled_norm(np, change, y0, y0, rtol, atol) / abs(h0), order, interval)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-9])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_first_step_is_that_of_scipy(problem, tolerance):
    peer = RK45(problem.f, problem.t0, problem.y0, problem.t1, rtol=tolerance, atol=tolerance)
    assert start_of(problem, tolerance, tolerance) == pytest.approx(peer.h_abs, rel=1e-10)


def test_probe_moves_the_state_by_a_hundredth():
    assert probe_step(3.0, 6.0, 10.0) == pytest.approx(0.005)


@pytest.mark.parametrize(("f_norm", "curvature"), [(2.0, 0.5), (0.5, 2.0)])
def test_first_step_makes_the_larger_term_a_hundredth(f_norm, curvature):
    h = first_step(1.0, f_norm, curvature, 5, 10.0)
    assert h**5 * 2.0 == pytest.approx(0.01, rel=1e-13)


def test_first_step_is_at_most_a_hundred_probes():
    assert first_step(1e-4, 1e-10, 1e-10, 5, 10.0) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("y_norm", "f_norm"),
    [(0.0, 1.0), (1.0, 0.0), (math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf)],
)
def test_probe_is_small_where_the_norms_say_nothing(y_norm, f_norm):
    assert probe_step(y_norm, f_norm, 10.0) == 1e-6


def test_first_step_without_any_slope_is_a_thousandth_of_the_probe():
    assert first_step(0.5, 0.0, 0.0, 5, 10.0) == 5e-4


def test_first_step_without_any_slope_is_at_least_a_millionth():
    assert first_step(1e-6, 0.0, 0.0, 5, 10.0) == 1e-6


@pytest.mark.parametrize(
    ("f_norm", "curvature"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf)]
)
def test_first_step_is_cautious_where_the_probe_was_not_finite(f_norm, curvature):
    assert first_step(0.5, f_norm, curvature, 5, 10.0) == 5e-4


@given(y_norm=NORMS, f_norm=NORMS, curvature=NORMS, interval=INTERVALS, sign=SIGNS)
def test_both_steps_lie_within_the_interval(y_norm, f_norm, curvature, interval, sign):
    h0 = probe_step(y_norm, f_norm, sign * interval)
    h = first_step(h0, f_norm, curvature, 5, sign * interval)
    assert 0 < sign * h0 <= interval and 0 < sign * h <= interval


@given(y_norm=NORMS, f_norm=NORMS, curvature=NORMS, interval=INTERVALS)
def test_time_may_run_either_way(y_norm, f_norm, curvature, interval):
    h0 = probe_step(y_norm, f_norm, interval)
    backward = first_step(-h0, f_norm, curvature, 5, -interval)
    assert backward == -first_step(h0, f_norm, curvature, 5, interval)


def test_norm_is_the_root_mean_square_over_the_scale():
    y, y_new = np.array([1.0, -4.0]), np.array([-3.0, 2.0])  # scales 0.1 + 0.5 * (3, 4) = 1.6, 2.1
    error = np.array([1.6, -4.2])
    assert scaled_norm(np, error, y, y_new, 0.5, 0.1) == pytest.approx(math.sqrt((1 + 4) / 2), rel=1e-15)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4, 5)])
def test_norm_of_any_shape(shape, rtol=1e-3, atol=1e-6):
    rng = np.random.default_rng(0)
    error, y, y_new = rng.normal(size=(3, *shape))
    values = zip(np.ravel(error), np.ravel(y), np.ravel(y_new), strict=True)
    squares = [(e / (atol + rtol * max(abs(a), abs(b)))) ** 2 for e, a, b in values]
    expected = math.sqrt(math.fsum(squares) / len(squares))
    assert scaled_norm(np, error, y, y_new, rtol, atol) == pytest.approx(expected, rel=1e-14)


def test_norm_of_views_that_are_not_contiguous():
    error, y, y_new = np.random.default_rng(1).normal(size=(3, 4, 6))
    expected = scaled_norm(np, error, y, y_new, 1e-3, 1e-6)
    assert scaled_norm(np, error.T, y.T, y_new.T, 1e-3, 1e-6) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    "tolerance", [np.array([1e-3, 1e-5]), np.full((4, 1), 1e-4)], ids=["per value", "per row"]
)
def test_tolerances_may_be_arrays(tolerance):
    error, y, y_new = np.random.default_rng(2).normal(size=(3, 4, 2))
    rows = np.broadcast_to(tolerance, (4, 2))
    each = [
        scaled_norm(np, error[i, j], y[i, j], y_new[i, j], float(rows[i, j]), float(rows[i, j])) ** 2
        for i in range(4)
        for j in range(2)
    ]
    norm = scaled_norm(np, error, y, y_new, tolerance, tolerance)
    assert norm == pytest.approx(math.sqrt(sum(each) / 8), rel=1e-14)


def test_norm_of_a_complex_state_uses_moduli():
    error, y, y_new = np.array([3.0 + 4.0j]), np.array([0.6j]), np.array([0.6 - 0.8j])
    assert scaled_norm(np, error, y, y_new, 1.0, 1.0) == pytest.approx(2.5, rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_norm_is_a_python_float(dtype):
    ones = np.ones(3, dtype)
    assert type(scaled_norm(np, ones, ones, ones, 1e-3, 1e-6)) is float


def test_float32_agrees_with_float64():
    arrays = np.random.default_rng(3).normal(size=(3, 1000)).astype(np.float32)
    exact = scaled_norm(np, *arrays.astype(np.float64), 1e-3, 1e-6)
    assert scaled_norm(np, *arrays, 1e-3, 1e-6) == pytest.approx(
        exact, rel=10 * float(np.finfo(np.float32).eps)
    )


@pytest.mark.parametrize("place", ["error", "y", "y_new"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_is_passed_on_without_a_warning(place, dtype):
    arrays = {name: np.ones(3, dtype) for name in ("error", "y", "y_new")}
    arrays[place][1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(scaled_norm(np, **arrays, rtol=1e-3, atol=1e-6))


@pytest.mark.parametrize(
    ("huge", "y"),
    [(np.inf, 1.0), (1e30, 1.0), (1e38, 1e-9)],
    ids=["infinity", "square overflows", "quotient overflows"],
)
def test_infinity_is_passed_on_without_a_warning(huge, y):
    error, state = np.array([1.0, huge], np.float32), np.array([y, y], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scaled_norm(np, error, state, state, 1e-3, 1e-6) == math.inf


def test_an_infinite_step_has_no_norm_and_gives_no_warning():
    infinite = np.array([1.0, np.inf])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(scaled_norm(np, infinite, np.ones(2), infinite, 1e-3, 1e-6))


def test_norm_of_an_empty_state_is_zero():
    empty = np.ones((0, 3))
    assert scaled_norm(np, empty, empty, empty, 1e-3, 1e-6) == 0.0
