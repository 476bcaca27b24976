"""Adams methods on given times: a step integrates the polynomial through the latest slopes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..engine.backend import Array, to_xp
from ..engine.errors import ArgumentError
from ..engine.product_precision import plain_dot
from .dynamics import Dynamics
from .method import AnyStep, Method, Norm
from .stages import Stages
from .stats import Stats
from .step_polynomial import read_polynomial
from .stepping import RowStep
from .tableau import Tableau
from .tableaus import BOSH3, DOPRI5

# What makes the first steps, by order: of the same order or one more, and with dense output.
STARTERS: dict[int, Tableau | None] = {1: None, 2: BOSH3, 3: BOSH3, 4: DOPRI5, 5: DOPRI5}


def integrals_of_lagrange(nodes: Sequence[float]) -> np.ndarray:
    """(k, k): row j holds the coefficients of theta, theta**2, ... in the integral of L_j from 0 to theta.

    L_j is the polynomial of degree k - 1 that is 1 at node j and 0 at the others. Row sums are the weights of
    Adams's formulas: with nodes 0, -1, ... those of Bashforth, with 1, 0, -1, ... those of Moulton.
    """
    rows = []
    for j, own in enumerate(nodes):
        row = np.ones(1)
        for other in (*nodes[:j], *nodes[j + 1 :]):
            row = np.convolve(row, [-other / (own - other), 1.0 / (own - other)])
        rows.append(row)
    return np.array(rows) / np.arange(1, len(nodes) + 1)


@dataclass(frozen=True)
class AdamsBashforth(Method):
    """y1 = y + the integral over the step of the polynomial through the slopes at the latest `order` times.

    The times may be spaced as they like, forward or backward: the coefficients come from the actual ones, and
    are the published fractions where the spacing is even. Spacing that grows quickly from step to step
    extrapolates far, and the errors grow with it. The first order - 1 steps are those of bosh3 (orders 2 and
    3) or dopri5 (orders 4 and 5).

    Args:
        order: 1 (explicit Euler) to 5.
    Cost: 1 nfe a step (a starting one: 3 by bosh3 and 6 by dopri5 more). Dense output: the same polynomial,
        of the order of the method (in the starting steps that of the starting method).
    Raises: ArgumentError for another order.
    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section III.1, (1.5), and III.5, (5.4),
        for uneven times.
    """

    order: int = 4
    name: str = field(default="adams_bashforth", init=False)
    stages: int = field(default=0, init=False)
    fsal = False
    error_order = None
    interpolates = True
    source = "Bashforth & Adams (1883); Hairer, Norsett & Wanner (1993), section III.1, equation (1.5)"

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or self.order not in STARTERS:
            raise ArgumentError(
                f"`order` of an Adams method must be an integer from 1 to 5; got {self.order!r}"
            )
        starter = STARTERS[self.order]
        object.__setattr__(self, "stages", 2 if starter is None else starter.stages)

    def step_on(self, stages: Stages, dynamics: Dynamics, norm: Norm, stats: Stats) -> AnyStep:
        return AdamsStep(stages, self.order)


@dataclass(frozen=True)
class AdamsBashforthMoulton(AdamsBashforth):
    """Predict by Adams-Bashforth, evaluate there, correct by Adams-Moulton of the same order,
    evaluate again (PECE).

    The corrector integrates the polynomial through the slope at the predicted state and those at the latest
    order - 1 times: a smaller error and a larger region of stability than `AdamsBashforth`, which says the
    rest.

    Cost: 2 nfe a step.
    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section III.1, (1.8) with (1.5) as predictor.
    """

    name: str = field(default="adams_bashforth_moulton", init=False)
    source = "Moulton (1926); Hairer, Norsett & Wanner (1993), section III.1, equations (1.5) and (1.8)"

    def step_on(self, stages: Stages, dynamics: Dynamics, norm: Norm, stats: Stats) -> AnyStep:
        return PredictCorrectStep(stages, self.order)


class AdamsStep:
    """Steps of Adams-Bashforth on the rows [y, f at the start, ...];
    the other rows are those of the starting method.

    `slopes` (order + 1, n): row 0 is for the slope at the predicted state,
        row 1 + j is f at the time j steps ago.
    """

    n_multistep = 0  # evaluations in a step that is no starting one

    def __init__(self, stages: Stages, order: int) -> None:
        self.stages, self.order = stages, order
        rows, xp = stages.rows, stages.xp
        self.y_new: Array = xp.empty_like(rows[0])
        starter = STARTERS[order]
        self._starter = None if starter is None else RowStep(stages, starter)
        self._slopes = xp.zeros((order + 1, rows.shape[1]), rows.dtype)
        self._times = [0.0]  # of rows 1, 2, ... of the slopes, as many as are known
        self._nodes: list[float] = []
        self.n_evaluations = self.n_multistep

    @property
    def _is_starting(self) -> bool:
        return len(self._times) < self.order

    def evaluate_start(self, t: float) -> None:
        """Row 1 = f(t, y) for the state in row 0."""
        self.stages.input(0)[...] = self.stages.rows[0]
        self.stages.evaluate(0, t)

    def advance(self, t: float, t_next: float) -> None:
        """From the state and slope in rows 0 and 1 at t to `y_new` at t_next."""
        self._times[0] = t
        self._slopes[1] = self.stages.rows[1]
        if self._starter is not None and self._is_starting:
            self._starter.advance(t, t_next)
            self.y_new[...] = self._starter.y_new
            self.n_evaluations = self._starter.n_evaluations
            return
        self.n_evaluations = self.n_multistep
        self._find_coefficients(t, t_next)
        self._multistep(t, t_next)

    def _find_coefficients(self, t: float, t_next: float) -> None:
        """Anew where the times, relative to the step, have changed by more than their own rounding."""
        h = t_next - t
        nodes = [(past - t) / h for past in self._times]
        rounding = 4.0 * float(np.finfo(np.float64).eps) * max(abs(t_next), abs(self._times[-1])) / abs(h)
        if self._nodes and all(abs(a - b) <= rounding for a, b in zip(nodes, self._nodes, strict=True)):
            return
        self._nodes = nodes
        self._find_integrals(nodes)

    def _find_integrals(self, nodes: list[float]) -> None:
        self._predictor = integrals_of_lagrange(nodes)

    def _multistep(self, t: float, t_next: float) -> None:
        self._integrate(self._predictor, self._slopes[1:], t_next - t)

    def _integrate(self, integrals: np.ndarray, slopes: Array, h: float) -> None:
        """`y_new` = y + h sum_j weight_j slopes_j."""
        xp = self.stages.xp
        weights = (h * integrals.sum(axis=1)).astype(slopes.dtype)
        plain_dot(xp)(to_xp(xp, weights), slopes, out=self.y_new)
        self.y_new += self.stages.rows[0]

    def error_estimate(self) -> Array:
        """There is none: infinite, so that no controller accepts it."""
        return self.stages.xp.full_like(self.y_new, np.inf)

    def shift(self) -> None:
        """The new state becomes row 0, and the slopes are those of one step further ago."""
        self.stages.rows[0] = self.y_new
        for age in range(self.order, 1, -1):
            self._slopes[age] = self._slopes[age - 1]
        self._times = [0.0, *self._times[: self.order - 1]]

    def polynomial(self, h: float) -> Array:
        """(p + 1, n): what the step integrated, from its start to theta."""
        if self._starter is not None and self._is_starting:
            return self._starter.polynomial(h)
        return self._polynomial_of(self._predictor, self._slopes[1:], h)

    def _polynomial_of(self, integrals: np.ndarray, slopes: Array, h: float) -> Array:
        xp = self.stages.xp
        block = xp.empty((self.order + 1, slopes.shape[1]), slopes.dtype)
        block[0] = self.stages.rows[0]
        plain_dot(xp)(to_xp(xp, (h * integrals.T).astype(slopes.dtype)), slopes, out=block[1:])
        return block

    def interpolate(self, thetas: np.ndarray, h: float, *, derivative: bool = False) -> Array:
        """The state (m, n), or its time derivative, at t + theta h within the latest step."""
        return read_polynomial(self.stages.xp, self.polynomial(h), thetas, h, derivative=derivative)


class PredictCorrectStep(AdamsStep):
    """Steps of Adams-Bashforth-Moulton: the second slope is that at the predicted state."""

    n_multistep = 1

    def _find_integrals(self, nodes: list[float]) -> None:
        super()._find_integrals(nodes)
        self._corrector = integrals_of_lagrange([1.0, *nodes[:-1]])

    def _multistep(self, t: float, t_next: float) -> None:
        super()._multistep(t, t_next)
        self.stages.input(1)[...] = self.y_new
        self.stages.evaluate(1, t_next)
        self._slopes[0] = self.stages.rows[2]
        self._integrate(self._corrector, self._slopes[:-1], t_next - t)

    def polynomial(self, h: float) -> Array:
        if self._starter is not None and self._is_starting:
            return self._starter.polynomial(h)
        return self._polynomial_of(self._corrector, self._slopes[:-1], h)
