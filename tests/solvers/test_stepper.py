"""The loop by hand takes the steps of `odeint`, and hands out arrays of its own."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad import StepSizeUnderflow, grad, odeint, ops
from odegrad.engine.errors import ArgumentError, ArgumentTypeError
from odegrad.solvers import Stepper
from solving import METHODS, network, random_case
from threadpoolctl import threadpool_info, threadpool_limits

CASE = random_case(70)


def all_steps(stepper):
    steps = []
    while not stepper.is_done:
        steps.append(stepper.step())
    return steps


def stepper_of(case=CASE, t0=0.0, t1=2.0, **options):
    return Stepper(network, case.y0, t0, t1, case.params, **options)


@pytest.mark.parametrize("t1", [2.0, -2.0])
@pytest.mark.parametrize("method", METHODS)
def test_the_steps_are_those_of_odeint(method, t1):
    options = {"method": method} | ({"step_size": 0.3} if method in ("euler", "midpoint", "rk4") else {})
    stepper = stepper_of(t1=t1, **options)
    steps = all_steps(stepper)
    sol = odeint(network, CASE.y0, [0.0, t1], CASE.params, **options)
    assert np.array_equal([0.0, *(s.t1 for s in steps)], sol.grid)
    assert np.array_equal(stepper.y, sol.ys[-1]) and stepper.stats.nfe == sol.stats.nfe


@pytest.mark.parametrize(
    "options",
    [{"norm": "max"}, {"breakpoints": [0.31, 1.7]}, {"controller": "h211pi"}],
    ids=str,
)
def test_what_chooses_the_steps_of_odeint_chooses_these(options):
    steps, plain = all_steps(stepper_of(**options)), all_steps(stepper_of())
    grid = [0.0, *(s.t1 for s in steps)]
    assert np.array_equal(grid, odeint(network, CASE.y0, [0.0, 2.0], CASE.params, **options).grid)
    assert grid != [0.0, *(s.t1 for s in plain)]


@pytest.mark.parametrize("execution", ["replay", "eager"])
def test_convolutions_round_as_those_of_odeint_do(execution, rng):
    """With the round-off that the tolerance allows, and BLAS at one thread."""
    y0 = rng.standard_normal((8, 16, 16, 16)).astype(np.float32)
    w = (0.1 * rng.standard_normal((3, 3, 16, 16))).astype(np.float32)
    seen = set()

    def f(t, y):
        seen.add(
            min(x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas")
        )  # NumPy's, not SciPy's
        return np.tanh(ops.conv2d(y, w, padding=1))

    options = {"rtol": 1e-2, "atol": 1e-2, "execution": execution}
    with threadpool_limits(2):
        stepper = Stepper(f, y0, 0.0, 1.0, **options)
        seen.clear()
        all_steps(stepper)
        assert seen == ({1} if execution == "eager" else set())
        assert np.array_equal(stepper.y, odeint(f, y0, [0.0, 1.0], **options).ys[-1])


def test_before_the_first_step():
    stepper = stepper_of()
    assert (stepper.t, stepper.is_done, stepper.stats.nfe) == (0.0, False, 2) and stepper.h > 0
    assert np.array_equal(stepper.y, CASE.y0)


def test_the_steps_join():
    steps = all_steps(stepper_of())
    for before, after in zip(steps, steps[1:], strict=False):
        assert before.t1 == after.t0 and np.array_equal(before.y1, after.y0)


def test_later_steps_do_not_change_earlier_ones():
    stepper = stepper_of()
    step = stepper.step()
    y1, k = step.y1.copy(), [x.copy() for x in step.k]
    all_steps(stepper)
    odeint(network, CASE.y0, [0.0, 2.0], CASE.params)
    assert np.array_equal(step.y1, y1) and all(np.array_equal(a, b) for a, b in zip(step.k, k, strict=True))


def test_the_slopes_are_those_of_the_stages():
    step = stepper_of().step()
    assert np.allclose(step.k[0], network(step.t0, step.y0, CASE.params), rtol=1e-13)
    assert np.allclose(step.k[-1], network(step.t1, step.y1, CASE.params), rtol=1e-13)


def test_every_error_norm_is_below_one():
    assert all(0 < step.error_norm <= 1 for step in all_steps(stepper_of()))


def test_the_size_of_the_next_step_is_known():
    stepper = stepper_of()
    stepper.step()
    h = stepper.h
    step = stepper.step()
    assert step.t1 - step.t0 == pytest.approx(h, rel=1e-12)


def test_interpolation_gives_the_outputs_of_odeint():
    step = all_steps(stepper_of())[1]
    times = np.linspace(step.t0, step.t1, 5)
    ys = odeint(network, CASE.y0, [0.0, *times, 2.0], CASE.params).ys[1:-1]
    assert np.abs(step.interpolate(times) - ys).max() < 1e-14
    assert np.abs(step.interpolate(times[2]) - ys[2]).max() < 1e-14


def test_interpolation_at_the_ends():
    step = stepper_of().step()
    assert np.array_equal(step.interpolate(step.t0), step.y0)
    assert np.allclose(step.interpolate(step.t1), step.y1, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("t", [-0.1, 2.5, [[0.0]], np.nan])
def test_interpolation_outside_of_the_step(t):
    with pytest.raises(ArgumentError, match="`t` must lie in the step from 0 to"):
        stepper_of().step().interpolate(t)


def test_interpolation_without_dense_output():
    with pytest.raises(ArgumentError, match="rk4 has no dense output"):
        stepper_of(method="rk4").step().interpolate(1.0)


def test_trees():
    stepper = Stepper(
        lambda t, y: {"a": -y["a"], "b": y["b"] * t}, {"a": np.ones(2), "b": np.zeros(3)}, 0.0, 1.0
    )
    step = stepper.step()
    assert step.k[0]["b"].shape == (3,) and step.interpolate([step.t0, step.t1])["a"].shape == (2, 2)


@pytest.mark.parametrize("execution", ["replay", "eager"])
def test_execution(execution):
    stepper = stepper_of(execution=execution)
    all_steps(stepper)
    assert np.allclose(stepper.y, odeint(network, CASE.y0, [0.0, 2.0], CASE.params).ys[-1], rtol=1e-12)


def test_a_step_after_the_last_one():
    stepper = stepper_of()
    all_steps(stepper)
    with pytest.raises(ArgumentError, match="reached t1 = 2; ask `is_done` first"):
        stepper.step()


def test_a_failing_step():
    stepper = Stepper(lambda t, y: y * y, np.ones(1), 0.0, 2.0)
    with pytest.raises(StepSizeUnderflow, match="^Stepper:"):
        all_steps(stepper)
    assert abs(stepper.t - 1.0) < 1e-4


def test_a_smallest_step_is_an_option():
    with pytest.raises(StepSizeUnderflow, match="`min_step`"):
        all_steps(stepper_of(min_step=0.3))


def test_it_is_not_differentiated():
    with pytest.raises(ArgumentTypeError, match="inside a function that is differentiated use odeint"):
        grad(lambda y: np.sum(Stepper(network, y, 0.0, 1.0, CASE.params).step().y1))(CASE.y0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"t1": 0.0}, "strictly monotone"),
        ({"rtol": -1}, "`rtol`"),
        ({"method": "dopri"}, "Did you mean 'dopri5'"),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(ArgumentError, match=words):
        stepper_of(**options)
