"""The numbers of a gradient beside references that use no rule:
entries and random directions of each leaf.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..trace import is_weak, shape_of
from .complex_step import ComplexStepper, agree
from .derivative import Derivative, difference_along
from .differences import START, Curve
from .directions import host_vector, like_leaf, norm_of, pairing, random_leaf, relative_size
from .function import ScalarFunction
from .report import OK

SMALLEST_MOVE = 0.1  # an entry is moved as if it were at least this part of the rms of its leaf


@dataclass(frozen=True)
class Plan:
    """How a gradient is compared; see `gradients`. `explain` says what is not analytic,
    where the loss cannot.
    """

    reference: str = "auto"
    entries: int | None = 16
    directions: int = 2
    seed: int = 0
    explain: Callable[[], str] | None = None


@dataclass
class Probe:
    """One number of the gradient beside its reference.

    That is an entry, its imaginary part (`unit` 1j), or what a direction of norm `size` gives (`index` None).
    """

    index: int | None
    unit: complex
    size: float
    phi: Curve
    start: float
    found: float
    derivative: Derivative
    verdict: str = OK

    @property
    def excess(self) -> float:
        return abs(self.found - self.derivative.value)


@dataclass
class Measured:
    """One leaf with its probes, before its errors are scaled."""

    name: str
    gradient: Any
    entries: list[Probe] = field(default_factory=list)
    directions: list[Probe] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def probes(self) -> list[Probe]:
        return [*self.entries, *self.directions]

    @property
    def is_complete(self) -> bool:
        """Whether every entry was compared; then directions can say nothing but that there are kinks."""
        return len({p.index for p in self.entries}) == host_vector(self.gradient).size

    @property
    def norm(self) -> float:
        """The larger norm of gradient and reference, of which entries and directions show a part."""
        of_entries = math.hypot(*(p.derivative.value for p in self.entries))
        return max(
            norm_of([self.gradient]), of_entries, *(abs(p.derivative.value) / p.size for p in self.directions)
        )

    @property
    def uncertainty(self) -> float:
        """Estimated error of the reference."""
        of_entries = math.hypot(*(p.derivative.error for p in self.entries))
        return max(of_entries, *(p.derivative.error for p in self.directions))


def measure_leaf(
    function: ScalarFunction,
    k: int,
    gradient: Any,
    plan: Plan,
    stepper: ComplexStepper,
    rng: np.random.Generator,
) -> Measured:
    """Leaf k: its directions first, which decide whether complex steps serve, then its entries."""
    measured = Measured(function.names[k], gradient)
    leaf, name = function.leaves[k], function.names[k]
    steps_serve = plan.reference == "auto"
    for _ in range(plan.directions):
        v = random_leaf(leaf, rng)
        phi, start = function.line_of_leaf(k, v), START * relative_size([leaf], [v])
        slope = difference_along(function, phi, start, where=f"a random direction in {name}")
        exact = complex_slope(stepper, k, v) if steps_serve else None
        if exact is not None and agree(exact, slope):
            slope = replace(exact, left=slope.left, right=slope.right, is_kink=slope.is_kink)
        elif steps_serve:
            steps_serve = False
            if not slope.is_kink:  # at a kink the two need not agree
                measured.notes.append(f"{stepper.reason(plan.explain)}; differences instead")
        measured.directions.append(
            Probe(None, 1.0, norm_of([v]), phi, start, pairing([gradient], [v]), slope)
        )
    values = host_vector(gradient)
    for index, unit, phi, start in entry_curves(function, k, plan.entries, rng):
        exact = complex_slope(stepper, k, unit_vector(leaf, index)) if steps_serve else None
        if exact is None or not math.isfinite(exact.value):
            where = f"entry {list(place_of(index, shape_of(leaf)))} of {name}"
            exact = difference_along(function, phi, start, where=where, sides=False)
        found = float((values[index] * unit).real)
        measured.entries.append(Probe(index, unit, 1.0, phi, start, found, exact))
    return measured


def complex_slope(stepper: ComplexStepper, k: int, v: Any) -> Derivative | None:
    """The derivative along v in leaf k by a complex step; None where there is none."""
    return stepper.along([v if position == k else None for position in range(len(stepper.function.leaves))])


def unit_vector(leaf: Any, index: int) -> Any:
    """The unit vector of an entry, shaped like a leaf."""
    if is_weak(leaf) or shape_of(leaf) == ():
        return 1.0
    unit = np.zeros(shape_of(leaf))
    unit.reshape(-1)[index] = 1.0
    return like_leaf(leaf, unit)


def entry_curves(
    function: ScalarFunction, k: int, count: int | None, rng: np.random.Generator
) -> Iterator[tuple[int, complex, Curve, float]]:
    """(flat index, unit, h -> f(x + h unit e), largest step) for the entries that are compared;
    1 and i if complex.
    """
    values = host_vector(function.leaves[k])
    chosen = np.arange(values.size)
    if count is not None and count < values.size:
        chosen = np.sort(rng.choice(values.size, count, replace=False))
    typical = float(np.sqrt(np.mean(np.abs(values) ** 2)))
    units = (1.0, 1j) if values.dtype.kind == "c" else (1.0,)
    for index in chosen.tolist():
        start = START * (max(abs(values[index]), SMALLEST_MOVE * typical) or 1.0)
        for unit in units:
            yield index, unit, function.entry(k, index, unit), float(start)


def place_of(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of an entry given by its flat index."""
    return tuple(int(i) for i in np.unravel_index(index, shape)) if shape else ()
