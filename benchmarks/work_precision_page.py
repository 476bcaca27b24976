"""Tables and pictures of what `work_precision` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from odegrad.train.plots.style import picture
from odegrad.train.solve.pictures import fill_work_precision
from odegrad.train.solve.work_precision import Point, cost_ratio

DRAWN = {
    "order-3": ("B1", "C5", "D5", "lorenz"),
    "order-5": ("B1", "C5", "D5", "lorenz", "kepler", "pleiades"),
    "order-8": ("B1", "C5", "D5", "lorenz", "kepler", "pleiades"),
    "stiff": ("van-der-pol-1000", "robertson", "hires"),
}
Curve = list[Point]
Curves = Mapping[tuple[str, str], Curve]  # (problem, solver)


def write_page(points: Sequence[Point], groups: Mapping[str, Sequence[str]], folder: Path) -> None:
    """work_precision.md and a picture for each group; `groups` has the solvers of each, ours first.

    Solvers that were not measured are left out.
    """
    curves: dict[tuple[str, str], Curve] = {}
    for point in points:
        curves.setdefault((point.problem, point.solver), []).append(point)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        "# Work and precision\n",
        "Made by `python -m benchmarks.work_precision --curves benchmarks/results/work_precision-cpu.jsonl --page "
        "docs/solvers`; what an error is says `error_of` in train/solve/work_precision.py, and atol is rtol times the "
        "smallest component that matters.\n",
    ]
    measured = {solver for _, solver in curves}
    for group, names in groups.items():
        solvers = [name for name in names if name in measured]
        problems = list(dict.fromkeys(problem for problem, solver in curves if solver in solvers))
        if problems:
            parts += [_costs_table(curves, group, problems, solvers), f"![{group}]({group}.png)\n"]
            _draw(curves, [p for p in DRAWN[group] if p in problems], solvers, folder / f"{group}.png")
    (folder / "work_precision.md").write_text("\n".join(parts))


def _costs_table(curves: Curves, group: str, problems: Sequence[str], solvers: Sequence[str]) -> str:
    """Our evaluations over theirs for equal errors."""
    mine = [solver for solver in solvers if solver.startswith("odegrad")]
    peers = [solver for solver in solvers if solver not in mine]
    head = [f"{m.removeprefix('odegrad ')} / {p}" for m in mine for p in peers]
    head += [f"{m.removeprefix('odegrad ')} / best" for m in mine] + ["our best / best"]
    rows = []
    for problem in problems:
        table = [
            [cost_ratio(curves.get((problem, m), []), curves.get((problem, p), [])) for p in peers]
            for m in mine
        ]
        worst = [max((r for r in row if r is not None), default=None) for row in table]
        ours = min((r for r in worst if r is not None), default=None)
        rows.append([*(r for row in table for r in row), *worst, ours])
    lines = [
        f"## Evaluations for equal errors, {group}\n",
        "Ours over theirs, the geometric mean over the errors that both reached; `best` is the cheapest peer.\n",
        "| problem |" + "".join(f" {name} |" for name in head),
        "|---|" + "---|" * len(head),
    ]
    lines += [
        f"| {problem} |" + "".join(map(_cell, row)) for problem, row in zip(problems, rows, strict=True)
    ]
    columns = [[r for r in column if r is not None] for column in zip(*rows, strict=True)]
    lines.append("| median |" + "".join(_cell(_median(column)) for column in columns))
    return "\n".join(lines) + "\n"


def _cell(ratio: float | None) -> str:
    return " - |" if ratio is None else f" {ratio:.2f} |"


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _draw(curves: Curves, problems: Sequence[str], solvers: Sequence[str], path: Path) -> None:
    """A panel for each problem."""
    if not problems:
        return
    columns = min(3, len(problems))
    rows = -(-len(problems) // columns)
    with picture(path, 3.6 * columns, 3.2 * rows + 0.5) as figure:
        panels = np.ravel(figure.subplots(rows, columns))
        for axes, problem in zip(panels, problems, strict=False):
            known = [point for solver in solvers for point in curves.get((problem, solver), [])]
            fill_work_precision(axes, known)
            axes.set_title(problem)
        for axes in panels[len(problems) :]:
            axes.remove()
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
