"""Events on plain values: where they are found, what they do to the solve, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from odegrad import Event, Solution, odeint, solvers
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, EventAccumulation, TooManySteps
from oracles import EPS64
from solving import same_bits

G = 9.81
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def falling(t, y):
    """Height and speed under gravity."""
    return np.stack([y[1], 0.0 * y[1] - G])


def turning(t, y):
    """(cos, -sin) from (1, 0), in both directions of time."""
    return np.stack([y[1], -y[0]])


def height(t, y):
    return y[0]


def fall(events, end=5.0, start=10.0, **options):
    return odeint(falling, np.array([start, 0.0]), (0.0, end), events=events, **{**TIGHT, **options})


def turn(events, span=(0.0, 10.0), **options):
    return odeint(turning, np.array([1.0, 0.0]), span, events=events, **{**TIGHT, **options})


def ball(restitution=0.8, floor=0.0, exact=True):
    """Bounces; with `exact` it goes on from the floor itself, otherwise from where round-off has left it."""

    def jump(t, y):
        return np.stack([floor + 0.0 * y[0] if exact else y[0], -restitution * y[1]])

    return Event(lambda t, y: y[0] - floor, direction=-1, jump=jump, name="impact")


def impacts(n, drop=10.0, restitution=0.8):
    """The first n impacts of a ball dropped from rest."""
    first = math.sqrt(2.0 * drop / G)
    return first * np.array([1.0 + 2.0 * sum(restitution**k for k in range(1, m + 1)) for m in range(n)])


METHODS = [
    ("dopri5", None), ("bosh3", None), ("tsit5", None), ("dop853", None), ("vern7", None), ("heun", 0.1),
    ("rk4", 0.25), ("kvaerno5", None), ("radau5", None), ("trapezoid", 0.25),
    ("adams_bashforth_moulton", 0.05),
]  # fmt: skip


@pytest.mark.parametrize(("method", "step_size"), METHODS)
def test_a_falling_body_meets_the_ground(method, step_size):
    sol = fall([Event(height)], method=method, step_size=step_size)
    t = math.sqrt(20.0 / G)
    assert sol.events[0].ts == pytest.approx([t], rel=1e-9)
    assert sol.events[0].ys[0] == pytest.approx([0.0, -G * t], rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_crossings_of_an_oscillator(sign):
    sol = turn([Event(height, terminal=False)], (0.0, sign * 10.0))
    assert np.abs(sol.events[0].ts - sign * math.pi * np.array([0.5, 1.5, 2.5])).max() < 1e-8


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_root_is_that_of_the_dense_output_to_machine_precision(sign):
    level = 0.3
    sol = turn(
        [Event(lambda t, y: y[0] - level, terminal=False)],
        (0.0, sign * 10.0),
        dense=True,
        rtol=1e-4,
        atol=1e-4,
    )
    values = sol.dense(sol.events[0].ts)[:, 0] - level
    assert len(values) == 3 and np.abs(values).max() < 8 * 10.0 * EPS64


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("direction", "quarters"), [(1, [3]), (-1, [1, 5]), (0, [1, 3, 5])])
def test_direction_is_that_along_the_integration(direction, quarters, sign):
    sol = turn([Event(height, terminal=False, direction=direction)], (0.0, sign * 10.0))
    assert sol.events[0].ts == pytest.approx(sign * 0.5 * math.pi * np.array(quarters), abs=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_solve_ends_at_the_nth_occurrence(n):
    sol = turn([Event(height, terminal=n)])
    assert sol.status == "event" and len(sol.events[0]) == n
    assert sol.grid[-1] == sol.events[0].ts[-1]


def test_recorded_events_do_not_change_the_steps():
    times = np.linspace(0.0, 10.0, 7)
    plain = odeint(turning, np.array([1.0, 0.0]), times)
    watched = odeint(turning, np.array([1.0, 0.0]), times, events=[Event(height, terminal=False)])
    assert (
        same_bits((plain.ys, plain.grid), (watched.ys, watched.grid)) and plain.stats.nfe == watched.stats.nfe
    )


@pytest.mark.parametrize("apex", [0.5, 1.0, 1.5])
def test_a_step_that_crosses_twice(apex):
    """Up and down again through a level below the apex within one step, at the end of which all is as before."""
    level = 0.5 * G * apex**2 - 0.05
    event = Event(lambda t, y: y[0] - level, terminal=False)
    sol = odeint(falling, np.array([0.0, G * apex]), (0.0, 2.0), events=[event], first_step=2.0)
    away = math.sqrt(0.1 / G)
    assert len(sol.grid) == 2 and sol.events[0].ts == pytest.approx([apex - away, apex + away], rel=1e-12)


@pytest.mark.parametrize("terminal", [True, False])
def test_an_event_exactly_at_the_end_of_a_step(terminal):
    event = Event(lambda t, y: y[0] - 1.0, terminal=terminal)
    grid = [0.0, 0.5, 1.0, 1.5, 2.0]
    sol = odeint(lambda t, y: 1.0 + 0.0 * y, np.zeros(1), grid, grid=grid, events=[event], dense=True)
    end = 3 if terminal else 5
    assert list(sol.events[0].ts) == [1.0] and same_bits((sol.grid, sol.ts), (np.array(grid[:end]),) * 2)
    assert sol.dense.t1 == grid[end - 1]


def test_the_earliest_event_of_a_step_counts():
    """All three lie in one step; the terminal one in the middle ends the solve, and the last one has not happened."""
    events = [Event(lambda t, y, c=c: t - c, terminal=c == 0.5) for c in (0.7, 0.3, 0.5)]
    sol = fall(events, end=1.0, first_step=1.0)
    assert [list(record.ts) for record in sol.events] == [[], pytest.approx([0.3]), pytest.approx([0.5])]


def test_events_at_the_same_time_are_all_recorded():
    conditions = [
        height,
        lambda t, y: 3.0 * y[0],
        lambda t, y: np.expm1(y[0]),
        lambda t, y: np.tanh(y[0] / 7.0),
    ]
    sol = fall([Event(condition, terminal=condition is height) for condition in conditions])
    assert [len(record) for record in sol.events] == [1, 1, 1, 1]
    assert len({record.ts[0] for record in sol.events}) == 1


def test_events_within_round_off_are_at_one_time():
    times = [1.0, 1.0 + 4 * EPS64, 1.0 - 2 * EPS64]
    sol = fall([Event(lambda t, y, c=c: t - c) for c in times])
    assert [list(record.ts) for record in sol.events] == [[sol.grid[-1]]] * 3


def test_jumps_at_one_time_follow_each_other():
    """First up by one, then twice that."""
    jumps = [lambda t, y: y + 1.0, lambda t, y: 2.0 * y]
    events = [Event(lambda t, y: t - 0.5, jump=jump) for jump in jumps]
    sol = odeint(lambda t, y: 0.0 * y, np.ones(1), (0.0, 1.0), events=events)
    assert list(sol.ys[:, 0]) == [1.0, 4.0] and [len(record) for record in sol.events] == [1, 1]


def test_an_event_that_is_recorded_at_a_jump_does_not_end_the_solve():
    sol = fall([Event(height, terminal=False), ball(), Event(height, terminal=3, direction=-1)], end=10.0)
    assert [len(record) for record in sol.events] == [3, 3, 3] and sol.status == "event"
    assert sol.events[0].ts == pytest.approx(impacts(3))


def test_a_terminal_event_outweighs_a_jump_at_its_time():
    events = [Event(height, jump=lambda t, y: -y), Event(height)]
    sol = fall(events)
    assert sol.status == "event" and [len(record) for record in sol.events] == [1, 1]


@pytest.mark.parametrize(
    "condition",
    [
        lambda t, y: y[0] + 100.0,
        lambda t, y: 0.0,
        lambda t, y: 0.0 * y[0],
        lambda t, y: (t - 1.0) ** 2,
        lambda t, y: max(1.0 - t, 0.0),
    ],
    ids=["far away", "zero", "zero of y", "touches", "stays at zero"],
)
def test_what_does_not_change_sign_is_no_event(condition):
    sol = fall([Event(condition)], end=2.0)
    assert sol.status == "finished" and len(sol.events[0]) == 0 and sol.events[0].ys.shape == (0, 2)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_zero_at_the_end_is_an_event_and_one_at_the_start_is_not(sign):
    events = [Event(lambda t, y: t - sign), Event(lambda t, y: t, terminal=False)]
    sol = turn(events, (0.0, sign))
    assert sol.status == "event" and list(sol.events[0].ts) == [sign] and len(sol.events[1]) == 0


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("method", ["dopri5", "dop853", "bosh3"])
def test_a_bouncing_ball(method, exact):
    sol = odeint(
        falling, np.array([10.0, 0.0]), (0.0, 10.0), events=[ball(exact=exact)], method=method, **TIGHT
    )
    expected = impacts(30)
    expected = expected[expected < 10.0]
    assert sol.status == "finished" and sol.events[0].ts == pytest.approx(expected, rel=1e-9)


def test_a_bouncing_ball_backwards_in_time():
    """Mirrored in time: the ball falls as t decreases."""
    rising = Event(height, direction=-1, jump=lambda t, y: np.stack([0.0 * y[0], -0.8 * y[1]]))
    sol = odeint(falling, np.array([10.0, 0.0]), (0.0, -10.0), events=[rising], **TIGHT)
    expected = impacts(30)
    assert sol.events[0].ts == pytest.approx(-expected[expected < 10.0], rel=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("floor", [0.0, 10.0])
def test_flights_shorter_than_a_quarter_of_a_step(floor, sign):
    """Each flight is shorter than the first step after an impact."""
    expected = sign * impacts(20, 1e-6, 0.5)
    y0, span = np.array([floor + 1e-6, 0.0]), (0.0, sign * 1e-2)
    with pytest.raises(EventAccumulation) as caught:
        odeint(falling, y0, span, events=[ball(0.5, floor)], **TIGHT)
    found = caught.value.solution.events[0].ts
    n = 5 if floor else 15
    assert found[:n] == pytest.approx(expected[:n], rel=1e-4 if floor else 1e-9)


def test_a_start_on_the_floor_is_no_impact():
    sol = odeint(falling, np.array([0.0, 5.0]), (0.0, 3.0), events=[Event(height)], first_step=3.0, **TIGHT)
    assert sol.events[0].ts == pytest.approx([10.0 / G], rel=1e-12)


def test_a_jump_away_from_the_condition():
    """A neuron charges towards 2 and is reset to 0 at 1: y = 2 - 2 exp(-t), period log(2)."""
    fire = Event(lambda t, y: y[0] - 1.0, jump=lambda t, y: 0.0 * y)
    sol = odeint(lambda t, y: 2.0 - y, np.zeros(1), (0.0, 5.0), events=[fire], **TIGHT)
    assert sol.events[0].ts == pytest.approx(math.log(2.0) * np.arange(1, 8), rel=1e-8)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("floor", [0.0, 10.0])
def test_a_ball_that_comes_to_rest_is_a_named_error(floor, exact):
    limit = math.sqrt(2.0 / G) * (1.0 + 2.0 * 0.5 / 0.5)
    y0 = np.array([floor + 1.0, 0.0])
    with pytest.raises(EventAccumulation, match="'impact' happens again right after") as caught:
        odeint(falling, y0, np.linspace(0.0, 10.0, 11), events=[ball(0.5, floor, exact)], **TIGHT)
    partial = caught.value.solution
    assert caught.value.t == pytest.approx(limit, rel=1e-5)
    assert list(partial.ts) == [0.0, 1.0] and len(partial.events[0]) >= 15


def test_endless_restarts_are_limited_by_max_steps():
    flip = Event(lambda t, y: np.sin(1000.0 * t), jump=lambda t, y: y)
    with pytest.raises(TooManySteps) as caught:
        fall([flip], max_steps=20)
    assert len(caught.value.solution.events[0]) >= 10


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_output_times_beyond_the_event_are_missing(sign):
    times = sign * np.linspace(0.0, 3.0, 7)
    sol = odeint(falling, np.array([10.0, 0.0]), times, events=[Event(height)], **TIGHT)
    assert same_bits(sol.ts, times[:3]) and sol.ys[:, 0] == pytest.approx(10.0 - 0.5 * G * sol.ts**2)


def test_every_step_ends_with_the_event():
    sol = fall([Event(height)], save="steps")
    assert sol.ts[-1] == sol.events[0].ts[0] and same_bits(sol.ys[-1], sol.events[0].ys[0])
    assert same_bits(sol.ts, sol.grid)


@pytest.mark.parametrize(("method", "step_size"), [("dopri5", None), ("dop853", None), ("rk4", 0.1)])
def test_dense_output_goes_across_restarts(method, step_size):
    times = np.linspace(0.0, 6.0, 50)
    sol = odeint(
        falling, np.array([10.0, 0.0]), (0.0, 6.0), events=[ball()], dense=True, method=method,
        step_size=step_size, **TIGHT,
    )  # fmt: skip
    marks = np.concatenate([[-impacts(1)[0]], impacts(5)])
    last = np.searchsorted(marks, times) - 1
    since, speed = times - marks[last], 0.8**last * math.sqrt(20.0 * G)
    assert sol.dense(times)[:, 0] == pytest.approx(since * speed - 0.5 * G * since**2, abs=1e-8)


def test_dense_output_ends_at_the_event():
    sol = fall([Event(height)], dense=True)
    assert sol.dense.t1 == sol.events[0].ts[0] and sol.dense(sol.dense.t1) == pytest.approx(
        sol.events[0].ys[0]
    )
    with pytest.raises(ArgumentError, match="`t` must lie in the interval"):
        sol.dense(sol.dense.t1 + 1e-3)


@pytest.mark.parametrize("c", [0.3, 2.0])
def test_events_and_jumps_of_f(c):
    """The speed halves at the jump c, before or after the condition would be met without it."""
    event = Event(lambda t, y: y[0] - 1.0)
    sol = odeint(
        lambda t, y: np.where(t < c, 1.0, 0.5) + 0.0 * y,
        np.zeros(1),
        (0.0, 3.0),
        events=[event],
        jump_ts=[c],
        dense=True,
    )
    expected = 1.0 if c > 1.0 else c + (1.0 - c) / 0.5
    assert sol.events[0].ts == pytest.approx([expected]) and sol.dense(0.9 * expected).shape == (1,)


def test_an_event_at_a_jump_of_f_is_met_once():
    event = Event(lambda t, y: t - 1.0, terminal=False)
    sol = odeint(lambda t, y: np.where(t < 1.0, y, -y), np.ones(1), (0.0, 2.0), events=[event], jump_ts=[1.0])
    assert sol.events[0].ts == pytest.approx([1.0])


def test_restarts_and_jumps_of_f_in_one_solve():
    fire = Event(lambda t, y: y[0] - 1.0, jump=lambda t, y: 0.0 * y)
    rate = [1.0, 2.0]
    sol = odeint(
        lambda t, y: np.where(t < 1.5, rate[0], rate[1]) + 0.0 * y, np.zeros(1), (0.0, 3.0), events=[fire],
        jump_ts=[1.5], dense=True,
    )  # fmt: skip
    assert sol.events[0].ts == pytest.approx([1.0, 1.75, 2.25, 2.75])
    assert sol.dense([0.5, 1.25, 1.6, 2.9])[:, 0] == pytest.approx([0.5, 0.25, 0.7, 0.3])


def test_trees_parameters_and_names():
    def f(t, y, p):
        return {"x": y["v"], "v": -p["k"] * y["x"]}

    def quarter(t, y, p):
        return y["x"][1] * p["k"]

    y0 = {"x": np.array([2.0, 1.0]), "v": np.zeros(2)}
    sol = odeint(f, y0, (0.0, 3.0), {"k": np.array(4.0)}, events=[Event(quarter, terminal=False)], **TIGHT)
    (record,) = sol.events
    assert record.name == "quarter" and record.which == 0
    assert record.ts == pytest.approx(np.array([0.25, 0.75]) * math.pi * np.array([1.0, 1.0]), abs=1e-8)
    assert record.ys["v"].shape == (2, 2) and record.ys["v"][0] == pytest.approx([-4.0, -2.0])


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_other_dtypes(dtype):
    event = Event(lambda t, y: np.real(y[0]) - 0.5, jump=lambda t, y: y + 1.0)
    sol = odeint(lambda t, y: -y, np.ones(1, dtype), (0.0, 2.0), events=[event], rtol=1e-6, atol=1e-6)
    expected = np.cumsum([math.log(2.0), math.log(3.0)])
    assert sol.events[0].ts == pytest.approx(expected[expected < 2.0], rel=1e-5)
    assert sol.ys.dtype == dtype and sol.events[0].ys.dtype == dtype


def test_functions_as_scipy_takes_them():
    def stop(t, y):
        return float(y[0])

    def apex(t, y):
        return y[1]

    stop.terminal, stop.direction = True, -1
    sol = odeint(falling, np.array([0.0, 5.0]), (0.0, 3.0), events=[stop, apex], **TIGHT)
    assert sol.status == "event" and sol.events[0].ts == pytest.approx([10.0 / G], rel=1e-9)
    assert sol.events[1].ts == pytest.approx([5.0 / G], rel=1e-9)


@pytest.mark.parametrize("execution", ["replay", "eager"])
def test_replayed_and_eager_solves_agree(execution):
    sol = fall([ball()], execution=execution)
    assert sol.events[0].ts == pytest.approx(impacts(len(sol.events[0])), rel=1e-9)


def test_a_given_grid_is_walked():
    sol = fall([ball()], end=4.0, grid=np.linspace(0.0, 4.0, 9))
    marks = impacts(4)
    expected = np.union1d(np.linspace(0.0, 4.0, 9), marks[marks < 4.0])
    assert sol.grid == pytest.approx(expected, rel=1e-9)


def test_a_failure_after_an_event_carries_everything():
    """After the reset y' = 1 / (2 - t) runs into a pole."""
    reset = Event(lambda t, y: t - 1.0, jump=lambda t, y: 0.0 * y)
    with pytest.raises(Exception) as caught:
        odeint(lambda t, y: 1.0 + y * y, np.zeros(1), np.linspace(0.0, 3.0, 7), events=[reset])
    partial = caught.value.solution
    assert list(partial.ts) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5] and partial.events[0].ts == pytest.approx([1.0])


def test_an_interrupted_solve_has_the_events_it_met():
    def interrupt(info):
        if info.t > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        fall([Event(lambda t, y: t - 0.3, terminal=False)], callback=interrupt, max_step=0.1)
    assert caught.value.solution.events[0].ts == pytest.approx([0.3])


def test_a_solution_with_events_is_saved(tmp_path):
    sol = fall([ball(), Event(lambda t, y: y[0] + 100.0, name="never")], dense=True)
    sol.save(tmp_path / "ball.h5")
    again = Solution.load(tmp_path / "ball.h5")
    assert [record.name for record in again.events] == ["impact", "never"]
    for record, saved in zip(sol.events, again.events, strict=True):
        assert same_bits((record.ts, record.ys), (saved.ts, saved.ys))


@pytest.mark.parametrize(
    ("condition", "got"),
    [
        (lambda t, y: math.nan, "nan"),
        (lambda t, y: y, r"f64\[2\]"),
        (lambda t, y: 1j, "1j"),
        (lambda t, y: y[0] > 1.0, "True"),
        (lambda t, y: False, "False"),
        (lambda t, y: "soon", "str"),
        (lambda t, y: None, "None"),
    ],
)
def test_a_condition_returns_a_real_number(condition, got):
    with pytest.raises(
        ArgumentError, match=f"the condition of the event 'lost' must return.*returned .*{got}"
    ):
        fall([Event(condition, name="lost")])


def test_a_condition_that_raises_says_where():
    def lost(t, y):
        raise KeyError("there")

    with pytest.raises(KeyError) as caught:
        fall([Event(lost)])
    assert "raised by the condition of the event 'lost' at t=0" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("returned", [np.zeros(3), [0.0, 1.0], None, np.zeros(2, np.float32)], ids=repr)
def test_a_jump_returns_a_state(returned):
    with pytest.raises(ArgumentError, match="the jump of the event 'height' must return a state like y0"):
        fall([Event(height, jump=lambda t, y: returned)])


def test_a_jump_to_a_state_that_is_not_finite():
    with pytest.raises(
        ArgumentError, match="the jump of the event 'height' at t=.* must be finite; got 2 of 2"
    ):
        fall([Event(height, jump=lambda t, y: y * math.nan)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"condition": 3}, {"jump": 3}, {"terminal": "yes"}, {"terminal": -1}, {"direction": "up"},
        {"direction": math.nan}, {"name": 3},
    ],
    ids=repr,
)  # fmt: skip
def test_an_event_says_what_is_wrong_with_it(wrong):
    with pytest.raises(ArgumentTypeError, match=f"`{next(iter(wrong))}` must be"):
        Event(**{"condition": height, **wrong})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"events": 3}, "`events` must be a list"),
        ({"events": [3]}, "`events` must hold"),
        ({"gradient": "reversible"}, "gradient='reversible' has none"),
        ({"independent": True}, "independent=True exclude each other"),
        ({"has_aux": True}, "has_aux=True exclude each other"),
    ],
)
def test_what_does_not_go_together_with_events(options, message):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        fall(**{"events": [Event(height)], **options})


def test_no_events_are_no_events():
    assert same_bits(fall([]).ys, fall(None).ys) and fall([]).events == []


def test_public_names():
    assert {"Event", "Occurrences"} <= set(solvers.__all__)
