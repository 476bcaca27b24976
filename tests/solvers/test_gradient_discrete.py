"""`discrete`: the derivative that `tape` gives, to round-off, however much is kept and however it is executed."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from odegrad import grad, odeint, value_and_grad, vjp
from odegrad.solvers import compiled, solve
from odegrad.solvers.gradients import DiscreteAdjoint
from solving import ADAPTIVE, METHODS, cases, distance, network, random_case, same_bits

TOL = 1e-12


def gradients(case, **options):
    return grad(lambda y, p, ts: case.loss(y, p, ts, **options), (0, 1, 2))(case.y0, case.params, case.ts)


@given(cases())
def test_it_is_the_derivative_of_tape(case):
    assert distance(gradients(case, gradient="discrete"), gradients(case, gradient="tape")) <= TOL


@given(cases())
def test_replay_gives_what_eager_gives(case):
    assert distance(gradients(case), gradients(case, execution="eager")) <= TOL


@given(cases(rtols=(1e-2, 1e-4)))
def test_what_is_kept_does_not_change_a_bit(case):
    kept = [gradients(case, keep=keep) for keep in ("all", "auto", "none")]
    assert same_bits(kept[0], kept[1]) and same_bits(kept[0], kept[2])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("keep", ["all", "none"])
def test_without_times_and_without_state(method, keep):
    case = random_case(11, method=method)
    found = grad(lambda p: case.loss(params=p, keep=keep))(case.params)
    assert distance(found, grad(lambda p: case.loss(params=p, gradient="tape"))(case.params)) <= TOL


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_one_argument_at_a_time_gives_what_all_give(argument):
    case = random_case(12)
    args = (case.y0, case.params, case.ts)
    alone = grad(lambda y, p, ts: case.loss(y, p, ts), argument)(*args)
    assert distance(alone, gradients(case)[argument]) <= TOL


@pytest.mark.parametrize("n_times", [2, 3, 100])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_many_output_times(method, n_times):
    case = random_case(13, n_times=n_times, method=method)
    assert distance(gradients(case), gradients(case, gradient="tape")) <= TOL


def test_outputs_at_accepted_times():
    case = random_case(14)
    grid = case.grid()
    case = random_case(14, n_times=len(grid))
    on_grid = {"grid": grid}
    found, expected = (
        grad(lambda y, p, ts, g=g: case.loss(y, p, ts, gradient=g, **on_grid), (0, 1, 2))(
            case.y0, case.params, grid
        )
        for g in ("discrete", "tape")
    )
    assert distance(found, expected) <= TOL


@given(cases())
def test_aux_does_not_change_the_derivative(case):
    def with_aux(y, p, ts):
        def f(t, y, params):
            return network(t, y, params), {"mean": np.mean(y)}

        return case.loss_of(odeint(f, y, ts, p, has_aux=True, **case.options).ys)

    found = grad(with_aux, (0, 1, 2))(case.y0, case.params, case.ts)
    assert distance(found, gradients(case, gradient="tape")) <= TOL


def test_captured_values_and_parameters_together():
    case = random_case(15)

    def loss(w, params, gradient):
        def f(t, y, p):
            return network(t, y, p) * np.sin(w)

        return case.loss_of(odeint(f, case.y0, case.ts, params, gradient=gradient).ys)

    w = np.linspace(0.5, 1.0, 3)
    found = grad(lambda w, p: loss(w, p, "discrete"), (0, 1))(w, case.params)
    assert distance(found, grad(lambda w, p: loss(w, p, "tape"), (0, 1))(w, case.params)) <= TOL


def test_trees_of_states():
    rng = np.random.default_rng(3)
    y0, w = (rng.standard_normal((2, 3)), rng.standard_normal(2)), rng.standard_normal((3, 3))

    def loss(y, w, gradient):
        def f(t, y, w):
            return np.tanh(y[0] @ w) * t, np.sum(y[0] ** 2, axis=1) - y[1]

        ys = odeint(f, y, [0.0, 0.4, 1.0], w, gradient=gradient).ys
        return np.sum(ys[0] ** 2) + np.sum(np.sin(ys[1]))

    found = grad(lambda y, w: loss(y, w, "discrete"), (0, 1))(y0, w)
    assert distance(found, grad(lambda y, w: loss(y, w, "tape"), (0, 1))(y0, w)) <= TOL


@pytest.mark.parametrize(
    "ts", [[0.0, 1e-300], [1.0, 1.0 + 2.3e-16, 1 + 4.5e-16, 1 + 7e-16], [1e8, 1e8 + 0.5]]
)
def test_intervals_near_the_spacing_of_numbers(ts):
    case, ts = random_case(16, n_times=len(ts)), np.array(ts)
    found, expected = (grad(lambda t, g=g: case.loss(ts=t, gradient=g))(ts) for g in ("discrete", "tape"))
    assert distance(found, expected) <= TOL


@pytest.mark.parametrize("n_steps", [1, 2, 70])
@pytest.mark.parametrize("method", METHODS)
def test_any_number_of_steps(method, n_steps):
    """70 is more than keep="auto" keeps."""
    case = random_case(17, n_times=2, method=method)
    options = {"grid": np.linspace(case.ts[0], case.ts[-1], n_steps + 1), "step_size": None}
    assert distance(gradients(case, **options), gradients(case, gradient="tape", **options)) <= TOL


def test_pulling_back_twice_gives_the_same_bits():
    from odegrad import vjp

    case = random_case(18)
    _, pull_back = vjp(lambda p: case.loss(params=p), case.params)
    assert same_bits(pull_back(1.0), pull_back(1.0))


def test_two_solves_alive_at_once():
    cases_ = [random_case(seed) for seed in (19, 20)]

    def both(p, q):
        return cases_[0].loss(params=p, keep="all") * cases_[1].loss(params=q, keep="all")

    value_0, grad_0 = value_and_grad(lambda p: cases_[0].loss(params=p))(cases_[0].params)
    value_1, grad_1 = value_and_grad(lambda p: cases_[1].loss(params=p))(cases_[1].params)
    found = grad(both, (0, 1))(cases_[0].params, cases_[1].params)
    expected = ({k: v * value_1 for k, v in grad_0.items()}, {k: v * value_0 for k, v in grad_1.items()})
    assert distance(found, expected) <= TOL


def counts(**options):
    case = random_case(21, n_times=2)
    solutions = []

    def loss(p):
        solutions.append(case.solve(params=p, **options))
        return case.loss_of(solutions[0].ys)

    grad(loss)(case.params)
    return solutions[0].stats


def test_kept_stages_are_not_evaluated_again():
    assert counts(keep="all").nfe_backward == 1  # the slope at t0, which recording f gave without residuals


def test_stages_that_are_not_kept_are_evaluated_once_more():
    stats = counts(keep="none")
    assert stats.nfe_backward == 6 * stats.n_accepted + 1


@pytest.mark.parametrize("keep", ["all", "none"])
def test_every_stage_is_pulled_back_once(keep):
    stats = counts(keep=keep)
    assert stats.n_vjp_state == stats.n_vjp_params == 6 * stats.n_accepted


def test_without_kept_stages_one_state_a_step_is_saved():
    stats = counts(keep="none")
    assert stats.peak_saved_bytes == stats.n_accepted * random_case(21).y0.nbytes


def test_steps_that_stretch_with_the_times_are_not_kept():
    """They are evaluated again for the derivative of their size, so what is kept of them would never be used."""
    case, solutions = random_case(21, n_times=2), []

    def loss(p, ts):
        solutions.append(case.solve(params=p, ts=ts, keep="all"))
        return case.loss_of(solutions[-1].ys)

    grad(loss, (0, 1))(case.params, case.ts)
    n = len(solutions[0].grid) - 1
    short = {"grid": solutions[0].grid[[0, 1, -2, -1]]}

    def short_loss(p, ts):
        solutions.append(case.solve(params=p, ts=ts, keep="all", **short))
        return case.loss_of(solutions[-1].ys)

    grad(short_loss, (0, 1))(case.params, case.ts)
    whole, one = (sol.stats.peak_saved_bytes for sol in solutions)
    state = case.y0.nbytes
    assert n > 3 and whole - n * state == (n - 2) * (one - 3 * state)


def test_keep_auto_stays_below_its_budget():
    budget = 10 * random_case(21).y0.nbytes + 5000
    assert 0 < counts(keep="auto", keep_bytes=budget).peak_saved_bytes <= budget


def test_threads_that_pull_back_through_one_solve_take_turns(monkeypatch):
    """What the forward pass kept serves one at a time, and goes back to the pool once."""
    case, meeting, found = random_case(17), threading.Barrier(2, timeout=20), {}

    class Slow(DiscreteAdjoint):
        def run(self, ys_bar):
            time.sleep(0.05)  # the other thread begins meanwhile
            return super().run(ys_bar)

    monkeypatch.setattr(solve, "DiscreteAdjoint", Slow)
    ys, pull_back = vjp(lambda p: odeint(network, case.y0, case.ts, p).ys, case.params)
    compiled.pool.drop(lambda key: True)

    def pull(factor):
        meeting.wait()
        found[factor] = pull_back(factor * np.ones_like(ys))

    threads = [threading.Thread(target=pull, args=(factor,)) for factor in (1.0, 3.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for factor in (1.0, 3.0):
        assert same_bits(found[factor], pull_back(factor * np.ones_like(ys)))
    buffers = [id(idle.buffers) for idle in compiled.pool._idle]
    assert len(buffers) == len(set(buffers))
