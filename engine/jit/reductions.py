"""Sums, means and extrema over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..program import Step
from .layout import Place, contiguous
from .moves import fill
from .text import Text, nest

Axes = tuple[int, ...]
EXTREMA = {"max": "d_maximum", "min": "d_minimum"}
REDUCTIONS = frozenset(("sum", "unbroadcast", "mean_leading", "max", "min"))


def emit_reduction(text: Text, step: Step, source: Place, out: Place, *, adds: bool) -> None:
    """out = the reduction of source, or with `adds` (sums and means) out += it."""
    name, gone = step.op.name, _reduced_axes(step, source, out)
    kept = tuple(axis for axis in range(len(source.shape)) if axis not in gone)
    target = contiguous(out.block, out.offset, tuple(source.shape[axis] for axis in kept))
    if name in ("max", "min") or max(gone, default=0) > max(kept, default=-1):
        _each_by_itself(text, name, source, target, kept, gone, adds=adds)
    else:
        _row_by_row(text, name, source, target, kept, gone, adds=adds)


def _each_by_itself(
    text: Text, name: str, source: Place, target: Place, kept: Axes, gone: Axes, *, adds: bool
) -> None:
    """One local total for each result: the values of one lie behind each other."""
    (shape, strides), (inner_shape, inner_strides) = _along(source, kept), _along(source, gone)
    with nest(text, shape, [strides, target.strides]) as (start, to):
        text.line(f"total = {source.at(start) if name in EXTREMA else 'd(0.0)'}")
        with nest(text, inner_shape, [inner_strides]) as (offset,):
            text.line(f"total = {EXTREMA.get(name, 'plus')}(total, {source.at(f'{start} + {offset}')})")
        total = _mean("total", name, inner_shape)
        text.line(target.to(to, f"{target.at(to)} + {total}" if adds else total))


def _row_by_row(
    text: Text, name: str, source: Place, target: Place, kept: Axes, gone: Axes, *, adds: bool
) -> None:
    """All results together, as a sum of rows."""
    (shape, strides), (outer_shape, outer_strides) = _along(source, kept), _along(source, gone)
    if not adds:
        fill(text, target)
    still = [0] * len(gone)
    together = [[*outer_strides, *strides], [*still, *target.strides]]
    with nest(text, [*outer_shape, *shape], together) as (i, o):
        text.line(target.to(o, f"{target.at(o)} + {_mean(source.at(i), name, outer_shape)}"))


def _along(source: Place, axes: Axes) -> tuple[list[int], list[int]]:
    """Lengths and strides of some axes."""
    return [source.shape[axis] for axis in axes], [source.strides[axis] for axis in axes]


def _mean(value: str, name: str, shape: Sequence[int]) -> str:
    return f"{value} / d({float(math.prod(shape))})" if name == "mean_leading" else value


def _reduced_axes(step: Step, source: Place, out: Place) -> tuple[int, ...]:
    if step.op.name == "mean_leading":
        return tuple(range(len(source.shape) - 1))
    if step.op.name != "unbroadcast":
        return tuple(step.static["axes"])
    extra, shape = len(source.shape) - len(out.shape), out.shape
    return tuple(range(extra)) + tuple(
        k + extra for k, n in enumerate(shape) if n == 1 and source.shape[k + extra] != 1
    )
