"""Predictive step-size control: it follows errors that grow from step to step, and keeps sizes that are nearly right."""

import pytest
from odegrad.engine.errors import ArgumentError
from odegrad.solvers import CONTROLLERS, PredictiveController


def rejections(controller, growth, steps=60):
    """Of the attempts after the first 20, where the error is constant * h**4 and each step made multiplies the constant."""
    verdict, h, constant, found = None, 0.5, 1.0, []
    for _ in range(steps):
        verdict = controller.judge(constant * h**4, h, verdict)
        found.append(not verdict.is_accepted)
        constant *= growth if verdict.is_accepted else 1.0
        h = verdict.next_h
    return sum(found[20:])


@pytest.mark.parametrize("growth", [2.0, 5.0, 20.0])
def test_growing_errors_reject_no_step(growth):
    assert rejections(PredictiveController(4), growth) == 0
    assert rejections(CONTROLLERS["i"].make(4), growth) >= 10


def second_size(errors, h=(1.0, 1.5), **options):
    """The size that follows two accepted steps."""
    controller = PredictiveController(4, **options)
    verdict = None
    for error, size in zip(errors, h, strict=True):
        verdict = controller.judge(error, size, verdict)
    return verdict.next_h


def test_the_prediction_by_hand():
    """Errors 0.4 and 0.9 after steps of 1 and 0.8."""
    kept = (1.0, 1.0)
    rho = [0.9 * e**-0.25 for e in (0.4, 0.9)]
    assert second_size((0.4, 0.9), (1.0, 0.8), kept=kept) == pytest.approx(
        0.8 * rho[1] ** 2 / rho[0] * 0.8, rel=1e-14
    )


def test_classical_control_where_it_is_the_smaller():
    kept = (1.0, 1.0)
    assert second_size((0.9, 0.3), kept=kept) == pytest.approx(1.5 * 0.9 * 0.3**-0.25, rel=1e-14)


@pytest.mark.parametrize(("error", "is_kept"), [(0.80, True), (0.35, True), (0.30, False), (0.82, False)])
def test_sizes_that_are_nearly_right_are_kept(error, is_kept):
    """0.9 error**(-1/4) lies between 0.95 and 1.2 for errors from 0.316 to 0.806."""
    verdict = PredictiveController(4).judge(error, 0.7)
    assert (verdict.next_h == 0.7) == is_kept


@pytest.mark.parametrize("error", [0.0, 1e-320])
def test_no_error_grows_the_step_by_the_limit(error):
    controller = PredictiveController(4)
    assert controller.judge(error, 1.0, controller.judge(0.5, 1.0)).next_h == 10.0


@pytest.mark.parametrize("kept", [(1.2, 0.95), (0.0, 1.2), (0.95, 10.0), (0.95, float("nan")), (0.95,), None])
def test_sizes_to_keep_are_checked(kept):
    with pytest.raises(ArgumentError, match="`kept` must be two factors"):
        PredictiveController(4, kept=kept)
