"""Textbook problems: their formulas and stored solutions against published values, closed forms and each other."""

import numpy as np
import pytest
from detest_end_values import END_VALUES
from odegrad import odeint
from odegrad.engine.errors import ArgumentError
from odegrad.train.solve import PROBLEMS, mirrored, named_problem
from odegrad.train.solve.registry import reference, uncertainty
from odegrad.train.solve.work_precision import error_of
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.special import ellipj

NAMES = list(PROBLEMS)
EPS = np.finfo(float).eps


def distance_at_end(name, expected):
    """The largest difference by component, relative to the component's largest value on the whole way."""
    truth = reference(PROBLEMS[name])[:, : len(expected)]
    return float((np.abs(truth[-1] - expected) / np.abs(truth).max(axis=0)).max())


def test_all_of_detest_is_there():
    assert [name for name in NAMES if len(name) == 2] == [f"{c}{k}" for c in "ABCDE" for k in range(1, 6)]


@pytest.mark.parametrize("name", END_VALUES)
def test_detest_ends_where_it_was_published_to_end(name):
    """The last published digits are doubtful: E5 has 2.400000000000002 for 2.4, and A1 five digits of exp(-20)."""
    assert distance_at_end(name, END_VALUES[name]) < 1e-11


# End values in the Test Set for IVP Solvers (Mazzia & Magherini 2008), release 2.4
PLEIADES_END = [
    *(0.3706139143970502, 3.237284092057233, -3.222559032418324, 0.6597091455775310, 0.3425581707156584),
    *(1.562172101400631, -0.7003092922212495, -3.943437585517392, -3.271380973972550, 5.225081843456543),
    *(-2.590612434977470, 1.198213693392275, -0.2429682344935824, 1.091449240428980),
]
HIRES_END = [
    *(0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4, 0.1175651343283149e-2),
    *(0.2386356198831331e-2, 0.6238968252742796e-2, 0.2849998395185769e-2, 0.2850001604814231e-2),
]


def test_pleiades_ends_where_it_was_published_to_end():
    assert distance_at_end("pleiades", PLEIADES_END) < 1e-11


def test_hires_ends_where_it_was_published_to_end():
    assert distance_at_end("hires", HIRES_END) < 1e-11


def kepler(name):
    """The orbit through perihelion at t = 0 with exactly the doubles of y0, from Kepler's equation in long doubles."""

    def solution(t):
        y0 = PROBLEMS[name].y0.astype(np.longdouble)
        radius, speed = y0[0], y0[3]
        a = 1 / (2 / radius - speed * speed)
        e, n = 1 - radius / a, a ** np.longdouble(-1.5)
        mean = n * t.astype(np.longdouble)
        angle = mean + e * np.sin(mean) / (1 - np.sin(mean + e) + np.sin(mean))
        for _ in range(100):
            step = (angle - e * np.sin(angle) - mean) / (1 - e * np.cos(angle))
            angle = angle - np.clip(step, -0.5, 0.5)
        b, far = a * np.sqrt(1 - e * e), 1 - e * np.cos(angle)
        x, v = a * (np.cos(angle) - e), -a * n * np.sin(angle) / far
        return np.stack([x, b * np.sin(angle), v, b * n * np.cos(angle) / far], axis=1).astype(float)

    return solution


def linear(name):
    """exp(A t) y0; A is the slope at the unit vectors."""

    def solution(t):
        problem = PROBLEMS[name]
        matrix = np.stack([problem.f(0.0, unit) for unit in np.eye(problem.y0.size)], axis=1)
        return np.stack([expm(matrix * time) @ problem.y0 for time in t])

    return solution


def bessel(t):
    x, root = t + 1.0, np.sqrt(2.0 / np.pi / (t + 1.0))
    return np.stack([root * np.sin(x), root * (np.cos(x) - np.sin(x) / (2 * x))], axis=1)


def falling(t):
    a = np.sqrt(0.08)
    return np.stack([30.0 + np.log(np.cosh(0.4 * a * t)) / 0.4, a * np.tanh(0.4 * a * t)], axis=1)


def pursuit(t):
    return np.stack(
        [-12.5 * np.log1p(-t / 25) - t / 2 + t * t / 100, (25 / (25 - t) - (25 - t) / 25) / 2], axis=1
    )


CLOSED_FORMS = {
    "A1": lambda t: np.exp(-t)[:, None],
    "A2": lambda t: 1 / np.sqrt(t + 1)[:, None],
    "A3": lambda t: np.exp(np.sin(t))[:, None],
    "A4": lambda t: 20 / (1 + 19 * np.exp(-t / 4))[:, None],
    "B4": lambda t: np.stack([(2 + np.cos(t)) * np.cos(t), (2 + np.cos(t)) * np.sin(t), np.sin(t)], axis=1),
    "B5": lambda t: np.stack(ellipj(t, 0.51)[:3], axis=1),
    **{name: linear(name) for name in ("B2", "C1", "C2", "C3", "C4")},
    **{name: kepler(name) for name in ("D1", "D2", "D3", "D4", "D5", "kepler")},
    "E1": bessel,
    "E4": falling,
    "E5": pursuit,
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_reference_is_the_closed_form(name):
    """100 ulp: what the closed forms themselves lose to round-off in doubles."""
    problem = PROBLEMS[name]
    truth = CLOSED_FORMS[name](problem.ts)
    scale = np.maximum(np.abs(truth).max(axis=0), 1.0)
    assert np.abs((reference(problem) - truth) / scale).max() < 100 * EPS


@pytest.mark.parametrize("name", NAMES)
def test_both_computations_of_a_reference_agree(name):
    assert uncertainty(PROBLEMS[name]) < 1e-14


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_begins_at_the_initial_state(name):
    problem = PROBLEMS[name]
    truth = reference(problem)
    assert truth.shape == (len(problem.ts), problem.y0.size)
    np.testing.assert_array_equal(truth[0], problem.y0)


@pytest.mark.parametrize("name", NAMES)
def test_the_formula_leads_to_the_reference(name):
    """By SciPy, at a tolerance whose error stays far below what a wrong coefficient would do."""
    problem = PROBLEMS[name]
    rtol, method = (1e-7, "Radau") if problem.is_stiff else (1e-10, "DOP853")
    span, atol = (problem.ts[0], problem.ts[-1]), rtol * problem.smallest
    found = solve_ivp(problem.f, span, problem.y0, method, problem.ts, rtol=rtol, atol=atol)
    assert error_of(problem, found.y.T) < 2e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_traced_problem_is_the_problem(name):
    """What odegrad replays has the values of the NumPy function."""
    problem = PROBLEMS[name]
    t, y = 0.3, problem.y0 + 0.1
    h = 1e-3
    sol = odeint(problem.f, y, [t, t + h], method="euler")
    np.testing.assert_allclose(sol.ys[-1] - y, h * problem.f(t, y), rtol=1e-9, atol=1e-12 * np.abs(y).max())


@pytest.mark.parametrize("name", ["A3", "A5", "E1", "E3", "C5"])
def test_a_mirrored_problem_runs_backwards_through_the_same_states(name):
    problem = mirrored(PROBLEMS[name])
    assert problem.ts[-1] == -20.0
    found = solve_ivp(problem.f, (0.0, -20.0), problem.y0, t_eval=problem.ts, rtol=1e-9, atol=1e-9)
    assert np.abs(found.y.T - reference(PROBLEMS[name])).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "expected"), [("b4", "B4"), ("Lorenz", "lorenz"), ("D5-mirrored", "D5-mirrored")]
)
def test_problems_are_found_by_name(name, expected):
    assert named_problem(name).name == expected


def test_an_unknown_problem_is_named_with_the_nearest():
    with pytest.raises(ArgumentError, match="'lorentz'; did you mean 'lorenz'"):
        named_problem("lorentz")
