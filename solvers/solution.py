"""What a solve returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine.tree import Tree
from .dense import Dense


@dataclass
class Stats:
    """Counts of one solve; the second half is filled in by a backward pass.

    Attributes:
        nfe: evaluations of f, those of rejected steps and of the first-step probe included.
        n_accepted, n_rejected: attempted steps.
        n_jacobians, n_factorizations: Jacobians and LU factorisations of an implicit method.
        n_newton: its Newton iterations, one evaluation of f each.
        n_checks: plain calls of f that a new program was compared with (0 or 1), not part of nfe.
        nfe_backward: evaluations of f in backward passes.
        n_recomputed: steps made again in backward passes to reach states that were not stored (`checkpoints`).
        n_vjp_state, n_vjp_params: pull-backs to the state and to the parameters.
        peak_saved_bytes: what the solve kept for its derivative.
        n_accepted_backward, n_rejected_backward: steps of backward solves (`backsolve`, `interpolated`).
        drift: largest |y_back - y| / (atol + rtol |y|) of a state y_back that a backward pass reconstructed, y the stored
            one (`backsolve`, `reversible`).
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


@dataclass(frozen=True)
class Aux:
    """What f returned beside the slope, from evaluations that belong to accepted steps, in the order of integration.

    Attributes:
        ts: times (N,), float64, monotone in the direction of the solve.
        values: tree that f returned, each leaf with a leading axis N. Not differentiated.
    """

    ts: np.ndarray
    values: Tree


@dataclass
class Solution:
    """The solution at the output times.

    Attributes:
        ts: output times (T,), float64; with save="steps" the accepted times.
        ys: state at these times: a tree shaped like y0, each leaf (T, *shape).
        grid: the accepted times (N + 1,); odeint(..., grid=sol.grid) walks exactly these again.
        stats: counts; a backward pass adds to them.
        aux: with has_aux=True what f returned beside the slope.
        status: "finished", or the name of the error that ended a partial solution.
        dense: with dense=True the solution as a function of time.
    """

    ts: np.ndarray
    ys: Tree
    grid: np.ndarray
    stats: Stats = field(default_factory=Stats)
    aux: Aux | None = None
    status: str = "finished"
    dense: Dense | None = None

    def __repr__(self) -> str:
        return f"Solution({self.status}, {len(self.ts)} times in [{self.ts[0]:g}, {self.ts[-1]:g}], {self.stats})"


@dataclass(frozen=True)
class StepInfo:
    """One attempted step, as a callback sees it: from t to t + h with this error norm; y is a copy, a tree like y0."""

    t: float
    h: float
    error_norm: float
    is_accepted: bool
    y: Any
