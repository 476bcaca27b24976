"""Step-size control: what to do with a step, decided from three numbers."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Protocol

from ..engine.errors import ArgumentError

# The proportional term damps growth by at most SMALLEST_REMEMBERED_ERROR**beta. DOPRI5 has 1e-4 here, and
# where a solve
# starts: that slows the growth of the first steps, where the error is far below the tolerance.
SMALLEST_REMEMBERED_ERROR = 0.1


@dataclass(frozen=True)
class Verdict:
    """What a controller decided about one attempted step.

    `last_accepted_error` is the error norm of the latest accepted step so far (this one, if it is accepted),
    None before there is one: the memory of the controller, which is why a verdict is handed back to `judge`.
    """

    is_accepted: bool
    error_norm: float
    h: float
    next_h: float
    last_accepted_error: float | None = None


class Controller(Protocol):
    """Whatever decides about steps, without memory of its own: what it needs,
    it reads in its latest verdict.
    """

    def judge(self, error_norm: float, h: float, previous: Verdict | None = None) -> Verdict:
        """Accept or reject the step of signed size h whose scaled error has norm `error_norm`."""
        ...


@dataclass(frozen=True)
class PIController:
    """Proportional-integral step-size control.

    An accepted step with error norm e, after an accepted one with error norm e', is followed by
        h safety e**-(1/order - 3/4 beta) max(e', 0.1)**beta
    and the first accepted step and a rejected one by h safety e**(-1/order), the classical (integral)
    control, which beta = 0 gives everywhere. The factor stays within [min_factor, max_factor].

    Args:
        order: power of h with which the error estimate vanishes, `Tableau.error_order` (dopri5: 5).
        safety: fraction of the step that would just pass, in (0, 1).
        min_factor, max_factor: the most that a step shrinks or grows at once;
            0 < min_factor < 1 < max_factor.
        beta: weight of the previous error; smooths the steps where stability and not accuracy limits them.
    Raises: ArgumentError.
    Source: Hairer & Wanner (1996), Solving ODEs II, section IV.2, with the constants of their code DOPRI5
        (but for the bound 0.1 on e' and the first step, see above); Gustafsson (1991), ACM TOMS 17, 533-554.
    """

    order: int
    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 10.0
    beta: float = 0.04

    def __post_init__(self) -> None:
        allowed = {
            "order": (self.order >= 1, "at least 1"),
            "safety": (0 < self.safety < 1, "in (0, 1)"),
            "min_factor": (0 < self.min_factor < 1, "in (0, 1)"),
            "max_factor": (1 < self.max_factor < math.inf, "finite and above 1"),
            "beta": (0 <= self.beta < 1 / max(self.order, 1), "in [0, 1/order)"),
        }
        wrong = [
            f"`{name}` must be {expected}; got {getattr(self, name)!r}"
            for name, (is_allowed, expected) in allowed.items()
            if not is_allowed
        ]
        if wrong:
            raise ArgumentError("; ".join(wrong))

    def judge(self, error_norm: float, h: float, previous: Verdict | None = None) -> Verdict:
        """Accept or reject the step of signed size h whose scaled error has norm `error_norm`.

        `previous` is the verdict on the attempt before, None at the start of a solve. An error norm that is
        not finite rejects the step and shrinks it by `min_factor`;
        the step right after a rejected one does not grow.
        """
        remembered = None if previous is None else previous.last_accepted_error
        if not math.isfinite(error_norm):
            return Verdict(False, error_norm, h, h * self.min_factor, remembered)
        if error_norm > 1.0:
            factor = max(self.min_factor, self._integral_factor(error_norm))
            return Verdict(False, error_norm, h, h * factor, remembered)
        was_rejected = previous is not None and not previous.is_accepted
        largest = 1.0 if was_rejected else self.max_factor
        factor = max(self.min_factor, min(largest, self._accepted_factor(error_norm, remembered)))
        return Verdict(True, error_norm, h, h * factor, error_norm)

    def _integral_factor(self, error_norm: float) -> float:
        return self.safety * error_norm ** (-1.0 / self.order)

    def _accepted_factor(self, error_norm: float, remembered: float | None) -> float:
        """Factor after an accepted step, before it is limited."""
        if error_norm < sys.float_info.min:  # zero, or so small that a negative power of it may overflow
            return self.max_factor
        if remembered is None:
            return self._integral_factor(error_norm)
        exponent = 1.0 / self.order - 0.75 * self.beta
        memory = max(remembered, SMALLEST_REMEMBERED_ERROR)
        return self.safety * error_norm**-exponent * memory**self.beta
