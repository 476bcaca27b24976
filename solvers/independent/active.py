"""The rows of a batch that have not finished."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass
class Active:
    """What is known of the rows that are left: arrays (A,), in the order of the batch.

    Attributes:
        row: place in the batch; t: time reached; h: signed size of the next attempt.
        n_done: output times already written.
        nfe, n_accepted, n_rejected: counts.
        error: scaled error of the latest attempt; first_h: signed size of the first attempt from t.
        needs_slope: whether the slope at t is still to be evaluated.
    """

    row: np.ndarray
    t: np.ndarray
    h: np.ndarray
    n_done: np.ndarray
    nfe: np.ndarray
    n_accepted: np.ndarray
    n_rejected: np.ndarray
    error: np.ndarray
    first_h: np.ndarray
    needs_slope: np.ndarray

    @classmethod
    def of(cls, n_rows: int, t0: float) -> Active:
        """At the start, where the state and its slope are known."""
        counts = [np.zeros(n_rows, np.int64) for _ in range(3)]
        return cls(
            np.arange(n_rows), np.full(n_rows, t0), np.zeros(n_rows), np.ones(n_rows, np.int64), counts[0] + 1,
            counts[1], counts[2], np.zeros(n_rows), np.zeros(n_rows), np.zeros(n_rows, bool),
        )  # fmt: skip

    def keep(self, left: np.ndarray) -> None:
        """Only the rows that are `left` (A,) stay."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[left])
