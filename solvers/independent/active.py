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
        error, h_tried: scaled error and signed size of the latest attempt, 0 before there is one.
        first_h: size of the first attempt from t.
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
    h_tried: np.ndarray
    first_h: np.ndarray
    needs_slope: np.ndarray

    @classmethod
    def of(cls, n_rows: int, t0: float) -> Active:
        """At the start, where the state and its slope are known."""

        def zeros(dtype: type) -> np.ndarray:
            return np.zeros(n_rows, dtype)

        return cls(
            row=np.arange(n_rows), t=np.full(n_rows, t0), h=zeros(float), n_done=zeros(int) + 1, nfe=zeros(int) + 1,
            n_accepted=zeros(int), n_rejected=zeros(int), error=zeros(float), h_tried=zeros(float),
            first_h=zeros(float), needs_slope=zeros(bool),
        )  # fmt: skip

    def keep(self, left: np.ndarray) -> None:
        """Only the rows that are `left` (A,) stay."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[left])
