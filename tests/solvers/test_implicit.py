"""Implicit methods: order, stability, stiff problems with published solutions, states of every kind, failures."""

import math

import numpy as np
import problems
import pytest
import stiff_problems
from odegrad import Event, grad, odeint
from odegrad.engine.errors import (
    ArgumentError,
    ArgumentTypeError,
    NeuralODEError,
    NonConvergence,
    NonFiniteDynamics,
    TracedValueError,
)
from odegrad.solvers import Esdirk5, Kvaerno5, Rosenbrock23, Stepper
from scipy.integrate import solve_ivp

PENDULUM = next(p for p in problems.PROBLEMS if p.name == "pendulum")
ORDERS = {"implicit_euler": 1, "trapezoid": 2, "rosenbrock23": 2, "kvaerno5": 5, "esdirk5": 5, "radau5": 5}
STEPS = {
    "implicit_euler": 1000,
    "trapezoid": 200,
    "rosenbrock23": 400,
    "kvaerno5": 80,
    "esdirk5": 80,
    "radau5": 40,
}
ADAPTIVE = ["rosenbrock23", "kvaerno5", "esdirk5", "radau5"]
TIGHT = {"rtol": 1e-13, "atol": 1e-13}  # of the Newton iterations, on a given grid


def slope_of(errors):
    """The power of h in errors measured at h, h / 2, h / 4, ..."""
    return float(-np.polyfit(np.arange(len(errors)), np.log2(errors), 1)[0])


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("method", ORDERS)
def test_global_error(method, direction):
    p = PENDULUM
    ends = [(p.y0, p.t0, p.t1, p.y1), (p.y1, p.t1, p.t0, p.y0)]
    start, t0, t1, end = ends[direction == "backward"]
    errors = []
    for n in (STEPS[method], 2 * STEPS[method], 4 * STEPS[method]):
        ys = odeint(p.f, start, [t0, t1], method=method, grid=np.linspace(t0, t1, n + 1), **TIGHT).ys
        errors.append(np.abs(ys[-1] - end).max())
    assert abs(slope_of(errors) - ORDERS[method]) < 0.15, errors


def forced(t, y):
    return y * np.cos(t)


def in_one_step(method, h):
    """The largest errors of the state and of its time derivative inside one step of size h, whose start is exact."""
    t0 = 0.4
    y0 = np.array([math.exp(math.sin(t0))])
    sol = odeint(forced, y0, [t0, t0 + h], method=method, grid=[t0, t0 + h], dense=True, **TIGHT)
    ts = t0 + h * np.linspace(0.1, 0.9, 9)
    exact = np.exp(np.sin(ts))
    states, slopes = sol.dense(ts)[:, 0], sol.dense.derivative(ts)[:, 0]
    return np.abs(states - exact).max(), np.abs(slopes - exact * np.cos(ts)).max()


INTERPOLANT_ORDERS = {
    "implicit_euler": 1,
    "trapezoid": 2,
    "rosenbrock23": 2,
    "radau5": 4,
    "kvaerno5": 4,
    "esdirk5": 4,
}


@pytest.mark.parametrize("h", [0.05, -0.05])
@pytest.mark.parametrize("method", INTERPOLANT_ORDERS)
def test_dense_output_in_one_step(method, h):
    errors = [in_one_step(method, h / 2**k)[0] for k in range(3)]
    assert abs(slope_of(errors) - (INTERPOLANT_ORDERS[method] + 1)) < 0.15, errors


@pytest.mark.parametrize("h", [0.05, -0.05])
@pytest.mark.parametrize("method", INTERPOLANT_ORDERS)
def test_derivative_of_dense_output_in_one_step(method, h):
    errors = [in_one_step(method, h / 2**k)[1] for k in range(3)]
    assert abs(slope_of(errors) - INTERPOLANT_ORDERS[method]) < 0.15, errors


def linear(t, y):
    """Its Jacobian is constant, so that one Newton iteration is exact whatever the tolerances."""
    return -2.0 * (y - np.cos(t))


def error_estimate(f, method, h):
    """(estimate, new state) of one step of size h from y = 1; at a tolerance of 1 the scaled estimate is the estimate."""
    step = Stepper(f, np.ones(1), 0.0, h, method=method, rtol=1e-15, atol=1.0, first_step=h).step()
    return step.error_norm, step.y1[0]


@pytest.mark.parametrize(
    ("method", "order"), [("rosenbrock23", 3), ("radau5", 4), ("kvaerno5", 5), ("esdirk5", 5)]
)
def test_order_of_the_error_estimate(method, order):
    estimates = [error_estimate(linear, method, 0.05 / 2**k)[0] for k in range(3)]
    assert abs(slope_of(estimates) - order) < 0.15, estimates


def test_the_estimate_of_the_rosenbrock_method_is_its_error():
    """Its companion is of order 3, so that the difference is the error of order 2 itself; y' = y**2 is 1 / (1 - t)."""
    estimate, y = error_estimate(lambda t, y: y * y, "rosenbrock23", 1e-3)
    assert abs(estimate / abs(y - 1.0 / (1.0 - 1e-3)) - 1.0) < 0.01


def relaxation(t, y):
    """Prothero and Robinson's problem with solution close to cos t, on which a method must damp, not follow."""
    return -1e6 * (y - np.cos(t))


@pytest.mark.parametrize("method", ["implicit_euler", "kvaerno5", "esdirk5", "rosenbrock23", "radau5"])
def test_a_fast_transient_is_gone_after_large_steps(method):
    """Ten steps of 1e5 time constants; what is left is the error of the smooth solution, at most h**2 / 20."""
    ys = odeint(relaxation, np.array([3.0]), [0.0, 1.0], method=method, grid=np.linspace(0.0, 1.0, 11)).ys
    assert abs(ys[-1, 0] - math.cos(1.0)) < 5e-4


@pytest.mark.parametrize("method", ["kvaerno5", "esdirk5", "radau5"])
def test_steps_are_those_of_the_smooth_solution(method):
    sol = odeint(relaxation, np.array([0.0]), [0.0, 10.0], method=method, rtol=1e-5, atol=1e-7)
    assert sol.stats.n_accepted + sol.stats.n_rejected < 60
    assert abs(sol.ys[-1, 0] - math.cos(10.0)) < 1e-4


STIFF = [
    (stiff_problems.ROBERTSON, 1e-9),
    (stiff_problems.HIRES, 1e-6),
    (stiff_problems.VAN_DER_POL, 1e-4),
]


@pytest.mark.parametrize(("p", "scale"), STIFF, ids=lambda value: str(value))
@pytest.mark.parametrize(
    ("method", "rtol"),
    [("rosenbrock23", 1e-4), ("kvaerno5", 1e-6), ("esdirk5", 1e-6), ("radau5", 1e-6)],
    ids=str,
)
def test_published_solutions(p, scale, method, rtol):
    """The end state within 100 tolerances; `scale` sets what is small in it."""
    sol = odeint(p.f, p.y0, [p.t0, p.t1], method=method, rtol=rtol, atol=rtol * scale)
    assert (np.abs(sol.ys[-1] - p.y1) / (scale + np.abs(p.y1))).max() < 100 * rtol
    assert sol.stats.nfe < 20_000


@pytest.mark.parametrize("method", ADAPTIVE)
def test_mass_is_conserved_to_round_off(method):
    p = stiff_problems.ROBERTSON
    sol = odeint(p.f, p.y0, np.linspace(p.t0, p.t1, 50), method=method, rtol=1e-4, atol=1e-8)
    assert np.abs(sol.ys.sum(axis=1) - 1.0).max() < 200 * np.finfo(float).eps


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("method", ["kvaerno5", "esdirk5", "radau5"])
def test_error_falls_with_the_tolerance(method, rtol):
    p = stiff_problems.HIRES
    ys = odeint(p.f, p.y0, [p.t0, p.t1], method=method, rtol=rtol, atol=1e-4 * rtol).ys
    assert np.abs(ys[-1] / p.y1 - 1.0).max() < 20 * rtol


def heat(t, y):
    """Diffusion and a reaction on 60 cells: a stiff problem with a Jacobian that is worth no matrix."""
    padded = np.concatenate([y[:1], y, y[-1:]])
    return 4e3 * (padded[2:] - 2.0 * y + padded[:-2]) + y * (1.0 - y)


HEAT_0 = 0.5 + 0.4 * np.cos(np.pi * (np.arange(60) + 0.5) / 60)


@pytest.mark.parametrize("method", [Kvaerno5, Esdirk5])
def test_krylov_solves_agree_with_dense_ones(method):
    options = {"rtol": 1e-6, "atol": 1e-8}
    dense, krylov = (
        odeint(heat, HEAT_0, [0.0, 1.0], method=method(linear_solver=solver), **options)
        for solver in ("dense", "krylov")
    )
    assert np.abs(dense.ys - krylov.ys).max() < 1e-5
    assert krylov.stats.n_factorizations == 0 < dense.stats.n_factorizations
    assert krylov.stats.n_accepted < 1.5 * dense.stats.n_accepted


def test_one_jacobian_serves_a_linear_problem():
    stats = odeint(relaxation, np.array([0.0]), [0.0, 10.0], method="kvaerno5").stats
    assert stats.n_jacobians == 1
    assert stats.n_factorizations <= stats.n_accepted + stats.n_rejected
    assert stats.nfe == 1 + 1 + 1 + stats.n_newton  # f(t0, y0), the probe of the first step, the Jacobian


@pytest.mark.parametrize("execution", ["replay", "eager"])
@pytest.mark.parametrize("method", [*ORDERS, Kvaerno5(linear_solver="krylov")], ids=str)
def test_trees_parameters_and_output_times(method, execution):
    rates = np.array([[1.0, 50.0], [4.0, 200.0]])

    def f(t, y, p):
        return {"a": -p * (y["a"] - np.cos(t)), "b": -y["b"] + np.sum(y["a"]) * 0.0}

    y0 = {"a": np.zeros((2, 2)), "b": np.ones(3)}
    ts = np.linspace(0.0, 1.0, 6)
    step = {} if getattr(method, "is_adaptive", method in ADAPTIVE) else {"step_size": 1e-3}
    ys = odeint(f, y0, ts, rates, method=method, execution=execution, **step).ys
    t = ts[:, None, None]
    exact = (rates**2 * (np.cos(t) - np.exp(-rates * t)) + rates * np.sin(t)) / (1.0 + rates**2)
    assert np.abs(ys["a"] - exact).max() < 2e-3
    assert np.abs(ys["b"] - np.exp(-ts)[:, None]).max() < 1e-3


@pytest.mark.parametrize("method", ORDERS)
def test_float32_stays_float32(method):
    p = PENDULUM
    step = {"step_size": 0.002} if method in ("implicit_euler", "trapezoid") else {}
    sol = odeint(p.f, p.y0.astype(np.float32), [0.0, 1.0], method=method, rtol=1e-4, atol=1e-5, **step)
    expected = odeint(p.f, p.y0, [0.0, 1.0], rtol=1e-9, atol=1e-9).ys
    assert sol.ys.dtype == np.float32
    assert np.abs(sol.ys - expected).max() < 5e-3


@pytest.mark.parametrize("method", ["kvaerno5", "esdirk5", Kvaerno5(linear_solver="krylov")], ids=str)
def test_complex_states(method):
    ys = odeint(lambda t, y: (-50.0 + 3.0j) * (y - t), np.array([1.0 + 0.0j]), [0.0, 1.0], method=method).ys
    a = -50.0 + 3.0j
    assert abs(ys[-1, 0] - ((1.0 - 1.0 / a) * np.exp(a) + 1.0 + 1.0 / a)) < 1e-5


def test_a_function_of_complex_numbers_that_is_not_analytic():
    """The Jacobian is not that of f: the iteration is slower, its limit the same."""
    ys = odeint(lambda t, y: -3.0 * np.conj(y), np.array([1.0 + 1.0j]), [0.0, 0.5], method="kvaerno5").ys
    assert abs(ys[-1, 0] - (np.exp(-1.5) + 1j * np.exp(1.5))) < 1e-4


@pytest.mark.parametrize("method", ADAPTIVE)
def test_backward_in_time(method):
    p = PENDULUM
    y = odeint(p.f, p.y1, [p.t1, p.t0], method=method, rtol=1e-6, atol=1e-6).ys[-1]
    assert np.abs(y - p.y0).max() < 1e-3


@pytest.mark.parametrize("linear_solver", ["dense", "krylov"])
@pytest.mark.parametrize(
    ("f", "exact"),
    [(lambda t, y: 0.0 * y, 1.0), (lambda t, y: np.ones(3), 2.0), (lambda t, y: y * t, math.exp(0.5))],
    ids=["zero", "constant", "diagonal"],
)
def test_jacobians_that_are_zero_or_diagonal(f, exact, linear_solver):
    ys = odeint(f, np.ones(3), [0.0, 1.0], method=Kvaerno5(linear_solver=linear_solver), rtol=1e-7).ys
    assert np.abs(ys[-1] - exact).max() < 1e-6


@pytest.mark.parametrize("method", ORDERS)
def test_an_empty_state(method):
    assert odeint(lambda t, y: -y, np.zeros(0), [0.0, 1.0], method=method).ys.shape == (2, 0)


def test_a_singular_matrix_of_a_fixed_step_is_an_error_with_numbers():
    with pytest.raises(NonConvergence, match="I - h gamma J is singular") as caught:
        odeint(lambda t, y: 8.0 * y, np.ones(1), [0.0, 0.125, 0.25], method="implicit_euler")
    assert caught.value.t == 0.0 and caught.value.h == 0.125
    assert caught.value.solution.ys.shape == (1, 1)


def test_a_singular_matrix_of_an_adaptive_step_is_a_shorter_step():
    ys = odeint(
        lambda t, y: 100.0 * y, np.ones(1), [0.0, 0.1], method="kvaerno5", first_step=1 / 26, rtol=1e-6
    ).ys
    assert abs(ys[-1, 0] / math.exp(10.0) - 1.0) < 1e-3


def test_equations_without_a_solution_are_an_error_with_numbers():
    """f jumps against the flow where the solution arrives: no step ends beyond."""

    def f(t, y):
        return np.where(y > 0.5, -1.0, 1.0) * 1e6

    with pytest.raises(NonConvergence, match="Newton iterations") as caught:
        odeint(f, np.ones(1), [0.0, 1.0], method="implicit_euler", step_size=0.1)
    assert caught.value.stats.n_newton > 0 and "jump_ts" in str(caught.value)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_dynamics_that_become_nan_are_named(method):
    with pytest.raises(NonFiniteDynamics, match=r"t=0\.\d") as caught:
        odeint(lambda t, y: 0.0 * np.sqrt(0.5 - t) - y, np.ones(1), [0.0, 1.0], method=method, rtol=1e-3)
    assert caught.value.t == pytest.approx(0.5, abs=1e-3)


def test_dynamics_that_cannot_be_traced():
    def f(t, y):
        return -y if y[0] > 0.0 else y

    with pytest.raises(TracedValueError):
        odeint(f, np.ones(2), [0.0, 1.0], method="kvaerno5")


@pytest.mark.parametrize("method", ["rosenbrock23", "radau5"])
def test_a_complex_state_is_refused_where_it_is_not_right(method):
    with pytest.raises(ArgumentTypeError, match="got a complex `y0`"):
        odeint(lambda t, y: -y, np.ones(1, complex), [0.0, 1.0], method=method)


def test_an_unknown_linear_solver_is_refused():
    with pytest.raises(ArgumentError, match="'dense', 'krylov'; got 'sparse'"):
        Kvaerno5(linear_solver="sparse")


def test_gradients_are_refused_by_name():
    with pytest.raises(NeuralODEError, match="kvaerno5"):
        grad(lambda y: odeint(lambda t, y: -y, y, [0.0, 1.0], method="kvaerno5").ys.sum())(np.ones(2))


def test_dense_output_of_a_step_that_the_second_estimate_of_radau5_accepted():
    """It is nearer to the solution than the collocation polynomial, which no error estimate bends."""
    rate, h, y0 = -4.0, 1.0, 1.8e-3

    def solve(y0):
        return odeint(
            lambda t, y: rate * y, np.array([y0]), [0.0, h], method="radau5", rtol=1e-4, atol=1e-4, first_step=h,
            dense=True,
        )  # fmt: skip

    sol, smaller = solve(y0), solve(1e-3 * y0)
    assert [s.stats.n_accepted + s.stats.n_rejected for s in (sol, smaller)] == [1, 1]
    assert sol.stats.nfe - 3 * sol.stats.n_newton == smaller.stats.nfe - 3 * smaller.stats.n_newton + 1
    root6 = math.sqrt(6.0)  # the coefficients of Hairer & Wanner, table IV.5.6
    a = np.array([
        [(88 - 7 * root6) / 360, (296 - 169 * root6) / 1800, (-2 + 3 * root6) / 225],
        [(296 + 169 * root6) / 1800, (88 + 7 * root6) / 360, (-2 - 3 * root6) / 225],
        [(16 - root6) / 36, (16 + root6) / 36, 1 / 9],
    ])  # fmt: skip
    stages = np.linalg.solve(np.eye(3) - h * rate * a, np.full(3, y0))
    collocation = np.polyfit([0.0, *a.sum(axis=1)], [y0, *stages], 3)
    thetas = np.linspace(0.02, 0.98, 25)
    solution = y0 * np.exp(rate * h * thetas)
    error = np.linalg.norm([sol.dense(h * theta)[0] for theta in thetas] - solution)
    assert error < 0.7 * np.linalg.norm(np.polyval(collocation, thetas) - solution)


@pytest.mark.parametrize("rtol", [1e-4, 1e-6])
@pytest.mark.parametrize(
    "p", [stiff_problems.HIRES, stiff_problems.ROBERTSON, stiff_problems.VAN_DER_POL], ids=str
)
def test_radau5_costs_no_more_than_that_of_scipy(p, rtol):
    """With a Jacobian as D evaluations for D components, which is what SciPy's takes."""
    sol = odeint(p.f, p.y0, [p.t0, p.t1], method="radau5", rtol=rtol, atol=1e-4 * rtol)
    peer = solve_ivp(p.f, (p.t0, p.t1), p.y0, method="Radau", rtol=rtol, atol=1e-4 * rtol)
    d = p.y0.size
    assert sol.stats.nfe + d * sol.stats.n_jacobians < 1.1 * (peer.nfev + d * peer.njev)


@pytest.mark.parametrize("p", [stiff_problems.HIRES, stiff_problems.ROBERTSON], ids=str)
def test_a_step_as_long_as_the_one_before_needs_no_factorisation(p):
    """Two matrices for every other step, at most; each size of a step of its own would take two a step."""
    stats = odeint(p.f, p.y0, [p.t0, p.t1], method="radau5", rtol=1e-8, atol=1e-12).stats
    assert stats.n_factorizations < stats.n_accepted


@pytest.mark.parametrize("p", [stiff_problems.HIRES, stiff_problems.VAN_DER_POL], ids=str)
def test_dense_output_of_a_stiff_problem(p):
    """Between the steps of the slow part, where the slope of a state says nothing of stiff components."""
    ts = np.linspace(p.t0, 0.3 * p.t1, 200)
    sol = odeint(p.f, p.y0, [p.t0, ts[-1]], method="radau5", rtol=1e-5, atol=1e-9, dense=True)
    exact = solve_ivp(p.f, (p.t0, ts[-1]), p.y0, method="Radau", t_eval=ts, rtol=1e-10, atol=1e-14).y.T
    assert (np.abs(sol.dense(ts) - exact) / np.abs(exact).max(axis=0)).max() < 1e-4


@pytest.mark.parametrize("method", ["implicit_euler", "trapezoid"])
def test_events_of_methods_with_fixed_steps(method):
    """Found on the cubic through states and slopes at the ends of the step, to machine precision."""
    event = Event(lambda t, y: y[0] - 0.5, terminal=False)
    sol = odeint(
        lambda t, y: -y,
        np.ones(1),
        [0.0, 2.0],
        method=method,
        step_size=0.1,
        events=[event],
        dense=True,
        **TIGHT,
    )
    assert sol.events[0].ts == pytest.approx([math.log(2.0)], rel=0.06)
    assert np.abs(sol.dense(sol.events[0].ts) - 0.5).max() < 8 * np.finfo(float).eps


def test_objects_and_names_are_the_same_method():
    by_name = odeint(heat, HEAT_0, [0.0, 0.1], method="rosenbrock23").ys
    assert np.array_equal(odeint(heat, HEAT_0, [0.0, 0.1], method=Rosenbrock23()).ys, by_name)
