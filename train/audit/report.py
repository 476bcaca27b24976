"""The page of an audit: tables and pictures in a folder, and what they say about each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.atomic import replace_file
from ...engine.errors import ArgumentError
from ...engine.tree import leaves_with_paths, path_name
from ..metrics import json_text
from .case import Problem
from .equal_error import equal_error_table
from .measure import Measurement, measure
from .peers import missing_packages
from .pictures import draw_costs, draw_errors
from .reference import Reference, reference
from .tables import in_bytes, short, table

_TARGETS = (1e-2, 1e-4, 1e-6, 1e-8)
_UNITS = (
    "An error is |g - reference| / |reference| over y0 and params together, which every method gives; that "
    "of ts stands apart. Evaluations are those of f, forward and backward, and pull-backs to state and "
    "parameters, added up; a pull-back to both at once counts as two. atol is rtol times the largest entry "
    "of y0, at least a thousandth of rtol. Drift is that of a state which a method reconstructs backwards, "
    "in units of atol + rtol |y|. Seconds are those of the machine that made this page, with whatever else "
    "it did.\n"
)
_AT_EQUAL_ERROR = (
    "Evaluations on the way back, pull-backs included, and in brackets those of f alone, at the error that "
    "heads the column, interpolated between tolerances in the logarithms of error and cost; a dash where the "
    "tolerances measured do not embrace that error.\n"
)


def audit(
    problem: Problem,
    folder: str | Path,
    gradients: Sequence[str],
    rtols: Sequence[float],
    dtypes: Sequence[str],
    *,
    peers: bool = False,
) -> dict[str, Any]:
    """Measure every method and write audit.md, audit.json and two pictures (PNG and SVG) into `folder`.

    With `peers` the gradients of torchdiffeq and diffrax stand beside ours, where they are installed.
    Returns: {"page", "pictures", "reference_uncertainty", "best": {target error: method}, "failures"}.
    Raises: ArgumentError for arguments and where the reference cannot be solved; OSError. A method that fails
        is a row of the table.
    """
    folder = new_folder(folder)
    truth = reference(problem)
    rows = measure(problem, truth, gradients, rtols, dtypes, peers=peers)
    folder.mkdir(parents=True, exist_ok=True)
    made = [*draw_errors(rows, folder / "errors"), *draw_costs(rows, folder / "costs")]
    write_rows(rows, folder)
    page = folder / "audit.md"
    replace_file(page, [_page(problem, truth, rows, about_peers(problem, asked=peers)).encode()])
    return {
        "page": str(page),
        "pictures": [str(path) for path in made],
        "reference_uncertainty": truth.uncertainty,
        "best": {f"{target:g}": cheapest(rows, target) for target in _TARGETS},
        "failures": sum(bool(row.failure) and not row.is_left_out for row in rows),
    }


def new_folder(folder: str | Path) -> Path:
    """Where the page goes; ArgumentError if that is a file."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"the page of an audit goes into a folder; {str(folder)!r} is a file")
    return folder


def write_rows(rows: Sequence[Measurement], folder: Path) -> None:
    """All measurements as audit.json."""
    replace_file(folder / "audit.json", [(json_text([asdict(row) for row in rows]) + "\n").encode()])


def about_peers(problem: Problem, *, asked: bool) -> str:
    """What the page says about other libraries: that they are missing, or how they were run."""
    if not asked:
        return ""
    if problem.portable is None:
        return "Other libraries are put beside ours on the named problems only.\n"
    missing = missing_packages()
    found = [name for name in ("torchdiffeq", "diffrax") if name not in missing]
    lines = []
    if found:
        lines.append(
            f"{' and '.join(found)} with their dopri5, default controllers and the same rtol and atol, on "
            "the same problem: slopes and loss agree to round-off, or there were no page. `seminorm` keeps "
            "the parameters out of the backward error norm, which the library offers and does not do by "
            "itself. What is compiled is compiled before it is timed. A peer that took 20 s is not asked "
            "for tighter tolerances."
        )
    if missing:
        lines.append(
            f"For the gradients of {' and '.join(missing)} beside these: `pip install 'odegrad[peers]'`, and "
            "again."
        )
    return " ".join(lines) + "\n"


def cheapest(rows: Sequence[Measurement], target: float) -> str | None:
    """The float64 method that reaches a relative error `target` with the fewest evaluations, and its rtol."""
    reached = [row for row in rows if row.dtype == "float64" and row.error <= target]
    if not reached:
        return None
    best = min(reached, key=lambda row: row.evaluations)
    return f"{best.gradient} at rtol {best.rtol:g} ({best.evaluations} evaluations)"


def _page(problem: Problem, truth: Reference, rows: Sequence[Measurement], peers: str) -> str:
    parts = [
        f"# Gradients of {problem.name}\n",
        problem.about + "\n",
        _sizes(problem),
        _about_reference(truth),
        _UNITS,
        *([peers] if peers else []),
        "## Which method\n",
        _advice(rows, truth),
        "![Relative error against tolerance and against evaluations](errors.png)\n",
        "![Relative error against memory and time, and drift against tolerance](costs.png)\n",
    ]
    equal = equal_error_table(rows, truth)
    if equal:
        parts += ["## The way back at equal error\n", _AT_EQUAL_ERROR, equal]
    for dtype in dict.fromkeys(row.dtype for row in rows):
        parts += [f"## {dtype}\n", _table([row for row in rows if row.dtype == dtype])]
    return "\n".join(parts)


def _sizes(problem: Problem) -> str:
    case = problem.build(np.dtype(np.float64))
    state = ", ".join(f"{path_name(p) if p else 'y0'} {leaf.shape}" for p, leaf in leaves_with_paths(case.y0))
    n_params = sum(leaf.size for _, leaf in leaves_with_paths(case.params))
    ts = case.ts
    return f"State: {state}; {n_params} parameters; {len(ts)} output times in [{ts[0]:g}, {ts[-1]:g}].\n"


def _about_reference(truth: Reference) -> str:
    how_good = (
        f"a solve at the tightest tolerance is {truth.uncertainty:.1e} away from it."
        if truth.is_exact
        else f"its own relative error is {truth.uncertainty:.1e}. An error below it means nothing."
    )
    return f"Reference: {truth.source}; {how_good} The loss is {truth.loss:.10g}.\n"


def _advice(rows: Sequence[Measurement], truth: Reference) -> str:
    lines = []
    for target in _TARGETS:
        best = (
            cheapest(rows, target) if truth.can_tell(target) else "the reference is not good enough to tell"
        )
        lines.append(f"* Error {target:g}: {best or 'no method reached it at these tolerances'}.")
    for gradient in dict.fromkeys(row.gradient for row in rows):
        failed = [row for row in rows if row.gradient == gradient and row.failure and not row.is_left_out]
        if failed:
            at = ", ".join(f"{row.rtol:g} ({row.dtype})" for row in failed)
            lines.append(f"* `{gradient}` refused at rtol {at}: {failed[0].failure}")
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Measurement]) -> str:
    head = [
        "method", "rtol", "error", "of y0", "of params", "of ts", "nfe forward", "nfe backward",
        "VJPs state + params", "kept", "seconds", "drift",
    ]  # fmt: skip
    return table(head, [_cells(row, len(head)) for row in rows])


def _cells(row: Measurement, width: int) -> list[str]:
    named = [f"`{row.gradient}`", f"{row.rtol:.0e}"]
    if row.failure:
        return [*named, row.failure.partition(":")[0], *([""] * (width - 3))]
    return [
        *named,
        *map(short, (row.error, row.error_y0, row.error_params, row.error_ts)),
        str(row.nfe_forward),
        str(row.nfe_backward),
        f"{row.n_vjp_state} + {row.n_vjp_params}",
        in_bytes(row.peak_saved_bytes),
        f"{row.seconds:.2g}",
        f"{row.drift:.1e}" if row.drift else "-",
    ]
