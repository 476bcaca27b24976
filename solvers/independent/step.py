"""One Runge-Kutta step of every row, each of its own size, stage by stage for all rows together."""

from __future__ import annotations

import numpy as np

from ...engine.backend import Array, to_host, to_xp
from ...engine.product_precision import plain_dot
from ..tableau import Tableau
from .batch import Batch


class RowsStep:
    """States, slopes and stages of the rows that are left, A of them.

    Attributes:
        y: states (A, n); y_new: those after the latest `advance`.
        n_evaluations: evaluations of f in an `advance`.
    """

    def __init__(self, batch: Batch, tableau: Tableau, y: Array, slope: Array) -> None:
        self.batch, self.tableau, self.xp = batch, tableau, batch.xp
        self._numbers = tableau.as_floats()
        self.n_evaluations = tableau.stages - 1
        self._real = np.zeros((), batch.dtype).real.dtype
        n_slopes = tableau.stages + len(tableau.extra_c)
        self._buffer = self.xp.empty((n_slopes, batch.size * batch.width), batch.dtype)
        self.y = self.y_new = y
        self._resize()
        self._slope(0)[...] = slope

    def _resize(self) -> None:
        self._slopes = self._buffer[:, : self.y.size]  # a window: products with it take its row length

    def _slope(self, i: int) -> Array:
        """Slope of stage i of every row, (A, n), to be read or written."""
        return self._slopes[i].reshape(self.y.shape)

    def first_slopes(self) -> Array:
        """f at the start of the step of every row, (A, n)."""
        return self._slope(0)

    def column(self, values: np.ndarray) -> Array:
        """Numbers of rows (A,) on the host as a column (A, 1) beside the states."""
        return to_xp(self.xp, values.astype(self._real)[:, None])

    def _sum(self, weights: np.ndarray) -> Array:
        """sum_i weights_i k_i over the first stages, (A, n)."""
        on_device = to_xp(self.xp, weights.astype(self.batch.dtype))
        return plain_dot(self.xp)(on_device, self._slopes[: len(weights)]).reshape(self.y.shape)

    def evaluate_start(self, t: np.ndarray, chosen: np.ndarray) -> None:
        """First slopes of the rows that are `chosen` (A,), at times t (A,)."""
        if chosen.all():
            self._slope(0)[...] = self.batch.slope(t, self.y)
        elif chosen.any():
            rows = to_xp(self.xp, np.flatnonzero(chosen))
            self._slope(0)[rows] = self.batch.slope(t[chosen], self.y[rows])

    def advance(self, t: np.ndarray, t_next: np.ndarray) -> None:
        """All stages, from t to t_next (A,); the new states are `y_new`."""
        numbers, h = self._numbers, t_next - t
        column = self.column(h)
        x = self.y
        for i in range(1, self.tableau.stages):
            x = self._moved(numbers.a[i], column)
            c = float(numbers.c[i])
            self._slope(i)[...] = self.batch.slope(t_next if c == 1.0 else t + c * h, x)
        self.y_new = x if self.tableau.fsal else self._moved(numbers.b, column)

    def _moved(self, weights: np.ndarray, column: Array) -> Array:
        """y + h sum_i weights_i k_i."""
        total = self._sum(weights)
        total *= column
        total += self.y
        return total

    def error_norms(self, h: np.ndarray, rtol: float, atol: float) -> np.ndarray:
        """Scaled error of the latest `advance` of each row (A,):
        RMS of error / (atol + rtol max(|y|, |y_new|)).
        """
        numbers, column, scale = self._numbers, self.column(h), self.scale(rtol, atol)
        fine = row_norms(self._error(column), scale)
        if numbers.coarse_error is None:
            return fine
        coarse = row_norms(self._sum(numbers.coarse_error) * column, scale)
        both = np.sqrt(fine**2 + 0.01 * coarse**2)
        return np.where(both == 0.0, 0.0, fine**2 / np.where(both == 0.0, 1.0, both))

    def scaled_errors(self, h: np.ndarray, rtol: float, atol: float) -> np.ndarray:
        """|error| / scale of the latest `advance`, (A, n) on the host;
        NaN where a new state is not finite.
        """
        return to_host(abs(self._error(self.column(h)) / self.scale(rtol, atol)))

    def _error(self, column: Array) -> Array:
        numbers = self._numbers
        assert numbers.b_error is not None
        return self._sum(numbers.b_error) * column + 0.0 * self.y_new

    def bad_values(self) -> list[np.ndarray]:
        """Where the slopes of the stages, and then the new state, are not finite: masks (A, n)
        on the host.
        """
        arrays = [*(self._slope(i) for i in range(self.tableau.stages)), self.y_new]
        return [to_host(~self.xp.isfinite(array)) for array in arrays]

    def scale(self, rtol: float, atol: float) -> Array:
        """atol + rtol max(|y|, |y_new|), (A, n)."""
        return atol + rtol * self.xp.maximum(abs(self.y), abs(self.y_new))

    def accept(self, accepted: np.ndarray) -> None:
        """Rows that are `accepted` (A,) move on: state, and with a `fsal` method the slope."""
        last = self.tableau.stages - 1
        if accepted.all():
            self.y = self.y_new
            if self.tableau.fsal:
                self._slopes[0] = self._slopes[last]
            return
        mask = to_xp(self.xp, accepted[:, None])
        self.y = self.xp.where(mask, self.y_new, self.y)
        if self.tableau.fsal:
            self._slope(0)[...] = self.xp.where(mask, self._slope(last), self._slope(0))

    def keep(self, left: np.ndarray) -> None:
        """Only the rows that are `left` (A,) stay."""
        rows = to_xp(self.xp, np.flatnonzero(left))
        slope = self._slope(0)[rows]
        self.y = self.y_new = self.y[rows]
        self._resize()
        self._slope(0)[...] = slope

    def evaluate_extra(self, t: np.ndarray, h: np.ndarray, chosen: np.ndarray) -> None:
        """The stages that only dense output needs, of the rows that are `chosen` (A,)."""
        column, rows = self.column(h), to_xp(self.xp, np.flatnonzero(chosen))
        for i, c in enumerate(self._numbers.extra_c.tolist()):
            x = self._moved(self._numbers.extra_a[i], column)[rows]
            times = t[chosen] + c * h[chosen]
            self._slope(self.tableau.stages + i)[rows] = self.batch.slope(times, x)

    def interpolate(self, rows: np.ndarray, thetas: np.ndarray, h: np.ndarray) -> Array:
        """States (P, n) of the rows (P,) at theta (P,) of their steps of sizes h (P,)."""
        interpolant = self._numbers.interpolant
        assert interpolant is not None
        powers = np.arange(1, interpolant.shape[1] + 1)
        weights = h[:, None] * (thetas[:, None] ** powers @ interpolant.T)
        chosen = to_xp(self.xp, rows)
        states = self.y[chosen]
        for i in range(len(interpolant)):
            states = states + self.column(weights[:, i]) * self._slope(i)[chosen]
        return states


def row_norms(error: Array, scale: Array) -> np.ndarray:
    """Root mean square of error / scale, (A, n), for each row: (A,) float64 on the host; 0 for empty rows."""
    ratio = abs(error / scale)
    n_values = max(ratio.shape[1], 1)
    squares = to_host((ratio * ratio).sum(axis=1)).astype(np.float64)
    return np.sqrt(squares / n_values)
