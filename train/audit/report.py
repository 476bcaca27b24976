"""The page of an audit: tables and pictures in a folder, and what they say about each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.errors import ArgumentError
from ...engine.tree import leaves_with_paths, path_name
from ..atomic import replace_file
from ..metrics import json_text
from .measure import Measurement, Reference, measure, reference
from .pictures import draw_costs, draw_errors
from .problems import Problem

_TARGETS = (1e-2, 1e-4, 1e-6, 1e-8)


def audit(
    problem: Problem,
    folder: str | Path,
    gradients: Sequence[str],
    rtols: Sequence[float],
    dtypes: Sequence[str],
) -> dict[str, Any]:
    """Measure every method and write audit.md, audit.json and two pictures (PNG and SVG) into `folder`.

    Returns: {"page", "pictures", "reference_uncertainty", "best": {target error: method}, "failures"}.
    Raises: ArgumentError for arguments and where the reference cannot be solved; OSError. A method that fails is a row of
        the table.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"the page of an audit goes into a folder; {str(folder)!r} is a file")
    truth = reference(problem)
    rows = measure(problem, truth, gradients, rtols, dtypes)
    folder.mkdir(parents=True, exist_ok=True)
    made = [*draw_errors(rows, folder / "errors"), *draw_costs(rows, folder / "costs")]
    replace_file(folder / "audit.json", [(json_text([asdict(row) for row in rows]) + "\n").encode()])
    page = folder / "audit.md"
    replace_file(page, [_page(problem, truth, rows).encode()])
    return {
        "page": str(page),
        "pictures": [str(path) for path in made],
        "reference_uncertainty": truth.uncertainty,
        "best": {f"{target:g}": cheapest(rows, target) for target in _TARGETS},
        "failures": sum(bool(row.failure) for row in rows),
    }


def cheapest(rows: Sequence[Measurement], target: float) -> str | None:
    """The float64 method that reaches a relative error `target` with the fewest evaluations, with its tolerance."""
    reached = [row for row in rows if row.dtype == "float64" and row.error <= target]
    if not reached:
        return None
    best = min(reached, key=lambda row: row.evaluations)
    return f"{best.gradient} at rtol {best.rtol:g} ({best.evaluations} evaluations)"


def _page(problem: Problem, truth: Reference, rows: Sequence[Measurement]) -> str:
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    parts = [
        f"# Gradients of {problem.name}\n",
        problem.about + "\n",
        _sizes(problem),
        _about_reference(truth),
        "An error is |g - reference| / |reference| over y0, params and ts together. Evaluations are those of f, forward "
        "and backward, and pull-backs to state and parameters, added up. atol is rtol times the largest entry of y0, or a "
        "thousandth of rtol. "
        "Drift is that of a state which a method reconstructs backwards, in units of atol + rtol |y|.\n",
        "## Which method\n",
        _advice(rows, truth),
        "![Relative error against tolerance and against evaluations](errors.png)\n",
        "![Relative error against memory and time, and drift against tolerance](costs.png)\n",
    ]
    for dtype in dtypes:
        parts.append(f"## {dtype}\n")
        parts.append(_table([row for row in rows if row.dtype == dtype]))
    return "\n".join(parts)


def _sizes(problem: Problem) -> str:
    case = problem.build(np.dtype(np.float64))
    state = ", ".join(f"{path_name(p) if p else 'y0'} {leaf.shape}" for p, leaf in leaves_with_paths(case.y0))
    n_params = sum(leaf.size for _, leaf in leaves_with_paths(case.params))
    ts = case.ts
    return f"State: {state}; {n_params} parameters; {len(ts)} output times in [{ts[0]:g}, {ts[-1]:g}].\n"


def _about_reference(truth: Reference) -> str:
    if truth.is_exact:
        return f"Reference: {truth.source}; a solve at the tightest tolerance is {truth.uncertainty:.1e} away from it. The loss is {truth.loss:.10g}.\n"
    return (
        f"Reference: {truth.source}; its own relative error is {truth.uncertainty:.1e}. An error below it means nothing. "
        f"The loss is {truth.loss:.10g}.\n"
    )


def _advice(rows: Sequence[Measurement], truth: Reference) -> str:
    lines = []
    for target in _TARGETS:
        best = cheapest(rows, target)
        if target <= truth.uncertainty and not truth.is_exact:
            best = "the reference is not good enough to tell"
        lines.append(f"* Error {target:g}: {best or 'no method reached it at these tolerances'}.")
    for gradient in dict.fromkeys(row.gradient for row in rows):
        failed = [row for row in rows if row.gradient == gradient and row.failure]
        if failed:
            at = ", ".join(f"{row.rtol:g} ({row.dtype})" for row in failed)
            lines.append(f"* `{gradient}` refused at rtol {at}: {failed[0].failure}")
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Measurement]) -> str:
    head = (
        "| method | rtol | error | of y0 | of params | of ts | nfe forward | nfe backward | VJPs state + params | "
        "kept | seconds | drift |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(_row(row) for row in rows)


def _row(row: Measurement) -> str:
    if row.failure:
        return f"| `{row.gradient}` | {row.rtol:.0e} | {row.failure.partition(':')[0]} |" + " |" * 9 + "\n"
    errors = " | ".join(f"{e:.1e}" for e in (row.error, row.error_y0, row.error_params, row.error_ts))
    drift = f"{row.drift:.1e}" if row.drift else "-"
    return (
        f"| `{row.gradient}` | {row.rtol:.0e} | {errors} | {row.nfe_forward} | {row.nfe_backward} | "
        f"{row.n_vjp_state} + {row.n_vjp_params} | {_bytes(row.peak_saved_bytes)} | {row.seconds:.2g} | {drift} |\n"
    )


def _bytes(n: int) -> str:
    if n < 1024:
        return f"{n} B"
    power = min(int(math.log2(n) // 10), 3)
    return f"{n / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
