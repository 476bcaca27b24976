"""Counts of a solve."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np


@dataclass
class Stats:
    """Counts of one solve; the second half is filled in by a backward pass.

    Attributes:
        nfe: evaluations of f, those of rejected steps and of the first-step probe included.
        n_accepted, n_rejected: attempted steps.
        n_jacobians, n_factorizations: Jacobians and LU factorisations of an implicit method.
        n_newton: its Newton iterations, one evaluation of f each (radau5: three).
        n_checks: plain calls of f that a new program was compared with (0 or 1), not part of nfe.
        nfe_backward: evaluations of f in backward passes.
        n_recomputed: steps made again in backward passes to reach states that were not stored
            (`checkpoints`).
        n_vjp_state, n_vjp_params: pull-backs to the state and to the parameters.
        peak_saved_bytes: what the solve kept for its derivative.
        n_accepted_backward, n_rejected_backward: steps of backward solves (`backsolve`, `interpolated`).
        drift: largest |y_back - y| / (atol + rtol |y|) of a state y_back that a backward pass reconstructed,
            y the stored one (`backsolve`, `reversible`).
    """

    nfe: int = 0
    n_accepted: int = 0
    n_rejected: int = 0
    n_jacobians: int = 0
    n_factorizations: int = 0
    n_newton: int = 0
    n_checks: int = 0
    nfe_backward: int = 0
    n_recomputed: int = 0
    n_vjp_state: int = 0
    n_vjp_params: int = 0
    peak_saved_bytes: int = 0
    n_accepted_backward: int = 0
    n_rejected_backward: int = 0
    drift: float = 0.0

    def __str__(self) -> str:
        return f"nfe {self.nfe}, {self.n_accepted} steps accepted, {self.n_rejected} rejected"

    def to_arrays(self) -> tuple[dict[str, int | float], dict[str, np.ndarray]]:
        """The numbers and the arrays of this record, by the names of its fields."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        return {name: value for name, value in values.items() if name not in arrays}, arrays


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class RowStats(Stats):
    """`Stats`, whose counts are sums over the rows of a batch, and the counts of each row.

    Attributes:
        nfe_of_rows, n_accepted_of_rows, n_rejected_of_rows: (B,) int64; an evaluation of f counts for every
            row that was in the batch of that call.
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
