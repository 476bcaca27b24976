"""Step-size control that foresees the error of the next step, and keeps a size that is nearly right."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.errors import ArgumentError
from .digital_filter import FilterController


@dataclass(frozen=True)
class PredictiveController(FilterController):
    """Gustafsson's predictive control, for methods that factorise a matrix for each size of step.

    An accepted step n is followed by h_n times the smaller of
        rho_n                                  (classical control)
        rho_n**2 / rho_{n-1}  h_n / h_{n-1}    (the error constant goes on growing as it did),
    rho_j = safety e_j**(-1/order). Classical control rejects every other step where a solution moves faster
    and faster into a fast phase; this one follows. A factor within `kept` is replaced by 1,
    so that factorisations serve on.

    Args:
        order, safety, min_factor, max_factor: as in `FilterController`,
            whose rules for rejected steps hold too.
        kept: smallest and largest factor that is not worth a new size, at most and at least 1.
    Raises: ArgumentError.
    Source: Hairer & Wanner (1996), Solving ODEs II, section IV.8, equation (8.25) with the smaller of the two
        factors, and the end of the section for `kept`, there (1, 1.2); Gustafsson (1994), ACM TOMS 20,
        496-517.
    """

    betas: tuple[float, float, float] = (2.0, -1.0, 0.0)
    alphas: tuple[float, float] = (-1.0, 0.0)
    kept: tuple[float, float] = (0.95, 1.2)

    def __post_init__(self) -> None:
        super().__post_init__()
        kept = self.kept
        if not (isinstance(kept, tuple) and len(kept) == 2 and 0 < kept[0] <= 1 <= kept[1] < self.max_factor):
            raise ArgumentError(
                f"`kept` must be two factors (low, high), 0 < low <= 1 <= high < max_factor = {self.max_factor:g}; got "
                f"{kept!r}"
            )

    def _filtered(self, error_norm: float, h: float, history: tuple[tuple[float, float], ...]) -> float:
        """Factor after an accepted step, before it is limited."""
        factor = super()._filtered(error_norm, h, history)
        if error_norm > 0.0:
            factor = min(factor, self._classical(error_norm))
        low, high = self.kept
        return 1.0 if low <= factor <= high else factor
