"""Step-size control of many rows at once."""

from __future__ import annotations

import sys
from typing import Protocol

import numpy as np

from ..controller import SMALLEST_REMEMBERED_ERROR, Controller, PIController, Verdict


class RowsControl(Protocol):
    """Decides about the attempted steps of all rows that are left, A of them, and remembers what it needs."""

    def judge(self, errors: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(is_accepted, next_h), each (A,), from error norms and signed sizes (A,)."""
        ...

    def keep(self, left: np.ndarray) -> None:
        """Only the rows that are `left` (A,) stay."""
        ...


def control_of_rows(controller: Controller, n_rows: int) -> RowsControl:
    """What decides as `controller.judge` does for each of `n_rows` rows."""
    return PIRows(controller, n_rows) if type(controller) is PIController else AnyRows(controller, n_rows)


class PIRows:
    """`PIController.judge` as operations on arrays."""

    def __init__(self, controller: PIController, n_rows: int) -> None:
        self.controller = controller
        self._remembered = np.full(n_rows, np.nan)  # error norms of the latest accepted steps
        self._was_rejected = np.zeros(n_rows, bool)

    def judge(self, errors: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        control = self.controller
        integral = control.safety * errors ** (-1.0 / control.order)
        memory = np.maximum(self._remembered, SMALLEST_REMEMBERED_ERROR) ** control.beta
        proportional = control.safety * errors ** -(1.0 / control.order - 0.75 * control.beta) * memory
        growing = np.where(np.isnan(memory), integral, proportional)
        growing[errors < sys.float_info.min] = control.max_factor
        growing = np.minimum(np.where(self._was_rejected, 1.0, control.max_factor), growing)
        is_accepted = errors <= 1.0
        factor = np.where(is_accepted, growing, integral)
        factor = np.where(np.isfinite(errors), np.maximum(control.min_factor, factor), control.min_factor)
        self._remembered = np.where(is_accepted, errors, self._remembered)
        self._was_rejected = ~is_accepted
        return is_accepted, h * factor

    def keep(self, left: np.ndarray) -> None:
        self._remembered, self._was_rejected = self._remembered[left], self._was_rejected[left]


class AnyRows:
    """Another controller, asked row by row: a few microseconds each."""

    def __init__(self, controller: Controller, n_rows: int) -> None:
        self.controller = controller
        self._verdicts: list[Verdict | None] = [None] * n_rows

    def judge(self, errors: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        verdicts = [
            self.controller.judge(*known)
            for known in zip(errors.tolist(), h.tolist(), self._verdicts, strict=True)
        ]
        self._verdicts = list(verdicts)
        return np.array([v.is_accepted for v in verdicts], bool), np.array([v.next_h for v in verdicts])

    def keep(self, left: np.ndarray) -> None:
        self._verdicts = [self._verdicts[i] for i in np.flatnonzero(left)]
