"""Solves inside the dynamics of other solves, inside threads, and interleaved."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
from odegrad import errors, grad, hvp, odeint
from odegrad.solvers import Stepper
from oracles import central_difference
from solving import network, random_case, same_bits

RNG = np.random.default_rng(5)
Y0 = RNG.standard_normal((2, 3))


def nested(w, **options):
    """Dynamics that solve an inner problem with the state as its start and a number of the time as its end."""

    def f(t, y):
        return odeint(lambda s, z: np.tanh(z @ w), y, [0.0, 0.3], **options).ys[-1] - t * y

    return f


@pytest.mark.parametrize("trial", range(3))
def test_replayed_inner_solves_take_the_values_of_this_solve(trial):
    w = np.random.default_rng(trial).standard_normal((3, 3))
    replayed = odeint(nested(w), Y0, [0, 1]).ys
    assert (
        np.abs(replayed - odeint(nested(w, execution="eager"), Y0, [0, 1], execution="eager").ys).max()
        < 1e-12
    )


def test_two_inner_problems_of_equal_shapes_are_told_apart():
    def f(inner):
        return lambda t, y: odeint(inner, y, [0.0, 0.3]).ys[-1]

    first, second = (odeint(f(g), Y0, [0, 1]).ys[-1] for g in (lambda s, z: -z, lambda s, z: z))
    assert np.allclose(first, Y0 * np.exp(np.exp(-0.3)), rtol=1e-4)
    assert np.allclose(second, Y0 * np.exp(np.exp(0.3)), rtol=1e-4)


def test_an_inner_solve_on_a_grid_that_is_a_list():
    f, g = nested(np.eye(3), grid=[0.0, 0.15, 0.3]), nested(np.eye(3), grid=np.array([0.0, 0.15, 0.3]))
    assert np.array_equal(odeint(f, Y0, [0, 1]).ys, odeint(g, Y0, [0, 1]).ys)


@pytest.mark.parametrize("options", [{"gradient": "tape"}, {"execution": "eager"}], ids=str)
def test_gradients_through_nested_solves(options):
    w, direction = np.eye(3) * 0.4, RNG.standard_normal((3, 3))
    tight = {"rtol": 1e-6, "atol": 1e-6}

    def loss(w):
        return np.sum(odeint(nested(w, **tight), Y0, [0, 1], **tight, **options).ys[-1] ** 2)

    found = np.sum(grad(loss)(w) * direction)
    assert found == pytest.approx(central_difference(loss, [w], [direction], h=0.1), rel=1e-3)


@pytest.mark.parametrize("gradient", ["discrete", "backsolve", "interpolated", "reversible"])
def test_a_replayed_derivative_through_a_nested_solve_is_refused(gradient):
    with pytest.raises(errors.NeuralODEError, match="calls odeint itself.*gradient='tape'"):
        grad(lambda w: np.sum(odeint(nested(w), Y0, [0, 1], gradient=gradient).ys))(np.eye(3))


@pytest.mark.parametrize(("size", "differentiated"), [(5, False), (6, True)])
def test_a_nested_solve_leaves_no_arrays_behind(size, differentiated):
    """Not even the first of its structure, which no other test has."""

    def solved():
        w, y0 = np.eye(size), np.ones((1, size))

        def end(y0):
            return np.sum(odeint(nested(w), y0, [0, 1], gradient="tape").ys[-1])

        (grad(end) if differentiated else end)(y0)
        return weakref.ref(w), weakref.ref(y0)

    references = solved()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_a_second_derivative_of_a_solve_inside_dynamics_is_refused():
    def f(t, y):
        return hvp(lambda z: np.sum(odeint(lambda s, u: np.tanh(u), z, [0.0, 0.3]).ys[-1]), (y,), (y,))[1][0]

    with pytest.raises(errors.NeuralODEError, match="would freeze the steps"):
        odeint(f, Y0, [0, 1])


def test_threads_have_buffers_of_their_own():
    cases = [random_case(seed) for seed in range(50, 54)]

    def gradients(case):
        return [grad(lambda p: case.loss(params=p))(case.params) for _ in range(10)]

    alone = [gradients(case)[0] for case in cases]
    found: dict[int, list] = {}
    threads = [
        threading.Thread(target=lambda k=k, case=case: found.update({k: gradients(case)}))
        for k, case in enumerate(cases)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_bits(result, alone[k]) for k in range(4) for result in found[k])


def test_interleaved_solves_of_one_program():
    cases = [random_case(seed) for seed in (55, 56)]
    steppers = [Stepper(network, c.y0, 0.0, 1.0, c.params) for c in cases]
    while not all(s.is_done for s in steppers):
        for stepper in steppers:
            if not stepper.is_done:
                stepper.step()
    expected = [odeint(network, c.y0, [0.0, 1.0], c.params).ys[-1] for c in cases]
    assert same_bits([s.y for s in steppers], expected)


def test_a_solve_from_a_callback():
    inner = []

    def callback(info):
        inner.append(odeint(lambda t, y: -y, info.y, [0.0, 1.0]).ys[-1])

    plain = odeint(lambda t, y: -y, Y0, [0.0, 1.0]).ys
    sol = odeint(lambda t, y: -y, Y0, [0.0, 1.0], callback=callback)
    assert np.array_equal(sol.ys, plain) and np.allclose(inner[-1], Y0 * np.exp(-2), rtol=1e-4)
