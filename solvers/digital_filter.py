"""Step-size control by digital filters: smooth step sequences from the errors and step ratios of the latest
steps.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from ..engine.errors import ArgumentError
from .controller import SMALLEST_REMEMBERED_ERROR, Verdict


@dataclass(frozen=True)
class FilterVerdict(Verdict):
    """A `Verdict` with the (error norm, size) of the accepted steps so far, the latest first, two at most."""

    history: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class FilterController:
    """Step-size control by a linear filter of log errors.

    With rho_j = safety e_j**(-1/order), the factor that classical control would take after a step with error
    norm e_j, an accepted step n is followed by
        h_n  rho_n**beta_1 rho_{n-1}**beta_2 rho_{n-2}**beta_3 (h_n / h_{n-1})**-alpha_2
        (h_{n-1} / h_{n-2})**-alpha_3
    so that the errors settle at safety**order, whatever the filter. An earlier error counts as 0.1 at least;
    where steps are missing at the start, the oldest error and a ratio of 1 stand for them. The first accepted
    step and rejected ones are followed by classical control, h rho.
    The factor stays within [min_factor, max_factor].

    Args:
        order: power of h with which the error estimate vanishes, `Tableau.error_order` (dopri5: 5).
        betas: weights of the errors of the latest three accepted steps; their sum is positive.
        alphas: weights of the latest two ratios of steps.
        safety, min_factor, max_factor: as in `PIController`.
    Raises: ArgumentError.
    Source: Soderlind (2003), Digital filters in adaptive time-stepping, ACM TOMS 29, 1-26: equation (31) in
        its order k beta_j = betas, with the safety factor inside the target.
    """

    order: int
    betas: tuple[float, float, float]
    alphas: tuple[float, float] = (0.0, 0.0)
    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 10.0

    def __post_init__(self) -> None:
        betas, alphas = self.betas, self.alphas
        allowed = {
            "order": (self.order >= 1, "at least 1"),
            "betas": (
                len(betas) == 3 and all(map(math.isfinite, betas)) and sum(betas) > 0,
                "three finite numbers whose sum is positive",
            ),
            "alphas": (len(alphas) == 2 and all(map(math.isfinite, alphas)), "two finite numbers"),
            "safety": (0 < self.safety < 1, "in (0, 1)"),
            "min_factor": (0 < self.min_factor < 1, "in (0, 1)"),
            "max_factor": (1 < self.max_factor < math.inf, "finite and above 1"),
        }
        wrong = [
            f"`{name}` must be {expected}; got {getattr(self, name)!r}"
            for name, (is_allowed, expected) in allowed.items()
            if not is_allowed
        ]
        if wrong:
            raise ArgumentError("; ".join(wrong))

    def judge(self, error_norm: float, h: float, previous: Verdict | None = None) -> FilterVerdict:
        """Accept or reject the step of signed size h whose scaled error has norm `error_norm`.

        As `PIController.judge`: an error norm that is not finite shrinks the step by `min_factor`, and the
        step right after a rejected one does not grow.
        """
        history = previous.history if isinstance(previous, FilterVerdict) else ()
        remembered = history[0][0] if history else None
        if not math.isfinite(error_norm):
            return FilterVerdict(False, error_norm, h, h * self.min_factor, remembered, history)
        if error_norm > 1.0:
            factor = max(self.min_factor, self._classical(error_norm))
            return FilterVerdict(False, error_norm, h, h * factor, remembered, history)
        was_rejected = previous is not None and not previous.is_accepted
        largest = 1.0 if was_rejected else self.max_factor
        factor = max(self.min_factor, min(largest, self._filtered(error_norm, h, history)))
        history = ((error_norm, h), *history[:1])
        return FilterVerdict(True, error_norm, h, h * factor, error_norm, history)

    def _classical(self, error_norm: float) -> float:
        return self.safety * error_norm ** (-1.0 / self.order)

    def _filtered(self, error_norm: float, h: float, history: tuple[tuple[float, float], ...]) -> float:
        """Factor after an accepted step, before it is limited."""
        if error_norm < sys.float_info.min:  # zero, or so small that a negative power of it may overflow
            return self.max_factor
        if not history:
            return self._classical(error_norm)
        earlier = [max(error, SMALLEST_REMEMBERED_ERROR) for error, _ in history]
        errors = [error_norm, earlier[0], earlier[-1]]
        sizes = [h, *(size for _, size in history)]
        factor = math.prod(
            self._classical(error) ** beta for error, beta in zip(errors, self.betas, strict=True)
        )
        for size, before, alpha in zip(sizes, sizes[1:], self.alphas, strict=False):
            factor *= (size / before) ** -alpha
        return factor
