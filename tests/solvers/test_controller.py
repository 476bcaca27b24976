"""The controller, fed with error norms; no ODE in sight."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad.engine.errors import ArgumentError
from odegrad.solvers.controller import PIController, Verdict
from odegrad.solvers.tableaus import DOPRI5

DOPRI5_CONTROL = PIController(order=5)
INTEGRAL = PIController(order=5, beta=0.0)
ERRORS = st.floats(min_value=0.0, max_value=1e300)
BAD_ERRORS = [math.nan, math.inf]


def after(*errors, controller=DOPRI5_CONTROL, h=1.0):
    """The verdicts on attempts with these error norms, one after the other."""
    verdicts = []
    for error in errors:
        verdicts.append(controller.judge(error, h, verdicts[-1] if verdicts else None))
        h = verdicts[-1].next_h
    return verdicts


@pytest.mark.parametrize(
    ("error", "is_accepted"),
    [(0.0, True), (0.5, True), (1.0, True), (math.nextafter(1.0, 2.0), False), (5.0, False)],
)
def test_a_step_passes_up_to_an_error_norm_of_one(error, is_accepted):
    assert DOPRI5_CONTROL.judge(error, 0.1).is_accepted is is_accepted


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("error", [0.3, 0.9, 1.5, 20.0])
def test_without_memory_the_next_error_is_aimed_at_safety_to_the_order(error, order):
    """error ~ h**order: after a change by `factor` the error is error * factor**order = safety**order."""
    verdict = PIController(order=order).judge(error, 1.0)
    assert error * verdict.next_h**order == pytest.approx(0.9**order, rel=1e-13)


def test_after_an_accepted_step_the_factor_is_that_of_proportional_integral_control():
    verdict = after(0.5, 0.25)[-1]
    expected = 0.9 * 0.25 ** -(0.2 - 0.75 * 0.04) * 0.5**0.04  # Hairer & Wanner (1996), section IV.2
    assert verdict.next_h / verdict.h == pytest.approx(expected, rel=1e-14)


def test_a_remembered_error_counts_as_a_tenth_at_least():
    assert after(1e-9, 0.25)[-1].next_h / after(1e-9)[-1].next_h == pytest.approx(
        0.9 * 0.25 ** -(0.2 - 0.75 * 0.04) * 0.1**0.04, rel=1e-14
    )


@pytest.mark.parametrize("first", [0.9, 0.1, 1e-8])
def test_without_beta_nothing_is_remembered(first):
    verdict = after(first, 0.25, controller=INTEGRAL)[-1]
    assert verdict.next_h / verdict.h == pytest.approx(0.9 * 0.25**-0.2, rel=1e-14)


@pytest.mark.parametrize("error", [7.0, *BAD_ERRORS])
def test_a_rejected_step_leaves_the_memory_as_it_was(error):
    assert after(0.3, error)[-1].last_accepted_error == 0.3


@pytest.mark.parametrize("error", [0.0, 5e-324, 1e-300, 1e-12])
@pytest.mark.parametrize("order", [1, 2, 5])
def test_growth_is_limited(error, order):
    assert PIController(order=order).judge(error, 0.5).next_h == 5.0


@pytest.mark.parametrize("error", [1e6, 1e300, *BAD_ERRORS])
def test_shrinking_is_limited(error):
    assert DOPRI5_CONTROL.judge(error, 1.0).next_h == 0.2


@pytest.mark.parametrize("error", BAD_ERRORS)
def test_an_error_that_is_not_finite_is_rejected(error):
    assert not DOPRI5_CONTROL.judge(error, 1.0).is_accepted


def test_growth_after_errors_that_are_not_finite_waits_one_step():
    verdicts = after(0.5, math.nan, math.inf, 0.0, 0.0)
    assert [v.next_h / v.h for v in verdicts[1:]] == pytest.approx([0.2, 0.2, 1.0, 10.0])


def test_a_step_after_a_rejected_one_may_shrink():
    verdict = after(0.9, 3.0, 0.99)[-1]
    assert verdict.next_h < verdict.h


@given(error=ERRORS, previous=ERRORS, h=st.floats(1e-12, 1e12), sign=st.sampled_from([-1.0, 1.0]))
def test_time_may_run_either_way(error, previous, h, sign):
    forward = DOPRI5_CONTROL.judge(error, h, DOPRI5_CONTROL.judge(previous, h))
    signed = DOPRI5_CONTROL.judge(error, sign * h, DOPRI5_CONTROL.judge(previous, sign * h))
    assert signed.next_h == sign * forward.next_h


@given(errors=st.lists(ERRORS | st.sampled_from(BAD_ERRORS), min_size=1, max_size=20))
def test_every_factor_stays_within_its_limits(errors):
    factors = [v.next_h / v.h for v in after(*errors)]
    assert all(0.2 * (1 - 1e-15) <= factor <= 10 * (1 + 1e-15) for factor in factors)


@given(error=st.floats(min_value=1.0, max_value=1e300, exclude_min=True))
def test_a_rejected_step_becomes_shorter(error):
    assert DOPRI5_CONTROL.judge(error, 1.0).next_h < 1.0


@given(small=ERRORS, large=ERRORS, remembered=st.none() | st.floats(0.0, 1.0))
def test_a_larger_error_never_gives_a_longer_step(small, large, remembered):
    small, large = sorted((small, large))
    previous = Verdict(True, remembered or 0.0, 1.0, 1.0, remembered)
    assert (
        DOPRI5_CONTROL.judge(large, 1.0, previous).next_h <= DOPRI5_CONTROL.judge(small, 1.0, previous).next_h
    )


def step_sizes_on(error_constant, order=5, steps=40):
    """Step sizes on a problem whose error norm is error_constant * h**order, from h = 1."""
    controller, verdict, h, sizes = PIController(order=order), None, 1.0, []
    for _ in range(steps):
        verdict = controller.judge(error_constant * h**order, h, verdict)
        sizes.append(h)
        h = verdict.next_h
    return sizes


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("error_constant", [1e-8, 1.0, 1e8])
def test_steps_settle_where_integral_and_proportional_parts_balance(error_constant, order):
    sizes = step_sizes_on(error_constant, order)
    balance = 0.9 ** (1 / (1 / order - 0.75 * 0.04 - 0.04))  # 1 = safety e**-(1/order - 3/4 beta) e**beta
    assert error_constant * sizes[-1] ** order == pytest.approx(balance, rel=1e-9)


def solve_decay(controller, attempts=300, tolerance=1e-4):
    """Verdicts of dopri5 on y' = -y, y(0) = 1, long after y has decayed: stability alone limits the step."""
    floats, y, h, verdicts = DOPRI5.as_floats(), 1.0, 0.1, []
    for _ in range(attempts):
        k = []
        for row in floats.a:
            k.append(-(y + h * sum(a * slope for a, slope in zip(row, k, strict=True))))
        y_new = y + h * np.dot(floats.b, k)
        error = abs(h * np.dot(floats.b_error, k)) / (tolerance + tolerance * max(abs(y), abs(y_new)))
        verdicts.append(controller.judge(error, h, verdicts[-1] if verdicts else None))
        y = y_new if verdicts[-1].is_accepted else y
        h = verdicts[-1].next_h
    return verdicts


def test_integral_control_keeps_rejecting_where_stability_limits_the_step():
    """The reason for the proportional part: Hairer & Wanner (1996), section IV.2."""
    assert sum(not v.is_accepted for v in solve_decay(INTEGRAL)) > 20


def test_proportional_part_settles_the_step_where_stability_limits_it():
    late = [v.h for v in solve_decay(DOPRI5_CONTROL)[-50:]]
    assert max(late) - min(late) < 1e-9 * max(late)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, "`order` must be at least 1; got 0"),
        ({"safety": 1.0}, r"`safety` must be in \(0, 1\); got 1.0"),
        ({"safety": math.nan}, "`safety` must be .* got nan"),
        ({"min_factor": 0.0}, r"`min_factor` must be in \(0, 1\); got 0.0"),
        ({"max_factor": 1.0}, "`max_factor` must be finite and above 1; got 1.0"),
        ({"max_factor": math.inf}, "`max_factor` must be finite and above 1; got inf"),
        ({"beta": 0.2}, r"`beta` must be in \[0, 1/order\); got 0.2"),
        ({"beta": -0.1}, "`beta` must be .* got -0.1"),
        ({"safety": 2.0, "min_factor": 3.0}, "`safety` .*; `min_factor` "),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_by_name(options, message):
    with pytest.raises(ArgumentError, match=message):
        PIController(**{"order": 5, **options})
