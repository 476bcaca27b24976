"""Solutions by Taylor series in decimal arithmetic, for problems that magnify the round-off of anything shorter.

The coefficients of a solution follow from its equation one by one, since that of a product or a power is a sum over those
of its factors: Hairer, Norsett & Wanner (1993), Solving ODEs I, section I.8. `solve` walks from output time to output time
with steps that leave the last terms below its tolerance; `reference` does so twice, with other digits and orders.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import mul

import numpy as np
from odegrad.train.solve import Textbook

Coefficients = list[Decimal]
Series = Callable[
    [Sequence[Decimal], int], list[Coefficients]
]  # (state, order) -> coefficients 0 to order, by component


@dataclass(frozen=True)
class Setting:
    """Digits carried, order of the series, and what the last terms of a step may be of the largest component."""

    digits: int
    order: int
    tolerance: Decimal


COARSE = Setting(32, 24, Decimal("1e-24"))
FINE = Setting(40, 32, Decimal("1e-30"))


def product(a: Coefficients, b: Coefficients, n: int) -> Decimal:
    """Coefficient n of a b."""
    return sum(map(mul, a[: n + 1], b[n::-1]), Decimal(0))


def inverse_cube(square: Coefficients, known: Coefficients, n: int) -> Decimal:
    """Coefficient n of u = square**(-3/2) from all before: square u' = -3/2 square' u."""
    if n == 0:
        return 1 / (square[0] * square[0].sqrt())
    total = sum((-(3 * k / Decimal(2)) - (n - k)) * square[k] * known[n - k] for k in range(1, n + 1))
    return total / (n * square[0])


def lorenz(state: Sequence[Decimal], order: int) -> list[Coefficients]:
    x, y, z = ([value] for value in state)
    beta = Decimal(8.0 / 3.0)
    for n in range(order):
        slopes = 10 * (y[n] - x[n]), 28 * x[n] - product(x, z, n) - y[n], product(x, y, n) - beta * z[n]
        for series, slope in zip((x, y, z), slopes, strict=True):
            series.append(slope / (n + 1))
    return [x, y, z]


def planar_gravity(state: Sequence[Decimal], order: int, masses: Sequence[int]) -> list[Coefficients]:
    """Bodies of these masses in a plane: all x, all y, then their velocities; mass 0 is a body that pulls nobody."""
    n_bodies = len(masses)
    series = [[value] for value in state]
    positions, velocities = series[: 2 * n_bodies], series[2 * n_bodies :]
    pairs = [(i, j) for i in range(n_bodies) for j in range(i)]
    apart: dict[tuple[int, int], list[Coefficients]] = {pair: [[], [], [], []] for pair in pairs}
    for n in range(order):
        pulls = [Decimal(0)] * (2 * n_bodies)
        for (i, j), (dx, dy, square, cube) in apart.items():
            dx.append(positions[j][n] - positions[i][n])
            dy.append(positions[n_bodies + j][n] - positions[n_bodies + i][n])
            square.append(product(dx, dx, n) + product(dy, dy, n))
            cube.append(inverse_cube(square, cube, n))
            for axis, d in enumerate((dx, dy)):
                pull = product(cube, d, n)
                pulls[axis * n_bodies + i] += masses[j] * pull
                pulls[axis * n_bodies + j] -= masses[i] * pull
        for position, velocity, pull in zip(positions, velocities, pulls, strict=True):
            position.append(velocity[n] / (n + 1))
            velocity.append(pull / (n + 1))
    return series


def kepler(state: Sequence[Decimal], order: int) -> list[Coefficients]:
    """A body without mass about one of mass 1, which rests at the origin."""
    zero = Decimal(0)
    x, y, u, v = state
    series = planar_gravity([x, zero, y, zero, u, zero, v, zero], order, (0, 1))
    return series[::2]


def pleiades(state: Sequence[Decimal], order: int) -> list[Coefficients]:
    return planar_gravity(state, order, range(1, 8))


SERIES: dict[str, Series] = {"lorenz": lorenz, "kepler": kepler, "pleiades": pleiades}


def longest_step(series: Sequence[Coefficients], tolerance: Decimal) -> Decimal:
    """h with |c_n| h**n at most `tolerance` of the largest component, for the last two n."""
    order = len(series[0]) - 1
    scale = tolerance * max(abs(c[0]) for c in series)
    steps = []
    for n in (order - 1, order):
        largest = max(abs(c[n]) for c in series)
        if largest:
            steps.append((scale / largest) ** (1 / Decimal(n)))
    return min(steps)


def solve(problem: Textbook, setting: Setting) -> list[list[Decimal]]:
    """States at problem.ts, (T, D)."""
    series_of = SERIES[problem.name]
    with decimal.localcontext() as context:
        context.prec = setting.digits
        t, state = Decimal(float(problem.ts[0])), [Decimal(value) for value in problem.y0.tolist()]
        states = [state]
        for end in map(Decimal, problem.ts[1:].tolist()):
            while t != end:
                series = series_of(state, setting.order)
                h = min(longest_step(series, setting.tolerance), end - t)
                state = [evaluate(c, h) for c in series]
                t = end if h == end - t else t + h
            states.append(state)
    return states


def evaluate(c: Coefficients, h: Decimal) -> Decimal:
    """sum_n c_n h**n, the smallest terms first."""
    total = Decimal(0)
    for coefficient in reversed(c):
        total = total * h + coefficient
    return total


def reference(problem: Textbook) -> tuple[np.ndarray, float]:
    """The solution (T, D), and the largest distance between two settings, relative to the scale of each component."""
    coarse, fine = solve(problem, COARSE), solve(problem, FINE)
    scales = [max(abs(row[i]) for row in fine) for i in range(len(fine[0]))]
    distance = max(
        abs(a - b) / max(scale, Decimal(problem.smallest))
        for row_a, row_b in zip(coarse, fine, strict=True)
        for a, b, scale in zip(row_a, row_b, scales, strict=True)
    )
    return np.array(fine, dtype=float), float(distance)
