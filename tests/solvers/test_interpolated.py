"""The continuous adjoints against closed forms; `interpolated`: what it reads, what it costs, and where it is stable."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given
from odegrad import errors, grad, hvp, odeint, value_and_grad, vjp
from odegrad.engine.tree import leaves
from odegrad.solvers.compiled import Purpose
from odegrad.solvers.dynamics import Dynamics
from odegrad.solvers.forward import solve_forward
from odegrad.solvers.options import checked_options
from odegrad.solvers.tableaus import BOSH3
from oracles import EPS64
from scipy.linalg import expm, expm_frechet
from solving import ADAPTIVE, FIXED, METHODS, cases, distance, network, random_case, same_bits

CONTINUOUS = ("backsolve", "interpolated")
RTOLS = 10.0 ** -np.arange(3, 10.01, 1.0)


def gradients(case, **options):
    options = {"gradient": "interpolated", **options}
    return grad(lambda y, p, ts: case.loss(y, p, ts, **options), (0, 1, 2))(case.y0, case.params, case.ts)


def exact_gradients(case):
    tight = {"rtol": 1e-13, "atol": 1e-13, "method": "dopri5", "step_size": None}
    return gradients(case, gradient="discrete", **tight)


def stats_of(case, **options):
    solutions = []

    def loss(p):
        solutions.append(case.solve(params=p, **{"gradient": "interpolated", **options}))
        return case.loss_of(solutions[0].ys)

    value_and_grad(loss)(case.params)
    return solutions[0].stats


# --- a linear equation, whose gradients have closed forms ------------------------------------------------------------

A = np.array([[-0.4, 2.0], [-1.5, -0.1]])
Y0, WEIGHTS = np.array([1.0, 0.5]), np.array([[0.2, -1.0], [1.0, 0.3], [-0.6, 0.8]])


def linear_times(span):
    return 0.3 + span * np.array([0.0, 0.4, 1.0])


def linear_gradients(span):
    """Of sum_i <w_i, y(t_i)>, y' = A y, in y0, A and ts: with E = expm(A tau), <w, E y0> has the gradient E^T w in y0,
    <w, dE y0> with Frechet derivatives dE in A, and <w, A E y0> in tau."""
    y_bar, a_bar, ts_bar = WEIGHTS[0].copy(), np.zeros((2, 2)), np.zeros(3)
    for i, t in enumerate(linear_times(span)[1:], start=1):
        tau, w = t - 0.3, WEIGHTS[i]
        y_bar += expm(A * tau).T @ w
        for entry in np.ndindex(2, 2):
            direction = np.zeros((2, 2))
            direction[entry] = tau
            a_bar[entry] += w @ expm_frechet(A * tau, direction, compute_expm=False) @ Y0
        ts_bar[i] = w @ A @ expm(A * tau) @ Y0
        ts_bar[0] -= ts_bar[i]
    return y_bar, a_bar, ts_bar


@functools.cache
def linear_errors(gradient, span):
    """Relative errors (3, tolerances) of the gradients of y0, A and ts."""

    def loss(y, a, ts, rtol):
        ys = odeint(lambda t, y, a: a @ y, y, ts, a, gradient=gradient, rtol=rtol, atol=rtol).ys
        return np.sum(WEIGHTS * ys)

    exact = linear_gradients(span)
    found = [grad(loss, (0, 1, 2))(Y0, A, linear_times(span), rtol) for rtol in RTOLS]
    return np.array([[distance(x[i], exact[i]) for x in found] for i in range(3)])


@functools.cache
def network_errors(gradient, span, n_times):
    """The same for a small network, against a solve at 1e-13."""
    case = random_case(30, n_times=n_times, span=span, hidden=6)
    exact = exact_gradients(case)
    found = [gradients(case, gradient=gradient, rtol=rtol, atol=rtol) for rtol in RTOLS]
    return np.array([[distance(x[i], exact[i]) for x in found] for i in range(3)])


SMOOTH = [pytest.param(linear_errors, (gradient, span), id=f"linear-{gradient}-{span}")
          for gradient in CONTINUOUS for span in (3.0, -3.0)]  # fmt: skip
SMOOTH += [pytest.param(network_errors, ("interpolated", span, n), id=f"network-interpolated-{span}-{n}")
           for span in (4.0, -4.0) for n in (2, 6)]  # fmt: skip
SMOOTH += [pytest.param(network_errors, ("backsolve", -4.0, 2), id="network-backsolve--4.0-2")]


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["y0", "params", "ts"])
@pytest.mark.parametrize(("errors_of", "problem"), SMOOTH)
def test_the_error_is_at_most_a_hundred_tolerances(errors_of, problem, argument):
    found = errors_of(*problem)[argument]
    assert np.all(found <= 100 * RTOLS), found / RTOLS


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["y0", "params", "ts"])
@pytest.mark.parametrize(("errors_of", "problem"), SMOOTH)
def test_the_error_falls_in_proportion_to_the_tolerance(errors_of, problem, argument):
    found = errors_of(*problem)[argument]
    slope = np.polyfit(np.log(RTOLS), np.log(found), 1)[0]
    assert abs(slope - 1.0) <= 0.2, found


@pytest.mark.parametrize(
    ("errors_of", "problem"),
    [(linear_errors, (3.0,)), (linear_errors, (-3.0,)), (network_errors, (-4.0, 2)), (network_errors, (-4.0, 6))],
)  # fmt: skip
def test_it_is_within_a_factor_of_three_of_backsolve(errors_of, problem):
    """On average over the tolerances, since single errors cancel by chance."""
    back, interpolated = (np.log(errors_of(gradient, *problem)).mean(axis=1) for gradient in CONTINUOUS)
    assert np.all(np.exp(interpolated - back) <= 3.0)


# --- other problems, other methods -----------------------------------------------------------------------------------


@given(cases(methods=ADAPTIVE))
def test_it_comes_as_close_as_the_tolerance_says(case):
    assert distance(gradients(case), exact_gradients(case)) <= 100 * case.options["rtol"]


@pytest.mark.parametrize("span", [1.5, -1.5])
@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_converge_with_the_order_of_their_method(method, span):
    case = random_case(31, n_times=3, span=span)
    exact = exact_gradients(case)
    coarse, fine = (distance(gradients(case, method=method, step_size=h), exact) for h in (0.02, 0.01))
    order = {"euler": 1, "midpoint": 2, "rk4": 4}[method]
    assert abs(np.log2(coarse / fine) - order) < 0.3


def test_an_adaptive_method_without_interpolant_reads_cubics():
    method = dataclasses.replace(BOSH3, interpolant=None, interpolant_order=None)
    case = random_case(31, n_times=2)
    found = gradients(case, method=method, rtol=1e-7, atol=1e-7)
    assert distance(found, exact_gradients(case)) <= 100 * 1e-7


def test_a_stiff_decay_that_cannot_be_solved_back():
    """y' = -k y with k = 50: sum_i y(t_i) has the gradient sum_i exp(-k t_i) in y0, -sum_i t_i exp(-k t_i) in k."""
    ts = np.array([0.0, 0.02, 1.0])

    def loss(y, k):
        return np.sum(odeint(lambda t, y, k: -k * y, y, ts, k, gradient="interpolated").ys)

    found = grad(loss, (0, 1))(np.array(1.0), np.array(50.0))
    exact = np.array([np.exp(-50 * ts).sum(), -(ts * np.exp(-50 * ts)).sum()])
    assert np.all(np.abs(np.array(found) - exact) <= 100 * 1e-5 * np.abs(exact))


@pytest.mark.parametrize("method", METHODS)
def test_replay_gives_what_eager_gives(method):
    case = random_case(32, method=method)
    assert distance(gradients(case), gradients(case, execution="eager")) <= 1e-12


def test_float32_comes_close_to_float64():
    single, double = (gradients(random_case(32, dtype=dtype)) for dtype in (np.float32, np.float64))
    assert all(leaf.dtype == np.float32 for leaf in leaves(single[:2]))
    assert distance(single, double) <= 10 * 1e-5


def test_complex_states():
    """z' = i k z turns: the gradient of |z(1)|**2 + Re z(1) in k is Re(i z(1)), in z0 what the closed form says."""

    def loss(k):
        ys = odeint(lambda t, z, k: 1j * k * z, np.array([1.0 + 0.5j]), [0.0, 1.0], k, **options).ys
        return np.sum(np.abs(ys[-1]) ** 2) + np.sum(np.real(ys[-1]))

    options = {"gradient": "interpolated", "rtol": 1e-8, "atol": 1e-8}
    expected = np.real(1j * (1.0 + 0.5j) * np.exp(0.7j))
    assert grad(loss)(np.array(0.7)) == pytest.approx(expected, abs=100 * 1e-8)


def test_trees_of_states():
    rng = np.random.default_rng(3)
    y0, w = {"a": rng.standard_normal((2, 3)), "b": rng.standard_normal(2)}, rng.standard_normal((3, 3))

    def loss(y, w, gradient):
        def f(t, y, w):
            return {"a": np.tanh(y["a"] @ w) * t, "b": np.sum(y["a"] ** 2, axis=1) - y["b"]}

        ys = odeint(f, y, [0.0, 0.4, 1.0], w, gradient=gradient, rtol=1e-9, atol=1e-9).ys
        return np.sum(ys["a"] ** 2) + np.sum(np.sin(ys["b"]))

    found = grad(lambda y, w: loss(y, w, "interpolated"), (0, 1))(y0, w)
    assert distance(found, grad(lambda y, w: loss(y, w, "tape"), (0, 1))(y0, w)) <= 100 * 1e-9


def test_aux_does_not_change_the_derivative():
    case = random_case(33)

    def with_aux(y, p, ts):
        def f(t, y, params):
            return network(t, y, params), {"mean": np.mean(y)}

        return case.loss_of(odeint(f, y, ts, p, has_aux=True, gradient="interpolated").ys)

    found = grad(with_aux, (0, 1, 2))(case.y0, case.params, case.ts)
    assert distance(found, gradients(case)) <= 1e-13


def test_captured_values_are_differentiated():
    case = random_case(34)

    def captured(params):
        sol = odeint(lambda t, y: network(t, y, params), case.y0, case.ts, gradient="interpolated")
        return case.loss_of(sol.ys)

    assert distance(grad(captured)(case.params), gradients(case)[1]) <= 1e-13


@pytest.mark.parametrize("factor", [2.0**-700, 2.0**-40, 2.0**30, 2.0**700])
def test_scaling_the_loss_scales_the_gradient_and_changes_nothing_else(factor):
    case = random_case(33)
    plain = grad(lambda p: case.loss(params=p, gradient="interpolated"))(case.params)
    scaled = grad(lambda p: factor * case.loss(params=p, gradient="interpolated"))(case.params)
    assert same_bits({k: v * factor for k, v in plain.items()}, scaled)


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_a_loss_of_the_first_output_alone(gradient):
    """It is y0 itself."""
    case = random_case(33)

    def loss(y, p, ts):
        return np.sum(case.solve(y, p, ts, gradient=gradient).ys[0])

    y_bar, *others = grad(loss, (0, 1, 2))(case.y0, case.params, case.ts)
    assert np.array_equal(y_bar, np.ones_like(case.y0)) and not any(np.any(leaf) for leaf in leaves(others))


def test_pulling_back_twice_gives_the_same_bits():
    case = random_case(35)
    _, pull_back = vjp(lambda p: case.loss(params=p, gradient="interpolated"), case.params)
    assert same_bits(pull_back(1.0), pull_back(1.0))


def test_tighter_backward_tolerances_solve_the_adjoint_more_closely():
    case = random_case(35, rtol=1e-10, atol=1e-10)
    exact = exact_gradients(case)[1]

    def error(tolerance):
        return distance(gradients(case, backward_rtol=tolerance, backward_atol=tolerance)[1], exact)

    assert error(1e-9) < 1e-2 * error(1e-3)


def test_inside_the_dynamics_of_another_solve():
    """The inner solve was recorded before it was known that it would be differentiated."""

    def loss(w, gradient):
        def f(t, y, w):
            inner = {"gradient": gradient, "rtol": 1e-8, "atol": 1e-8}
            return odeint(lambda s, z: np.tanh(z @ w), y, [0.0, 0.3], **inner).ys[-1] - t * y

        return np.sum(odeint(f, np.ones((1, 3)), [0.0, 1.0], w, execution="eager").ys[-1])

    found, expected = (grad(lambda w, g=g: loss(w, g))(0.4 * np.eye(3)) for g in ("interpolated", "tape"))
    assert distance(found, expected) <= 100 * 1e-8


# --- what is stored and what is counted ------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "degree"), [("dopri5", 4), ("bosh3", 3), ("rk4", 3)])
@pytest.mark.parametrize("span", [2.0, -2.0])
def test_the_stored_path_reproduces_polynomials(method, degree, span):
    """Methods and interpolants of this order are exact for y = t**degree."""
    dynamics = Dynamics(
        lambda t, y: degree * t ** (degree - 1) + 0.0 * y, 1.0, np.ones(2), None, has_aux=False
    )
    names = ("max_step", "first_step", "grid", "controller", "backward_rtol", "backward_atol", "callback")
    options = checked_options(
        method, rtol=1e-6, atol=1e-6, gradient="interpolated", execution="replay", keep="none", keep_bytes=0,
        max_steps=1000, step_size=0.5 if method == "rk4" else None, **dict.fromkeys(names),
    )  # fmt: skip
    times = np.array([1.0, 1.0 + span])
    done = solve_forward(dynamics, options, times, Purpose("solve"), keeps_states=False, keeps_path=True)
    read, found = np.linspace(*times, 23), np.empty((23, 2))
    for t, row in zip(read, found, strict=True):
        done.trajectory.path.read(t, row)
    assert np.abs(found - (read**degree)[:, None]).max() <= 20 * EPS64 * 3.0**degree


@pytest.mark.parametrize(("method", "states_a_step"), [("dopri5", 5), ("bosh3", 4)])
def test_the_memory_is_that_of_the_polynomials(method, states_a_step):
    stats = stats_of(random_case(36, method=method))
    assert stats.peak_saved_bytes == states_a_step * stats.n_accepted * random_case(36).y0.nbytes


@pytest.mark.parametrize("method", FIXED)
def test_without_interpolant_the_memory_is_a_state_and_a_slope_an_accepted_time(method):
    stats = stats_of(random_case(36, method=method))
    assert stats.peak_saved_bytes == 2 * (stats.n_accepted + 1) * random_case(36).y0.nbytes


def test_nothing_is_kept_where_nothing_is_differentiated():
    assert random_case(36).solve(gradient="interpolated").stats.peak_saved_bytes == 0


def test_stages_without_weight_cost_no_parameter_pull_back():
    stats = stats_of(random_case(36))
    assert stats.n_vjp_params == 5 * stats.n_accepted_backward


def test_every_backward_evaluation_is_counted():
    stats = stats_of(random_case(36, n_times=2))
    attempts = stats.n_accepted_backward + stats.n_rejected_backward
    assert stats.nfe_backward == stats.n_vjp_state == 6 * attempts + 2


def test_it_solves_no_state_back():
    assert stats_of(random_case(36)).drift == 0.0


def test_output_times_without_a_cotangent_cost_nothing():
    def backward_nfe(n_times):
        solutions = []

        def loss(y):
            ts = np.linspace(0.0, 2.0, n_times)
            solutions.append(odeint(lambda t, y: np.sin(y) - t, y, ts, gradient="interpolated"))
            return np.sum(solutions[0].ys[-1])

        value_and_grad(loss)(np.ones(2))
        return solutions[0].stats.nfe_backward

    assert backward_nfe(50) == backward_nfe(2)


@pytest.mark.parametrize(("method", "n_stages"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_the_last_slope_costs_an_evaluation_where_no_step_has_it(method, n_stages):
    stats = stats_of(random_case(36, method=method))
    assert stats.nfe == n_stages * stats.n_accepted + 1


# --- what it refuses and how it fails --------------------------------------------------------------------------------


def test_second_derivatives_are_refused_by_name():
    case = random_case(44)
    with pytest.raises(errors.NeuralODEError, match="gradient='interpolated' gives first derivatives only"):
        hvp(lambda y: case.loss(y, gradient="interpolated"), (case.y0,), (case.y0,))


@pytest.mark.parametrize("execution", ["replay", "eager"])
def test_a_failure_of_the_adjoint_carries_the_forward_solution(execution):
    """The forward solve walks a given grid; the adjoint chooses its steps, and they are too many."""
    found, ts = [], np.array([0.0, 0.05, 0.1])
    options = {"gradient": "interpolated", "max_steps": 20, "execution": execution}

    def loss(y):
        found.append(
            odeint(lambda t, y: -1e6 * (y - np.cos(t)), y, ts, grid=np.linspace(0, 0.1, 9), **options)
        )
        return np.sum(found[0].ys)

    with pytest.raises(errors.TooManySteps, match="^interpolated:") as caught:
        grad(loss)(np.ones(1))
    assert caught.value.solution.status == "finished"
    assert np.array_equal(caught.value.solution.grid, found[0].grid)
