"""`reversible`: the derivative of its own scheme, against a plain walk of that scheme; drift, memory, cost, refusals."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from odegrad import errors, grad, hvp, jvp, odeint, vjp
from odegrad.solvers import TABLEAUS, PIController
from odegrad.solvers.controller import Verdict
from oracles import EPS32
from problems import PROBLEMS, decay, lorenz
from solving import FIXED, METHODS, cases, distance, network, random_case, same_bits

TOL = 1e-9
N_SUMS = {"dopri5": 6, "bosh3": 3, "euler": 1, "midpoint": 2, "rk4": 4}  # stages that an increment sums
reversible = functools.partial(odeint, gradient="reversible")


def walk(f, method, grid, nodes, y0, ts, lam=0.99):
    """The states (T, ...) at the accepted times grid[nodes], on arrays or traced values: the two lines of the scheme.

    Inner accepted times are held, the ends stretch with ts, and an inner output time moves along the slope.
    """
    numbers = TABLEAUS[method].as_floats()

    def psi(t, x, d):
        k = []
        for c, a in zip(numbers.c, numbers.a, strict=True):
            k.append(f(t + float(c) * d, x + d * sum(float(w) * s for w, s in zip(a, k, strict=True))))
        return d * sum(float(w) * s for w, s in zip(numbers.b, k, strict=True))

    times, last = [float(t) for t in grid], len(grid) - 1
    y, z, ys = y0, y0, [y0]
    for n in range(last):
        t, t_next = (ts[0] if n == 0 else times[n]), (ts[-1] if n == last - 1 else times[n + 1])
        y = lam * y + (1.0 - lam) * z + psi(t, z, t_next - t)
        z = z - psi(t_next, y, t - t_next)
        if n + 1 == last:
            ys.append(y)
        elif n + 1 in nodes:
            ys.append(y + (ts[len(ys)] - times[n + 1]) * f(times[n + 1], y))
    return np.stack(ys)


def nodes_of(grid, ts):
    return np.flatnonzero(np.isin(grid, ts)).tolist()


def walked_gradients(case, grid, lam=0.99):
    """Gradients of the case's loss with respect to (y0, params, ts), by tracing `walk`."""
    method, nodes = case.options.get("method", "dopri5"), nodes_of(grid, case.ts)

    def loss(y0, params, ts):
        return case.loss_of(walk(lambda t, y: network(t, y, params), method, grid, nodes, y0, ts, lam))

    return grad(loss, (0, 1, 2))(case.y0, case.params, case.ts)


def solved_gradients(case, **options):
    """The same from `reversible`, with the solution."""
    found = []

    def loss(y0, params, ts):
        found.append(case.solve(y0, params, ts, gradient="reversible", **options))
        return case.loss_of(found[0].ys)

    return grad(loss, (0, 1, 2))(case.y0, case.params, case.ts), found[0]


@given(cases())
def test_it_is_the_derivative_of_its_own_scheme(case):
    found, sol = solved_gradients(case)
    rtol = case.options["rtol"]
    assume(sol.stats.drift * rtol * (1.0 + np.abs(case.solve(gradient="reversible").ys).max()) <= 1e-10)
    assert distance(found, walked_gradients(case, sol.grid)) <= TOL


@given(cases())
def test_its_values_are_those_of_the_scheme(case):
    sol = case.solve(gradient="reversible")
    method = case.options["method"]
    expected = walk(
        lambda t, y: network(t, y, case.params),
        method,
        sol.grid,
        nodes_of(sol.grid, case.ts),
        case.y0,
        case.ts,
    )
    assert distance(sol.ys, expected) <= 1e-12


@given(cases())
def test_replay_gives_what_eager_gives(case):
    grid = {"grid": case.solve(gradient="reversible").grid, "step_size": None}
    found, _ = solved_gradients(case, **grid)
    assert distance(found, solved_gradients(case, execution="eager", **grid)[0]) <= 1e-10


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["y0", "params", "ts"])
def test_one_argument_at_a_time_gives_what_all_give(argument):
    case = random_case(80)
    alone = grad(lambda *args: case.loss(*args, gradient="reversible"), argument)(
        case.y0, case.params, case.ts
    )
    assert distance(alone, solved_gradients(case)[0][argument]) <= 1e-12


@pytest.mark.parametrize("lam", [0.5, 0.9, 0.999, 1.0])
def test_any_coupling(lam):
    case = random_case(81)
    found, sol = solved_gradients(case, coupling=lam)
    assert distance(found, walked_gradients(case, sol.grid, lam)) <= TOL


@pytest.mark.parametrize("n_times", [2, 3, 30])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_ends_at_every_output_time(method, n_times):
    case = random_case(82, n_times=n_times, method=method)
    found, sol = solved_gradients(case)
    assert np.isin(case.ts, sol.grid).all()
    assert distance(found, walked_gradients(case, sol.grid)) <= TOL


@pytest.mark.parametrize("method", METHODS)
def test_a_single_step(method):
    case = random_case(83, n_times=2, method=method)
    found, sol = solved_gradients(case, grid=case.ts, step_size=None)
    assert distance(found, walked_gradients(case, sol.grid)) <= TOL


def test_single_precision():
    case = random_case(84, dtype=np.float32, rtol=1e-3, atol=1e-5)
    found, sol = solved_gradients(case)
    double = random_case(84, rtol=1e-3, atol=1e-5)
    rounded = type(double)(
        case.y0.astype(np.float64), case.ts, {k: v.astype(np.float64) for k, v in case.params.items()},
        case.weights.astype(np.float64),
    )  # fmt: skip
    assert found[0].dtype == found[1]["a"].dtype == np.float32
    assert distance(found, walked_gradients(rounded, sol.grid)) <= 100 * EPS32


def test_complex_states():
    """y' = i w y on its own grid: the solution of the scheme is linear in y0."""
    y0, w = np.array([1.0 + 0.5j]), 1.3

    def value(y):
        return np.real(np.sum(reversible(lambda t, y: 1j * w * y, y, [0.0, 2.0]).ys[-1]))

    grid = reversible(lambda t, y: 1j * w * y, y0, [0.0, 2.0]).grid
    factor = walk(lambda t, y: 1j * w * y, "dopri5", grid, [], np.array([1.0 + 0j]), [0.0, 2.0])[-1]
    assert np.allclose(grad(value)(y0), factor, rtol=0, atol=1e-12)


def test_captured_values_and_trees_of_states():
    rng = np.random.default_rng(3)
    y0, w = (rng.standard_normal((2, 3)), rng.standard_normal(2)), rng.standard_normal((3, 3))
    grid = np.linspace(0.0, 1.0, 9)

    def loss(y, w, gradient, **options):
        def f(t, y):
            return np.tanh(y[0] @ w) * t, np.sum(y[0] ** 2, axis=1) - y[1]

        ys = odeint(f, y, [0.0, 0.5, 1.0], gradient=gradient, grid=grid, **options).ys
        return np.sum(ys[0] ** 2) + np.sum(np.sin(ys[1]))

    def walked(y, w):
        def f(t, y):
            a = np.reshape(y[:6], (2, 3))
            return np.concatenate([np.reshape(np.tanh(a @ w) * t, 6), np.sum(a**2, axis=1) - y[6:]])

        ys = walk(f, "dopri5", grid, [0, 4, 8], np.concatenate([np.reshape(y[0], 6), y[1]]), [0.0, 0.5, 1.0])
        return np.sum(ys[:, :6] ** 2) + np.sum(np.sin(ys[:, 6:]))

    found = grad(lambda y, w: loss(y, w, "reversible"), (0, 1))(y0, w)
    assert distance(found, grad(walked, (0, 1))(y0, w)) <= TOL


@pytest.mark.parametrize("method", FIXED)
def test_the_order_is_that_of_the_method(method):
    case, order = random_case(85, n_times=2), {"euler": 1, "midpoint": 2, "rk4": 4}[method]
    exact = case.solve(rtol=1e-13, atol=1e-13).ys[-1]

    def error(n):
        grid = np.linspace(case.ts[0], case.ts[-1], n + 1)
        return np.abs(
            case.solve(gradient="reversible", method=method, grid=grid, coupling=0.5).ys[-1] - exact
        ).max()

    assert abs(np.log2(error(64) / error(128)) - order) < 0.3


@pytest.mark.parametrize(
    "problem", [p for p in PROBLEMS if p.name in ("decay", "pendulum", "van_der_pol")], ids=str
)
def test_the_two_copies_stay_together(problem):
    """By the embedded error estimate alone the copies part by exp(5) times the local errors in `decay` and `van_der_pol`
    does not come to its end."""
    sol = reversible(problem.f, problem.y0, [problem.t0, problem.t1], rtol=1e-6, atol=1e-6, coupling=0.9)
    assert np.abs(sol.ys[-1] - problem.y1).max() <= 1e-5 * (1.0 + np.abs(problem.y1).max())


def stats_of(case, **options):
    return solved_gradients(case, **options)[1].stats


def test_memory_does_not_depend_on_the_number_of_steps():
    case = random_case(86, n_times=2)
    stats = [stats_of(case, rtol=r, atol=r) for r in (1e-2, 1e-9)]
    assert stats[1].n_accepted > 5 * stats[0].n_accepted
    assert stats[0].peak_saved_bytes == stats[1].peak_saved_bytes == case.y0.nbytes  # z at the end


@pytest.mark.parametrize("method", METHODS)
def test_every_stage_that_is_summed_is_evaluated_and_pulled_back_once(method):
    stats = stats_of(random_case(87, method=method))
    expected = 2 * N_SUMS[method] * stats.n_accepted
    assert stats.nfe_backward == stats.n_vjp_state == stats.n_vjp_params == expected


@pytest.mark.parametrize("method", METHODS)
def test_forward_evaluations_are_counted(method):
    calls = []

    def f(t, y):
        calls.append(t)
        return np.sin(3.0 * t) - y

    sol = reversible(f, np.ones(2), [0.0, 1.0, 2.0], method=method, execution="eager")
    assert sol.stats.nfe == len(calls)


def test_walking_its_own_grid_gives_the_same_bits():
    case = random_case(88)
    sol = case.solve(gradient="reversible")
    assert same_bits(sol.ys, case.solve(gradient="reversible", grid=sol.grid).ys)


def test_a_step_cut_at_an_output_time_does_not_shorten_the_next():
    """Two output times close together cost two short steps, not a long recovery."""
    ts = np.array([0.0, 1.0, 1.0 + 1e-9, 2.0])
    with_pair = reversible(decay, np.ones(1), ts, rtol=1e-6, coupling=0.5)
    without = reversible(decay, np.ones(1), ts[[0, 1, 3]], rtol=1e-6, coupling=0.5)
    assert len(with_pair.grid) <= len(without.grid) + 1


def test_pulling_back_twice_gives_the_same_bits():
    case = random_case(89)
    _, pull_back = vjp(lambda p: case.loss(params=p, gradient="reversible"), case.params)
    assert same_bits(pull_back(1.0), pull_back(1.0))


def test_what_the_caller_writes_after_the_solve_does_not_reach_the_derivative():
    case = random_case(90)

    def pulled(factor):
        y0 = case.y0.copy()
        ys, pull_back = vjp(lambda y: case.solve(y, gradient="reversible").ys, y0)
        ys *= factor
        y0 *= factor
        return pull_back(case.weights)

    assert same_bits(pulled(1.0), pulled(2.0))


@pytest.mark.parametrize("execution", ["replay", "eager"])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_aux_holds_every_stage_that_an_increment_of_an_accepted_step_sums(method, execution):
    """A first step that is far too long makes sure that some are rejected."""

    def f(t, y):
        return np.stack([y[1], (1.0 - y[0] ** 2) * y[1] - y[0]]), {"t": t + 0.0 * y[0]}

    options = {"first_step": 0.9, "coupling": 0.9} if method == "dopri5" else {"step_size": 0.125}
    sol = reversible(
        f, np.array([2.0, 0.0]), [0.0, 1.0], method=method, has_aux=True, execution=execution, **options
    )
    assert method == "rk4" or sol.stats.n_rejected > 0
    assert len(sol.aux.ts) == 2 * N_SUMS[method] * sol.stats.n_accepted
    assert np.all(np.diff(sol.aux.ts) >= 0) and np.allclose(
        sol.aux.ts, sol.aux.values["t"], rtol=0, atol=1e-15
    )


def test_aux_holds_the_states_that_f_was_given():
    sol = reversible(
        lambda t, y: (-y, y * 1.0), np.ones(1), [0.0, 1.0], method="euler", has_aux=True, step_size=0.5
    )
    lam, y, z, expected = 0.99, 1.0, 1.0, []
    for _ in range(2):
        y_next = lam * y + (1 - lam) * z - 0.5 * z
        expected += [z, y_next]
        y, z = y_next, z - 0.5 * y_next
    assert np.allclose(sol.aux.values[:, 0], expected, rtol=0, atol=1e-15)


def lorenz_gradient(t1, **options):
    found = []

    def loss(y0):
        found.append(reversible(lorenz, y0, [0.0, t1], **options))
        return np.sum(found[0].ys[-1])

    return grad(loss)(np.ones(3)), found[0]


def test_a_short_lorenz_is_exact():
    found, sol = lorenz_gradient(0.3)
    expected = grad(lambda y: np.sum(walk(lorenz, "dopri5", sol.grid, [], y, [0.0, 0.3])[-1]))(np.ones(3))
    assert sol.stats.drift * 1e-5 * 30 <= 1e-10
    assert distance(found, expected) <= TOL


def test_a_long_lorenz_is_an_error_with_its_numbers():
    """The way back magnifies round-off by about exp(14 t)."""
    with pytest.raises(
        errors.DriftError, match=r"reversible.*t=0 .*`drift_limit` is 1000.*coupling"
    ) as caught:
        lorenz_gradient(3.5, coupling=0.9)
    error = caught.value
    assert error.drift > error.limit == 1e3 and error.t == 0.0
    assert error.solution.ys.shape == (2, 3) and error.solution.stats.drift == error.drift


def test_output_times_anchor_the_state():
    ts = np.linspace(0.0, 3.5, 15)
    sols = []

    def loss(y0):
        sols.append(reversible(lorenz, y0, ts, coupling=0.7))
        return np.sum(sols[0].ys[-1])

    found = grad(loss)(np.ones(3))
    grid = sols[0].grid
    expected = grad(lambda y: np.sum(walk(lorenz, "dopri5", grid, nodes_of(grid, ts), y, ts, 0.7)[-1]))(
        np.ones(3)
    )
    assert distance(found, expected) <= TOL


@pytest.mark.parametrize("options", [{}, {"execution": "eager"}], ids=["replay", "eager"])
def test_dynamics_that_solve_themselves(options):
    """Replayed, the derivative of the inner solve is refused; eagerly it is that of the tape, here of the same steps."""

    def loss(w, **outer):
        def f(t, y):
            return odeint(lambda s, x: -w * x, y, [0.0, 0.5]).ys[-1]

        return np.sum(
            odeint(f, np.ones(2), [0.0, 1.0], method="euler", grid=[0.0, 0.5, 1.0], **outer).ys[-1] ** 2
        )

    def walked(w):
        def f(t, y):
            return odeint(lambda s, x: -w * x, y, [0.0, 0.5], gradient="tape").ys[-1]

        return np.sum(walk(f, "euler", [0.0, 0.5, 1.0], [], np.ones(2), [0.0, 1.0])[-1] ** 2)

    w = np.array([0.4, 0.7])
    if not options:
        with pytest.raises(errors.NeuralODEError, match="calls odeint itself.*gradient='tape'"):
            grad(lambda w: loss(w, gradient="reversible"))(w)
    else:
        assert distance(grad(lambda w: loss(w, gradient="reversible", **options))(w), grad(walked)(w)) <= TOL


def test_the_drift_limit_is_an_option():
    case = random_case(91)
    with pytest.raises(errors.DriftError):
        solved_gradients(case, drift_limit=1e-14)


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f, y: grad(lambda y: np.sum(grad(f)(y)))(y),
        lambda f, y: hvp(f, (y,), (y,)),
        lambda f, y: jvp(f, (y,), (y,)),
    ],
    ids=["grad of grad", "hvp", "jvp"],
)
def test_higher_derivatives_are_refused_by_name(derivative):
    case = random_case(92)
    with pytest.raises(errors.NeuralODEError, match="'reversible' gives first derivatives only; use 'tape'"):
        derivative(lambda y: case.loss(y, gradient="reversible"), case.y0)


@pytest.mark.parametrize("coupling", [0.0, -1.0, 1.5, math.nan, "0.9", None])
def test_a_coupling_outside_of_its_range_is_refused(coupling):
    with pytest.raises(errors.ArgumentError, match=r"`coupling` must be a number in \(0, 1\]; got"):
        reversible(decay, np.ones(1), [0.0, 1.0], coupling=coupling)


def test_a_grid_without_an_output_time_is_refused():
    with pytest.raises(errors.ArgumentError, match="'reversible' uses no dense output; 0.3 is not in it"):
        reversible(decay, np.ones(1), [0.0, 0.3, 1.0], grid=[0.0, 0.5, 1.0])


class AcceptsAll(PIController):
    """Steps of one size, whatever their error."""

    def judge(self, error_norm, h, previous=None):
        return Verdict(True, error_norm, h, h, error_norm)


def test_a_controller_that_accepts_what_the_error_test_would_not():
    case = random_case(93, n_times=2)
    found, sol = solved_gradients(case, controller=AcceptsAll(5), first_step=0.5, rtol=1e-12, atol=1e-12)
    assert sol.stats.n_rejected == 0 and distance(found, walked_gradients(case, sol.grid)) <= TOL


def test_nan_met_in_the_second_half_makes_the_step_shorter():
    """y' = 3 sqrt(y): from the end of a long step its stages overshoot the start, below zero."""
    attempts = []
    sol = reversible(
        lambda t, y: 3.0 * np.sqrt(y), np.array([0.01]), [0.0, 1.0], rtol=0.3, atol=0.3, first_step=0.3,
        coupling=0.9, callback=attempts.append,
    )  # fmt: skip
    assert any(not math.isfinite(a.error_norm) and np.isfinite(a.y).all() for a in attempts)
    assert abs(sol.ys[-1, 0] - 1.6**2) < 0.5


@pytest.mark.parametrize("options", [{}, {"grid": np.linspace(0.0, 2.0, 21)}], ids=["adaptive", "grid"])
def test_a_solution_that_blows_up_is_an_error(options):
    with pytest.raises(errors.SolveError) as caught:
        reversible(lambda t, y: y**2, np.ones(1), [0.0, 0.5, 2.0], **options)
    assert len(caught.value.solution.ts) == 2
