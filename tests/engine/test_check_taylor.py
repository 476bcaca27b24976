"""Taylor remainders fall with the orders that right derivatives give, and dot products agree three ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad import check, grad, ops
from odegrad.engine.primitive import PRIMITIVES, primitive
from strategies import seeds

X = np.random.default_rng(5).standard_normal((6, 3))


def network(p: dict) -> Any:
    return np.tanh(X @ p["w"] + p["b"])


def loss(p: dict) -> Any:
    return np.sum(network(p) ** 3) + np.exp(0.1 * np.sum(p["b"]))


def params(seed: int = 0, dtype: Any = np.float64) -> dict:
    rng = np.random.default_rng(seed)
    return {"w": rng.standard_normal((3, 4)).astype(dtype), "b": rng.standard_normal(4).astype(dtype)}


@pytest.fixture
def op(request):
    """y = x**3 as a primitive with the rule that the test is given; it exists during the test only."""
    made = primitive("under_test")(lambda xp, x: x * x * x)
    made.vjp(saves=("x",))(request.param)
    yield made
    del PRIMITIVES["under_test"]


def right(ybar, x):
    return (ybar * 3.0 * x * x,)


def half(ybar, x):
    return (ybar * 1.5 * x * x,)


def frozen(ybar, x):
    """A right gradient whose own derivative is lost."""
    return (ybar * 3.0 * ops.stop_gradient(x * x),)


def swapped(ybar, x):
    """Linear in ybar, but transposed wrongly: the cotangents of two entries change places."""
    return (ops.flip(ybar, 0) * 3.0 * x * x,)


@given(seeds)
def test_slopes_of_a_right_loss_are_not_below_one_two_three(seed):
    report = check.taylor_test(loss, params(seed), seed=seed)
    assert report.ok and np.all(np.array(report.slopes) > [0.8, 1.8, 2.8])


@pytest.mark.parametrize("seed", range(4))
def test_slopes_of_a_right_loss_are_one_two_three(seed):
    assert np.allclose(check.taylor_test(loss, params(seed), seed=seed).slopes, [1, 2, 3], atol=0.15)


@given(seeds, st.floats(1e-4, 1.0), st.sampled_from([-1.0, 1.0]))
def test_a_gradient_that_is_off_leaves_a_remainder_of_first_order(seed, error, sign):
    p = params(seed)
    wrong = grad(loss)(p)
    wrong["w"][seed % 3, seed % 4] += sign * error * np.abs(wrong["w"]).max()
    report = check.taylor_test(loss, p, gradient=wrong, seed=seed)
    assert report.verdict == "wrong" and report.slopes[1] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("op", [half], indirect=True)
def test_a_wrong_rule_has_slope_one(op):
    report = check.taylor_test(lambda x: np.sum(op(np.sin(x))), X)
    assert report.verdict == "wrong" and report.slopes[1] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("op", [frozen], indirect=True)
def test_a_wrong_second_derivative_has_slope_two(op):
    report = check.taylor_test(lambda x: np.sum(op(np.sin(x))), X)
    assert report.verdict == "wrong" and report.slopes[1:] == (
        pytest.approx(2.0, abs=0.05),
        pytest.approx(2.0, abs=0.05),
    )


@pytest.mark.parametrize("op", [frozen], indirect=True)
def test_without_the_hessian_its_rule_is_not_tested(op):
    report = check.taylor_test(lambda x: np.sum(op(np.sin(x))), X, hessian=False)
    assert report.ok and len(report.slopes) == 2


def test_remainders_of_a_quadratic_vanish_after_two_terms():
    report = check.taylor_test(lambda x: np.sum(x * x), X)
    assert report.ok and report.slopes[2] == np.inf


def test_a_linear_function_has_no_remainder():
    assert check.taylor_test(lambda x: np.sum(3.0 * x), X).slopes[1:] == (np.inf, np.inf)


def test_a_kink_is_reported():
    report = check.taylor_test(lambda x: np.sum(np.abs(x) * X), 0.0 * X)
    assert (report.verdict, report.ok) == ("kink", False)


def test_float32_passes():
    assert check.taylor_test(loss, params(dtype=np.float32)).ok


def test_a_given_direction_is_taken():
    p = params()
    v = {"w": np.zeros((3, 4)), "b": np.array([1.0, 0.0, 0.0, 0.0])}
    report = check.taylor_test(loss, p, v)
    moved = {"w": p["w"], "b": p["b"] + report.h[3] * v["b"]}
    assert report.remainders[0, 3] == pytest.approx(abs(loss(moved) - loss(p)), rel=1e-12)


def test_the_table_shows_slopes_beside_what_is_expected():
    slopes, expected = str(check.taylor_test(loss, params())).splitlines()[-2:]
    assert slopes.split()[0] == "slope" and expected.split() == ["expected", "1", "2", "3"]


def test_assert_ok_raises_with_the_table():
    with pytest.raises(AssertionError, match="Taylor remainders: WRONG"):
        check.taylor_test(loss, params(), gradient=params(1)).assert_ok()


@given(seeds, st.sampled_from([np.float32, np.float64]))
def test_dot_products_of_a_right_function_agree(seed, dtype):
    check.dot_product_test(network, params(seed, dtype), seed=seed).assert_ok()


def test_dot_products_of_complex_values_agree():
    z = np.array([1.0 + 2.0j, 0.3])
    check.dot_product_test(lambda z: {"a": np.exp(z * (1 + 1j)) * np.conj(z), "b": np.abs(z)}, z).assert_ok()


@pytest.mark.parametrize("op", [half], indirect=True)
def test_a_wrong_factor_passes_the_transposes_but_not_the_differences(op):
    report = check.dot_product_test(op, X)
    assert report.verdict == "wrong" and report.transpose_error < 1e-15 and report.error > 0.01


@pytest.mark.parametrize("op", [swapped], indirect=True)
def test_a_wrong_transpose_is_caught_by_differences(op):
    assert check.dot_product_test(op, X).verdict == "wrong"


@pytest.mark.parametrize("op", [lambda ybar, x: (ybar * ybar * x,)], indirect=True)
def test_a_rule_that_is_not_linear_in_the_cotangent_is_wrong(op):
    assert check.dot_product_test(op, X).verdict == "wrong"


def one_sided(ybar, x):
    """The right cotangent, in which ybar is no longer seen."""
    return (ops.stop_gradient(ybar) * 3.0 * x * x + 0.0 * ybar,)


@pytest.mark.parametrize("op", [one_sided], indirect=True)
def test_a_jvp_that_is_not_the_transpose_is_wrong(op):
    report = check.dot_product_test(op, X)
    assert report.verdict == "wrong" and report.error < 1e-9 and report.transpose_error > 0.01


@pytest.mark.parametrize("op", [right], indirect=True)
def test_the_right_rule_passes(op):
    check.dot_product_test(op, X).assert_ok()


def test_the_three_numbers_are_right():
    x = np.array([2.0])
    report = check.dot_product_test(lambda x: x**3, x, seed=4)
    v, ybar = report.by_vjp / 12.0, 1.0  # the product of the two drawn numbers
    assert report.by_jvp == pytest.approx(12.0 * v * ybar) and report.by_differences.value == pytest.approx(
        12.0 * v
    )
    assert 0.25 <= abs(v) <= 2.25


def test_a_kink_of_one_component_is_reported():
    assert check.dot_product_test(lambda x: np.maximum(x, 0.0), np.zeros(3)).verdict == "kink"


def test_the_failed_dot_products_are_shown():
    report = check.dot_product_test(lambda x: np.sin(x), X)
    assert "by vjp" in str(report) and "by differences" in str(report)
