"""Derivatives without rules: extrapolated differences, one-sided slopes, complex steps and where these do not apply."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad import check, ops
from odegrad.engine.check.differences import START, extrapolated_difference, noise_level, one_sided_slopes
from odegrad.engine.errors import NonFiniteGradient
from oracles import EPS64
from strategies import seeds

CURVES = [  # phi, phi'(0)
    (math.sin, 1.0),
    (math.exp, 1.0),
    (lambda h: math.exp(-50.0 * h), -50.0),
    (lambda h: math.sin(1000.0 * h), 1000.0),
    (lambda h: 1.0 / (0.01 + h) if h > -0.01 else math.nan, -1e4),  # not finite at the larger steps
    (lambda h: 1e6 + math.sin(h), 1.0),  # round-off of phi is 1e-10
    (lambda h: math.log(1e-3 + h) if h > -1e-3 else -math.inf, 1e3),
]


@pytest.mark.parametrize("k", range(len(CURVES)))
def test_extrapolated_differences_reach_eight_digits(k):
    phi, slope = CURVES[k]
    found = extrapolated_difference(phi, START, EPS64)
    scale = max(abs(slope), abs(phi(0.0)))
    assert abs(found.value - slope) <= 1e-8 * scale


@given(seeds)
def test_the_estimated_error_is_not_far_below_the_true_one(seed):
    a, b, c, d = np.random.default_rng(seed).uniform(-3.0, 3.0, 4)
    found = extrapolated_difference(lambda h: d + math.sin(a * h + b) * math.exp(c * h), START, EPS64)
    true = a * math.cos(b) + c * math.sin(b)
    assert abs(found.value - true) <= 10.0 * found.error


def test_a_straight_line_costs_four_evaluations():
    calls = []
    extrapolated_difference(lambda h: calls.append(h) or 3.0 * h, START, EPS64)
    assert len(calls) == 4


def test_a_function_that_is_finite_on_one_side_only_has_no_difference():
    found = extrapolated_difference(lambda h: math.sqrt(h) if h >= 0 else math.nan, START, EPS64)
    assert math.isnan(found.value) and found.error == math.inf


@given(seeds)
def test_the_noise_of_a_function_is_measured(seed):
    rng = np.random.default_rng(seed)
    noise = noise_level(lambda h: math.sin(3.0 * h) + 1e-8 * rng.normal(), 1e-6)
    assert 2e-9 < noise < 4e-8


@pytest.mark.parametrize(
    "phi", [math.sin, math.exp, lambda h: math.sin(100.0 * h), lambda h: 1.0 / (1.0 + h)]
)
def test_a_smooth_function_has_no_noise_beyond_round_off(phi):
    assert noise_level(phi, 1e-6) < 2.0 * EPS64


def test_a_function_that_is_not_finite_has_no_measured_noise():
    assert noise_level(lambda h: math.nan, 1e-6) == 0.0


KINKS = [  # phi, slopes from the left and from the right
    (lambda h: max(h, 0.0), 0.0, 1.0),
    (abs, -1.0, 1.0),
    (lambda h: 5.0 + abs(h) + math.sin(h), 0.0, 2.0),
    (lambda h: max(math.sin(h), 3.0 * h), 1.0, 3.0),
]


@pytest.mark.parametrize("k", range(len(KINKS)))
def test_one_sided_slopes_at_a_kink(k):
    phi, left, right = KINKS[k]
    found = one_sided_slopes(phi, phi(0.0), 1e-2, EPS64)
    assert found.is_kink and abs(found.left - left) < 1e-4 and abs(found.right - right) < 1e-4


def test_a_jump_is_no_point_of_differentiability():
    assert one_sided_slopes(math.floor, 0.0, 1e-2, EPS64).is_kink


SMOOTH = [math.sin, math.exp, math.cos, lambda h: h, lambda h: 1e6 * h * h, lambda h: 1e8 + h, lambda h: 0.0]


@pytest.mark.parametrize("k", range(len(SMOOTH)))
def test_a_smooth_function_has_no_kink(k):
    assert not one_sided_slopes(SMOOTH[k], SMOOTH[k](0.0), 1e-2, EPS64).is_kink


@given(seeds)
def test_a_noisy_function_has_no_kink(seed):
    rng = np.random.default_rng(seed)
    assert not one_sided_slopes(lambda h: math.sin(h) + 1e-9 * rng.normal(), 0.0, 1e-2, EPS64, 1e-9).is_kink


def test_a_kink_outside_of_the_steps_is_none():
    assert not one_sided_slopes(lambda h: max(h - 0.02, 0.0), 0.0, 1e-2, EPS64).is_kink


def smooth(tree):
    return np.sum(np.sin(tree["a"]) * tree["b"]) + np.exp(-tree["c"])


TREE = {"a": np.array([[0.3, -1.2]]), "b": np.array([2.0, 0.7]), "c": 0.4}
V = {"a": np.array([[1.0, 2.0]]), "b": np.array([-1.0, 0.5]), "c": 3.0}
SLOPE = (
    float(np.sum(np.cos(TREE["a"]) * V["a"] * TREE["b"]) + np.sum(np.sin(TREE["a"]) * V["b"]))
    - math.exp(-0.4) * 3.0
)


@pytest.mark.parametrize("tool, tol", [(check.central_difference, 1e-11), (check.complex_step, 4 * EPS64)])
def test_directional_derivative_of_a_tree(tool, tol):
    assert abs(tool(smooth, TREE, V).value - SLOPE) <= tol * abs(SLOPE)


def test_complex_step_says_that_it_was_one():
    assert check.complex_step(smooth, TREE, V).method == "complex step"


NOT_ANALYTIC = {
    "abs": lambda x: np.sum(np.abs(x) * x),
    "real": lambda x: np.sum(np.real(x) * np.sin(x)),
    "conj": lambda x: np.sum(np.real(np.conj(x) * np.sin(x))),
}


@pytest.mark.parametrize("name", NOT_ANALYTIC)
def test_complex_step_falls_back_and_names_the_operation(name):
    x, v = np.array([1.5, -0.5]), np.array([1.0, 1.0])
    found = check.complex_step(NOT_ANALYTIC[name], x, v)
    assert found.method == "central differences" and found == replace(
        check.central_difference(NOT_ANALYTIC[name], x, v), note=found.note
    )
    assert f"`{name}` at {__file__}:" in found.note and "not analytic" in found.note


def test_complex_step_falls_back_where_the_function_refuses_complex_values():
    def real_only(x):
        if x.dtype.kind == "c":
            raise TypeError("real values only")
        return np.sum(x * x)

    found = check.complex_step(real_only, np.ones(2), np.ones(2))
    assert found.method == "central differences" and "real values only" in found.note
    assert f"at {__file__}:" in found.note


def test_complex_step_falls_back_on_what_numpy_does_to_complex_arrays():
    x = np.array([1.0, 2.0, 4.0])
    found = check.complex_step(lambda x: np.var(x), x, np.array([1.0, 0.0, 0.0]))
    assert abs(found.value - 2.0 / 3.0 * (x[0] - x.mean())) < 1e-11 and "var" in found.note


def test_complex_step_falls_back_at_a_complex_point():
    z = np.array([1.0 + 2.0j])
    found = check.complex_step(lambda z: np.sum(np.abs(z) ** 2), z, np.array([1j]))
    assert abs(found.value - 4.0) < 1e-10 and "complex itself" in found.note


def test_central_difference_reports_a_kink():
    found = check.central_difference(lambda x: np.sum(np.maximum(x, 0.0)), np.zeros(2), np.array([1.0, -2.0]))
    assert found.is_kink and found.left == pytest.approx(-2.0) and found.right == pytest.approx(1.0)
    assert "a kink: -2 from the left, 1 from the right" in str(found)


def test_a_point_at_the_border_of_the_domain_is_an_error():
    with pytest.raises(NonFiniteGradient, match="NaN or infinite at the point moved"):
        check.central_difference(lambda x: np.sum(np.sqrt(x)), np.zeros(1), np.ones(1))


def test_a_given_step_is_the_largest():
    steps = []

    def f(x):
        steps.append(abs(float(x[0]) - 1.0))
        return np.sum(x**3)

    check.central_difference(f, np.ones(1), np.ones(1), step=1e-3)
    assert max(steps) == pytest.approx(1e-3)


@given(seeds, st.sampled_from([np.float32, np.float64, np.complex128]))
def test_random_directions_have_entries_about_one_and_follow_from_the_seed(seed, dtype):
    x = {"a": np.zeros((2, 3), dtype), "b": [np.zeros((), dtype)]}
    first, again = check.random_direction(x, seed), check.random_direction(x, seed)
    assert np.array_equal(first["a"], again["a"]) and first["a"].dtype == dtype
    sizes = np.abs([*first["a"].ravel(), first["b"][0]])
    assert np.all((sizes >= 0.5) & (sizes <= 1.5)) and len(set(sizes)) == 7


def test_the_module_is_loaded_at_its_first_use():
    code = "import sys, odegrad; print('odegrad.engine.check' in sys.modules); print(odegrad.check.gradients.__name__)"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert fresh.stdout.split() == ["False", "gradients"]


def test_relu_is_analytic_away_from_its_kink():
    found = check.complex_step(lambda x: ops.sum(ops.relu(x) ** 2), np.array([1.0, -1.0]), np.ones(2))
    assert (found.method, found.value) == ("complex step", pytest.approx(2.0, rel=1e-14))
