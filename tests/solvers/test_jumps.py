"""Dynamics that jump: a step ends at each jump, nobody looks across it, and every gradient method stays right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from odegrad import TooManySteps, grad, odeint
from odegrad.engine.errors import ArgumentError, SolveError
from odegrad.engine.trace import base_value
from odegrad.solvers.options import GRADIENTS
from solving import same_bits

JUMP = 0.7
SPANS = [(0.0, 2.0), (2.0, 0.0)]
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def switched(t, y, rate=1.0):
    """y' = -rate y before the jump, 2 rate y from it on."""
    return np.where(t < JUMP, -rate * y, 2.0 * rate * y)


def exact(t, start, y0=1.0, rate=1.0):
    """Its solution with y(start) = y0, in either direction of time: the integral of the factor, piece by piece."""

    def log(t):
        return np.where(np.asarray(t) < JUMP, -rate * (t - JUMP), 2.0 * rate * (t - JUMP))

    return y0 * np.exp(log(t) - log(start))


def one_sided(span):
    """The dynamics before the jump and behind it, in the order of integration."""
    sides = [lambda t, y: -y, lambda t, y: 2.0 * y]
    return sides if span[0] < JUMP else sides[::-1]


def solve(span, f=switched, jumps=(JUMP,), **options):
    return odeint(f, np.ones(2), span, jump_ts=jumps, **{**TIGHT, **options})


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize(
    ("method", "step_size"),
    [("dopri5", None), ("bosh3", None), ("tsit5", None), ("rk4", 0.01), ("kvaerno5", None)],
)
def test_the_solution_is_as_close_as_without_a_jump(method, step_size, span):
    """Beside two solves, one from the end of the other, that never hear of the other side."""
    ts = np.linspace(*span, 9)
    options = {"method": method, "step_size": step_size, "rtol": 1e-7, "atol": 1e-7}
    is_behind = ts > JUMP if span[0] < JUMP else ts < JUMP
    first, second = one_sided(span)
    before = odeint(first, np.ones(2), [*ts[~is_behind], JUMP], **options)
    after = odeint(second, before.ys[-1], [JUMP, *ts[is_behind]], **options)
    apart = np.concatenate([before.ys[:-1], after.ys[1:]])
    expected = exact(ts, span[0])[:, None]
    assert np.abs(solve(ts, **options).ys - expected).max() < 1.01 * np.abs(apart - expected).max()


@pytest.mark.parametrize("span", SPANS)
def test_no_stage_sees_the_other_side(span):
    """The steps of each piece are those of a solve that has never heard of the other one."""
    first, second = one_sided(span)
    before = odeint(first, np.ones(2), (span[0], JUMP), **TIGHT)
    after = odeint(second, before.ys[-1], (JUMP, span[1]), **TIGHT)
    sol = solve(span)
    joined = np.concatenate([before.grid, after.grid[1:]])
    assert np.allclose(
        sol.grid, joined, atol=1e-6
    )  # an error estimate is a difference, which magnifies an ulp
    assert np.allclose(sol.ys[-1], after.ys[-1], rtol=1e-11)


@pytest.mark.parametrize("span", SPANS)
def test_the_times_of_all_calls_stay_on_their_side(span):
    times = []

    def f(t, y):
        times.append(float(base_value(t)))
        return -y

    solve(span, f, execution="eager")
    assert JUMP not in times and min(times) >= 0.0 and max(times) <= 2.0


@pytest.mark.parametrize("span", SPANS)
def test_the_jump_is_an_accepted_time_once(span):
    grid = solve(span).grid
    assert np.sum(grid == JUMP) == 1 and grid[0] == span[0] and grid[-1] == span[1]
    assert np.all(np.diff(grid) * (span[1] - span[0]) > 0)


def test_naming_the_jump_saves_rejected_steps():
    blind, named = odeint(switched, np.ones(2), (0.0, 2.0), **TIGHT), solve((0.0, 2.0))
    assert named.stats.n_rejected < blind.stats.n_rejected and named.stats.nfe < blind.stats.nfe


@pytest.mark.parametrize("execution", ["replay", "eager"])
def test_counts_go_over_all_pieces(execution):
    calls = []

    def f(t, y):
        calls.append(t)
        return np.where(t < JUMP, -y, 2.0 * y)

    sol = solve((0.0, 2.0), f, execution=execution)
    stats = sol.stats
    assert stats.n_accepted == len(sol.grid) - 1
    assert stats.nfe == 2 * 2 + 6 * (stats.n_accepted + stats.n_rejected)
    assert execution == "replay" or len(calls) == stats.nfe


@pytest.mark.parametrize("jumps", [(-1.0, 5.0), ()])
def test_jumps_elsewhere_change_nothing(jumps):
    assert same_bits(solve((0.0, 2.0), jumps=jumps).ys, odeint(switched, np.ones(2), (0.0, 2.0), **TIGHT).ys)


@pytest.mark.parametrize("start", [0.0, 2.0])
def test_a_jump_at_an_end_is_not_looked_across(start):
    """From the jump on f is on the side the solve goes to, and up to a jump at the end on the side it comes from."""
    sol = solve((start, JUMP))
    back = solve((JUMP, start))
    assert sol.ys[-1] == pytest.approx(exact(JUMP, start), rel=1e-7)
    assert back.ys[-1] == pytest.approx(exact(start, JUMP), rel=1e-7)


def test_several_jumps():
    """A square wave: y' alternates between 1 and -1."""
    jumps = [0.25, 0.5, 0.75]
    f = sum_of_steps(jumps)
    ts = np.linspace(0.0, 1.0, 13)
    sol = odeint(f, np.zeros(1), ts, jump_ts=jumps)
    assert np.allclose(sol.ys[:, 0], np.abs((ts + 0.25) % 0.5 - 0.25) * np.sign(1.0), atol=1e-12)


def sum_of_steps(jumps):
    def f(t, y):
        slope = 1.0
        for c in jumps:
            slope = np.where(t < c, slope, -slope)
        return slope + 0.0 * y

    return f


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize(("method", "step_size"), [("dopri5", None), ("rk4", 0.02)])
def test_a_grid_is_walked_again_to_the_bit(span, method, step_size):
    sol = solve(span, method=method, step_size=step_size)
    assert same_bits(solve(span, grid=sol.grid, method=method).ys, sol.ys)


def test_a_given_grid_must_hold_the_jump():
    with pytest.raises(ArgumentError, match="`grid` must hold every time in `jump_ts`; 0.7 is not in it"):
        solve((0.0, 2.0), grid=[0.0, 1.0, 2.0])


def test_jumps_closer_than_floats_are_refused():
    with pytest.raises(ArgumentError, match="`jump_ts` must lie further apart"):
        solve((0.0, 2.0), jumps=(JUMP, np.nextafter(JUMP, 1.0)))


# --- output -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", SPANS)
def test_every_step_across_a_jump(span):
    sol = solve(span, save="steps")
    assert same_bits(sol.ts, sol.grid) and np.abs(sol.ys[:, 0] / exact(sol.ts, span[0]) - 1.0).max() < 1e-7


@pytest.mark.parametrize("span", SPANS)
def test_dense_output_across_a_jump(span):
    sol, t = solve(span, dense=True), np.linspace(0.0, 2.0, 101)
    assert np.abs(sol.dense(t)[:, 0] / exact(t, span[0]) - 1.0).max() < 1e-6 and same_bits(
        sol.dense.grid, sol.grid
    )


def test_the_derivative_of_dense_output_jumps():
    dense = solve((0.0, 2.0), dense=True).dense
    y = math.exp(-JUMP)
    assert dense.derivative(JUMP) == pytest.approx(-y, rel=1e-5)
    assert dense.derivative(JUMP + 1e-9) == pytest.approx(2.0 * y, rel=1e-5)


def test_what_f_returns_beside_the_slope_across_a_jump():
    sol = odeint(lambda t, y: (-y, {"t": t + 0.0 * y}), np.ones(1), (0.0, 2.0), jump_ts=[JUMP], has_aux=True)
    assert np.allclose(sol.aux.values["t"][:, 0], sol.aux.ts) and np.all(np.diff(sol.aux.ts) >= 0)
    assert len(sol.aux.ts) == sol.stats.nfe - 2 - 6 * sol.stats.n_rejected


def test_a_failure_after_a_jump_carries_the_solution_before_it():
    with pytest.raises(SolveError) as caught:
        odeint(
            lambda t, y: np.where(t < JUMP, -y, y * y),
            np.ones(1),
            (0.0, 0.5, 3.0),
            jump_ts=[JUMP],
            dense=True,
        )
    part = caught.value.solution
    assert part.ts.tolist() == [0.0, 0.5] and JUMP in part.grid and part.grid[-1] > 2.0
    assert (
        part.dense(0.3)[0] == pytest.approx(math.exp(-0.3), rel=1e-4) and part.status == "StepSizeUnderflow"
    )


def test_steps_are_counted_over_all_pieces_for_their_limit():
    n = solve((0.0, 2.0)).stats.n_accepted
    with pytest.raises(TooManySteps, match=f"{n - 1} steps"):
        solve((0.0, 2.0), max_steps=n - 1)


# --- gradients --------------------------------------------------------------------------------------------------------

TS = np.array([0.0, 0.3, JUMP, 1.1, 2.0])
WEIGHTS = np.array([1.0, -2.0, 3.0, 0.5, 1.5])


def loss(y0, rate, ts, **options):
    def f(t, y, p):
        return switched(t, y, p)

    ys = odeint(f, y0, ts, rate, jump_ts=[JUMP], rtol=1e-9, atol=1e-9, **options).ys
    return np.sum(WEIGHTS * ys[:, 0])


def exact_gradients():
    """Closed forms: y = y0 exp(rate s(t)), s the integral of -1 and 2; an output at the jump moves to its left."""
    s = np.where(TS < JUMP, -TS, -JUMP + 2.0 * (TS - JUMP))
    y = np.exp(s)
    slopes = np.where(TS <= JUMP, -y, 2.0 * y) * WEIGHTS
    by_ts = slopes.copy()
    by_ts[0] = np.sum(WEIGHTS[1:] * y[1:])  # a later start at the same value: all later states grow
    return np.sum(WEIGHTS * y), np.sum(WEIGHTS * s * y), by_ts


@pytest.mark.parametrize("which", [0, 1, 2], ids=["y0", "params", "ts"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_every_gradient_method_sees_the_jump(gradient, which):
    options = {"gradient": gradient, "coupling": 0.9}
    found = grad(lambda y, p, ts: loss(y, p, ts, **options), (0, 1, 2))(np.ones(1), np.array(1.0), TS)[which]
    assert np.allclose(found, exact_gradients()[which], rtol=1e-6, atol=1e-7)


def test_discrete_is_tape_across_a_jump():
    found = [
        grad(lambda y, p, ts: loss(y, p, ts, gradient=g), (0, 1, 2))(np.ones(1), np.array(1.0), TS)  # noqa: B023
        for g in ("tape", "discrete")
    ]
    assert all(np.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*found, strict=True))
