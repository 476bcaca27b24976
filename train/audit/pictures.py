"""Pictures of an audit, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..plots.style import BLUE, GREEN, GREY, ORANGE, picture
from .measure import Measurement

_PURPLE, _YELLOW, _SKY, _BLACK = (
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # of the palette that style.py names
_MARKS = {
    "tape": (GREY, "x"),
    "discrete": (BLUE, "o"),
    "backsolve": (ORANGE, "s"),
    "interpolated": (GREEN, "^"),
    "reversible": (_PURPLE, "D"),
    "torchdiffeq adjoint": (_YELLOW, "<"),
    "torchdiffeq seminorm": (_YELLOW, ">"),
    "diffrax backsolve": (_SKY, "v"),
    "diffrax seminorm": (_SKY, "*"),
    "diffrax checkpoint": (_BLACK, "+"),
}
_WORST = 100.0  # of the errors that are drawn against a size: they know no bound
_LINES = {"float64": "-", "float32": ":"}
_LABELS = {
    "rtol": "rtol",
    "error": "relative error of the gradient",
    "evaluations": "evaluations of f and pull-backs",
    "peak_saved_bytes": "bytes kept between the passes",
    "seconds": "seconds, both passes",
    "drift": "drift / (atol + rtol |y|)",
}


def draw_errors(rows: Sequence[Measurement], stem: Path) -> list[Path]:
    """Relative error against rtol, and against evaluations."""
    return _draw_panels(rows, stem, [("rtol", "error"), ("evaluations", "error")])


def draw_costs(rows: Sequence[Measurement], stem: Path) -> list[Path]:
    """Relative error against bytes kept and against seconds; drift against rtol."""
    return _draw_panels(rows, stem, [("peak_saved_bytes", "error"), ("seconds", "error"), ("rtol", "drift")])


def draw_growth(
    meaning: str,
    sizes: Sequence[float],
    by_size: Sequence[Sequence[Measurement]],
    uncertainties: Sequence[float],
    stem: Path,
) -> list[Path]:
    """Relative error of each method, and of the reference, against the size; a panel for each precision and
    tolerance.

    A line ends, or has a gap, where a method refused.
    """
    kinds = list(dict.fromkeys((row.dtype, row.rtol) for row in by_size[0]))

    def draw(axes: Any, number: int) -> None:
        dtype, rtol = kinds[number]
        for gradient in dict.fromkeys(row.gradient for row in by_size[0]):
            points = [
                next(
                    row.error
                    for row in rows
                    if (row.gradient, row.dtype, row.rtol) == (gradient, dtype, rtol)
                )
                for rows in by_size
            ]
            _line(axes, sizes, [min(error, _WORST) for error in points], gradient, "-", gradient)
        axes.fill_between(sizes, uncertainties, 0.0, color=GREY, alpha=0.2, label="error of the reference")
        most = f", {_WORST:g} where it is more"
        axes.set(xlabel=meaning, ylabel=_LABELS["error"] + most, title=f"{dtype}, rtol {rtol:g}")
        axes.set_yscale("log")
        if sizes[-1] > 30 * sizes[0]:
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])

    return _draw(stem, len(kinds), draw)


def _draw_panels(rows: Sequence[Measurement], stem: Path, panels: list[tuple[str, str]]) -> list[Path]:
    return _draw(stem, len(panels), lambda axes, number: _panel(axes, rows, *panels[number]))


def _draw(stem: Path, n_panels: int, draw: Callable[[Any, int], None]) -> list[Path]:
    """Panels side by side with one legend below."""
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path in paths:
        with picture(path, max(4.2 * n_panels, 6.0), 4.4) as figure:
            for number, axes in enumerate(figure.subplots(1, n_panels, squeeze=False)[0]):
                draw(axes, number)
            lines = _labelled(figure)
            if lines:
                columns = max(2 * n_panels, 3)
                figure.legend(
                    lines.values(), lines.keys(), loc="outside lower center", ncols=columns, fontsize=7
                )
    return paths


def _labelled(figure: Any) -> dict[str, Any]:
    """Label -> line of all panels; a panel need not show every method."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, line)
    return found


def _panel(axes: Any, rows: Sequence[Measurement], x: str, y: str) -> None:
    from matplotlib.ticker import NullFormatter

    for dtype in dict.fromkeys(row.dtype for row in rows):
        for gradient in dict.fromkeys(row.gradient for row in rows):
            own = [row for row in rows if (row.gradient, row.dtype) == (gradient, dtype)]
            points = [(getattr(row, x) or 0, getattr(row, y)) for row in own]
            kept = [(a, b) for a, b in points if a > 0 and b > 0]
            if kept:
                xs, ys = zip(*kept, strict=True)
                _line(axes, xs, ys, gradient, _LINES.get(dtype, "--"), f"{gradient}, {dtype}")
    axes.set(xlabel=_LABELS[x], ylabel=_LABELS[y])
    if not axes.lines:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center")
        return
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())  # over less than a decade they would overlap
    if x == "rtol":
        axes.invert_xaxis()


def _line(axes: Any, xs: Any, ys: Any, gradient: str, line: str, label: str) -> None:
    colour, mark = _MARKS.get(gradient, (GREY, "."))
    axes.plot(xs, ys, color=colour, marker=mark, linestyle=line, label=label, markersize=4)
