"""Costs at equal error: interpolation between tolerances, and the table of them."""

import math

import numpy as np
import pytest
from odegrad.train.audit import Measurement, Reference
from odegrad.train.audit.equal_error import cost_at, equal_error_table


def measured(error, n, *, method="m", rtol=None, failure="", dtype="float64"):
    """A row whose way back took n evaluations of f and no pull-backs."""
    given = {"problem": "p", "gradient": method, "dtype": dtype, "rtol": rtol or error, "atol": 1.0}
    return Measurement(**given, error=error, nfe_backward=n, failure=failure)


def truth(uncertainty=1e-14):
    return Reference(1.0, {"y0": np.ones(1)}, uncertainty, "a solve")


def backward(row):
    return row.nfe_backward


@pytest.mark.parametrize(("target", "expected"), [(1e-3, math.sqrt(100 * 1000)), (1e-4, 1000.0)])
def test_costs_lie_on_a_line_in_logarithms(target, expected):
    rows = [measured(1e-4, 1000), measured(1e-2, 100)]
    assert cost_at(rows, target, backward) == pytest.approx(expected)


def test_a_method_of_order_five_is_met_exactly():
    """error = cost**-5: at any error between the measured ones the cost is error**(-1/5)."""
    rows = [measured(float(n) ** -5, n) for n in (10, 40, 100)]
    assert cost_at(rows, 1e-7, backward) == pytest.approx(1e-7 ** (-1 / 5))


@pytest.mark.parametrize("target", [1e-1, 1e-2, 1e-5])
def test_nothing_is_said_outside_of_what_was_measured(target):
    """At the loosest tolerance less might have done."""
    assert cost_at([measured(1e-2, 100), measured(1e-4, 1000)], target, backward) is None


def test_where_errors_rise_again_the_first_crossing_counts():
    rows = [measured(error, n, rtol=rtol) for error, n, rtol in
            [(1e-2, 10, 1e-2), (1e-4, 100, 1e-3), (1e-2, 200, 1e-4), (1e-4, 400, 1e-5)]]  # fmt: skip
    assert cost_at(rows, 1e-3, backward) == pytest.approx(math.sqrt(10 * 100))


def test_a_refusal_is_passed_over():
    rows = [measured(1e-2, 100), measured(math.nan, 0, rtol=1e-3, failure="DriftError"), measured(1e-4, 1000)]
    assert cost_at(rows, 1e-3, backward) == pytest.approx(math.sqrt(100 * 1000))


def pair(method, n):
    return [measured(2e-3, n, method=method), measured(5e-5, 10 * n, method=method)]


def test_the_table_has_the_errors_that_two_methods_reach():
    rows = [*pair("a", 10), *pair("b", 20), measured(1e-7, 900, method="b")]
    head, _, *lines = equal_error_table(rows, truth()).splitlines()
    assert head == "| method | 1e-03 | 1e-04 |"
    assert [line.split("|")[1].strip() for line in lines] == ["`a`", "`b`"]


def test_a_table_of_one_method_is_none():
    assert equal_error_table(pair("a", 10), truth()) == ""


def test_rows_of_float32_stay_out():
    single = [measured(row.error, 10, method="b", dtype="float32") for row in pair("b", 10)]
    assert equal_error_table([*pair("a", 10), *single], truth()) == ""


def test_an_error_below_that_of_the_reference_has_no_column():
    table = equal_error_table([*pair("a", 10), *pair("b", 20)], truth(uncertainty=3e-4))
    assert table.splitlines()[0] == "| method | 1e-03 |"
