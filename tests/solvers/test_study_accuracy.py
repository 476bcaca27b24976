"""How good the gradients of the study's problems are: what the project promises of each method, measured."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from odegrad import errors, grad, layers, odeint, random
from odegrad.engine.tree import leaves, leaves_with_paths, tree_map, unflatten
from odegrad.solvers.methods import method_named
from odegrad.train import audit
from odegrad.train.audit.problems import lorenz
from oracles import central_difference, complex_step, inner_all, norm
from solving import distance

FLOAT64 = np.dtype(np.float64)
EXACT = ("tape", "discrete")
CONTINUOUS = ("backsolve", "interpolated")
TABN = ("tabn-train", "tabn-population", "tabn-eval")
SHORT = "lorenz-1"  # one unit of time: errors grow some twentyfold
PROBLEMS = ("linear", "spiral", SHORT, "van-der-pol", *TABN)
RTOLS = 10.0 ** -np.arange(3, 10.01)
ARGUMENTS = {"y0": 0, "params": 1, "ts": 2}
TOL = 1e-9


@functools.cache
def case_of(name: str) -> audit.Case:
    return (lorenz(1.0) if name == SHORT else audit.named_problem(name)).build(FLOAT64)


def arguments(case: audit.Case) -> tuple[Any, Any, np.ndarray]:
    return case.y0, case.params, case.ts


def gradients(case: audit.Case, **options: Any) -> tuple[Any, Any]:
    """Gradients of the loss in (y0, params, ts), and the solution."""
    solutions = []

    def loss(y0: Any, params: Any, ts: Any) -> Any:
        solutions.append(odeint(case.f, y0, ts, params, **options))
        return case.loss(solutions[0].ys)

    return grad(loss, (0, 1, 2))(*arguments(case)), solutions[0]


@functools.cache
def solved(name: str, gradient: str, rtol: float) -> tuple[Any, Any]:
    return gradients(case_of(name), gradient=gradient, rtol=rtol, atol=rtol)


def largest_error(case: audit.Case, found: Any, position: int, grid: np.ndarray, **options: Any) -> float:
    """Of an argument's gradient along directions of random signs, over its norm; by complex steps on the given grid.

    The rms over all such directions is the norm of the error.
    """
    given = arguments(case)[position]
    directions = [np.random.default_rng(seed) for seed in range(3)]

    def loss(*values: Any) -> Any:
        y0, params = (tree_map(lambda leaf: leaf.astype(complex), tree) for tree in (case.y0, case.params))
        y0, params = (unflatten(given, values), params) if position == 0 else (y0, unflatten(given, values))
        return case.loss(odeint(case.f, y0, case.ts, params, grid=grid, **options).ys)

    worst = 0.0
    for rng in directions:
        signs = [rng.choice([-1.0, 1.0], leaf.shape) for leaf in leaves(given)]
        expected = complex_step(loss, leaves(given), signs)
        worst = max(worst, abs(inner_all(leaves(found), signs) - expected))
    return worst / norm(*leaves(found))


# --- exact about the steps taken -------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["y0", "params"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("name", PROBLEMS)
def test_states_and_parameters_agree_with_complex_steps(name, gradient, rtol, argument):
    found, sol = solved(name, gradient, rtol)
    position = ARGUMENTS[argument]
    assert largest_error(case_of(name), found[position], position, sol.grid) <= TOL


def reach(case: audit.Case, grid: np.ndarray) -> float:
    """How far output times may move: inner ones to an accepted time, stages of the first and the last step to a kink."""
    c = method_named("dopri5").as_floats().c.astype(float)
    steps = np.diff(grid)
    moving = np.concatenate([grid[0] + c[c < 1] * steps[0], grid[-2] + c[c > 0] * steps[-1]])
    kinks = np.abs(np.subtract.outer(moving, case.breakpoints)).ravel()
    inner = np.abs(np.subtract.outer(case.ts[1:-1], grid)).ravel()
    return float(min([0.01, abs(steps[0]), abs(steps[-1]), *kinks, *inner]))


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("name", PROBLEMS)
def test_output_times_agree_with_extrapolated_differences(name, gradient, rtol):
    case, (found, sol) = case_of(name), solved(name, gradient, rtol)

    def loss(ts: np.ndarray) -> Any:
        stretched = np.array([ts[0], *sol.grid[1:-1], ts[-1]])
        return case.loss(odeint(case.f, case.y0, ts, case.params, grid=stretched).ys)

    h = 0.2 * reach(case, sol.grid)
    expected = np.array([central_difference(loss, [case.ts], [e], h=h) for e in np.eye(len(case.ts))])
    assert norm(found[2] - expected) <= TOL * norm(expected)


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
@pytest.mark.parametrize("name", PROBLEMS)
def test_discrete_is_tape(name, rtol):
    assert distance(solved(name, "discrete", rtol)[0], solved(name, "tape", rtol)[0]) <= 1e-12


# --- reversible ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["y0", "params"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-5])
@pytest.mark.parametrize("name", ["linear", "spiral", *TABN])
def test_reversible_agrees_with_complex_steps_of_its_own_scheme(name, rtol, argument):
    found, sol = solved(name, "reversible", rtol)
    position = ARGUMENTS[argument]
    size = max(float(np.max(np.abs(leaf))) for leaf in leaves(case_of(name).y0))
    assert sol.stats.drift * rtol * (1.0 + size) <= 1e-10
    own = {"gradient": "reversible"}
    assert largest_error(case_of(name), found[position], position, sol.grid, **own) <= TOL


@pytest.mark.parametrize("name", ["lorenz", "van-der-pol"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_reversible_refuses_problems_that_cannot_be_walked_back(name, rtol):
    case = case_of(name)
    with pytest.raises(errors.DriftError, match="^reversible: the state solved back to t=0 is"):
        gradients(case, gradient="reversible", rtol=rtol, atol=rtol, coupling=0.9)


# --- continuous adjoints ---------------------------------------------------------------------------------------------


def errors_of(case: audit.Case, exact: Any, gradient: str, **options: Any) -> np.ndarray:
    """Relative errors (arguments, tolerances) with atol = rtol times the largest entry of y0."""
    scale = max(float(np.max(np.abs(leaf))) for leaf in leaves(case.y0))
    rows = []
    for rtol in RTOLS:
        found, _ = gradients(case, gradient=gradient, rtol=rtol, atol=rtol * scale, **options)
        rows.append([relative_error(x, e) for x, e in zip(found, exact, strict=True)])
    return np.array(rows).T


def relative_error(found: Any, exact: Any) -> float:
    differences = [a - b for a, b in zip(leaves(found), leaves(exact), strict=True)]
    return norm(*differences) / norm(*leaves(exact))


@functools.cache
def smooth_errors(name: str, gradient: str) -> np.ndarray:
    """Against the closed form where there is one, else against `discrete` at 1e-13."""
    problem, case = audit.named_problem(name), case_of(name)
    if problem.closed_form is None:
        exact, _ = gradients(case, rtol=1e-13, atol=1e-13)
    else:
        formula = problem.closed_form()
        exact = tuple(formula[argument] for argument in ARGUMENTS)
    return errors_of(case, exact, gradient)


SMOOTH = [(name, gradient) for name in ("linear", "spiral") for gradient in CONTINUOUS]
SMOOTH.append(("van-der-pol", "interpolated"))  # it cannot be solved back


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize(("name", "gradient"), SMOOTH)
def test_the_error_is_at_most_a_hundred_tolerances(name, gradient, argument):
    found = smooth_errors(name, gradient)[ARGUMENTS[argument]]
    assert np.all(found <= 100 * RTOLS), found / RTOLS


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize(("name", "gradient"), SMOOTH)
def test_the_error_falls_in_proportion_to_the_tolerance(name, gradient, argument):
    found = smooth_errors(name, gradient)[ARGUMENTS[argument]]
    assert abs(slope(found) - 1.0) <= 0.2, found


def slope(found: np.ndarray) -> float:
    return float(np.polyfit(np.log(RTOLS), np.log(found), 1)[0])


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("name", ["linear", "spiral"])
def test_interpolated_is_within_a_factor_of_three_of_backsolve(name, argument):
    """In the geometric mean over the tolerances, since single errors cancel by chance."""
    back, interpolated = (np.log(smooth_errors(name, g)[ARGUMENTS[argument]]) for g in CONTINUOUS)
    assert np.exp(np.mean(interpolated - back)) <= 3.0


@pytest.mark.parametrize("name", ["van-der-pol", "lorenz"])
def test_interpolated_is_bounded_where_backsolve_diverges(name):
    case, rtol = case_of(name), 1e-5
    exact, _ = gradients(case, rtol=1e-13, atol=1e-13)
    found, _ = gradients(case, gradient="interpolated", rtol=rtol, atol=rtol)
    assert all(relative_error(x, e) <= 100 * rtol for x, e in zip(found, exact, strict=True))
    with pytest.raises(errors.SolveError, match="^backsolve: "):
        gradients(case, gradient="backsolve", rtol=rtol, atol=rtol, max_steps=2000)


# --- TA-BN, whose dynamics have kinks at the nodes -------------------------------------------------------------------


def few_nodes(mode: str) -> audit.Case:
    """Two layers with TA-BN, one node inside the interval, every gamma and alpha a parameter of its own; batch 6 of 3.

    The tolerance, and not the distance of the nodes, chooses the steps.
    """
    norms = [layers.TABatchNorm(width, (-1.5, 2.0, 6.0)) for width in (5, 3)]
    net = layers.Chain(
        [layers.Linear(3, 5, with_time=True), norms[0], layers.Tanh(), layers.Linear(5, 3), norms[1]]
    )
    rng = np.random.default_rng(5)
    weights = tree_map(
        lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape), net.init(random.key(5), np.float64)
    )
    fresh = net.init_stats(np.float64)
    drawn = {"mean": (-0.3, 0.3), "var": (0.5, 1.5), "visits": (2.0, 3.0), "initial_share": (0.0, 0.1)}
    stats = unflatten(
        fresh, [rng.uniform(*drawn[path[-1]], leaf.shape) for path, leaf in leaves_with_paths(fresh)]
    )

    def f(t: Any, y: Any, params: Any) -> Any:
        return 0.4 * net.apply(params, stats, 2.5 * t, y, mode=mode)[0]

    y0, ts = rng.standard_normal((6, 3)), np.array([0.0, 2.0])
    return audit.Case(f, y0, ts, weights, lambda ys: 0.5 * np.sum(ys * ys), (0.8,))


def kinks_of(case: audit.Case) -> np.ndarray:
    """The nodes inside the interval, at which each solve is to end a step."""
    return np.array([t for t in case.breakpoints if case.ts[0] < t < case.ts[-1]])


@functools.cache
def errors_between_nodes(mode: str, gradient: str) -> np.ndarray:
    case = few_nodes(mode)
    jumps = {"jump_ts": kinks_of(case)}
    exact, _ = gradients(case, rtol=1e-13, atol=1e-13, **jumps)
    return errors_of(case, exact, gradient, **jumps)


MODES = ("train", "eval")  # training by the population integrates the same equation as evaluation


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("gradient", CONTINUOUS)
@pytest.mark.parametrize("mode", MODES)
def test_between_nodes_the_error_is_at_most_a_hundred_tolerances(mode, gradient, argument):
    found = errors_between_nodes(mode, gradient)[ARGUMENTS[argument]]
    assert np.all(found <= 100 * RTOLS), found / RTOLS


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("gradient", CONTINUOUS)
@pytest.mark.parametrize("mode", MODES)
def test_between_nodes_the_error_falls_in_proportion_to_the_tolerance(mode, gradient, argument):
    found = errors_between_nodes(mode, gradient)[ARGUMENTS[argument]]
    assert abs(slope(found) - 1.0) <= 0.2, found


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("mode", MODES)
def test_between_nodes_interpolated_is_within_a_factor_of_three_of_backsolve(mode, argument):
    back, interpolated = (np.log(errors_between_nodes(mode, g)[ARGUMENTS[argument]]) for g in CONTINUOUS)
    assert np.exp(np.mean(interpolated - back)) <= 3.0


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_the_network_of_the_study_is_solved_well_between_its_nodes(gradient):
    """101 of them, gamma and alpha moving as a whole; the reference makes four steps between two nodes."""
    case, rtol = case_of("tabn-train"), 1e-6
    nodes = np.union1d(case.ts, kinks_of(case))
    grid = np.union1d(np.linspace(nodes[:-1], nodes[1:], 4, endpoint=False).ravel(), nodes)
    exact, _ = gradients(case, grid=grid)
    found, _ = gradients(case, gradient=gradient, rtol=rtol, atol=rtol, jump_ts=kinks_of(case))
    assert all(relative_error(x, e) <= 100 * rtol for x, e in zip(found, exact, strict=True))
