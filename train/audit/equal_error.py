"""What the way back costs each method at one and the same achieved error.

Methods are not compared at equal tolerances: what a tolerance means differs from one to the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .measure import Measurement
from .reference import Reference
from .tables import table

TARGETS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def cost_at(rows: Sequence[Measurement], target: float, cost: Callable[[Measurement], int]) -> float | None:
    """What one method spends to reach the error `target`; None if it is outside of what was measured.

    Args:
        rows: of one method in one precision.
        cost: what is asked of a measurement.

    From the loosest tolerance on, the first two neighbours with errors above and below `target` are joined by
    a straight line in the logarithms of error and cost. Where the loosest tolerance is already as good,
    nothing is known of what less would cost.
    """
    found = sorted((row for row in rows if not row.failure and row.error > 0), key=lambda row: -row.rtol)
    for looser, tighter in zip(found, found[1:], strict=False):
        if looser.error > target >= tighter.error:
            share = math.log(looser.error / target) / math.log(looser.error / tighter.error)
            before, after = max(cost(looser), 1), max(cost(tighter), 1)
            return before * (after / before) ** share
    return None


def equal_error_table(rows: Sequence[Measurement], truth: Reference) -> str:
    """A row for each float64 method, a column for each error that two or more reach; "" without columns."""
    by_method: dict[str, list[Measurement]] = {}
    for row in rows:
        if row.dtype == "float64":
            by_method.setdefault(row.gradient, []).append(row)
    columns = {}
    for target in filter(truth.can_tell, TARGETS):
        cells = [_costs(own, target) for own in by_method.values()]
        if sum(cell != "-" for cell in cells) > 1:
            columns[f"{target:.0e}"] = cells
    if not columns:
        return ""
    lines = zip((f"`{method}`" for method in by_method), *columns.values(), strict=True)
    return table(["method", *columns], list(lines))


def _costs(rows: Sequence[Measurement], target: float) -> str:
    total = cost_at(rows, target, lambda row: row.evaluations_backward)
    slopes = cost_at(rows, target, lambda row: row.nfe_backward)
    return "-" if total is None or slopes is None else f"{total:.0f} ({slopes:.0f})"
