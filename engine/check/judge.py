"""Verdicts on the numbers of a gradient: scaled errors, kinks told from errors, remarks for a person."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..trace import shape_of
from .arguments import SURE
from .derivative import difference_along
from .directions import host_vector, norm_of
from .function import ScalarFunction
from .measure import Measured, Probe, place_of
from .report import KINK, OK, UNCLEAR, VERDICTS, WRONG, LeafReport, WorstEntry

FACTOR_SHOWN = 1e-4  # by which a gradient that is a multiple of the right one differs from it


def whole_scale(function: ScalarFunction, gradient: Sequence[Any], measured: Sequence[Measured]) -> float:
    """The norm of the whole gradient; of one that differences cannot tell from zero the size |f| / |x| of
    slopes.
    """
    whole = max(norm_of(gradient), math.hypot(*(m.norm for m in measured)))
    if whole <= SURE * math.hypot(*(m.uncertainty for m in measured)):
        whole = max(whole, abs(function.value) / (norm_of(function.leaves) or 1.0))
    return whole


def judge_leaf(
    function: ScalarFunction, measured: Measured, whole: float, tol: float, eps: float
) -> LeafReport:
    """The verdict on one leaf, its errors relative to its own gradient or, where that is zero,
    to the whole one.
    """
    norm, shape = measured.norm, shape_of(measured.gradient)
    is_zero = norm <= max(SURE * measured.uncertainty, 100.0 * eps * whole)
    scale = whole if is_zero else norm
    judge_probes(function, measured, tol * scale)
    smooth = [p.excess for p in measured.entries if p.verdict != KINK]
    along = [p.excess for p in measured.directions if p.verdict != KINK and not measured.is_complete]
    error = max(math.hypot(*smooth), *along, 0.0)
    verdict = max((p.verdict for p in measured.probes), key=VERDICTS.index)
    if verdict in (OK, KINK) and error > tol * scale:
        verdict = verdict_of(error, tol * scale, measured.uncertainty)
    return LeafReport(
        name=measured.name,
        shape=shape,
        n_entries=len({p.index for p in measured.entries}),
        n_directions=len(measured.directions),
        norm=norm_of([measured.gradient]),
        error=error / scale if scale else 0.0,
        is_scaled_by_whole=is_zero,
        cosine=cosine(measured.entries),
        worst=worst_entry(measured),
        reference_error=measured.uncertainty / scale if scale else 0.0,
        method=" and ".join(sorted({p.derivative.method for p in measured.probes})),
        verdict=verdict,
        notes=(*measured.notes, *remarks(measured, verdict)),
    )


def judge_probes(function: ScalarFunction, measured: Measured, allowed: float) -> None:
    """Set the verdict of every number; what disagrees is looked at by differences, from both sides,
    before it is "wrong".

    An entry at a kink is right with any slope between those of both sides. A direction that crosses kinks of
    several entries at once has slopes that no choice of slopes of the entries need give, so it says nothing.
    """
    for probe in measured.entries:
        if probe.excess <= allowed:
            continue
        slope = probe.derivative = difference_along(function, probe.phi, probe.start, where=measured.name)
        low, high = sorted((slope.left, slope.right))
        slack = allowed + 0.01 * (high - low)
        if slope.is_kink and low - slack <= probe.found <= high + slack:
            probe.verdict = KINK
        elif probe.excess > allowed:
            probe.verdict = WRONG if slope.is_kink else verdict_of(probe.excess, allowed, slope.error)
    has_kinks = any(probe.derivative.is_kink for probe in measured.probes)
    for probe in measured.directions:
        if probe.derivative.is_kink or (has_kinks and probe.excess > allowed):
            probe.verdict = KINK
        elif not measured.is_complete:
            probe.verdict = verdict_of(probe.excess, allowed, probe.derivative.error)


def verdict_of(error: float, allowed: float, uncertainty: float) -> str:
    """Whether an error is within what is allowed, beyond it for sure,
    or beyond it for all that the reference tells.
    """
    if error <= allowed:
        return OK
    return WRONG if error > allowed + SURE * uncertainty else UNCLEAR


def worst_entry(measured: Measured) -> WorstEntry | None:
    """The compared entry with the largest error, those at kinks last."""
    if not measured.entries:
        return None
    index = max(measured.entries, key=lambda p: (p.verdict != KINK, p.excess)).index
    expected: complex = 0.0
    for probe in measured.entries:
        if probe.index == index:  # of a complex leaf the slope along i is minus the imaginary part
            expected += probe.derivative.value * (1.0 if probe.unit == 1.0 else -1j)
    assert index is not None
    shape = shape_of(measured.gradient)
    return WorstEntry(place_of(index, shape), host_vector(measured.gradient)[index].item(), expected)


def cosine(entries: Sequence[Probe]) -> float:
    """The cosine of the angle between the compared entries and their reference; NaN if either is zero."""
    found, expected = [p.found for p in entries], [p.derivative.value for p in entries]
    size = math.hypot(*found) * math.hypot(*expected)
    return float(np.dot(found, expected)) / size if size else math.nan


def remarks(measured: Measured, verdict: str) -> Iterator[str]:
    """What a person should know about a leaf that is not "ok"."""
    kinks = [p for p in measured.probes if p.verdict == KINK]
    if kinks:
        yield _kink_remark(kinks, measured)
    if verdict == UNCLEAR:
        yield (
            f"the error is beyond the tolerance, but the reference itself is uncertain by {measured.uncertainty:.1e}; "
            "use float64, a smoother point, or a larger `tol`"
        )
    alignment = cosine(measured.entries)
    if verdict == WRONG and abs(abs(alignment) - 1.0) < 1e-9:
        found = math.hypot(*(p.found for p in measured.entries))
        expected = math.hypot(*(p.derivative.value for p in measured.entries))
        factor = math.copysign(found / expected, alignment)
        if abs(factor - 1.0) > FACTOR_SHOWN:
            yield f"the compared entries are {factor:.6g} times the expected ones"


def _kink_remark(kinks: Sequence[Probe], measured: Measured) -> str:
    first = kinks[0]
    shape = shape_of(measured.gradient)
    where = "a random direction" if first.index is None else f"entry {list(place_of(first.index, shape))}"
    return (
        f"not differentiable here, along {len(kinks)} of {len(measured.probes)} entries and directions: slopes "
        f"{first.derivative.left:.6g} from the left and {first.derivative.right:.6g} from the right along {where}, "
        f"where the gradient gives {first.found:.6g}"
    )


def empty_leaf(name: str, shape: tuple[int, ...]) -> LeafReport:
    """A leaf without entries: nothing to compare."""
    return LeafReport(name, shape, 0, 0, 0.0, 0.0, False, math.nan, None, 0.0, "nothing to compare", OK)
