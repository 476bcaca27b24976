"""One Runge-Kutta step: the readable one, and the one on rows that the loop uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine.backend import Array, namespace_of, to_xp
from ..engine.product_precision import plain_dot
from .stages import Stages
from .stats import Stats
from .tableau import FloatTableau, Tableau


def weighted_sum(weights: Sequence[float] | np.ndarray, slopes: Sequence[Any]) -> Any:
    """sum_j weights_j k_j without the terms whose weight is zero; None if there are none."""
    total = None
    for weight, slope in zip(weights, slopes, strict=False):
        if weight != 0.0:
            term = float(weight) * slope
            total = term if total is None else total + term
    return total


def rk_step(
    f: Callable[[Any, Any], Any], t: Any, y: Any, h: Any, tableau: Tableau, k0: Any = None
) -> tuple[Any, Any, list[Any]]:
    """One explicit Runge-Kutta step from t to t + h: returns y1, the local error estimate (or None)
    and the stages k.

    Args:
        f: f(t, y) -> slope, shaped like y.
        t, h: start and signed size; numbers, or traced values of them.
        y: state at t: an array or a traced value.
        k0: f(t, y) if it is known, as after a step of a tableau with `fsal`.
    Cost: tableau.stages evaluations of f, one less with k0.
    """
    numbers = tableau.as_floats()
    k = [f(t, y) if k0 is None else k0]
    y_i = y
    for c_i, a_i in zip(numbers.c[1:], numbers.a[1:], strict=True):
        increment = weighted_sum(a_i, k)
        y_i = y if increment is None else y + h * increment
        k.append(f(t + float(c_i) * h, y_i))
    y1 = y_i if tableau.fsal else y + h * weighted_sum(numbers.b, k)
    error = None if numbers.b_error is None else h * weighted_sum(numbers.b_error, k)
    return y1, error, k


def extra_slopes(
    f: Callable[[Any, Any], Any], t: Any, y: Any, h: Any, tableau: Tableau, k: Sequence[Any]
) -> list[Any]:
    """The slopes of all stages of the step that `rk_step` made: k,
    and those that the interpolant alone needs.

    Cost: an evaluation of f for each of `tableau.extra_c`.
    """
    numbers, k = tableau.as_floats(), list(k)
    for c_i, a_i in zip(numbers.extra_c, numbers.extra_a, strict=True):
        k.append(f(t + float(c_i) * h, y + h * weighted_sum(a_i, k)))
    return k


def dense_weights(
    interpolant: np.ndarray, thetas: np.ndarray, h: float, *, derivative: bool = False
) -> np.ndarray:
    """(m, s + e + 1): weights of [y, k_1, ..., k_(s + e)] that give the state, or its derivative,
    at t + theta h.
    """
    powers = np.arange(1, interpolant.shape[1] + 1)
    column = thetas[:, None]
    weights = np.empty((len(thetas), 1 + len(interpolant)))
    if derivative:
        weights[:, 0] = 0.0
        weights[:, 1:] = (powers * column ** (powers - 1)) @ interpolant.T
    else:
        weights[:, 0] = 1.0
        np.multiply(column**powers @ interpolant.T, h, out=weights[:, 1:])
    return weights


def combined_error(error: float, coarse: float) -> float:
    """E**2 / sqrt(E**2 + C**2 / 100) for the norms E of an error estimate and C of a coarser one.

    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, equation (II.10.17).
    """
    size = math.hypot(error, 0.1 * coarse)
    return error * (error / size) if size != 0.0 else 0.0


def polynomial_of(tableau: Tableau, y: Array, slopes: Array, h: float) -> Array:
    """(p + 1, n): coefficients C_j of the state sum_j theta**j C_j, from y (n,) and all slopes (s + e, n)."""
    interpolant, xp = tableau.as_floats().interpolant, namespace_of(y)
    assert interpolant is not None
    block = xp.empty((interpolant.shape[1] + 1, len(y)), y.dtype)
    block[0] = y
    plain_dot(xp)(to_xp(xp, (h * interpolant.T).astype(y.dtype)), slopes, out=block[1:])
    return block


class RowStep:
    """A step on the rows [y, k_1, ..., k_s] of `Stages`: each weighted sum is one matrix-vector product.

    The extra stages of an interpolant follow as rows s + 1, s + 2, ... They are evaluated when something
    inside of the step is read, once a step, and counted in `stats`;
    stages whose steps are never read inside may lack those rows.
    """

    def __init__(self, stages: Stages, tableau: Tableau, stats: Stats | None = None) -> None:
        numbers = tableau.as_floats()
        self.stages, self.tableau, self.stats = stages, tableau, stats
        self.n = tableau.stages
        self.n_evaluations = self.n - 1
        xp, dtype = stages.xp, stages.rows.dtype
        self.dot = plain_dot(xp)
        self._weights = _step_weights(numbers)
        self._scaled = np.empty(self._weights.shape, dtype)  # times h; column 0 is the weight of y itself
        self._scaled[: self.n + 1, 0] = 1.0
        self._c = [*numbers.c.tolist(), *numbers.extra_c.tolist()]
        self._ends = (0.0, 0.0)
        self._has_extra = not tableau.extra_c  # whether the extra stages of this step are evaluated
        self._interpolant = numbers.interpolant
        self.y_new: Array = stages.rows[0] if tableau.fsal else xp.empty(stages.rows.shape[1], dtype)
        self.error = xp.empty(stages.rows.shape[1], dtype)
        self._row_heads = [stages.rows[: i + 1] for i in range(self.n + 1)]
        self._slopes = stages.rows[1 : self.n + 1]

    def evaluate_start(self, t: float) -> None:
        """k_1 = f(t, y) for the state in row 0."""
        self.stages.input(0)[...] = self.stages.rows[0]
        self.stages.evaluate(0, t)

    def stage_time(self, i: int, t: float, t_next: float) -> float:
        """Time of stage i; a stage at the end of the step is at t_next exactly."""
        return t_next if self._c[i] == 1.0 else t + self._c[i] * (t_next - t)

    def advance(self, t: float, t_next: float, *, with_end: bool = True) -> None:
        """All stages from t to t_next, given y and k_1; leaves the new state in `y_new`.

        `with_end=False` leaves out the slope at the end of a `fsal` step, and its state.
        """
        h = t_next - t
        if self.tableau.extra_c:
            self._ends, self._has_extra = (t, t_next), False
        np.multiply(self._weights[:, 1:], h, out=self._scaled[:, 1:], casting="same_kind")
        weights, dot = to_xp(self.stages.xp, self._scaled), self.dot
        for i in range(1, self.n if with_end or not self.tableau.fsal else self.n - 1):
            dot(weights[i, : i + 1], self._row_heads[i], out=self.stages.input(i))
            self.stages.evaluate(i, self.stage_time(i, t, t_next))
        if self.tableau.fsal:
            self.y_new = self.stages.input(self.n - 1)
        else:
            dot(weights[self.n], self._row_heads[self.n], out=self.y_new)

    def end_state(self) -> Array:
        """The new state after an `advance` without the slope at the end, (n,), until the next evaluation."""
        if self.tableau.fsal:
            weights = to_xp(self.stages.xp, self._scaled[self.n - 1, : self.n])
            self.dot(weights, self._row_heads[self.n - 1], out=self.stages.input(self.n - 1))
            return self.stages.input(self.n - 1)
        return self.y_new

    def error_estimate(self) -> Array:
        """h sum_i b_error_i k_i of the last `advance`."""
        weights = to_xp(self.stages.xp, self._scaled[self.n + 1, 1:])
        return self.dot(weights, self._slopes, out=self.error)

    def coarse_error_estimate(self) -> Array:
        """The same with the third set of weights, where the tableau has one; in the same buffer."""
        weights = to_xp(self.stages.xp, self._scaled[self.n + 2, 1:])
        return self.dot(weights, self._slopes, out=self.error)

    def evaluate_extra(self) -> None:
        """The extra stages of the step made, unless they are known."""
        if self._has_extra:
            return
        self._has_extra = True
        stages, (t, t_next) = self.stages, self._ends
        y_new = self.y_new.copy()  # stages may share the buffer of their inputs, in which it lies
        for i, a_i in enumerate(self.tableau.as_floats().extra_a, start=self.n):
            weights = to_xp(stages.xp, np.array([1.0, *((t_next - t) * a_i)], stages.rows.dtype))
            self.dot(weights, stages.rows[: i + 1], out=stages.input(i))
            stages.evaluate(i, self.stage_time(i, t, t_next))
        self.y_new[...] = y_new
        if self.stats is not None:
            self.stats.nfe += len(self.tableau.extra_c)

    def shift(self) -> None:
        """The new state becomes row 0, and for `fsal` its slope row 1."""
        self.stages.rows[0] = self.y_new
        if self.tableau.fsal:
            self.stages.rows[1] = self.stages.rows[self.n]
            self.stages.shift()

    def polynomial(self, h: float) -> Array:
        """(p + 1, n): coefficients C_j of the state sum_j theta**j C_j within the step,
        on an array of its own.
        """
        assert self._interpolant is not None
        self.evaluate_extra()
        return polynomial_of(self.tableau, self.stages.rows[0], self.stages.rows[1:], h)

    def interpolation_weights(self, thetas: np.ndarray, h: float, *, derivative: bool = False) -> np.ndarray:
        """`dense_weights` of this method."""
        assert self._interpolant is not None
        return dense_weights(self._interpolant, thetas, h, derivative=derivative)

    def interpolate(self, thetas: np.ndarray, h: float, *, derivative: bool = False) -> Array:
        """The state (or its time derivative) at several points of the step, (m, n), as one matrix product."""
        self.evaluate_extra()
        weights = self.interpolation_weights(thetas, h, derivative=derivative).astype(self.stages.rows.dtype)
        return self.dot(to_xp(self.stages.xp, weights), self.stages.rows)


def _step_weights(numbers: FloatTableau) -> np.ndarray:
    """(s + 2 or s + 3, s + 1): rows a_i, then b, then the error weights; column 0, of y itself, is 0."""
    n = len(numbers.b)
    rows = [*numbers.a, numbers.b]
    rows.append(np.zeros(n) if numbers.b_error is None else numbers.b_error)
    if numbers.coarse_error is not None:
        rows.append(numbers.coarse_error)
    weights = np.zeros((len(rows), n + 1))
    for weight, row in zip(weights, rows, strict=True):
        weight[1 : len(row) + 1] = row
    return weights
