"""A problem that grows more difficult, by its horizon or its stiffness: where each method begins to fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...engine.atomic import replace_file
from .case import Problem
from .measure import Measurement, measure
from .pictures import draw_growth
from .reference import reference
from .report import about_peers, new_folder, write_rows
from .tables import short, table

_UNITS = (
    "Relative error of the gradient with respect to y0 and params together, and in brackets evaluations of f "
    "and pull-backs, both passes together; or the error that the method raised. The reference is the adjoint "
    "of the discrete solution at rtol 1e-13; below its own error, in the last row, nothing can be told. atol "
    "is rtol times the largest entry of y0.\n"
)


def audit_growth(
    meaning: str,
    sizes: Sequence[float],
    problems: Sequence[Problem],
    folder: str | Path,
    gradients: Sequence[str],
    rtols: Sequence[float],
    dtypes: Sequence[str],
    *,
    peers: bool = False,
) -> dict[str, Any]:
    """Measure every method on problems of growing size; audit.md, audit.json and a picture go into `folder`.

    Args:
        meaning: what the size is, for the axes.
        sizes: of the problems, in this order.
        gradients, rtols, dtypes, peers: as `audit` takes them; each pair of rtol and dtype has a table and a
            panel.
    Returns: {"page", "pictures", "failures"}.
    Raises: as `audit`.
    """
    folder = new_folder(folder)
    truths = [reference(problem) for problem in problems]
    by_size = [
        measure(problem, truth, gradients, rtols, dtypes, peers=peers)
        for problem, truth in zip(problems, truths, strict=True)
    ]
    uncertainties = [truth.uncertainty for truth in truths]
    folder.mkdir(parents=True, exist_ok=True)
    made = draw_growth(meaning, sizes, by_size, uncertainties, folder / "growth")
    rows = [row for own in by_size for row in own]
    write_rows(rows, folder)
    page = folder / "audit.md"
    said = about_peers(problems[0], asked=peers)
    replace_file(page, [_page(meaning, sizes, problems, by_size, uncertainties, said).encode()])
    return {
        "page": str(page),
        "pictures": [str(path) for path in made],
        "failures": sum(bool(row.failure) and not row.is_left_out for row in rows),
    }


def _page(
    meaning: str,
    sizes: Sequence[float],
    problems: Sequence[Problem],
    by_size: Sequence[Sequence[Measurement]],
    uncertainties: Sequence[float],
    peers: str,
) -> str:
    parts = [
        f"# Gradients as {meaning} grows: {problems[0].name} to {problems[-1].name}\n",
        f"{problems[0].about} The others differ in {meaning} alone.\n",
        _UNITS,
        *([peers] if peers else []),
        *_refusals(meaning, sizes, by_size),
        f"![Relative error against {meaning}](growth.png)\n",
        *_tables(meaning, sizes, by_size, uncertainties),
    ]
    return "\n".join(parts)


def _refusals(meaning: str, sizes: Sequence[float], by_size: Sequence[Sequence[Measurement]]) -> list[str]:
    """For each method that refused, where it did so first, and in which words; one paragraph, or none."""
    first: dict[str, str] = {}
    for size, rows in zip(sizes, by_size, strict=True):
        for row in rows:
            if row.failure and not row.is_left_out:
                first.setdefault(
                    row.gradient, f"* `{row.gradient}` refuses first at {meaning} = {size:g}: {row.failure}\n"
                )
    return ["".join(first.values())] if first else []


def _tables(
    meaning: str,
    sizes: Sequence[float],
    by_size: Sequence[Sequence[Measurement]],
    uncertainties: Sequence[float],
) -> list[str]:
    """For each precision and tolerance a heading and a table: methods down, sizes across."""
    head = [f"{meaning} =", *(f"{size:g}" for size in sizes)]
    last = ["error of the reference", *map(short, uncertainties)]
    found = []
    for dtype, rtol in dict.fromkeys((row.dtype, row.rtol) for row in by_size[0]):
        kept = [[row for row in rows if (row.dtype, row.rtol) == (dtype, rtol)] for rows in by_size]
        lines = [[f"`{rows[0].gradient}`", *map(_cell, rows)] for rows in zip(*kept, strict=True)]
        found += [f"## {dtype}, rtol {rtol:g}\n", table(head, [*lines, last])]
    return found


def _cell(row: Measurement) -> str:
    return row.failure.partition(":")[0] if row.failure else f"{short(row.error)} ({row.evaluations})"
