"""Derivatives through events: times, states there, and what follows, against closed forms and differences."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad import Event, grad, hvp, odeint, value_and_grad
from odegrad.engine.errors import GrazingEvent, NeuralODEError, TracedValueError
from oracles import central_difference, complex_step, inner
from solving import distance

GRADIENTS = ("tape", "discrete", "backsolve", "interpolated")
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
G = 9.81


def falling(t, y, p):
    """Height and speed under gravity, with drag where there is one."""
    return np.stack([y[1], -p["g"] - p.get("drag", 0.0) * y[1]])


def impact(terminal=True, jump=None):
    return Event(lambda t, y, p: y[0], terminal=terminal, direction=-1, jump=jump, name="impact")


def bounce():
    return impact(jump=lambda t, y, p: np.stack([0.0 * y[0], -p["r"] * y[1]]))


def closed_form(x, y, speed, g, r, end, start, n_bounces):
    """Height of a ball at `end` after n bounces, and the time of the last one."""
    t = start + (speed + np.sqrt(speed**2 + 2.0 * g * y)) / g
    speed = np.sqrt(speed**2 + 2.0 * g * y) * r
    for _ in range(n_bounces - 1):
        t, speed = t + 2.0 * speed / g, speed * r
    return {"height": speed * (end - t) - 0.5 * g * (end - t) ** 2, "time": t}[x]


def solved(x, gradient="discrete", **options):
    ts = options.pop("ts", None)
    ts = x["ts"] if ts is None else ts
    return odeint(
        falling, x["y0"], ts, x["p"], events=[bounce()], gradient=gradient, **{**TIGHT, **options}
    )  # fmt: skip


def at(sign=1.0):
    """A throw, 4.2 s of it, with two bounces."""
    params = {"g": np.array(G), "r": np.array(0.7)}
    return {"y0": np.array([3.0, sign * 2.0]), "ts": np.array([0.5, 0.5 + sign * 2.6]), "p": params}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("what", ["height", "time"])
def test_a_bouncing_ball_has_the_derivatives_of_its_closed_form(what, gradient):
    def loss(x):
        sol = solved(x, gradient)
        assert len(sol.events[0]) == 2
        return sol.ys[-1, 0] if what == "height" else sol.events[0].ts[1]

    x = at()
    value, found = value_and_grad(loss)(x)
    point = [x["y0"][0], x["y0"][1], G, 0.7, x["ts"][1], x["ts"][0]]
    expected = [complex_step(lambda *z: closed_form(what, *z, 2), point, row) for row in np.eye(6)]
    flat = [*found["y0"], found["p"]["g"], found["p"]["r"], found["ts"][1], found["ts"][0]]
    assert value == pytest.approx(closed_form(what, *point, 2), rel=1e-9)
    assert distance(np.array(flat), np.array(expected)) < (
        1e-10 if gradient in ("tape", "discrete") else 1e-7
    )


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_input_against_differences_in_both_directions_of_time(gradient, sign):
    """A nonlinear problem; the times of the outputs lie before, between and after two bounces."""
    wind = {"g": np.array(G), "drag": np.array(0.1 * sign), "r": np.array(0.7)}
    ts = 0.5 + sign * np.array([0.0, 0.4, 1.7, 2.6])
    x = {"y0": np.array([3.0, sign * 2.0]), "ts": ts, "p": wind}
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((4, 2))

    def loss(y0, ts, g, drag, r):
        sol = solved({"y0": y0, "ts": ts, "p": {"g": g, "drag": drag, "r": r}}, gradient)
        assert len(sol.events[0]) == 2 and sol.ys.shape == (4, 2)
        record = sol.events[0]
        return np.sum(weights * sol.ys) + record.ts[1] - 0.3 * record.ts[0] + np.sum(weights[:2] * record.ys)

    point = [x["y0"], ts, *(wind[name] for name in ("g", "drag", "r"))]
    found = grad(loss, argnums=(0, 1, 2, 3, 4))(*point)
    for position, bar in enumerate(found):
        directions = [np.zeros_like(leaf) for leaf in point]
        directions[position] = rng.standard_normal(bar.shape)
        expected = central_difference(loss, point, directions, h=1e-3)
        assert inner(bar, directions[position]) == pytest.approx(expected, rel=2e-6), position


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_an_oscillator_crosses_a_level(gradient):
    """cos(w t) = c at t = arccos(c) / w, where the level is a captured value; the event is only recorded."""

    def time(w, c):
        event = Event(lambda t, y: y[0] - c, terminal=False)
        sol = odeint(
            lambda t, y, w: np.stack([w * y[1], -w * y[0]]), np.array([1.0, 0.0]), (0.0, 3.0), w, events=[event],
            gradient=gradient, **TIGHT,
        )  # fmt: skip
        return sol.events[0].ts[0]

    w, c = np.array(1.3), np.array(0.4)
    expected = -np.arccos(c) / w**2, -1.0 / (w * np.sqrt(1.0 - c * c))
    assert grad(time, argnums=(0, 1))(w, c) == pytest.approx(expected, rel=1e-7)


def test_a_level_captured_by_the_condition_alone():
    def time(c):
        sol = odeint(lambda t, y: -y, np.ones(1), (0.0, 3.0), events=[Event(lambda t, y: y[0] - c)], **TIGHT)
        return sol.events[0].ts[0]

    assert grad(time)(np.array(0.4)) == pytest.approx(-1.0 / 0.4, rel=1e-8)


def test_a_condition_of_time_alone():
    """The event comes when it is told to; the state there moves along the slope."""

    def state(c):
        sol = odeint(lambda t, y: -y, np.ones(1), (0.0, 3.0), events=[Event(lambda t, y: t - c)], **TIGHT)
        return sol.events[0].ys[0, 0]

    assert grad(state)(np.array(0.7)) == pytest.approx(-np.exp(-0.7), rel=1e-7)


def test_a_moving_target():
    """y = y0 exp(-t) meets s t: the derivative of the time by the implicit function theorem."""

    def time(y0, s):
        event = Event(lambda t, y, s: y[0] - s * t)
        sol = odeint(lambda t, y, s: -y + 0.0 * s, y0, (0.0, 3.0), s, events=[event], **TIGHT)
        return sol.events[0].ts[0]

    y0, s = np.array([2.0]), np.array(1.5)
    t, (by_y0, by_s) = value_and_grad(time, argnums=(0, 1))(y0, s)
    rate = -y0[0] * np.exp(-t) - s
    assert by_y0 == pytest.approx(-np.exp(-t) / rate, rel=1e-8)
    assert by_s == pytest.approx(t / rate, rel=1e-8)


def test_an_output_time_at_the_event():
    """The output moves with its time, the event does not."""
    t = np.sqrt(2.0 * 3.0 / G)

    def loss(x):
        sol = solved(x)
        hit = int(np.argmin(np.abs(sol.ts - t)))
        assert sol.ts[hit] == sol.events[0].ts.value[0]
        return sol.ys[hit, 0] + 10.0 * sol.events[0].ys[0, 1] + sol.events[0].ts[0]

    x = {"y0": np.array([3.0, 0.0]), "ts": np.array([0.0, 1.0]), "p": at()["p"]}
    x["ts"] = np.array([0.0, solved(x).events[0].ts[0], 1.0])
    found = grad(loss)(x)
    assert found["ts"] == pytest.approx([G * t + 1.0, -G * t, 0.0], rel=1e-8, abs=1e-8)
    assert found["y0"][0] == pytest.approx(1.0 - 10.0 * G / (G * t) + 1.0 / (G * t), rel=1e-8)


def test_values_are_those_of_the_plain_solve():
    """At a tolerance at which other steps, or the end of a step in place of its inside, would be seen."""
    x = {"y0": at()["y0"], "p": {**at()["p"], "drag": np.array(2.0)}, "ts": np.linspace(0.0, 1.8, 40)}
    loose = {"rtol": 1e-3, "atol": 1e-3}
    plain = solved(x, **loose)

    def loss(x):
        sol = solved(x, **loose)
        return np.sum(sol.ys[:, 0]), (sol.ys.value, sol.events[0].ts.value, sol.events[0].ys.value)

    (_, found), _ = value_and_grad(loss, has_aux=True)(x)
    for actual, expected in zip(found, (plain.ys, plain.events[0].ts, plain.events[0].ys), strict=True):
        assert actual == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_an_event_at_a_step_of_a_jump_of_f():
    """y' = 1, then a from t = 1 on: y reaches 2 at t = 1 + 1 / a."""

    def time(a):
        event = Event(lambda t, y: y[0] - 2.0)
        sol = odeint(
            lambda t, y, a: np.where(t < 1.0, 1.0, a) + 0.0 * y, np.zeros(1), (0.0, 3.0), a, events=[event], jump_ts=[1.0]
        )  # fmt: skip
        return sol.events[0].ts[0]

    assert grad(time)(np.array(2.5)) == pytest.approx(-1.0 / 2.5**2, rel=1e-8)


def test_restarts_across_jumps_of_f():
    """Charging at rate 1, then a from t = 1.5 on; reset to 0 at 1: the third time is 1.5 + 1.5 / a."""

    def time(a):
        event = Event(lambda t, y: y[0] - 1.0, jump=lambda t, y: 0.0 * y)
        sol = odeint(
            lambda t, y, a: np.where(t < 1.5, 1.0, a) + 0.0 * y, np.zeros(1), (0.0, 3.0), a, events=[event], jump_ts=[1.5]
        )  # fmt: skip
        return sol.events[0].ts[2]

    assert grad(time)(np.array(2.0)) == pytest.approx(-1.5 / 2.0**2, rel=1e-8)


def test_float32_states():
    x = at()
    half = {
        "y0": x["y0"].astype(np.float32),
        "ts": x["ts"],
        "p": {k: v.astype(np.float32) for k, v in x["p"].items()},
    }
    loose = {"rtol": 1e-5, "atol": 1e-5}
    found = grad(lambda x: solved(x, **loose).ys[-1, 0])(half)
    expected = grad(lambda x: solved(x).ys[-1, 0])(x)
    assert found["y0"].dtype == np.float32 and distance(found, expected) < 1e-3


def test_trees():
    def time(k):
        sol = odeint(
            lambda t, y, k: {"x": y["v"], "v": -k * y["x"]}, {"x": np.ones(1), "v": np.zeros(1)}, (0.0, 3.0), k,
            events=[Event(lambda t, y, k: y["x"][0])], **TIGHT,
        )  # fmt: skip
        return sol.events[0].ts[0] + np.sum(sol.events[0].ys["x"])

    assert grad(time)(np.array(2.0)) == pytest.approx(-0.25 * np.pi * 2.0**-1.5, rel=1e-7)


def test_counts_are_those_of_both_solves():
    x, kept = at(), []

    def loss(x):
        kept.append(solved(x))
        return kept[-1].ys[-1, 0]

    plain = solved(x).stats
    grad(loss)(x)
    stats = kept[0].stats
    assert stats.n_accepted == plain.n_accepted and stats.nfe > plain.nfe and stats.nfe_backward > 0


def test_a_grazing_event_has_no_derivative():
    def time(c):
        event = Event(lambda t, y: (y[0] - c) ** 3)
        sol = odeint(lambda t, y: -y, np.ones(1), (0.0, 3.0), events=[event], **TIGHT)
        return sol.events[0].ts[0]

    with pytest.raises(GrazingEvent, match="zero together with its time derivative"):
        grad(time)(np.array(0.4))


def test_second_derivatives_are_refused():
    with pytest.raises(NeuralODEError, match="first derivatives only"):
        hvp(lambda x: solved(x).ys[-1, 0], (at(),), (at(),))


@pytest.mark.parametrize("options", [{"dense": True}, {"save": "steps"}])
def test_what_is_not_differentiated_is_refused(options):
    with pytest.raises(NeuralODEError, match="is not differentiated"):
        grad(lambda x: solved(x, **options).ys[-1, 0])(at())


def test_a_method_without_dense_output_is_refused():
    with pytest.raises(NeuralODEError, match="needs a method with dense output"):
        grad(lambda x: solved(x, method="rk4", step_size=0.1).ys[-1, 0])(at())


def test_events_inside_of_other_dynamics_are_refused():
    def outer(t, y):
        return (
            -odeint(lambda t, y: -y, y, (0.0, 1.0), events=[Event(lambda t, y: y[0] - 0.5)]).events[0].ys[0]
        )

    with pytest.raises(NeuralODEError, match="under `jit`, or the f of another solve"):
        odeint(outer, np.ones(1), (0.0, 1.0))


def test_a_condition_that_cannot_be_traced_is_refused():
    def hit(t, y):
        return float(y[0])

    def loss(y0):
        p = at()["p"]
        return odeint(falling, y0, (0.0, 3.0), p, events=[Event(hit)], **TIGHT).events[0].ts[0]

    with pytest.raises(TracedValueError, match="float") as caught:
        grad(loss)(np.array([3.0, 0.0]))
    assert "the derivative of the event 'hit'" in "".join(caught.value.__notes__)
