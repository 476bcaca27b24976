"""Replay inside solves: nothing is created in a step, nothing grows, nothing is stale."""

from __future__ import annotations

import gc
import tracemalloc
import warnings

import numpy as np
import pytest
from odegrad import grad, odeint
from odegrad.solvers import Stepper, compiled, forward, stages
from odegrad.solvers.buffer_pool import BufferPool
from odegrad.solvers.compiled import Purpose
from odegrad.solvers.dynamics import Dynamics
from odegrad.solvers.loop import Integrator
from odegrad.solvers.options import GRADIENTS, checked_options
from odegrad.solvers.solve import Solve
from odegrad.solvers.stats import Stats
from solving import Case, network, random_case, same_bits
from threadpoolctl import threadpool_limits

DEFAULTS = {
    "rtol": 1e-5, "atol": 1e-7, "gradient": "discrete", "execution": "replay", "keep": "none", "keep_bytes": 0,
    "max_steps": 1000, "max_step": None, "first_step": None, "step_size": None, "grid": None, "controller": None,
    "backward_rtol": None, "backward_atol": None, "callback": None,
}  # fmt: skip


def integrator_of(case: Case) -> Integrator:
    """The loop of a solve, as `odeint` sets it up, ready for its first step."""
    options = checked_options("dopri5", **DEFAULTS)
    dynamics = Dynamics(network, 0.0, case.y0, case.params, has_aux=False)
    rows, _ = forward.stages_for(dynamics, options, Purpose("solve"))
    forward.begin_rows(rows, dynamics, Stats())
    integrator = Integrator(rows, options.tableau, forward.control_of(options), 0.0, 5.0, Stats())
    integrator.start()
    integrator.advance()
    return integrator


def test_a_step_allocates_less_than_one_state():
    """An array of the size of the state or of a hidden layer has 800 kB or more.

    NumPy's ufuncs buffer up to 64 kB in each thread, so there is one thread here.
    """
    integrator = integrator_of(random_case(80, batch=5000, size=20, hidden=30))
    with threadpool_limits(1, user_api="blas"):
        integrator.advance()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            for _ in range(3):
                integrator.advance()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak - before < 100_000


def growth(work, *, warm_up: int, times: int) -> int:
    """Bytes that are still allocated after `times` further calls."""
    for k in range(warm_up):
        work(k)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for k in range(times):
            work(k)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_a_thousand_solves_leave_no_memory_behind():
    """Each with a fresh lambda and fresh weights; one trace kept by mistake has more than 10 kB."""
    case = random_case(81)

    def solve(k: int) -> None:
        w = np.full((3, 3), 0.001 * k)
        odeint(lambda t, y: np.tanh(y @ w) - 0.1 * y, case.y0, [0.0, 0.5])

    assert growth(solve, warm_up=5, times=1000) < 50_000


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_leave_no_memory_behind(gradient):
    case = random_case(82, n_times=2, span=0.5)

    def differentiate(k: int) -> None:
        c = np.full(4, 0.01 * (k % 5))  # the same five solves again: one of more steps keeps more buffers
        grad(lambda p: case.loss(params=p, gradient=gradient))({**case.params, "c": c})

    assert growth(differentiate, warm_up=5, times=100) < 50_000


def test_failed_solves_leave_no_memory_behind():
    def fail(k: int) -> None:
        with pytest.raises(ArithmeticError):
            odeint(lambda t, y: y * y, np.full(2, 1.0 + k), [0.0, 2.0], max_step=0.5)

    assert growth(fail, warm_up=3, times=30) < 50_000


@pytest.mark.parametrize("wanted", ["params", "all"])
@pytest.mark.parametrize("keep", ["auto", "all", "none"])
def test_a_second_gradient_binds_no_buffers(monkeypatch, keep, wanted):
    """With `wanted` "all" the times are differentiated too: the steps at the ends stretch."""
    case, n_bound = random_case(88, batch=7, n_times=2), []

    def differentiate() -> None:
        if wanted == "all":
            grad(lambda y, p, ts: case.loss(y, p, ts, keep=keep), (0, 1, 2))(case.y0, case.params, case.ts)
        else:
            grad(lambda p: case.loss(params=p, keep=keep))(case.params)

    differentiate()
    make = stages.StageSet
    monkeypatch.setattr(stages, "StageSet", lambda *args: n_bound.append(1) or make(*args))
    differentiate()
    assert not n_bound


@pytest.mark.parametrize("execution", ["replay", "eager"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_nothing_of_a_derivative_waits_for_the_collector_of_cycles(gradient, execution):
    """States and copies of parameters of the iterations before would be kept, a hundred of them at a time."""
    case = random_case(89)

    def loss(y0, params):
        return np.sum(odeint(network, y0, [0.0, 0.5, 1.0], params, gradient=gradient, execution=execution).ys)

    differentiated = grad(loss, argnums=(0, 1))
    differentiated(case.y0, case.params)
    gc.collect()
    gc.disable()
    try:
        differentiated(case.y0, case.params)
        assert not [kept for kept in gc.get_objects() if type(kept) in (Solve, Dynamics)]
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["solve", "discrete"])
def test_stages_count_the_bytes_they_hold(kind):
    case = random_case(89, batch=20_000, size=5, hidden=4)
    dynamics = Dynamics(network, 0.0, case.y0, case.params, has_aux=False)
    purpose = Purpose(kind, (0, 1, 2) if kind == "discrete" else ())
    program = compiled.compiled_for(dynamics, purpose)
    stages.ReplayStages(program, dynamics, purpose, 7, True)  # what is made once is made here
    gc.collect()
    tracemalloc.start()
    try:
        made = stages.ReplayStages(program, dynamics, purpose, 7, True)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert made.nbytes == pytest.approx(held, rel=0.02)


# --- nothing is stale ---------------------------------------------------------------------------------------------------


def test_captured_arrays_are_read_at_each_solve():
    w = np.array(0.5)
    found = []
    for _ in range(3):
        found.append(odeint(lambda t, y, w=w: -w * y, np.ones(1), [0.0, 1.0]).ys[-1, 0])
        w = w + 1.0
    assert np.allclose(found, np.exp([-0.5, -1.5, -2.5]), rtol=1e-4)


def test_captured_arrays_that_were_written_to_are_read_again():
    w = np.array([0.5])

    def f(t, y):
        return -w * y

    first = odeint(f, np.ones(1), [0.0, 1.0]).ys[-1, 0]
    w[0] = 2.0
    assert odeint(f, np.ones(1), [0.0, 1.0]).ys[-1, 0] == pytest.approx(np.exp(-2), rel=1e-4)
    assert first == pytest.approx(np.exp(-0.5), rel=1e-4)


@pytest.mark.parametrize("rate", [0.5, 1.5, 2])
def test_captured_numbers_are_read_at_each_solve(rate):
    assert odeint(lambda t, y: -rate * y, np.ones(1), [0, 1]).ys[-1, 0] == pytest.approx(
        np.exp(-rate), rel=1e-4
    )


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_captured_mask_belongs_to_its_solve(gradient, seed):
    mask = (np.random.default_rng(seed).random((2, 3)) < 0.5) * 2.0
    y0 = np.ones((2, 3))
    found = grad(
        lambda y: np.sum(odeint(lambda t, y: -mask * y, y, [0, 1], gradient=gradient, rtol=1e-8).ys[-1])
    )(y0)
    assert np.allclose(found, np.exp(-mask), rtol=1e-5)


def test_weights_that_were_updated_in_place_are_used():
    case = random_case(83)
    params = {key: value.copy() for key, value in case.params.items()}
    case.solve(params=params)
    params["a"] += 1.0
    fresh = {**case.params, "a": case.params["a"] + 1.0}
    assert np.array_equal(case.solve(params=params).ys, case.solve(params=fresh, execution="replay").ys)


def test_results_are_not_written_by_later_solves():
    case = random_case(84)
    sol = case.solve()
    ys = sol.ys.copy()
    case.solve(y0=2 * case.y0)
    assert np.array_equal(sol.ys, ys)


def test_gradients_are_not_written_by_later_solves():
    case = random_case(84)
    first = grad(lambda p: case.loss(params=p))(case.params)
    kept = {key: value.copy() for key, value in first.items()}
    grad(lambda p: case.loss(2 * case.y0, params=p))(case.params)
    assert same_bits(first, kept)


def test_aux_is_not_written_by_later_solves():
    def solve(y0):
        return odeint(lambda t, y: (-y, y + 0.0), y0, [0, 1], has_aux=True).aux.values

    first = solve(np.ones(3))
    kept = first.copy()
    solve(np.full(3, 7.0))
    assert np.array_equal(first, kept)


# --- programs are shared ------------------------------------------------------------------------------------------------


@pytest.fixture
def no_programs():
    """An empty cache of programs, for this test alone."""
    known = dict(compiled._known)
    compiled._known.clear()
    yield compiled._known
    compiled._known.clear()
    compiled._known.update(known)


def test_solves_of_equal_structure_share_a_program(no_programs):
    for k in range(4):
        random_case(85 + k).solve()
    assert len(no_programs) == 1


def test_methods_share_a_program(no_programs):
    for method in ("dopri5", "bosh3", "rk4"):
        random_case(85, method=method).solve()
    assert len(no_programs) == 1


def test_another_shape_is_another_program(no_programs):
    random_case(85).solve()
    random_case(85, batch=5).solve()
    assert len(no_programs) == 2


def test_programs_are_bounded(no_programs):
    for n in range(compiled.MAX_STRUCTURES + 5):
        odeint(lambda t, y: -y, np.ones(n + 1), [0.0, 1e-3])
    assert len(no_programs) == compiled.MAX_STRUCTURES


def test_idle_buffers_are_bounded(no_programs, monkeypatch):
    monkeypatch.setattr(compiled, "pool", BufferPool(max_bytes=1))
    steppers = [Stepper(network, c.y0, 0.0, 1.0, c.params) for c in [random_case(86)] * 6]
    for stepper in steppers:
        while not stepper.is_done:
            stepper.step()
    assert len(compiled.pool._idle) == 1  # the ones given back last stay whatever their size


def test_buffers_of_a_program_that_was_dropped_are_not_kept(no_programs, monkeypatch):
    monkeypatch.setattr(compiled, "pool", BufferPool())
    stepper = Stepper(network, random_case(86).y0, 0.0, 1.0, random_case(86).params)
    for n in range(compiled.MAX_STRUCTURES):
        odeint(lambda t, y: -y, np.ones(n + 1), [0.0, 1e-3])
    before = compiled.pool.nbytes
    while not stepper.is_done:
        stepper.step()
    assert compiled.pool.nbytes == before


def test_a_new_program_is_compared_with_a_plain_call_once(no_programs):
    case = random_case(87)
    assert [case.solve().stats.n_checks for _ in range(3)] == [1, 0, 0]


# --- NaN and overflow are errors, not warnings --------------------------------------------------------------------------


@pytest.mark.parametrize("execution", ["replay", "eager"])
def test_overflow_in_a_rejected_step_gives_no_warning(execution):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sol = odeint(
            lambda t, y: -np.exp(y), np.array([5.0]), [0.0, 1.0], first_step=1.0, execution=execution
        )
    assert sol.stats.n_rejected > 0 and sol.ys[-1, 0] == pytest.approx(-np.log(1 + np.exp(-5)), abs=1e-3)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_nan_cotangents_give_no_warning(gradient):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = grad(
            lambda y: np.sum(odeint(lambda t, y: -y, y, [0, 1], gradient=gradient, rtol=1e-3).ys) * np.nan
        )
        try:
            assert np.isnan(found(np.ones(2))).all()
        except FloatingPointError as error:
            assert gradient in ("backsolve", "interpolated") and gradient in str(error)
