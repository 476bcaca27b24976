"""Solves under `jit`: each replay chooses its steps anew, and pulls back through those."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest
from machine_code import needs_numba
from odegrad import Event, errors, grad, hvp, jit, jvp, odeint, ops, solve_ivp, value_and_grad, vjp
from odegrad.engine.backend import to_host
from odegrad.engine.tree import leaves
from oracles import assert_close
from solving import random_case

GRADIENTS = ("discrete", "tape", "backsolve", "interpolated", "reversible")
EXECUTIONS = ("replay", "eager", pytest.param("compiled", marks=needs_numba))
Y = np.random.default_rng(2).standard_normal((2, 3))
START = np.abs(Y)


def close(found, expected, tol):
    """Relative to the largest entry."""
    assert_close(found, expected, scale=float(np.max(np.abs(expected))), tol=tol)


def decay(t, y, rate):
    return -rate * y * np.abs(y)


def differentiated(**options):
    """The loss and its gradient in y0, the parameters and times: of a case of `random_case`."""
    case = random_case(3)

    def loss(y0, params, ts):
        return case.loss(y0, params, ts, **options)

    return case, value_and_grad(loss, argnums=(0, 1, 2))


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_losses_and_gradients_are_those_without(gradient, execution):
    case, plain = differentiated(gradient=gradient, execution=execution)
    replayed = jit(plain)
    for factor in (1.0, 5.0, 0.3):  # other steps each time
        arguments = factor * case.y0, case.params, case.ts / (1.0 + factor)
        for found, expected in zip(leaves(replayed(*arguments)), leaves(plain(*arguments)), strict=True):
            close(found, expected, tol=1e-12)


def test_a_replay_takes_other_steps_than_the_recording():
    calls = []

    def f(t, y):
        return decay(t, y, 1.0)

    def solved(y):
        return odeint(f, y, [0.0, 1.0], callback=lambda step: calls.append(step.t)).ys[-1]

    replayed = jit(solved)
    counts = []
    for factor in (0.01, 300.0):
        calls.clear()
        close(replayed(factor * Y), factor * Y / (1.0 + factor * np.abs(Y)), tol=1e-3)
        counts.append(len(calls))
    assert counts[1] > counts[0] + 3


def test_two_equal_solves_have_each_their_own_pull_back():
    def product(y, ts):
        first, second = (odeint(lambda t, y: -y * np.abs(y), y, ts).ys[-1] for _ in range(2))
        return np.sum(first) * np.sum(second**2)

    plain = grad(product, argnums=(0, 1))
    replayed = jit(plain)
    for factor in (1.0, 2.0):
        given = factor * Y, np.array([0.0, factor])
        for found, expected in zip(replayed(*given), plain(*given), strict=True):
            close(found, expected, tol=1e-12)


def test_a_pull_back_of_a_constant_waits_for_the_solve():
    def pulled(y):
        _, pull_back = vjp(lambda y: odeint(decay, y, [0.0, 1.0], 1.0).ys[-1], y)
        return pull_back(np.ones((2, 3)))[0]

    replayed = jit(pulled)
    for factor in (1.0, 3.0):
        close(replayed(factor * Y), 1.0 / (1.0 + factor * np.abs(Y)) ** 2, tol=1e-4)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_pull_back_through_a_solve_of_constants(gradient):
    def end(y):
        return odeint(decay, y, [0.0, 1.0], 1.0, gradient=gradient).ys[-1]

    _, pull_back = vjp(end, Y)
    outside = jit(lambda bar: pull_back(bar)[0])
    inside = jit(lambda bar: vjp(end, Y)[1](bar)[0])
    for factor in (1.0, 3.0):
        bar = factor * START
        expected = bar / (1.0 + np.abs(Y)) ** 2
        close(outside(bar), expected, tol=1e-2)
        close(inside(bar), pull_back(bar)[0], tol=1e-14)


def test_a_second_pull_back_through_one_solve():
    def both(y):
        ys, pull_back = vjp(lambda y: odeint(decay, y, [0.0, 1.0], 1.0).ys[-1], y)
        return pull_back(ys)[0], pull_back(2.0 * ys)[0]

    replayed = jit(both)
    for factor in (1.0, 3.0):
        first, second = replayed(factor * Y)
        close(second, 2.0 * first, tol=1e-14)
        close(first, both(factor * Y)[0], tol=1e-14)


def test_a_second_pull_back_of_the_same_cotangent():
    """What it finds is that of the present solve, though its step is equal to that of the first."""

    def both(y, bar):
        _, pull_back = vjp(lambda y: odeint(lambda t, y: -y * np.abs(y), y, [0.0, 1.0]).ys[-1], y)
        return pull_back(bar)[0], pull_back(bar)[0]

    replayed = jit(both)
    for factor in (1.0, 3.0):
        expected, _ = both(factor * Y, START)
        for found in replayed(factor * Y, START):
            close(found, expected, tol=1e-12)


def test_a_time_that_is_an_argument():
    def end(t1):
        return np.sum(odeint(decay, START, [0.0, t1], 1.0).ys[-1])

    replayed = jit(value_and_grad(end))
    for t1 in (np.array(1.0), np.array(0.2)):
        value, slope = replayed(t1)
        assert value == pytest.approx(np.sum(START / (1.0 + t1 * START)), rel=1e-4)
        assert slope == pytest.approx(-np.sum(START**2 / (1.0 + t1 * START) ** 2), rel=1e-4)


def test_jumps_are_walked_piece_by_piece():
    def f(t, y):
        return -y * np.where(t > 0.5, 3.0, 1.0)

    replayed = jit(grad(lambda y: np.sum(odeint(f, y, [0.0, 1.0], jump_ts=[0.5]).ys[-1])))
    for factor in (1.0, 2.0):
        close(replayed(factor * Y), np.full_like(Y, np.exp(-2.0)), tol=1e-4)


def test_a_failure_of_a_replay_is_that_of_the_solve():
    def f(t, y):
        return y * y

    replayed = jit(lambda y: odeint(f, y, [0.0, 1.0]).ys)
    replayed(np.array([0.5]))
    with pytest.raises(errors.SolveError) as caught:
        replayed(np.array([2.0]))  # 2 / (1 - 2 t)
    assert caught.value.t == pytest.approx(0.5, abs=1e-3)
    close(replayed(np.array([0.5]))[-1], [1.0], tol=1e-4)


@pytest.mark.parametrize("name", ["grid", "stats", "aux"])
def test_what_only_a_replay_knows_is_refused(name):
    def f(t, y):
        return -y, np.sum(y)

    for take in (lambda found: found, lambda found: found.ts):
        with pytest.raises(
            errors.TracedValueError, match=f"`{name}` of a solve inside a function that is being traced"
        ):
            jit(lambda y, take=take: take(getattr(odeint(f, y, [0.0, 1.0], has_aux=True), name)))(Y)


def test_times_that_are_arguments_are_no_constants_of_the_solution():
    with pytest.raises(errors.TracedValueError, match="`ts` of a solve"):
        jit(lambda ts: np.sum(odeint(decay, Y, ts, 1.0).ts[:]))(np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (
            lambda y: hvp(lambda z: np.sum(odeint(decay, z, [0.0, 1.0], 1.0).ys ** 2), (y,), (y,)),
            "second derivative",
        ),
        (lambda y: jvp(lambda z: odeint(decay, z, [0.0, 1.0], 1.0).ys, (y,), (y,)), "a `jvp`"),
        (lambda y: odeint(decay, y, [0.0, 1.0], 1.0, rtol=np.sum(y)).ys, "traced value for `rtol`"),
        (
            lambda y: odeint(decay, y, [0.0, 1.0], 1.0, breakpoints=[y[0, 0]]).ys,
            "traced value for `breakpoints`",
        ),
        (lambda y: (odeint(decay, y, [0.0, 1.0], 1.0).stats == 3) * y, "`stats` of a solve"),
        (lambda y: 2.0 * odeint(decay, y, [0.0, 1.0], 1.0).grid, "`grid` of a solve"),
        (lambda y: odeint(decay, y, [0.0, 1.0], 1.0, dense=True).ys, "dense=True"),
        (lambda y: odeint(decay, y, [0.0, y[0, 0]], 1.0, jump_ts=[0.5]).ys, "jump_ts"),
        (lambda y: odeint(decay, y, [0.0, 1.0], 1.0, events=[Event(lambda t, y: y[0, 0])]).ys, "events"),
    ],
    ids=[
        "second derivative",
        "jvp",
        "a traced tolerance",
        "a traced breakpoint",
        "counts compared",
        "steps multiplied",
        "dense",
        "jumps at traced times",
        "events",
    ],
)
def test_what_would_freeze_is_refused(f, match):
    with pytest.raises(errors.NeuralODEError, match=match):
        jit(f)(np.abs(Y))


@pytest.mark.parametrize("transform", [jit, lambda f: grad(lambda y: np.sum(f(y)))], ids=["jit", "grad"])
def test_solve_ivp_is_refused_with_the_line_that_calls_it(transform):
    with pytest.raises(errors.TracedValueError, match=r"test_jitted_solves.py:\d+ is given .* call odeint"):
        transform(lambda y: solve_ivp(lambda t, y: -y, (0.0, 1.0), y).y)(Y[0])


def test_a_gradient_inside_of_dynamics():
    """y' = -grad of |z(0.3)|^2 / 2 with z' = -z from y, which is -exp(-0.6) y."""

    def f(t, y):
        return grad(lambda y: -0.5 * np.sum(odeint(lambda s, z: -z, y, [0.0, 0.3]).ys[-1] ** 2))(y)

    for factor in (1.0, 3.0):
        close(odeint(f, factor * Y, [0.0, 1.0]).ys[-1], factor * Y * np.exp(-np.exp(-0.6)), tol=1e-4)


@pytest.mark.parametrize("gradient", ["discrete", "backsolve"])
def test_on_a_device(xp, gradient):
    def loss(y, rate):
        return ops.sum(ops.square(odeint(decay, y, [0.0, 0.5, 1.0], rate, gradient=gradient).ys))

    plain = value_and_grad(loss, argnums=(0, 1))
    replayed = jit(plain)
    for factor in (1.0, 2.0):
        given = factor * Y, np.array(1.0 / factor)
        found = leaves(replayed(*map(xp.asarray, given)))
        for result, expected in zip(found, leaves(plain(*given)), strict=True):
            close(to_host(result), expected, tol=1e-10)


def test_threads_pull_back_their_own_solves():
    _, plain = differentiated()
    case, shared = differentiated()
    replayed = jit(shared)
    scales = (0.3, 1.0, 3.0)
    expected = {scale: plain(scale * case.y0, case.params, case.ts) for scale in scales}
    wrong = []

    def work(scale):
        for _ in range(20):
            found = replayed(scale * case.y0, case.params, case.ts)
            pairs = zip(leaves(found), leaves(expected[scale]), strict=True)
            wrong.extend(scale for a, b in pairs if not np.allclose(a, b, rtol=1e-10))

    replayed(case.y0, case.params, case.ts)
    threads = [threading.Thread(target=work, args=(scale,)) for scale in scales]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("make", [lambda f: f, grad], ids=["solve", "gradient"])
def test_a_call_leaves_neither_its_states_nor_its_recording(make):
    def f(t, y):
        recorded.append(weakref.ref(y.trace))
        return -y

    def loss(y):
        return np.sum(odeint(f, np.sin(y), [0.0, 1.0], callback=seen).ys)

    def seen(step):
        frame = sys._getframe()
        while "trajectory" not in frame.f_locals:
            frame = frame.f_back
        walked.append(weakref.ref(frame.f_locals["trajectory"]))

    recorded, walked = [], []
    replayed = jit(make(loss))
    for _ in range(2):
        replayed(Y)
        gc.collect()
        assert recorded and walked
        assert not any(reference() for reference in (*recorded, *walked))


def test_a_function_that_is_dropped_is_collected_with_its_buffers():
    def loss(y):
        return np.sum(odeint(decay, y, [0.0, 1.0], 1.0).ys)

    replayed = jit(grad(loss))
    replayed(Y)
    replayed(Y)
    watched = weakref.ref(replayed)
    del replayed
    gc.collect()
    assert watched() is None
