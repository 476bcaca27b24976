"""What holds for every solve, whatever is solved: drawn problems, methods and directions of time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad import odeint
from oracles import EPS64
from problems import kepler, oscillator, pendulum, rigid_body
from solving import ADAPTIVE, cases, random_case, same_bits

REVERSIBLE = {
    "oscillator": (oscillator, np.array([1.0, 0.3])),
    "pendulum": (pendulum, np.array([1.5, 0.0])),
    "rigid body": (rigid_body, np.array([0.3, 0.8, 0.9])),
    "kepler": (kepler, np.array([0.8, 0.0, 0.0, 1.2])),
}


@given(case=cases(methods=ADAPTIVE), n=st.integers(1, 40))
def test_the_steps_do_not_depend_on_the_density_of_output_times(case, n):
    ends = case.ts[[0, -1]]
    dense = np.unique(np.concatenate([case.ts, np.linspace(*ends, n + 2)]))
    ts = dense if ends[1] > ends[0] else dense[::-1]
    assert same_bits(case.solve(ts=ends).grid, case.solve(ts=ts).grid)


@given(case=cases(methods=ADAPTIVE))
def test_output_at_one_time_does_not_depend_on_the_others(case):
    alone = case.solve(ts=case.ts[[0, -1]])
    assert same_bits(alone.ys[-1], case.solve().ys[-1])


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("problem", REVERSIBLE)
@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_forward_then_backward_returns_to_the_start(problem, method, rtol):
    """On problems without dissipation the way back magnifies nothing: a modest multiple of the tolerance."""
    f, y0 = REVERSIBLE[problem]
    options = {"method": method, "rtol": rtol, "atol": rtol}
    there = odeint(f, y0, (0.0, 3.0), **options).ys[-1]
    back = odeint(f, there, (3.0, 0.0), **options).ys[-1]
    assert np.abs(back - y0).max() < 100 * rtol


@given(case=cases())
def test_linear_invariants_are_kept_to_round_off(case):
    """sum(y') = 0 for every y: each row of the slope has its mean taken off."""

    def f(t, y, params):
        slope = np.tanh(y @ params["a"] + t * params["c"]) @ params["b"]
        return slope - np.sum(slope, axis=-1, keepdims=True) / slope.shape[-1]

    sol = odeint(f, case.y0, case.ts, case.params, **case.options)
    drift = np.abs(sol.ys.sum(-1) - case.y0.sum(-1)).max()
    moved = np.abs(sol.ys).max() + np.abs(case.ts[-1] - case.ts[0]) * np.abs(case.params["b"]).sum()
    assert drift <= 20 * EPS64 * (1 + sol.stats.n_accepted) * moved


@given(case=cases(), power=st.integers(-8, 8))
def test_scaling_time_by_a_power_of_two_scales_nothing_else(case, power):
    """y(t / s) solves y' = s f(s t, y): the same bits, where the first step is given."""
    s, options = 2.0**power, dict(case.options)
    size = options.pop("step_size", None)

    def scaled(t, y, params):
        return s * network_of(case)(s * t, y, params)

    def solve(f, ts, scale):
        own = {"step_size": size * scale} if size else {"first_step": 0.01 * scale}
        return odeint(f, case.y0, ts, case.params, **options, **own)

    plain, stretched = solve(network_of(case), case.ts, 1.0), solve(scaled, case.ts / s, 1.0 / s)
    assert np.allclose(stretched.grid * s, plain.grid, rtol=1e-9, atol=1e-12)
    assert np.allclose(stretched.ys, plain.ys, rtol=1e-8, atol=1e-10)


def network_of(case):
    def f(t, y, params):
        return np.tanh(y @ params["a"] + t * params["c"]) @ params["b"]

    return f


@given(case=cases(), power=st.integers(-20, 20))
def test_scaling_a_linear_state_by_a_power_of_two_scales_the_answer(case, power):
    """With atol scaled along every number of the solve is a power of two larger: the same bits."""
    s, options = 2.0**power, {**case.options}
    matrix = 0.3 * (case.params["a"] @ case.params["b"])
    atol = options.pop("atol")

    def f(t, y):
        return y @ matrix

    plain, scaled = (odeint(f, c * case.y0, case.ts, atol=c * atol, **options) for c in (1.0, s))
    assert same_bits(scaled.grid, plain.grid) and same_bits(scaled.ys, s * plain.ys)


@given(case=cases(methods=ADAPTIVE), share=st.floats(0.1, 0.9))
def test_splitting_the_interval_agrees_within_the_tolerance(case, share):
    t0, t1 = case.ts[[0, -1]]
    middle = t0 + share * (t1 - t0)
    whole = case.solve(ts=[t0, t1]).ys[-1]
    half = case.solve(ts=[t0, middle]).ys[-1]
    joined = case.solve(y0=half, ts=[middle, t1]).ys[-1]
    tolerance = case.options["atol"] + case.options["rtol"] * np.abs(whole).max()
    assert np.abs(joined - whole).max() < 1e3 * tolerance


@given(case=cases())
def test_walking_a_grid_again_gives_the_same_bits(case):
    sol = case.solve()
    assert same_bits(case.solve(grid=sol.grid, step_size=None).ys, sol.ys)


@given(case=cases(methods=ADAPTIVE))
def test_the_solution_runs_the_same_way_in_mirrored_time(case):
    """y(-t) solves y' = -f(-t, y): the steps are mirrored, to the bit."""

    def mirrored(t, y, params):
        return -network_of(case)(-t, y, params)

    there = odeint(network_of(case), case.y0, case.ts, case.params, **case.options)
    back = odeint(mirrored, case.y0, -case.ts, case.params, **case.options)
    assert same_bits(back.grid, -there.grid) and same_bits(back.ys, there.ys)


def test_a_solve_is_the_same_each_time():
    case = random_case(8)
    assert same_bits(case.solve().ys, case.solve().ys)
