"""What is said when a solve cannot go on: where it stands, the component at fault, and advice,
as text and as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.backend import Array, to_number
from ..engine.errors import NonConvergence, NonFiniteDynamics, StepSizeUnderflow, TooManySteps
from ..engine.tree import leaves_with_paths, path_name
from .dynamics import StateLayout
from .stats import Stats


@dataclass(frozen=True)
class Standing:
    """Where a solve stands when a step fails.

    Attributes:
        name: who solves; t0, t1: the interval.
        t, h: start and signed size of the step that cannot be made.
        error_norm: scaled error of the latest attempt.
        component: what made it fail as a person writes it, "y/a[2, 3]"; index:
            its place in the flat state (n,).
        y: the state at t, the last good one: a tree like y0, or flat (n,) where its layout is not known.
        y_max: the largest of its values; size, dtype: how many there are, and theirs.
        stats: counts so far.
    """

    name: str
    t0: float
    t1: float
    t: float
    h: float
    error_norm: float
    component: str
    index: int | None
    y: Any
    y_max: float
    size: int
    dtype: np.dtype
    stats: Stats

    @property
    def interval(self) -> str:
        return f"interval [{self.t0:g}, {self.t1:g}], {self.stats}"

    @property
    def worst(self) -> str:
        """A sentence about the component at fault."""
        return f" The error is largest in {self.component}." if self.component else ""

    def numbers(self) -> dict[str, Any]:
        """The attributes of every failure."""
        return {
            "t": self.t, "h": self.h, "error_norm": self.error_norm, "component": self.component,
            "index": self.index, "y": self.y, "stats": self.stats, "nfe": self.stats.nfe,
        }  # fmt: skip


def component_name(layout: StateLayout | None, index: int) -> str:
    """The place `index` of a flat state as a person writes it."""
    if layout is None:
        return f"entry {index}"
    start = 0
    for (path, _), shape, size in zip(
        leaves_with_paths(layout.like), layout.shapes, layout.sizes, strict=True
    ):
        if index < start + size:
            place = ", ".join(map(str, np.unravel_index(index - start, shape)))
            name = f"y/{path_name(path)}" if path else "y"
            return f"{name}[{place}]" if shape else name
        start += size
    raise IndexError(index)


def first_bad(xp: Any, values: Array) -> tuple[int, int | None]:
    """How many of the values (n,) are not finite, and the place of the first of these."""
    bad = ~xp.isfinite(values)
    n_bad = to_number(bad.sum())
    return n_bad, to_number(bad.argmax()) if n_bad else None


def too_many_steps(standing: Standing, max_steps: int) -> TooManySteps:
    """`max_steps` attempts did not reach the end."""
    s = standing
    return TooManySteps(
        f"{s.name}: {max_steps} steps (`max_steps`) reached t={s.t:.6g} of the interval [{s.t0:g}, {s.t1:g}], the last "
        f"with h={s.h:.1e}; {s.stats}.{s.worst} Loosen rtol or atol, raise `max_steps`, or, if the steps stay small "
        "where the solution is smooth, use an implicit method: the problem is stiff.",
        **s.numbers(),
    )  # fmt: skip


def below_the_spacing(standing: Standing, spacing: float) -> StepSizeUnderflow:
    """The error test asks for a step that the numbers at t cannot express."""
    s = standing
    return StepSizeUnderflow(
        f"{s.name}: the error test asks for a step of {s.h:.1e} at t={s.t:.6g}, below the spacing of numbers there "
        f"({spacing:.1e}); {s.interval}.{s.worst} The solution may blow up or jump here: end the interval before it; or "
        f"rtol and atol are below what the dtype of the state ({s.dtype}) can resolve.",
        **s.numbers(),
    )  # fmt: skip


def below_min_step(standing: Standing, min_step: float) -> StepSizeUnderflow:
    """The error test asks for a step that the caller forbids."""
    s = standing
    return StepSizeUnderflow(
        f"{s.name}: the error test asks for a step of {abs(s.h):.1e} at t={s.t:.6g}, below `min_step` = {min_step:g}: "
        f"there the scaled error is {s.error_norm:.3g}, not 1; {s.interval}.{s.worst} Lower `min_step`, loosen rtol or "
        "atol, or name the times where f jumps as `jump_ts`.",
        **s.numbers(),
    )  # fmt: skip


def not_converged(standing: Standing, why: str, first_h: float) -> NonConvergence:
    """The equations of an implicit step have no solution that was found;
    `why` is what the last attempt met.
    """
    s = standing
    tried = (
        f"with h={s.h:.1e}" if first_h == s.h else f"while h shrank from {abs(first_h):.1e} to {abs(s.h):.1e}"
    )
    return NonConvergence(
        f"{s.name}: the equations of the step from t={s.t:.6g} could not be solved {tried}: {why}; {s.interval}, "
        f"{s.stats.n_newton} Newton iterations, {s.stats.n_jacobians} Jacobians. The state before the step has "
        f"max |y| = {s.y_max:.3e}. Look for jumps or kinks of f near this state (name their times as `jump_ts`); with "
        "fixed steps shorten them.",
        **s.numbers(),
    )  # fmt: skip


def non_finite(
    standing: Standing, *, stage: int | None, stages: int, n_bad: int, first_h: float
) -> NonFiniteDynamics:
    """f, the state after the step or the estimate of its error is NaN or infinite; `stage` is where f was
    first so, None where it never was; `n_bad` is 0 where the state is finite too.
    """
    s = standing
    if s.h == 0.0:
        where, shrunk = f"f(t0, y0) is non-finite at t={s.t:.6g}", ""
    else:
        if stage is not None:
            where = f"f(t, y) stayed non-finite at t={s.t:.6g} (stage {stage + 1} of {stages})"
        else:
            what = "state after" if n_bad else "error estimate of"
            where = f"the {what} the step from t={s.t:.6g} stayed non-finite"
        is_shorter = first_h != s.h
        shrunk = (
            f" while h shrank from {abs(first_h):.1e} to {abs(s.h):.1e}"
            if is_shorter
            else f" with h={s.h:.1e}"
        )
    first = f", the first in {s.component}" if s.component else ""
    values = f"{n_bad} of {s.size} values" if n_bad else "f and the state are finite"
    return NonFiniteDynamics(
        f"{s.name}: {where}{shrunk}: {values}{first}; {s.interval}. The state before the step has "
        f"max |y| = {s.y_max:.3e}. Look for overflow, log, sqrt or division near this state.",
        n_bad=n_bad,
        **s.numbers(),
    )  # fmt: skip
