"""What accuracy costs: error against evaluations of f, tolerance by tolerance, ours beside SciPy's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from ...engine.errors import SolveError
from ...solvers.methods import METHODS
from ...solvers.odeint import odeint
from .problem import Textbook
from .registry import reference

Solver = Callable[[Textbook, float, float], tuple[np.ndarray, int]]  # (problem, rtol, atol) -> ys (T, D), nfe

SAME_ORDER = {3: ("RK23",), 5: ("RK45",), 8: ("DOP853",)}
FOR_STIFF = ("Radau", "BDF", "LSODA")
MOST_EVALUATIONS = 1_000_000  # a solve is given up beyond it


class TooExpensive(RuntimeError):
    """A solve that needed more than MOST_EVALUATIONS."""


@dataclass(frozen=True)
class Point:
    """One solve.

    Attributes:
        nfe: every call of f, those for finite-difference Jacobians included;
            an exact Jacobian counts as D of them.
        error: as `error_of` measures it; NaN where the solve failed.
        failure: type of the error that ended it.
    """

    problem: str
    solver: str
    rtol: float
    nfe: int
    error: float
    failure: str = ""


def error_of(problem: Textbook, ys: np.ndarray) -> float:
    """Root mean square, over output times after the first and components, of (ys - reference) / scale.

    The scale of a component is its largest value at the output times, or `problem.smallest` if that is
    larger: what lies below atol is not asked for.
    """
    truth = reference(problem)
    scale = np.maximum(np.abs(truth).max(axis=0), problem.smallest)
    ratio = (ys[1:] - truth[1:]) / scale
    return float(np.sqrt(np.mean(ratio * ratio)))


def ours(method: str, **options: Any) -> Solver:
    """odegrad with this adaptive method; a Jacobian counts as D evaluations, what differences would take."""

    def solve(problem: Textbook, rtol: float, atol: float) -> tuple[np.ndarray, int]:
        most = MOST_EVALUATIONS // METHODS[method].stages
        sol = odeint(
            problem.f, problem.y0, problem.ts, method=method, rtol=rtol, atol=atol, max_steps=most,
            warn_stiff=False, **options,
        )  # fmt: skip
        return sol.ys, sol.stats.nfe + sol.stats.n_jacobians * problem.y0.size

    return solve


def fixed(method: str) -> Solver:
    """odegrad with a method of fixed steps, as many as its order needs for an error in proportion to rtol."""

    def solve(problem: Textbook, rtol: float, atol: float) -> tuple[np.ndarray, int]:
        del atol
        step_size = abs(problem.ts[1] - problem.ts[0]) * rtol ** (1.0 / METHODS[method].order)
        most = MOST_EVALUATIONS // max(METHODS[method].stages, 1)
        sol = odeint(problem.f, problem.y0, problem.ts, method=method, step_size=step_size, max_steps=most)
        return sol.ys, sol.stats.nfe

    return solve


def scipys(method: str) -> Solver:
    """`scipy.integrate.solve_ivp` with this method."""

    def solve(problem: Textbook, rtol: float, atol: float) -> tuple[np.ndarray, int]:
        f, count = counted(problem.f)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # RK45 warns of rtol below 100 epsilon, LSODA of its own troubles
            found = solve_ivp(
                f, (problem.ts[0], problem.ts[-1]), problem.y0, method=method, t_eval=problem.ts, rtol=rtol,
                atol=atol,
            )  # fmt: skip
        if not found.success:
            raise RuntimeError(found.message)
        return found.y.T, count()

    return solve


def counted(f: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], int]]:
    """f that counts its calls and raises TooExpensive beyond MOST_EVALUATIONS, and what it counted so far."""
    calls = 0

    def counting(t: Any, y: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > MOST_EVALUATIONS:
            raise TooExpensive(f"more than {MOST_EVALUATIONS} evaluations of f")
        return f(t, y)

    return counting, lambda: calls


def scipy_peers(method: str, problem: Textbook) -> tuple[str, ...]:
    """SciPy's methods to set beside ours: explicit ones of the nearest order, or those for stiff problems."""
    if problem.is_stiff:
        return FOR_STIFF
    order = METHODS[method].order
    return SAME_ORDER[min(SAME_ORDER, key=lambda known: abs(known - order))]


def measure(problem: Textbook, solvers: Mapping[str, Solver], rtols: Iterable[float]) -> list[Point]:
    """A point for each solver and tolerance; atol is rtol times `problem.smallest`."""
    return [
        _point(problem, name, solver, rtol) for rtol in rtols for name, solver in solvers.items()
    ]  # fmt: skip


def _point(problem: Textbook, name: str, solver: Solver, rtol: float) -> Point:
    try:
        with np.errstate(all="ignore"):
            ys, nfe = solver(problem, rtol, rtol * problem.smallest)
    except (SolveError, RuntimeError, ValueError) as error:  # ValueError: SciPy, of NaN in a Jacobian
        return Point(problem.name, name, rtol, 0, float("nan"), type(error).__name__)
    return Point(problem.name, name, rtol, nfe, error_of(problem, ys))


def cost_at(points: Sequence[Point], error: float) -> float | None:
    """Evaluations of one solver for this error: linear in log-log between its points;
    None outside what it reached.

    Points at which a tighter tolerance gave a larger error are left out: nobody would choose them.
    """
    known = [p for p in points if not p.failure and p.error > 0]
    useful = [p for p in known if not any(q.nfe <= p.nfe and q.error < p.error for q in known)]
    useful.sort(key=lambda p: p.error)
    if len(useful) < 2 or not useful[0].error <= error <= useful[-1].error:
        return None
    logs = np.log([[p.error, p.nfe] for p in useful])
    return float(np.exp(np.interp(np.log(error), logs[:, 0], logs[:, 1])))


def cost_ratio(mine: Sequence[Point], theirs: Sequence[Point]) -> float | None:
    """Our evaluations over theirs for equal errors: the geometric mean over the errors that both reached.

    None where the two curves have no error in common.
    """
    spans = [[p.error for p in points if not p.failure and p.error > 0] for points in (mine, theirs)]
    if not all(spans):
        return None
    low, high = max(map(min, spans)), min(map(max, spans))
    if not low < high:
        return None
    ratios = []
    for error in np.geomspace(low * 1.000001, high * 0.999999, 25):
        pair = cost_at(mine, error), cost_at(theirs, error)
        if pair[0] is not None and pair[1] is not None:
            ratios.append(np.log(pair[0] / pair[1]))
    return float(np.exp(np.mean(ratios))) if ratios else None
