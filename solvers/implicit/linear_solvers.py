"""Solving (I - alpha J) x = r: with an LU factorisation of the matrix, or with GMRES and products alone."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..dynamics import Dynamics
from ..solution import Stats
from .jacobian import EagerJacobian, ReplayedJacobian
from .linearization import EagerLinearization, ReplayedLinearization

GMRES_TOLERANCE = 1e-3  # of the residual; what is left is the next Newton iteration's
MAX_KRYLOV = 50  # vectors that GMRES keeps before it starts anew, once
SAME = 1e-8  # relative difference below which two sizes of a step are one: t + h - t is not h


class LinearSolver(Protocol):
    """x with (I - alpha J) x = r for one alpha at a time and the Jacobian J of f at one state at a time."""

    problem: str  # why there is no solution; empty where there is one

    def linearize(self, t: float, y: np.ndarray) -> None:
        """J from here on is that at (t, y)."""
        ...

    def prepare(self, alpha: float) -> None:
        """alpha from here on."""
        ...

    def solve(self, residual: np.ndarray) -> np.ndarray:
        """x (n,), on an array of its own."""
        ...


class Lu:
    """LU factorisation of I - alpha J, by LAPACK; kept while neither changes. `dtype` is that of alpha J.

    Cost: 2/3 n**3 multiplications to factorise, n**2 to solve.
    """

    def __init__(
        self, jacobian: ReplayedJacobian | EagerJacobian, stats: Stats, dtype: np.dtype | None = None
    ) -> None:
        self.jacobian = jacobian
        self.problem = ""
        self._stats = stats
        self._factors: Any = np.empty(jacobian.matrix.shape, dtype or jacobian.matrix.dtype, order="F")
        self._pivots: Any = None
        self._alpha: complex = 0.0
        self._is_finite = True
        from scipy.linalg import get_lapack_funcs  # late: it takes longer to import than all of this package

        self._factorize, self._substitute = get_lapack_funcs(("getrf", "getrs"), (self._factors,))

    def linearize(self, t: float, y: np.ndarray) -> None:
        self.jacobian.at(t, y)
        self._stats.n_jacobians += 1
        self._stats.nfe += 1
        self.renew()

    def renew(self) -> None:
        """The Jacobian has changed."""
        self._alpha = 0.0
        self._is_finite = bool(np.isfinite(self.jacobian.matrix).all())

    def prepare(self, alpha: complex) -> None:
        if abs(alpha - self._alpha) <= SAME * abs(alpha):
            return
        self._alpha, self.problem = alpha, "" if self._is_finite else "the Jacobian of f is not finite"
        matrix = self._factors
        np.multiply(self.jacobian.matrix, -alpha, out=matrix, casting="same_kind")
        matrix.T.flat[:: len(matrix) + 1] += 1.0
        self._stats.n_factorizations += 1
        if not len(matrix):
            return
        self._factors, self._pivots, info = self._factorize(matrix, overwrite_a=True)
        if info > 0:
            self.problem = "I - h gamma J is singular"

    def solve(self, residual: np.ndarray) -> np.ndarray:
        if not len(residual):
            return residual.copy()
        solution, _ = self._substitute(self._factors, self._pivots, residual)
        return solution


class Krylov:
    """GMRES on products with J: no matrix, no factorisation, for states too large for one.

    Source: Saad & Schultz (1986), SIAM J. Sci. Stat. Comput. 7, 856-869; in stiff solvers: Brown & Hindmarsh (1986),
        SIAM J. Numer. Anal. 23, 610-638.
    """

    problem = ""

    def __init__(self, push: ReplayedLinearization | EagerLinearization, stats: Stats) -> None:
        from scipy.sparse import linalg  # late, as above

        self._linalg = linalg
        self._push, self._stats = push, stats
        self._alpha = 0.0

    def linearize(self, t: float, y: np.ndarray) -> None:
        self._push.at(t, y)
        self._stats.n_jacobians += 1
        self._stats.nfe += 1

    def prepare(self, alpha: float) -> None:
        self._alpha = alpha

    def solve(self, residual: np.ndarray) -> np.ndarray:
        if not np.isfinite(residual).all() or not residual.any():
            return residual.copy()
        n = len(residual)
        operator = self._linalg.LinearOperator((n, n), matvec=self._multiply, dtype=residual.dtype)
        solution, _ = self._linalg.gmres(
            operator, residual, rtol=GMRES_TOLERANCE, restart=min(n, MAX_KRYLOV), maxiter=2
        )
        return solution  # where GMRES got stuck, the Newton iteration finds out

    def _multiply(self, v: np.ndarray) -> np.ndarray:
        v = v.reshape(-1)
        return v - v.dtype.type(self._alpha) * self._push(v)


def lu_solver(dynamics: Dynamics, *, eager: bool, stats: Stats, with_time: bool = False) -> Lu:
    """An `Lu` for one solve."""
    made = EagerJacobian if eager else ReplayedJacobian
    return Lu(made(dynamics, with_time=with_time), stats)


def krylov_solver(dynamics: Dynamics, *, eager: bool, stats: Stats) -> Krylov:
    """A `Krylov` for one solve."""
    return Krylov(EagerLinearization(dynamics) if eager else ReplayedLinearization(dynamics), stats)
