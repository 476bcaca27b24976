"""The derivative at 0 of a function of one number: extrapolated central differences, slopes from both sides.

Both choose their steps by themselves and say how far they can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

START = 0.05  # largest step, in units of the argument
SHRINK = 1.7  # from one step to the next; a whole number would see a wave as its alias at every step
LEVELS = 23  # steps: down to 4e-7
COLUMNS = 6  # of the extrapolation table: an error of order h**14
PATIENCE = 5  # levels without an improvement, once CONVERGED
CONVERGED = 1e-6  # estimated error, relative: below it the steps are no longer too large for phi
ONE_SIDED_RATIO = 8.0
NOISE_ORDER, NOISE_POINTS = 6, 16

Curve = Callable[[float], float]


class Extrapolated(NamedTuple):
    """A derivative, an estimate of its error (not a bound), and the smallest step it was taken from."""

    value: float
    error: float
    step: float


class OneSided(NamedTuple):
    """Slopes from the left and from the right, and whether they differ as h goes to 0."""

    left: float
    right: float
    is_kink: bool


def extrapolated_difference(phi: Curve, start: float, eps: float, noise: float = 0.0) -> Extrapolated:
    """phi'(0) from central differences at start, start/1.7, start/1.7**2, ..., extrapolated to h = 0.

    The error is estimated by the change from one entry of the table to its neighbours, plus the round-off of
    phi (eps relative, or the absolute `noise`, if that is more) over h; the entry with the smallest one is
    returned. It ends when round-off alone would make any later entry worse. Steps at which phi is not finite
    are passed over. An error of inf says that no entry was to be trusted.

    Cost: 2 evaluations a level, 4 for a straight line, about 12 for a smooth function.
    Source: Ridders (1982), Adv. Eng. Softw. 4(2), 75-76; with a term for round-off.
    """
    best, since_best = Extrapolated(math.nan, math.inf, start), 0
    coarse: list[float] = []
    for level in range(LEVELS):
        h = start / SHRINK**level
        above, below = phi(h), phi(-h)
        if not (math.isfinite(above) and math.isfinite(below)):
            coarse = []
            continue
        roundoff = 2.0 * max(eps * max(abs(above), abs(below)), noise) / h
        row = [(above - below) / (2.0 * h)]
        for column, rough in enumerate(coarse[:COLUMNS]):
            row.append(row[column] + (row[column] - rough) / (SHRINK ** (2 * column + 2) - 1.0))
        since_best += 1
        for column in range(1, len(row)):
            change = max(abs(row[column] - row[column - 1]), abs(row[column] - coarse[column - 1]))
            if change + roundoff < best.error:
                best, since_best = Extrapolated(row[column], change + roundoff, h), 0
        has_converged = best.error <= CONVERGED * abs(best.value)
        if best.error <= 2.0 * roundoff or (has_converged and since_best >= PATIENCE):
            break
        coarse = row
    return best


def one_sided_slopes(phi: Curve, value: float, step: float, eps: float, noise: float = 0.0) -> OneSided:
    """The slopes of phi at 0 from both sides, at step, step/8 and step/64; `value` is phi(0).

    Their difference shrinks with h where phi is smooth. Where it stays (a kink) or grows (a jump of phi)
    instead, with one sign and above round-off, the point is not one where phi has a derivative.

    Cost: 6 evaluations.
    """
    steps = [step / ONE_SIDED_RATIO**k for k in range(3)]
    right = [(phi(h) - value) / h for h in steps]
    left = [(value - phi(-h)) / h for h in steps]
    gaps = [r - l for r, l in zip(right, left, strict=True)]
    limits = _limit(left), _limit(right)
    roundoff = 4.0 * max(eps * abs(value), noise) / steps[-1]
    if not all(map(math.isfinite, gaps)) or abs(gaps[-1]) <= 20.0 * roundoff:
        return OneSided(*limits, False)
    ratios = [fine / rough if rough else math.inf for rough, fine in zip(gaps, gaps[1:], strict=False)]
    stays = all(0.6 < ratio < 2.0 for ratio in ratios) and abs(gaps[-1]) > 1e-7 * max(map(abs, limits))
    grows = all(0.6 < ratio < 10.0 for ratio in ratios) and abs(gaps[-1]) > 1000.0 * roundoff
    if grows and not stays:
        return OneSided(left[-1], right[-1], True)  # there is no limit
    return OneSided(*limits, stays)


def noise_level(phi: Curve, step: float) -> float:
    """The standard deviation of phi about a smooth curve near 0,
    from its sixth differences at multiples of `step`.

    Those of a smooth curve vanish like step**6; those of independent errors are sqrt(12! / 6!**2) = 30 times
    as large as the errors. 0 where phi is not finite.

    Cost: 16 evaluations.
    Source: More & Wild (2011), SIAM J. Sci. Comput. 33(3), 1292-1314, equation (3.3),
        for one order of differences.
    """
    values = [phi(k * step) for k in range(NOISE_POINTS)]
    if not all(map(math.isfinite, values)):
        return 0.0
    for _ in range(NOISE_ORDER):
        values = [after - before for before, after in zip(values, values[1:], strict=False)]
    mean_square = sum(value * value for value in values) / len(values)
    return math.sqrt(mean_square / math.comb(2 * NOISE_ORDER, NOISE_ORDER))


def _limit(slopes: list[float]) -> float:
    """The last two of one-sided slopes, extrapolated to h = 0."""
    return slopes[-1] + (slopes[-1] - slopes[-2]) / (ONE_SIDED_RATIO - 1.0)
