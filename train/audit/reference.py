"""The float64 gradient that all others are measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.errors import ArgumentError, ArgumentTypeError, SolveError
from ...engine.tree import leaves
from .case import Case, Problem
from .gradient import Gradient, distance, flat, gradient_of, norm, tolerances_of

_RTOL = 1e-13
_STEPS = 6  # dopri5 steps between breakpoints
_MOST_STEPS = 200_000
_CLOSED_FORM = "closed form"


@dataclass(frozen=True)
class Reference:
    """A gradient to compare with.

    Attributes:
        loss: value of the loss.
        gradient: {"y0", "params", "ts"}, each flat, float64.
        uncertainty: its own relative error: its distance from the closed form, or from the gradient at a
            tenfold tolerance where there is none.
        source: how it was computed.
    """

    loss: float
    gradient: Gradient
    uncertainty: float
    source: str

    @property
    def is_exact(self) -> bool:
        """Whether it is a formula, so that `uncertainty` is that of the solve beside it."""
        return self.source == _CLOSED_FORM

    def can_tell(self, error: float) -> bool:
        """Whether an error of this size can be told from the reference's own."""
        return self.is_exact or error > self.uncertainty


def reference(problem: Problem) -> Reference:
    """The reference of a problem in float64.

    A closed form where there is one; else the adjoint of the discrete solution at the tightest tolerance, or
    between breakpoints on many steps, with its distance from the one at a tenfold tolerance or half the steps
    as uncertainty.
    Raises: ArgumentError where it cannot be solved, is not finite or is zero; ArgumentTypeError for other
        arrays than real floating-point ones.
    """
    case = problem.build(np.dtype(np.float64))
    _check_real(case)
    try:
        loss, fine, coarse, source = _two_gradients(case)
    except SolveError as error:
        raise ArgumentError(
            f"{problem.name}: the reference solve (rtol {_RTOL:g}, at most {_MOST_STEPS} steps) failed, and "
            f"without it nothing can be judged: {error}"
        ) from error
    if not all(np.isfinite(part).all() for part in fine.values()):
        raise ArgumentError(f"{problem.name}: the reference gradient has NaN or infinite entries")
    if norm(fine) == 0:
        raise ArgumentError(
            f"{problem.name}: the gradient is zero; the loss depends on nothing that is differentiated"
        )
    if problem.closed_form is not None:
        exact = {name: flat(part) for name, part in problem.closed_form().items()}
        return Reference(loss, exact, distance(fine, exact), _CLOSED_FORM)
    return Reference(loss, fine, distance(coarse, fine), source)


def _two_gradients(case: Case) -> tuple[float, Gradient, Gradient, str]:
    """(loss, gradient, a coarser one, how they were computed)."""
    asked: list[dict[str, Any]]
    if case.breakpoints:
        asked = [{"grid": _divided(case, steps)} for steps in (_STEPS, _STEPS // 2)]
        source = f"`discrete`, float64, {_STEPS} steps between breakpoints"
    else:
        asked = [tolerances_of(case, rtol) for rtol in (_RTOL, 10 * _RTOL)]
        source = f"`discrete`, float64, rtol {_RTOL:g}"
    found = [gradient_of(case, "discrete", max_steps=_MOST_STEPS, **options) for options in asked]
    (loss, fine, _), (_, coarse, _) = found
    return loss, fine, coarse, source


def _divided(case: Case, n: int) -> np.ndarray:
    """Times from ts[0] to ts[-1]: all breakpoints and output times, and n - 1 more between neighbours."""
    ts = np.asarray(case.ts)
    apart = 1e-9 * abs(ts[-1] - ts[0])  # a breakpoint that is an output time but for round-off is that time
    inside = [t for t in case.breakpoints if ts.min() < t < ts.max() and abs(ts - t).min() > apart]
    corners = np.unique(np.concatenate((ts, inside)))
    pieces = [np.linspace(a, b, n, endpoint=False) for a, b in zip(corners, corners[1:], strict=False)]
    times = np.append(np.concatenate(pieces), corners[-1])
    return times if ts[0] < ts[-1] else times[::-1]


def _check_real(case: Case) -> None:
    for name, tree in (("y0", case.y0), ("params", case.params)):
        kinds = {np.asarray(leaf).dtype for leaf in leaves(tree)}
        wrong = [str(dtype) for dtype in kinds if dtype.kind != "f"]
        if wrong or (name == "y0" and not kinds):
            raise ArgumentTypeError(
                f"an audit needs a `{name}` of real floating-point arrays; got "
                f"{', '.join(wrong) or 'no array'}"
            )
