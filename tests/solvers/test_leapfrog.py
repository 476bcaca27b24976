"""Leapfrog: order, reversibility, what it conserves over very many steps, dense output, and what it refuses."""

from __future__ import annotations

import numpy as np
import odegrad
import problems
import pytest
from odegrad import odeint
from odegrad.engine.errors import ArgumentError, NeuralODEError
from oracles import EPS64, host

PENDULUM = next(p for p in problems.PROBLEMS if p.name == "pendulum")


def pendulum(t, y):
    x, v = y
    return v, -np.sin(x)


def kepler(t, y):
    x, v = y
    return v, -x / np.sum(x * x) ** 1.5


def energy_of_pendulum(x, v):
    return 0.5 * v[..., 0] ** 2 - np.cos(x[..., 0])


def energy_of_kepler(x, v):
    return 0.5 * np.sum(v * v, axis=-1) - 1.0 / np.sqrt(np.sum(x * x, axis=-1))


# Amplitude 2 for the pendulum, eccentricity 0.5 from the pericentre for the planet; 200 steps a revolution.
LONG = {
    "pendulum": (pendulum, (np.array([2.0]), np.zeros(1)), energy_of_pendulum, 9.0 / 200),
    "kepler": (
        kepler,
        (np.array([0.5, 0.0]), np.array([0.0, np.sqrt(3.0)])),
        energy_of_kepler,
        2 * np.pi / 200,
    ),
}
N_LONG = 100_000


@pytest.fixture(scope="module", params=LONG)
def long(request):
    """(states at 2,001 times spread over 100,000 steps, energy)."""
    f, y0, energy, h = LONG[request.param]
    sol = odeint(f, y0, np.linspace(0.0, N_LONG * h, 2001), method="leapfrog", step_size=h)
    assert sol.stats.n_accepted == N_LONG
    return sol.ys, energy


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_order(direction):
    p = PENDULUM
    ends = [(p.y0, p.t0, p.t1, p.y1), (p.y1, p.t1, p.t0, p.y0)]
    start, t0, t1, end = ends[direction == "backward"]
    errors = []
    for n in (200, 400, 800):
        x, v = odeint(
            pendulum, (start[:1], start[1:]), [t0, t1], method="leapfrog", step_size=abs(t1 - t0) / n
        ).ys
        errors.append(np.hypot(x[-1, 0] - end[0], v[-1, 0] - end[1]))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(abs(slopes - 2) < 0.15), errors


@pytest.mark.parametrize("h", [0.3, -0.3])
def test_a_step_on_the_oscillator_is_the_matrix_of_the_textbook(h):
    """x1 = (1 - h²/2) x + h v, v1 = (1 - h²/2) v - h (1 - h²/4) x."""
    x, v = odeint(lambda t, y: (y[1], -y[0]), (np.array(0.7), np.array(-1.1)), [0.0, h], method="leapfrog").ys
    c = 1.0 - h * h / 2
    assert abs(x[-1] - (c * 0.7 - h * 1.1)) <= 4 * EPS64
    assert abs(v[-1] - (-c * 1.1 - h * (1 - h * h / 4) * 0.7)) <= 4 * EPS64


def test_a_force_in_time_is_taken_at_both_ends_of_a_step():
    x, v = odeint(
        lambda t, y: (y[1], t + 0.0 * y[0]), (np.zeros(1), np.zeros(1)), [1.0, 3.0], method="leapfrog"
    ).ys
    assert v[-1, 0] == 4.0 and x[-1, 0] == 2.0  # the mean of 1 and 3, and half of 1, over a step of 2


def test_walking_back_undoes_every_step():
    y0 = (np.array([0.5, 0.0]), np.array([0.0, np.sqrt(3.0)]))
    grid = np.cumsum(np.random.default_rng(3).uniform(0.01, 0.1, 400))
    there = odeint(kepler, y0, grid[[0, -1]], method="leapfrog", grid=grid).ys
    back = odeint(kepler, tuple(a[-1] for a in there), grid[[-1, 0]], method="leapfrog", grid=grid[::-1]).ys
    distance = max(np.abs(a[-1] - b).max() for a, b in zip(back, y0, strict=True))
    assert distance <= 1e4 * EPS64  # an orbit spreads round-off linearly in time: 2 pi e-fold a revolution
    assert np.abs(there[0][-1] - y0[0]).max() > 0.1


def test_the_energy_does_not_drift_in_1e5_steps(long):
    (x, v), energy = long
    errors = energy(x, v) - energy(x[0], v[0])
    size = np.abs(errors).max()
    trend = np.polyfit(np.linspace(0.0, 1.0, len(errors)), errors, 1)[0]
    assert 1e-6 < size < 2e-2 and abs(trend) < 0.05 * size


def test_angular_momentum_is_kept_to_round_off_in_1e5_steps():
    f, y0, _, h = LONG["kepler"]
    x, v = odeint(f, y0, [0.0, N_LONG * h], method="leapfrog", step_size=h).ys
    momentum = x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]
    assert abs(momentum[-1] - momentum[0]) <= 10 * np.sqrt(N_LONG) * EPS64 * momentum[0]


def test_dense_output_of_constant_acceleration_is_exact():
    ts = np.array([0.0, 0.3, 0.9, 1.0, 1.7, 2.0])
    x, v = odeint(
        lambda t, y: (y[1], 0.0 * y[0] + 3.0),
        (np.zeros(1), np.ones(1)),
        ts,
        method="leapfrog",
        grid=[0, 1.2, 2],
    ).ys
    assert np.abs(x[:, 0] - (ts + 1.5 * ts**2)).max() <= 16 * EPS64
    assert np.abs(v[:, 0] - (1.0 + 3.0 * ts)).max() <= 16 * EPS64


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_dense_output_is_as_accurate_as_the_step_and_its_derivative_one_order_less(direction):
    errors, t0 = [], 0.4
    for h in direction * np.array([0.2, 0.1, 0.05]):
        y0 = (np.array([np.sin(t0)]), np.array([np.cos(t0)]))
        sol = odeint(
            lambda t, y: (y[1], -y[0]), y0, [t0, t0 + h], method="leapfrog", grid=[t0, t0 + h], dense=True
        )
        ts = t0 + h * np.linspace(0.1, 0.9, 9)
        states = np.hstack(sol.dense(ts)) - np.column_stack([np.sin(ts), np.cos(ts)])
        slopes = np.hstack(sol.dense.derivative(ts)) - np.column_stack([np.cos(ts), -np.sin(ts)])
        errors.append([np.abs(states).max(), np.abs(slopes).max()])
    orders = -np.diff(np.log2(errors), axis=0)
    assert np.all(abs(orders - [3, 2]) < 0.15), errors


@pytest.mark.parametrize("names", [("x", "v"), ("q", "p"), ("a", "b")])
def test_positions_are_the_leaf_whose_slope_is_the_other(names):
    x, v = names

    def f(t, y):
        return {x: y[v], v: -np.sin(y[x])}

    sol = odeint(f, {x: np.array([2.0]), v: np.zeros(1)}, [0, 1], method="leapfrog", step_size=0.1)
    expected = odeint(pendulum, (np.array([2.0]), np.zeros(1)), [0, 1], method="leapfrog", step_size=0.1)
    assert np.array_equal(sol.ys[x], expected.ys[0]) and np.array_equal(sol.ys[v], expected.ys[1])


def test_a_step_costs_one_evaluation():
    sol = odeint(pendulum, (np.ones(1), np.ones(1)), [0, 1], method="leapfrog", step_size=0.01)
    assert sol.stats.nfe == 101


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_replay_and_eager_evaluation_give_the_same_bits(dtype):
    y0 = (np.ones((3, 2), dtype), np.zeros((3, 2), dtype))
    replayed, eager = (
        odeint(pendulum, y0, [0, 0.55, 1], method="leapfrog", step_size=0.1, execution=execution).ys
        for execution in ("replay", "eager")
    )
    assert all(np.array_equal(a, b) and a.dtype == dtype for a, b in zip(replayed, eager, strict=True))


def test_arrays_of_any_module(xp):
    x, v = odeint(
        lambda t, y: (y[1], -y[0]), (xp.zeros(3), xp.ones(3)), [0, 0.55, 1], method="leapfrog", step_size=1e-3
    ).ys
    assert np.abs(host(x)[:, 1] - np.sin([0, 0.55, 1])).max() < 1e-6
    assert np.abs(host(v)[:, 1] - np.cos([0, 0.55, 1])).max() < 1e-6


def test_by_hand():
    stepper = odegrad.solvers.Stepper(
        pendulum, (np.array([2.0]), np.zeros(1)), 0.0, 1.0, method="leapfrog", step_size=0.25
    )
    step = stepper.step()
    assert step.t1 == 0.25 and np.allclose(step.interpolate(0.25)[0], step.y1[0], rtol=1e-14)


STATES = {
    "one array": np.ones(2),
    "three arrays": (np.ones(2), np.ones(2), np.ones(2)),
    "two shapes": (np.ones(2), np.ones(3)),
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_that_is_no_pair_is_refused(kind):
    with pytest.raises(ArgumentError, match=r"two arrays of one shape.*got y0(/0)?: \["):
        odeint(lambda t, y: y, STATES[kind], [0, 1], method="leapfrog")


def test_friction_is_refused():
    with pytest.raises(ArgumentError, match="must not depend on the velocities"):
        odeint(lambda t, y: (y[1], -y[0] - 0.1 * y[1]), (np.ones(2), np.ones(2)), [0, 1], method="leapfrog")


def test_momenta_are_refused():
    with pytest.raises(ArgumentError, match="velocities themselves"):
        odeint(lambda t, y: (0.5 * y[1], -y[0]), (np.ones(2), np.ones(2)), [0, 1], method="leapfrog")


def test_a_gradient_is_refused():
    def end(x):
        return np.sum(odeint(pendulum, (x, np.zeros(1)), [0, 1], method="leapfrog").ys[0][-1])

    with pytest.raises(NeuralODEError, match="has no derivative"):
        odegrad.grad(end)(np.ones(1))
