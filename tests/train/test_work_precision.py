"""Errors, counts and costs of the textbook problems: what they mean, and that ours keep up with SciPy's."""

import numpy as np
import pytest
from odegrad.train.solve import PROBLEMS, Textbook, mirrored
from odegrad.train.solve.registry import reference
from odegrad.train.solve.work_precision import (
    Point,
    cost_at,
    cost_ratio,
    counted,
    error_of,
    fixed,
    measure,
    ours,
    scipy_peers,
    scipys,
)


def curve(errors, nfes):
    return [Point("p", "s", 0.1, nfe, error) for error, nfe in zip(errors, nfes, strict=True)]


def test_the_stored_solution_has_no_error():
    problem = PROBLEMS["C5"]
    assert error_of(problem, reference(problem)) == 0.0


def test_an_error_is_relative_to_the_largest_value_of_its_component():
    problem = PROBLEMS["C5"]
    truth = reference(problem)
    scale = np.maximum(np.abs(truth).max(axis=0), 1.0)
    assert error_of(problem, truth + 1e-3 * scale) == pytest.approx(1e-3, rel=1e-9)


def test_a_component_below_the_tolerance_is_not_asked_for():
    """The last component of C4 never exceeds 2e-14; an error of 1e-6 there counts as such."""
    problem = PROBLEMS["C4"]
    ys = reference(problem).copy()
    ys[:, 50] += 1e-6
    assert error_of(problem, ys) == pytest.approx(1e-6 / np.sqrt(51), rel=1e-6)


@pytest.mark.parametrize("solver", [ours("dopri5"), scipys("RK45"), fixed("rk4")])
def test_every_call_of_f_is_counted(solver):
    problem = PROBLEMS["B1"]
    f, count = counted(problem.f)
    watched = Textbook("B1", f, problem.y0, problem.ts, "", reference="B1")
    _, nfe = solver(watched, 1e-4, 1e-4)
    calls = count() if solver.__qualname__.startswith("scipys") else nfe
    assert nfe == calls > 100


def test_our_count_is_that_of_an_eager_solve():
    problem = PROBLEMS["B1"]
    f, count = counted(problem.f)
    watched = Textbook("B1", f, problem.y0, problem.ts, "", reference="B1")
    _, nfe = ours("dopri5", execution="eager")(watched, 1e-4, 1e-4)
    assert nfe == count()


def test_a_straight_line_is_interpolated_exactly():
    """nfe = error**(-1/5)."""
    errors = np.array([1e-3, 1e-5, 1e-9])
    points = curve(errors, errors**-0.2)
    assert cost_at(points, 1e-7) == pytest.approx(1e-7**-0.2, rel=1e-12)


@pytest.mark.parametrize("error", [1e-2, 1e-10])
def test_no_cost_is_made_up_beyond_what_was_reached(error):
    assert cost_at(curve([1e-3, 1e-9], [10, 100]), error) is None


def test_points_that_cost_more_for_less_are_left_out():
    points = curve([1e-3, 1e-4, 1e-9], [100, 10, 1000])
    assert cost_at(points, 1e-4) == pytest.approx(10)


def test_twice_the_cost_is_a_ratio_of_two():
    errors = np.geomspace(1e-3, 1e-9, 7)
    others = np.geomspace(3e-2, 1e-7, 5)
    ratio = cost_ratio(curve(errors, 2 * errors**-0.2), curve(others, others**-0.2))
    assert ratio == pytest.approx(2.0, rel=1e-9)


def test_curves_without_a_common_error_have_no_ratio():
    assert cost_ratio(curve([1e-3, 1e-4], [10, 20]), curve([1e-6, 1e-7], [10, 20])) is None


def test_a_failure_is_a_point_without_an_error():
    (point,) = measure(PROBLEMS["A1"], {"coarse": ours("dopri5", min_step=5.0)}, [1e-9])
    assert point.failure == "StepSizeUnderflow" and np.isnan(point.error)


@pytest.mark.parametrize(
    ("name", "method", "peers"),
    [
        ("A1", "dopri5", ("RK45",)),
        ("A1", "bosh3", ("RK23",)),
        ("A1", "vern7", ("DOP853",)),
        ("robertson", "kvaerno5", ("Radau", "BDF", "LSODA")),
    ],
)
def test_peers_are_of_the_nearest_order(name, method, peers):
    assert scipy_peers(method, PROBLEMS[name]) == peers


PAIRS = [("bosh3", "RK23", 6), ("dopri5", "RK45", 9)]


@pytest.mark.parametrize(("mine", "theirs"), [("bosh3", "RK23"), ("dopri5", "RK45"), ("dop853", "DOP853")])
@pytest.mark.parametrize("name", ["A4", "B1", "B5", "C3", "C5", "D3", "E2", "E4"])
def test_with_scipys_step_size_control_errors_are_scipys(mine, theirs, name):
    """Coefficients, error estimate, norm, first step, limits and dense output are all judged by this.

    1%: where steps agree to round-off only, errors near a change of their sign do not agree to all digits.
    """
    solvers = {"mine": ours(mine, controller="i"), "theirs": scipys(theirs)}
    errors = np.array([p.error for p in measure(PROBLEMS[name], solvers, [1e-3, 1e-5, 1e-7])]).reshape(-1, 2)
    np.testing.assert_allclose(errors[:, 0], errors[:, 1], rtol=0.01)


@pytest.mark.parametrize(("mine", "theirs", "last"), PAIRS)
@pytest.mark.parametrize("name", ["A4", "B3", "C5", "D1", "D3", "D4", "E2"])
def test_errors_are_no_larger_than_those_of_scipys_method_at_the_same_tolerance(mine, theirs, last, name):
    """1.2 times, at each tolerance, with the default control of step sizes."""
    rtols = [10.0**-k for k in range(3, last + 1)]
    points = measure(PROBLEMS[name], {"mine": ours(mine), "theirs": scipys(theirs)}, rtols)
    errors = np.array([p.error for p in points]).reshape(-1, 2)
    assert (errors[:, 0] <= 1.2 * errors[:, 1]).all()


@pytest.mark.parametrize(("mine", "theirs", "last"), PAIRS)
@pytest.mark.parametrize("name", ["A4", "B3", "C5", "D3", "E2"])
def test_evaluations_for_equal_errors_are_like_those_of_scipys_method(mine, theirs, last, name):
    rtols = [10.0**-k for k in range(3, last + 1)]
    points = measure(PROBLEMS[name], {"mine": ours(mine), "theirs": scipys(theirs)}, rtols)
    curves = [[p for p in points if p.solver == solver] for solver in ("mine", "theirs")]
    ratio = cost_ratio(*curves)
    assert ratio is not None and ratio < 1.05


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "dop853"])
@pytest.mark.parametrize("name", ["A5", "C5", "E3"])
def test_a_mirrored_problem_costs_and_errs_the_same_backwards(method, name):
    forth, back = (
        measure(problem, {"mine": ours(method)}, [1e-3, 1e-6])
        for problem in (PROBLEMS[name], mirrored(PROBLEMS[name]))
    )
    assert [p.nfe for p in forth] == [p.nfe for p in back]
    assert [p.error for p in forth] == pytest.approx([p.error for p in back], rel=1e-6)
