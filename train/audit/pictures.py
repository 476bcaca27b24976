"""Pictures of an audit, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..plots.style import BLUE, GREEN, GREY, ORANGE, picture
from .measure import Measurement

_MARKS = {
    "tape": (GREY, "x"),
    "discrete": (BLUE, "o"),
    "backsolve": (ORANGE, "s"),
    "interpolated": (GREEN, "^"),
    "reversible": ("#CC79A7", "D"),
}
_LINES = {"float64": "-", "float32": ":"}


def draw_errors(rows: Sequence[Measurement], stem: Path) -> list[Path]:
    """Relative error against rtol, and against evaluations."""
    return _draw(rows, stem, [("rtol", "error"), ("evaluations", "error")])


def draw_costs(rows: Sequence[Measurement], stem: Path) -> list[Path]:
    """Relative error against bytes kept and against seconds; drift against rtol."""
    return _draw(rows, stem, [("peak_saved_bytes", "error"), ("seconds", "error"), ("rtol", "drift")])


_LABELS = {
    "rtol": "rtol",
    "error": "relative error of the gradient",
    "evaluations": "evaluations of f and pull-backs",
    "peak_saved_bytes": "bytes kept between the passes",
    "seconds": "seconds, both passes",
    "drift": "drift / (atol + rtol |y|)",
}


def _draw(rows: Sequence[Measurement], stem: Path, panels: list[tuple[str, str]]) -> list[Path]:
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path in paths:
        with picture(path, 4.2 * len(panels), 3.8) as figure:
            for axes, (x, y) in zip(figure.subplots(1, len(panels)), panels, strict=True):
                _panel(axes, rows, x, y)
            handles, labels = figure.axes[0].get_legend_handles_labels()
            if handles:
                figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return paths


def _panel(axes: Any, rows: Sequence[Measurement], x: str, y: str) -> None:
    from matplotlib.ticker import NullFormatter

    for dtype in dict.fromkeys(row.dtype for row in rows):
        for gradient in dict.fromkeys(row.gradient for row in rows):
            points = [
                (getattr(row, x), getattr(row, y))
                for row in rows
                if (row.gradient, row.dtype) == (gradient, dtype)
                and getattr(row, x) > 0
                and getattr(row, y) > 0
            ]
            colour, mark = _MARKS.get(gradient, (GREY, "."))
            label = f"{gradient}, {dtype}"
            if points:
                xs, ys = zip(*points, strict=True)
                axes.plot(
                    xs,
                    ys,
                    color=colour,
                    marker=mark,
                    linestyle=_LINES.get(dtype, "--"),
                    label=label,
                    markersize=4,
                )
    axes.set(xlabel=_LABELS[x], ylabel=_LABELS[y])
    if not axes.lines:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center")
        return
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())  # over less than a decade they would overlap
    if x == "rtol":
        axes.invert_xaxis()
