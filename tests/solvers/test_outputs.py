"""What a solve returns beside the output times: every accepted step, and the solution as a function of time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from odegrad import grad, odeint
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, NeuralODEError, SolveError
from solving import ADAPTIVE, METHODS, random_case, same_bits

SPANS = [(0.0, 2.0), (2.0, 0.0)]


def swing(t, y):
    """A forced oscillator."""
    return np.stack([y[1], -y[0] + np.cos(2.0 * t)])


def swing_from(t, start):
    """Its solution with y(start) = [1, 0]: a particular one, -cos(2t)/3, and the free motion that starts it right."""
    a = 1.0 + math.cos(2.0 * start) / 3.0
    b = -2.0 * math.sin(2.0 * start) / 3.0
    s = t - start
    position = -np.cos(2.0 * t) / 3.0 + a * np.cos(s) + b * np.sin(s)
    velocity = 2.0 * np.sin(2.0 * t) / 3.0 - a * np.sin(s) + b * np.cos(s)
    return np.stack([position, velocity], axis=-1)


def solve(span=(0.0, 2.0), method="dopri5", f=swing, y0=None, **options):
    if method not in ADAPTIVE:
        options.setdefault("step_size", 0.05)
    return odeint(f, np.array([1.0, 0.0]) if y0 is None else y0, span, method=method, **options)


# --- every accepted step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("method", METHODS)
def test_the_steps_are_those_of_the_grid(method, span):
    sol = solve(span, method, save="steps")
    assert np.array_equal(sol.ts, sol.grid) and len(sol.ys) == sol.stats.n_accepted + 1


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("gradient", ["discrete", "reversible"])
def test_the_states_are_those_of_a_solve_that_ends_steps_there(gradient, span):
    sol = solve(span, save="steps", gradient=gradient)
    again = solve(sol.grid, grid=sol.grid, gradient=gradient)
    assert np.allclose(sol.ys, again.ys, rtol=1e-13, atol=1e-13)


def test_saving_steps_changes_none_of_them():
    assert np.array_equal(solve(save="steps").grid, solve().grid)


def test_the_steps_of_a_tree():
    sol = odeint(
        lambda t, y: {"a": -y["a"], "b": y["b"]},
        {"a": np.ones((2, 3)), "b": np.ones(1)},
        (0, 1),
        save="steps",
    )
    n = len(sol.grid)
    assert sol.ys["a"].shape == (n, 2, 3) and np.allclose(sol.ys["b"][:, 0], np.exp(sol.ts), rtol=1e-5)


def test_the_steps_before_a_failure():
    with pytest.raises(SolveError) as caught:
        odeint(lambda t, y: y * y, np.ones(1), (0.0, 2.0), save="steps", dense=True)
    part = caught.value.solution
    early = part.ts < 0.9
    assert np.allclose(part.ys[early, 0], 1.0 / (1.0 - part.ts[early]), rtol=1e-3) and len(part.ts) == len(
        part.grid
    )


def test_steps_and_output_times_exclude_each_other():
    with pytest.raises(ArgumentError, match=r"`ts` = \(t0, t1\); got 3 times"):
        solve((0.0, 1.0, 2.0), save="steps")


@pytest.mark.parametrize(
    ("value", "words"), [("step", "did you mean 'steps'"), (True, "got True"), (None, "got None")]
)
def test_another_save_is_refused(value, words):
    with pytest.raises(ArgumentError, match=f"`save` must be one of 'ts', 'steps'.*{words}"):
        solve(save=value)


# --- dense output -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "rk4"])
def test_the_function_is_as_close_as_the_tolerance(method, span):
    sol = solve(
        span, method, dense=True, rtol=1e-8, atol=1e-8, **({"step_size": 0.01} if method == "rk4" else {})
    )
    t = np.linspace(*span, 201)
    assert np.abs(sol.dense(t) - swing_from(t, span[0])).max() < 3e-7


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "rk4", "midpoint"])
def test_the_derivative_is_that_of_the_function(method):
    """Central differences within the steps, away from their ends by more than the difference."""
    dense = solve(method=method, dense=True).dense
    t, d = 0.5 * (dense.grid[1:] + dense.grid[:-1]), 1e-5
    assert np.allclose(dense.derivative(t), (dense(t + d) - dense(t - d)) / (2 * d), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_at_the_accepted_times_it_is_the_state(method):
    sol = solve(method=method, dense=True, save="steps")
    assert np.allclose(sol.dense(sol.grid), sol.ys, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_at_output_times_it_gives_what_the_solve_gave(method):
    ts = np.linspace(0.0, 2.0, 11)
    sol = solve(ts, method, dense=True)
    assert np.allclose(sol.dense(ts), sol.ys, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_where_the_dynamics_are_known_the_derivative_is_their_value(method):
    dense = solve(
        method=method, dense=True, rtol=1e-9, atol=1e-9, **({"step_size": 0.01} if method == "rk4" else {})
    ).dense
    ends = dense.grid[1:]
    slopes = np.stack([swing(t, y) for t, y in zip(ends, dense(ends), strict=True)])
    assert np.allclose(dense.derivative(ends), slopes, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_it_has_the_structure_and_dtype_of_the_state(dtype):
    sol = odeint(lambda t, y: {"a": -y["a"]}, {"a": np.ones((2, 3), dtype)}, (0.0, 1.0), dense=True)
    one, many = sol.dense(0.5)["a"], sol.dense.derivative([0.1, 0.2, 0.9])["a"]
    assert one.shape == (2, 3) and many.shape == (3, 2, 3) and one.dtype == many.dtype == dtype


def test_dense_output_changes_no_step():
    plain, dense = solve(), solve(dense=True)
    assert np.array_equal(plain.grid, dense.grid) and same_bits(plain.ys, dense.ys) and plain.dense is None


def test_dense_output_of_a_failed_solve_covers_what_was_reached():
    with pytest.raises(SolveError) as caught:
        odeint(lambda t, y: y * y, np.ones(1), (0.0, 2.0), dense=True)
    dense = caught.value.solution.dense
    assert dense.t1 > 0.99 and dense(0.5)[0] == pytest.approx(2.0, rel=1e-4)


def test_dense_output_without_an_interpolant_covers_what_was_reached():
    with pytest.raises(SolveError) as caught:
        solve(f=lambda t, y: np.sqrt(1.0 - t) - y, method="rk4", dense=True, step_size=0.25)
    dense = caught.value.solution.dense
    assert dense.t1 <= 1.0 and np.isfinite(dense(np.linspace(0.0, dense.t1, 9))).all()


@pytest.mark.parametrize("t", [-1e-9, 2.1, math.nan, [0.5, 3.0]])
def test_outside_of_the_solve_it_is_refused(t):
    dense = solve(dense=True).dense
    with pytest.raises(ArgumentError, match=r"`t` must lie in the interval of the solve, \[0, 2\]; got"):
        dense(t)


@pytest.mark.parametrize(
    ("t", "error"), [("now", ArgumentTypeError), (1j, ArgumentTypeError), ([[0.5]], ArgumentError)]
)
def test_what_is_no_time_is_refused(t, error):
    with pytest.raises(error, match="`t` must be a time or an array of times"):
        solve(dense=True).dense(t)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_another_dense_is_refused(value):
    with pytest.raises(ArgumentError, match="`dense` must be True or False"):
        solve(dense=value)


def test_reversible_steps_have_no_dense_output():
    with pytest.raises(ArgumentError, match="gradient='reversible' has no dense output"):
        solve(dense=True, gradient="reversible")


@pytest.mark.parametrize("options", [{"dense": True}, {"save": "steps"}], ids=str)
def test_what_is_not_differentiated_says_so(options):
    with pytest.raises(NeuralODEError, match="is not differentiated .* pass ts=sol.grid and grid=sol.grid"):
        grad(lambda y: np.sum(solve(y0=y, **options).ys))(np.ones(2))


def test_the_way_round_that_the_message_names():
    case = random_case(3, n_times=2)
    grid = case.solve(save="steps").grid
    slope = grad(lambda y: np.sum(case.solve(y, ts=grid, grid=grid).ys))(case.y0)
    moved = [case.solve(case.y0 + d, ts=grid, grid=grid).ys.sum() for d in (1e-5, -1e-5)]
    assert slope.sum() == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-6)
