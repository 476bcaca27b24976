"""`checkpoints`: the gradient of `discrete` to the bit from few stored states, with as few steps made again as can be."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad import errors, grad, odeint, ops, vjp
from odegrad.solvers.checkpoints import Checkpoints
from odegrad.solvers.stages import EagerStages
from problems import lorenz
from solving import METHODS, cases, random_case, same_bits


@functools.cache
def fewest(n_steps: int, n_states: int) -> int:
    """The fewest steps walked to reverse n_steps with n_states: every way of storing tried, one state after the other."""
    if n_steps == 1:
        return 0
    if n_states == 1:
        return n_steps * (n_steps - 1) // 2
    return min(m + fewest(m, n_states) + fewest(n_steps - m, n_states - 1) for m in range(1, n_steps))


def reversed_states(n_steps: int, capacity: int, *, is_known: bool):
    """(states as the sweep back got them, steps walked again, most states stored); the state n is the number n."""
    store = Checkpoints(capacity, np.zeros(1), n_steps if is_known else None)
    for n in range(1, n_steps):
        store.append(np.full(1, n))
    most, n_walked, found = store.nbytes // 8, 0, []

    def walk(n, y, stops):
        nonlocal n_walked
        assert y[0] == n
        for m in range(n, max(stops, default=n)):
            n_walked += 1
            if m + 1 in stops:
                yield np.full(1, m + 1)

    for n in range(n_steps - 1, -1, -1):
        found.append(int(store.restore(n, walk)[0]))
        most = max(most, store.nbytes // 8)
    return found, n_walked, most


STEPS = (1, 2, 3, 7, 20, 56, 57, 120)
CAPACITIES = (1, 2, 3, 5, 10, 200)


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("n_steps", STEPS)
def test_every_state_comes_back_and_the_memory_is_bounded(n_steps, capacity, is_known):
    found, _, most = reversed_states(n_steps, capacity, is_known=is_known)
    assert found == list(range(n_steps - 1, -1, -1)) and most <= min(capacity + 1, n_steps)


@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("n_steps", STEPS)
def test_a_known_number_of_steps_costs_the_least_possible(n_steps, capacity):
    """The forward solve made the first n_steps - 1 of them."""
    _, n_walked, _ = reversed_states(n_steps, capacity, is_known=True)
    assert n_walked == fewest(n_steps, capacity) - (n_steps - 1)


@pytest.mark.parametrize(
    ("capacity", "r", "n_steps", "total"), [(3, 3, 20, 45), (2, 4, 15, 40), (4, 2, 15, 24)]
)
def test_the_least_is_the_binomial_formula(capacity, r, n_steps, total):
    """n = binomial(s + r, s) steps and s states: r n - binomial(s + r, r - 1), Griewank & Walther (2000), by hand."""
    assert fewest(n_steps, capacity) == total
    assert reversed_states(n_steps, capacity, is_known=True)[1] == total - (n_steps - 1)


@given(st.integers(1, 150), st.integers(1, 12))
def test_an_unknown_number_of_steps_costs_at_most_a_forward_solve_more(n_steps, capacity):
    _, n_walked, _ = reversed_states(n_steps, capacity, is_known=False)
    assert n_walked <= fewest(n_steps, capacity)


def solved(case, **options):
    """Gradients with respect to (y0, params, ts), and the statistics."""
    found = []

    def loss(y0, params, ts):
        found.append(case.solve(y0, params, ts, **options))
        return case.loss_of(found[0].ys)

    return grad(loss, (0, 1, 2))(case.y0, case.params, case.ts), found[0].stats


@given(cases(rtols=(1e-3, 1e-6)), st.integers(1, 6), st.sampled_from(["replay", "eager"]))
def test_the_gradient_is_the_same_to_the_bit(case, checkpoints, execution):
    kept, _ = solved(case, keep="all", execution=execution)
    assert same_bits(solved(case, checkpoints=checkpoints, execution=execution)[0], kept)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_other_dtypes(dtype):
    case = random_case(100, dtype=np.float32) if dtype is np.float32 else random_case(100)

    def loss(y0, **options):
        return np.sum(np.real(case.solve(y0.astype(dtype), rtol=1e-4, **options).ys) ** 2)

    assert same_bits(
        grad(lambda y: loss(y, checkpoints=2))(case.y0), grad(lambda y: loss(y, keep="all"))(case.y0)
    )


@pytest.mark.parametrize("method", METHODS)
def test_steps_made_again_on_a_given_grid_are_the_least_possible(method):
    case = random_case(101, n_times=2, method=method)
    _, stats = solved(case, checkpoints=4, grid=np.linspace(case.ts[0], case.ts[-1], 51), step_size=None)
    assert stats.n_recomputed == fewest(50, 4) - 49


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_steps_made_again_where_steps_are_chosen_are_bounded(method):
    case = random_case(102, n_times=2, method=method, rtol=1e-9, atol=1e-9)
    _, stats = solved(case, checkpoints=3)
    n = stats.n_accepted
    assert n > 20 and fewest(n, 3) - (n - 1) <= stats.n_recomputed <= fewest(n, 3)


@pytest.mark.parametrize(
    "options", [{"rtol": 1e-3}, {"rtol": 1e-9, "atol": 1e-9}], ids=["few steps", "many steps"]
)
def test_memory_does_not_depend_on_the_number_of_steps(options):
    case = random_case(103, n_times=2)
    assert solved(case, checkpoints=3, **options)[1].peak_saved_bytes == 4 * case.y0.nbytes


@pytest.mark.parametrize("method", METHODS)
def test_every_evaluation_is_counted(method, monkeypatch):
    n_calls, evaluate = 0, EagerStages.evaluate

    def counting(stages, index, t):
        nonlocal n_calls
        n_calls += 1
        evaluate(stages, index, t)

    monkeypatch.setattr(EagerStages, "evaluate", counting)
    case = random_case(104, n_times=2, method=method)
    grid = np.linspace(case.ts[0], case.ts[-1], 21)
    _, stats = solved(case, checkpoints=2, execution="eager", grid=grid, step_size=None)
    assert stats.nfe + stats.nfe_backward == n_calls + 1  # recording f was the first


def test_the_first_step_begins_again_with_the_slope_that_recording_gave():
    """Replayed, a normalisation is rounded otherwise than in the plain call of f that was recorded."""
    rng = np.random.default_rng(5)
    y0, w = rng.standard_normal((8, 6, 3)), rng.standard_normal(3)

    def gradient(**options):
        def loss(y0, w):
            def f(t, y, w):
                return ops.normalize(y, *ops.moments(y), 1e-5) * w

            return np.sum(odeint(f, y0, [0.0, 1.0], w, **options).ys[-1] ** 2)

        return grad(loss, (0, 1))(y0, w)

    assert same_bits(gradient(checkpoints=1), gradient(keep="none"))


def test_pulling_back_twice_gives_the_same_bits():
    case = random_case(105)
    _, pull_back = vjp(lambda p: case.loss(params=p, checkpoints=2), case.params)
    assert same_bits(pull_back(1.0), pull_back(1.0))


def test_a_long_chaotic_solve():
    def gradient(**options):
        sols = []

        def loss(y0):
            sols.append(odeint(lorenz, y0, [0.0, 10.0], rtol=1e-6, **options))
            return np.sum(sols[0].ys[-1])

        return grad(loss)(np.ones(3)), sols[0].stats

    kept, _ = gradient(keep="none")
    found, stats = gradient(checkpoints=12)
    assert stats.n_accepted > 300 and stats.peak_saved_bytes <= 13 * 24 and same_bits(found, kept)


def test_higher_derivatives():
    case = random_case(106)

    def second(**options):
        return grad(lambda y: np.sum(grad(lambda y: case.loss(y, **options))(y) ** 2))(case.y0)

    assert same_bits(second(checkpoints=2), second())


@pytest.mark.parametrize("checkpoints", [0, -1, 2.5, "log", True])
def test_a_number_of_checkpoints_that_makes_no_sense_is_refused(checkpoints):
    case = random_case(107)
    with pytest.raises(
        errors.ArgumentError, match="`checkpoints` must be None or a positive number of states; got"
    ):
        case.solve(checkpoints=checkpoints)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "tape"}, "are those of gradient='discrete'; got"),
        ({"keep": "all"}, "and keep='all' exclude"),
    ],
    ids=["tape", "keep all"],
)
def test_checkpoints_where_they_have_no_effect_are_refused(options, message):
    with pytest.raises(errors.ArgumentError, match=f"`checkpoints` {message}"):
        random_case(108).solve(checkpoints=3, **options)
