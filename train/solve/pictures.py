"""Pictures of a solve, each as PNG and SVG: the solution, its steps, and what accuracy costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..plots.style import BLUE, GREEN, GREY, ORANGE, picture
from .registry import reference
from .run import Run
from .work_precision import Point

_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", GREY)
_MARKS = "os^Dvx+"
_MOST_CURVES = 8  # of components against time


def draw_solution(run: Run, stem: Path) -> list[Path]:
    """Components against time, and the problem's phase portraits; dots are the stored solution."""
    pairs = run.problem.portrait
    panels = [pairs] if len(pairs) > 2 else [(pair,) for pair in pairs]

    def fill(figure: Any) -> None:
        first, *others = np.atleast_1d(figure.subplots(1, 1 + len(panels)))
        _against_time(first, run)
        for axes, panel in zip(others, panels, strict=True):
            _portrait(axes, run, panel)

    return _saved(stem, 4.4 * (1 + len(panels)), 3.8, fill)


def draw_steps(run: Run, stem: Path) -> list[Path]:
    """Size and scaled error of each attempted step against time, accepted and rejected ones marked."""

    def fill(figure: Any) -> None:
        sizes, errors = figure.subplots(2, 1, sharex=True)
        for is_accepted, colour, mark, size in ((True, BLUE, ".", 4), (False, ORANGE, "x", 6)):
            steps = [step for step in run.attempts if step.is_accepted is is_accepted]
            label = f"{'accepted' if is_accepted else 'rejected'} ({len(steps)})"
            ts, hs = [step.t for step in steps], [abs(step.h) for step in steps]
            sizes.plot(ts, hs, mark, color=colour, markersize=size, label=label)
            seen = [(step.t, step.error_norm) for step in steps if step.error_norm > 0]
            errors.plot(*zip(*seen, strict=True) if seen else ([], []), mark, color=colour, markersize=size)
        sizes.set(
            ylabel="step size", yscale="log", title=f"{run.problem.name}, {run.method}, {_setting(run)}"
        )
        errors.set(xlabel="t", ylabel="error / tolerance")
        if any(step.error_norm > 0 for step in run.attempts):
            errors.set_yscale("log")
            errors.axhline(1.0, color=GREY, linewidth=0.8)
        _time_axis(errors, run)
        figure.legend(*sizes.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return _saved(stem, 6.4, 5.0, fill)


def draw_work_precision(points: Sequence[Point], title: str, stem: Path) -> list[Path]:
    """Error against evaluations of f, a curve for each solver."""

    def fill(figure: Any) -> None:
        fill_work_precision(figure.subplots(), points)
        figure.axes[0].set_title(title)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=2)

    return _saved(stem, 5.0, 4.4, fill)


def fill_work_precision(axes: Any, points: Sequence[Point]) -> None:
    """The curves of `draw_work_precision` in a panel; solvers that always failed are left out."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for k, solver in enumerate(dict.fromkeys(point.solver for point in points)):
        known = [(p.nfe, p.error) for p in points if p.solver == solver and not p.failure and p.error > 0]
        if known:
            colour, mark = _COLOURS[k % len(_COLOURS)], _MARKS[k % len(_MARKS)]
            axes.plot(*zip(*known, strict=True), color=colour, marker=mark, markersize=4, label=solver)
    axes.set(xlabel="evaluations of f", ylabel="error")
    if axes.lines:
        axes.set(xscale="log", yscale="log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        low, high = axes.get_xlim()
        if high < 50 * low:  # decades alone would be too few
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center")


def _against_time(axes: Any, run: Run) -> None:
    n = run.ys.shape[1]
    shown = range(n) if n <= _MOST_CURVES else np.linspace(0, n - 1, _MOST_CURVES).round().astype(int)
    truth = reference(run.problem)
    for k, i in enumerate(shown):
        colour = _COLOURS[k % len(_COLOURS)]
        axes.plot(run.ts, run.ys[:, i], color=colour, label=f"y{i + 1}", linewidth=1.2)
        axes.plot(run.problem.ts, truth[:, i], ".", color=colour, markersize=4)
    axes.set(xlabel="t", title=f"{run.problem.name}, {run.method}, {_setting(run)}")
    _time_axis(axes, run)
    if len(shown) > 1:
        axes.legend(fontsize=7, ncols=2 if len(shown) > 4 else 1)


def _portrait(axes: Any, run: Run, pairs: Sequence[tuple[int, int]]) -> None:
    """The second of each pair of components against the first, or against time."""
    drawn = np.column_stack([run.ys, run.ts])  # so that -1 is time
    known = np.column_stack([reference(run.problem), run.problem.ts])
    for k, (i, j) in enumerate(pairs):
        colour = _COLOURS[k % len(_COLOURS)]
        axes.plot(drawn[:, i], drawn[:, j], color=colour, linewidth=1.0)
        axes.plot(known[:, i], known[:, j], ".", color=colour, markersize=4)
    i, j = pairs[0]
    if i < 0:
        axes.set(xlabel="t", ylabel=f"y{j + 1}")
        _time_axis(axes, run)
    elif len(pairs) == 1:
        axes.set(xlabel=f"y{i + 1}", ylabel=f"y{j + 1}", title="phase portrait")
    else:
        axes.set(xlabel="x", ylabel="y", title="orbits")


def _time_axis(axes: Any, run: Run) -> None:
    """Logarithmic where output times span decades."""
    ts = np.abs(run.problem.ts)
    if ts[-1] < 1e3 * ts[1]:
        return
    sign = float(np.sign(run.problem.ts[-1]))
    axes.set_xscale("symlog", linthresh=float(ts[1]), linscale=0.3)
    decades = 10.0 ** np.arange(np.ceil(np.log10(ts[1])), np.log10(ts[-1]) + 1e-9)
    axes.set_xticks([0.0, *(sign * decades)])
    axes.set_xlim(*sorted((0.0, float(run.problem.ts[-1]))))


def _setting(run: Run) -> str:
    is_adaptive = any(step.error_norm > 0 for step in run.attempts)
    return f"rtol {run.rtol:g}" if is_adaptive else f"h = {abs(run.attempts[0].h):.3g}"


def _saved(stem: Path, width: float, height: float, fill: Callable[[Any], None]) -> list[Path]:
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path in paths:
        with picture(path, width, height) as figure:
            fill(figure)
    return paths
