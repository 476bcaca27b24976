"""What `odegrad solve` does: a solve, its pictures, and its cost beside SciPy's, in a folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...engine.atomic import replace_file
from ...engine.errors import ArgumentError, StiffnessWarning
from ...solvers.methods import method_named
from ..metrics import json_text
from .pictures import draw_solution, draw_steps, draw_work_precision
from .problem import Textbook
from .run import solve
from .work_precision import Point, Solver, fixed, measure, ours, scipy_peers, scipys

STIFF_METHOD = "radau5"
RTOLS = tuple(10.0**-k for k in range(3, 11))


def default_method(problem: Textbook) -> str:
    """The method for a problem when none is asked for."""
    return STIFF_METHOD if problem.is_stiff else "dopri5"


def report(
    problem: Textbook,
    folder: str | Path,
    method: str | None = None,
    rtol: float = 1e-6,
    atol: float | None = None,
    step_size: float | None = None,
    rtols: Sequence[float] = RTOLS,
) -> dict[str, Any]:
    """Solve the problem, draw solution.*, steps.* and work_precision.* (PNG and SVG), and write solve.json.

    Args:
        rtols: tolerances of the work-precision diagram; none: no diagram.
    Returns: a summary; `error` is measured against the stored solution.
    Raises: ArgumentError for arguments; a SolveError where the problem could not be solved; OSError.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"pictures of a solve go into a folder; {str(folder)!r} is a file")
    wrong = [value for value in rtols if not 0 < value < 1]
    if wrong:
        raise ArgumentError(f"`rtols` must be tolerances in (0, 1); got {wrong[0]!r}")
    method = method_named(method or default_method(problem)).name
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", StiffnessWarning)
        run = solve(problem, method, rtol, atol, step_size)
    points = measure(problem, beside_scipy(problem, method), rtols)
    folder.mkdir(parents=True, exist_ok=True)
    made = [*draw_solution(run, folder / "solution"), *draw_steps(run, folder / "steps")]
    if rtols:
        made += draw_work_precision(points, problem.name, folder / "work_precision")
    summary = {
        "problem": problem.name,
        "method": method,
        "rtol": run.rtol,
        "atol": run.atol,
        "error": run.error,
        "nfe": run.stats.nfe,
        "accepted": run.stats.n_accepted,
        "rejected": run.stats.n_rejected,
        "seconds": run.seconds,
        "warnings": [" ".join(str(warning.message).split()) for warning in said],
    }
    contents = {
        **summary,
        "y_end": run.ys[-1].tolist(),
        "work_precision": [_known(point) for point in points],
    }
    replace_file(folder / "solve.json", [(json_text(contents) + "\n").encode()])
    return {**summary, "pictures": [str(path) for path in made]}


def beside_scipy(problem: Textbook, method: str) -> dict[str, Solver]:
    """This method and SciPy's to compare it with, by the names that pictures show."""
    mine = ours(method) if method_named(method).is_adaptive else fixed(method)
    peers = {f"scipy {name}": scipys(name) for name in scipy_peers(method, problem)}
    return {f"odegrad {method}": mine, **peers}


def _known(point: Point) -> dict[str, Any]:
    """Without the NaN that a failure has for an error."""
    found = asdict(point)
    return {**found, "error": None} if point.failure else found
