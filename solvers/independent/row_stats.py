"""Counts of a solve in which every row has its own steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..solution import Stats


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class RowStats(Stats):
    """`Stats`, whose counts are sums over the rows of a batch, and the counts of each row.

    Attributes:
        nfe_of_rows, n_accepted_of_rows, n_rejected_of_rows: (B,) int64; an evaluation of f counts for every row that was
            in the batch of that call.
        n_checks: calls of f that rows were compared in, to see that they do not depend on each other.
    """

    nfe_of_rows: np.ndarray = field(default_factory=_none)
    n_accepted_of_rows: np.ndarray = field(default_factory=_none)
    n_rejected_of_rows: np.ndarray = field(default_factory=_none)

    @classmethod
    def of(cls, n_rows: int) -> RowStats:
        """Zeros."""
        counts = [np.zeros(n_rows, np.int64) for _ in range(3)]
        return cls(nfe_of_rows=counts[0], n_accepted_of_rows=counts[1], n_rejected_of_rows=counts[2])

    def write(self, row: np.ndarray, nfe: np.ndarray, n_accepted: np.ndarray, n_rejected: np.ndarray) -> None:
        """The counts so far of the rows `row` (A,), and the sums over all."""
        self.nfe_of_rows[row], self.n_accepted_of_rows[row] = nfe, n_accepted
        self.n_rejected_of_rows[row] = n_rejected
        self.nfe, self.n_accepted = int(self.nfe_of_rows.sum()), int(self.n_accepted_of_rows.sum())
        self.n_rejected = int(self.n_rejected_of_rows.sum())

    def __str__(self) -> str:
        return f"{super().__str__()} (sums over {len(self.nfe_of_rows)} rows)"
