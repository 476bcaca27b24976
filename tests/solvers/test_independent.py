"""Rows with steps of their own: the same as each alone, outputs, counts, checks, failures, what is refused."""

from __future__ import annotations

import numpy as np
import odegrad
import pytest
from odegrad import odeint
from odegrad.engine.errors import ArgumentError, NonFiniteDynamics, StepSizeUnderflow, TooManySteps
from odegrad.solvers.controllers import CONTROLLERS
from odegrad.solvers.independent.control import control_of_rows
from odegrad.solvers.tableaus import TABLEAUS
from oracles import EPS64, host

METHODS = [name for name, t in TABLEAUS.items() if t.is_adaptive and t.interpolates]


def paced(t, y):
    """Lotka and Volterra's animals, each row at a pace that is its third component."""
    prey, predators, pace = y[..., 0], y[..., 1], y[..., 2]
    slopes = [pace * prey * (1.5 - predators), pace * predators * (prey - 3.0), 0.0 * pace]
    return np.stack(slopes, axis=-1)


def forced(t, y):
    return y * np.cos(t)


def batch_of(n_rows: int) -> np.ndarray:
    rng = np.random.default_rng(n_rows)
    return np.column_stack([rng.uniform(0.5, 4.0, (n_rows, 2)), 10.0 ** rng.uniform(-1, 1, n_rows)])


@pytest.fixture(scope="module")
def solved():
    """A batch of 40 paces, forward and backward in time: (batch solution, those of the rows alone) by direction."""
    y0, found = batch_of(40), {}
    for ts in (np.linspace(0.0, 2.0, 9), np.linspace(2.0, 0.0, 9)):
        alone = [odeint(paced, row, ts) for row in y0]
        found[ts[-1] > ts[0]] = odeint(paced, y0, ts, independent=True), alone
    return found


@pytest.mark.parametrize("forward", [True, False])
def test_every_row_makes_the_steps_that_it_makes_alone(solved, forward):
    together, alone = solved[forward]
    for name in ("nfe", "n_accepted", "n_rejected"):
        expected = [getattr(sol.stats, name) for sol in alone]
        assert getattr(together.stats, f"{name}_of_rows").tolist() == expected
        assert getattr(together.stats, name) == sum(expected)


@pytest.mark.parametrize("forward", [True, False])
def test_every_row_has_the_states_that_it_has_alone(solved, forward):
    together, alone = solved[forward]
    expected = np.stack([sol.ys for sol in alone], axis=1)
    assert together.ys.shape == (9, 40, 3)
    assert (
        np.abs(together.ys - expected).max() <= 1e-9 * np.abs(expected).max()
    )  # round-off, grown by the problem


@pytest.mark.parametrize("ts", [[0.0, 0.3, 3.0, 4.0], [4.0, 3.0, 0.3, 0.0]])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_agrees_with_the_closed_form(method, ts):
    y0 = np.exp(np.sin(ts[0])) * np.linspace(0.1, 2.0, 6)[:, None]
    sol = odeint(forced, y0, ts, method=method, rtol=1e-6, atol=1e-8, independent=True)
    expected = np.exp(np.sin(ts))[:, None, None] * np.linspace(0.1, 2.0, 6)[:, None]
    assert np.abs(sol.ys - expected).max() < 100 * 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_costs_a_row_what_it_costs_alone(method):
    y0, ts = batch_of(6), [0.0, 0.3, 0.4, 3.0]
    options = {"method": method, "rtol": 10.0 ** -max(3, TABLEAUS[method].order), "atol": 1e-6}
    sol = odeint(paced, y0, ts, independent=True, **options)
    alone = [odeint(paced, row, ts, **options).stats for row in y0]
    assert sol.stats.n_accepted_of_rows.tolist() == [stats.n_accepted for stats in alone]
    assert sol.stats.nfe_of_rows.tolist() == [stats.nfe for stats in alone]


def test_arrays_of_any_module(xp):
    y0 = np.linspace(0.1, 2.0, 6)[:, None]
    sol = odeint(
        lambda t, y: -2.0 * t * y * y, xp.asarray(y0), [0.0, 0.3, 3.0], method="tsit5", independent=True
    )
    assert np.abs(host(sol.ys)[..., 0] - y0[:, 0] / (1.0 + y0[:, 0] * sol.ts[:, None] ** 2)).max() < 1e-4
    assert type(sol.ys) is type(xp.asarray(y0))


def test_rows_of_one_batch_have_different_steps(solved):
    counts = solved[True][0].stats.n_accepted_of_rows
    assert counts.max() > 5 * counts.min()


def test_rows_that_have_finished_are_not_evaluated():
    """`n_evaluated` counts the rows in all calls of f: those of the check, and the nfe of the rows."""
    n_evaluated = 0

    def counted(t, y):
        nonlocal n_evaluated
        n_evaluated += y.shape[0]
        return paced(t, y)

    y0 = batch_of(24)
    sol = odeint(counted, y0, [0.0, 1.0], independent=True)
    assert n_evaluated == sol.stats.nfe + 4 * 24


def test_more_output_times_change_no_step():
    y0 = batch_of(10)
    few, many = (odeint(paced, y0, np.linspace(0, 1, n), independent=True) for n in (2, 301))
    assert np.array_equal(few.stats.nfe_of_rows, many.stats.nfe_of_rows)
    assert np.array_equal(few.ys[-1], many.ys[-1])


def test_the_order_of_rows_does_not_matter():
    y0 = batch_of(16)
    order = np.random.default_rng(1).permutation(16)
    straight, shuffled = (odeint(paced, y, [0, 0.4, 1], independent=True) for y in (y0, y0[order]))
    assert np.array_equal(straight.stats.nfe_of_rows[order], shuffled.stats.nfe_of_rows)
    assert np.abs(straight.ys[:, order] - shuffled.ys).max() <= 1e-9


def test_time_is_that_of_each_row():
    seen = []

    def f(t, y):
        if isinstance(t, np.ndarray):
            seen.append(t)
        return -y * t

    odeint(f, np.ones((3, 2, 4)) * np.array([1.0, 1e3, 1e6])[:, None, None], [0, 1], independent=True)
    assert all(t.shape[1:] == (1, 1) for t in seen) and any(np.ptp(t) > 0 for t in seen)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_trees_parameters_and_dtypes(dtype):
    y0 = {"a": np.ones((5, 2), dtype), "b": np.full((5, 3), 2.0, dtype)}

    def f(t, y, params):
        return {"a": -params["k"] * y["a"] * t, "b": params["k"] * y["b"]}

    sol = odeint(f, y0, [0, 0.5, 1], {"k": np.array(0.5, dtype)}, independent=True)
    assert sol.ys["a"].dtype == dtype and sol.ys["b"].shape == (3, 5, 3)
    assert np.abs(sol.ys["a"] - np.exp(-0.25 * sol.ts**2)[:, None, None]).max() < 1e-5
    assert np.abs(sol.ys["b"] - 2 * np.exp(0.5 * sol.ts)[:, None, None]).max() < 5e-5


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (4,)])
def test_batches_of_any_size(shape):
    sol = odeint(lambda t, y: -y, np.ones(shape), [0, 1], independent=True)
    assert sol.ys.shape == (2, *shape) and np.all(abs(sol.ys[-1] - np.exp(-1)) < 1e-5)
    assert sol.stats.nfe_of_rows.shape == shape[:1]


def test_the_initial_state_is_left_alone():
    y0 = batch_of(4)
    before = y0.copy()
    sol = odeint(paced, y0, [0, 1], independent=True)
    sol.ys[:] = 0.0
    assert np.array_equal(y0, before)


@pytest.mark.parametrize(
    "option", [{"first_step": 1e-3}, {"max_step": 0.05}, {"controller": "pid"}, {"rtol": 1e-9}]
)
def test_options_mean_what_they_mean_for_a_row_alone(option):
    y0 = batch_of(6)
    sol = odeint(paced, y0, [0, 1], independent=True, **option)
    expected = [odeint(paced, row, [0, 1], **option).stats.nfe for row in y0]
    assert sol.stats.nfe_of_rows.tolist() == expected


ERRORS = [0.0, 1e-320, 1e-8, 0.05, 0.5, 1.0, np.nextafter(1.0, 2.0), 1.5, 1e5, np.inf, np.nan]


@pytest.mark.parametrize("name", CONTROLLERS)
def test_control_of_rows_is_that_of_one(name):
    """Sequences of errors of every kind, each row against `judge` called by hand."""
    rng = np.random.default_rng(7)
    errors = rng.choice(ERRORS, (60, 12))
    controller = CONTROLLERS[name].make(5)
    rows, memory = control_of_rows(controller, 12), [None] * 12
    h, left = np.full(12, -0.3), np.arange(12)
    for k, sweep in enumerate(errors):
        with np.errstate(all="ignore"):
            is_accepted, next_h = rows.judge(sweep[left], h)
        memory = [
            controller.judge(*known) for known in zip(sweep[left].tolist(), h.tolist(), memory, strict=True)
        ]
        assert is_accepted.tolist() == [verdict.is_accepted for verdict in memory]
        expected = np.array([verdict.next_h for verdict in memory])
        assert np.all(abs(next_h - expected) <= 8 * EPS64 * abs(expected))
        h = -0.1 - 0.2 * rng.random(len(left))
        if k == 30:
            stays = left % 3 > 0
            rows.keep(stays)
            h, memory = h[stays], [v for v, s in zip(memory, stays, strict=True) if s]
            left = left[stays]


def a_weight_for_each_row(t, y):
    return -y * np.arange(1.0, 9.0)[:, None]


COUPLED = {
    "mean": lambda t, y: y - np.mean(y, axis=0),
    "batch norm": lambda t, y: (y - np.mean(y, axis=0)) / np.sqrt(np.var(y, axis=0) + 1e-5),
    "sum": lambda t, y: -y * np.sum(y),
    "neighbour": lambda t, y: np.concatenate([y[1:], y[:1]]) - y,
    "matrix along the batch": lambda t, y: -(np.eye(8) + 0.01)[: y.shape[0], : y.shape[0]] @ y,
    "weakly": lambda t, y: -y + 1e-6 * np.sum(y, axis=0),
}


@pytest.mark.parametrize("start", ["equal rows", "different rows"])
@pytest.mark.parametrize("dynamics", COUPLED)
def test_coupled_rows_are_refused(dynamics, start):
    y0 = np.ones((8, 2)) if start == "equal rows" else np.random.default_rng(0).normal(size=(8, 2))
    with pytest.raises(
        ArgumentError, match="rows that do not depend on each other: the slope of row"
    ) as caught:
        odeint(COUPLED[dynamics], y0, [0, 1], independent=True)
    assert 0 <= caught.value.row < 8


@pytest.mark.parametrize("n_rows", [2, 3])
def test_a_pair_of_rows_is_enough(n_rows):
    with pytest.raises(ArgumentError, match="do not depend on each other"):
        odeint(lambda t, y: y[::-1], np.ones((n_rows, 1)), [0, 1], independent=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mean_over_very_many_rows_is_seen(dtype):
    y0 = np.random.default_rng(2).normal(size=(20_000, 1)).astype(dtype)
    with pytest.raises(ArgumentError, match="do not depend on each other"):
        odeint(lambda t, y: np.mean(y, axis=0) - y, y0, [0, 1], independent=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_is_not_taken_for_coupled(dtype):
    """Products with matrices round differently for batches of different sizes."""
    rng = np.random.default_rng(0)
    params = [rng.normal(0, 0.1, shape).astype(dtype) for shape in [(20, 300), (300, 20)]]
    y0 = rng.normal(size=(65, 20)).astype(dtype)
    sol = odeint(
        lambda t, y, p: np.tanh(y @ p[0]) @ p[1], y0, [0, 1], params, independent=True, rtol=1e-3, atol=1e-3
    )
    assert sol.stats.n_checks == 6


def test_what_belongs_to_single_rows_must_be_in_the_state():
    with pytest.raises(ArgumentError, match="4 of the 8 rows, and it failed: ValueError"):
        odeint(a_weight_for_each_row, np.ones((8, 2)), [0, 1], independent=True)


def test_an_f_that_cannot_take_an_array_of_times_is_refused():
    with pytest.raises(ArgumentError, match="array of times"):
        odeint(lambda t, y: y * np.stack([t, t, 1.0 + 0.0 * t]), np.ones((5, 3)), [0, 1], independent=True)


def explosion(t, y):
    return y * y


START = np.array([[0.1], [2.0], [0.5]])  # rows that explode at t = 10, 0.5 and 2: row 1 within the interval


@pytest.mark.parametrize(
    ("f", "options", "error", "row"),
    [
        (explosion, {}, StepSizeUnderflow, 1),
        (explosion, {"max_steps": 9}, TooManySteps, 1),
        (explosion, {"min_step": 1e-3}, StepSizeUnderflow, 1),
        (lambda t, y: 0.0 * np.sqrt(5.0 * y - t), {}, NonFiniteDynamics, 0),
        (lambda t, y: np.log(y - 0.3), {}, NonFiniteDynamics, 0),
    ],
    ids=["explosion", "max_steps", "min_step", "later NaN", "NaN at once"],
)
def test_a_failure_names_its_row(f, options, error, row):
    with pytest.raises(error, match=f"row {row}:") as caught:
        odeint(f, START, [0.0, 0.1, 1.0], independent=True, **options)
    assert caught.value.row == row and np.all(caught.value.y == caught.value.y) and caught.value.nfe > 0


def test_the_partial_solution_of_a_failure():
    with pytest.raises(StepSizeUnderflow) as caught:
        odeint(explosion, START, [0.0, 0.1, 0.4, 1.0], independent=True)
    sol = caught.value.solution
    exact = START / (1.0 - START * np.array([0.0, 0.1, 0.4]))  # (3, 3): row, time
    assert sol.status == "StepSizeUnderflow" and np.isnan(sol.ys[3, 1])
    assert np.abs(sol.ys[:3, :, 0] / exact.T - 1.0).max() < 1e-3


def test_what_f_raises_carries_the_partial_solution():
    def f(t, y):
        if isinstance(t, np.ndarray) and t.max() > 0.5:
            raise KeyboardInterrupt
        return -y

    with pytest.raises(KeyboardInterrupt) as caught:
        odeint(f, np.ones((2, 1)), [0.0, 0.1, 1.0], independent=True, max_step=0.1)
    sol = caught.value.solution
    assert sol.status == "KeyboardInterrupt" and np.all(abs(sol.ys[1] - np.exp(-0.1)) < 1e-5)
    assert np.isnan(sol.ys[2]).all()


def test_a_row_that_cannot_be_solved_does_not_hide_behind_the_others():
    y0 = np.vstack([np.full((50, 1), 1e-3), [[3.0]]])
    with pytest.raises(StepSizeUnderflow, match="row 50:"):
        odeint(explosion, y0, [0.0, 1.0], independent=True)


REFUSED = {
    "rk4": {"method": "rk4"},
    "leapfrog": {"method": "leapfrog"},
    "grid": {"grid": [0.0, 0.5, 1.0]},
    "callback": {"callback": print},
    "save": {"save": "steps"},
    "dense": {"dense": True},
    "norm": {"norm": "max"},
    "atol": {"atol": np.array([1e-6, 1e-7])},
    "breakpoints": {"breakpoints": [0.5]},
    "jump_ts": {"jump_ts": [0.5]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_rows_cannot_do_is_refused(name):
    y0 = np.ones((3, 2)) if name != "leapfrog" else (np.ones((3, 2)), np.ones((3, 2)))
    f = (lambda t, y: (y[1], y[0])) if name == "leapfrog" else forced
    with pytest.raises(ArgumentError, match="independent=True needs"):
        odeint(f, y0, [0.0, 1.0], independent=True, **REFUSED[name])


@pytest.mark.parametrize("wanted", ["y0", "params", "ts", "captured"])
def test_derivatives_are_refused(wanted):
    def end(value):
        given = {"y0": np.ones((2, 1)), "params": 1.0, "ts": [0.0, 1.0], "captured": 1.0}
        given[wanted] = (
            [0.0, value] if wanted == "ts" else value * np.ones((2, 1)) if wanted == "y0" else value
        )

        def f(t, y, p):
            return -y * p * given["captured"]

        return np.sum(odeint(f, given["y0"], given["ts"], given["params"], independent=True).ys[-1])

    with pytest.raises(ArgumentError, match="there is no derivative"):
        odegrad.grad(end)(2.0)


@pytest.mark.parametrize(
    "y0", [np.ones(()), (np.ones((2, 3)), np.ones((3, 3))), (np.ones(2), np.ones((2, 3)))]
)
def test_a_state_that_is_no_batch_is_refused(y0):
    f = (lambda t, y: tuple(-x for x in y)) if isinstance(y0, tuple) else (lambda t, y: -y)
    with pytest.raises(ArgumentError, match="needs a batch"):
        odeint(f, y0, [0, 1], independent=True)


def test_the_option_is_a_claim():
    with pytest.raises(ArgumentError, match="independent"):
        odeint(forced, np.ones((2, 1)), [0, 1], independent=3)
