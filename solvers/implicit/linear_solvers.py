"""Solving (I - alpha J) x = r: with the matrix, factorised or inverted, or with GMRES and products alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np

from ...engine.backend import Array, to_number
from ...engine.product_precision import plain_dot
from ..dynamics import Dynamics
from ..stats import Stats
from .jacobian import EagerJacobian, ReplayedJacobian
from .linearization import EagerLinearization, ReplayedLinearization

GMRES_TOLERANCE = 1e-3  # of the residual; what is left is the next Newton iteration's
MAX_KRYLOV = 50  # vectors that GMRES keeps before it starts anew, once
SAME = 1e-8  # relative difference below which two sizes of a step are one: t + h - t is not h


class LinearSolver(Protocol):
    """x with (I - alpha J) x = r for one alpha at a time and the Jacobian J of f at one state at a time."""

    problem: str  # why there is no solution; empty where there is one

    def linearize(self, t: float, y: Array) -> None:
        """J from here on is that at (t, y)."""
        ...

    def prepare(self, alpha: float) -> None:
        """alpha from here on."""
        ...

    def solve(self, residual: Array) -> Array:
        """x (n,), on an array of its own."""
        ...


class DenseSolver(ABC):
    """What is common to those who hold I - alpha J as a matrix; kept while neither alpha nor J changes.

    `dtype` is that of alpha J.
    """

    def __init__(
        self, jacobian: ReplayedJacobian | EagerJacobian, stats: Stats, dtype: np.dtype | None = None
    ) -> None:
        self.jacobian = jacobian
        self.problem = ""
        self.dtype = dtype or jacobian.matrix.dtype
        self._stats = stats
        self._alpha: complex = 0.0
        self._is_finite = True

    def linearize(self, t: float, y: Array) -> None:
        self.jacobian.at(t, y)
        self._stats.n_jacobians += 1
        self._stats.nfe += 1
        self.renew()

    def renew(self) -> None:
        """The Jacobian has changed."""
        self._alpha = 0.0
        self._is_finite = to_number(self.jacobian.xp.isfinite(self.jacobian.matrix).all())

    def prepare(self, alpha: complex) -> None:
        if abs(alpha - self._alpha) <= SAME * abs(alpha):
            return
        self._alpha, self.problem = alpha, "" if self._is_finite else "the Jacobian of f is not finite"
        self._stats.n_factorizations += 1
        if len(self.jacobian.matrix) and not self._factorize(alpha):
            self.problem = "I - h gamma J is singular"

    @abstractmethod
    def _factorize(self, alpha: complex) -> bool:
        """Make ready to solve with I - alpha J; whether that is not singular."""

    @abstractmethod
    def solve(self, residual: Array) -> Array: ...


class Lu(DenseSolver):
    """LU factorisation by LAPACK, on NumPy arrays. Cost: 2/3 n**3 multiplications to factorise,
    n**2 to solve.
    """

    def __init__(
        self, jacobian: ReplayedJacobian | EagerJacobian, stats: Stats, dtype: np.dtype | None = None
    ) -> None:
        super().__init__(jacobian, stats, dtype)
        self._factors: Any = np.empty(jacobian.matrix.shape, self.dtype, order="F")
        self._pivots: Any = None
        from scipy.linalg import get_lapack_funcs  # late: it takes longer to import than all of this package

        self._getrf, self._getrs = get_lapack_funcs(("getrf", "getrs"), (self._factors,))

    def _factorize(self, alpha: complex) -> bool:
        matrix = self._factors
        np.multiply(self.jacobian.matrix, -alpha, out=matrix, casting="same_kind")
        matrix.T.flat[:: len(matrix) + 1] += 1.0
        self._factors, self._pivots, info = self._getrf(matrix, overwrite_a=True)
        return info <= 0

    def solve(self, residual: Array) -> Array:
        if not len(residual):
            return residual.copy()
        solution, _ = self._getrs(self._factors, self._pivots, residual)
        return solution


class Inverse(DenseSolver):
    """The inverse, on arrays of a device: a solve is one product there,
    where substitutions would be n small steps.

    What an inverse loses of accuracy the next Newton iteration makes good. Cost: 2 n**3 multiplications to
    invert, n**2 to solve.
    """

    def _factorize(self, alpha: complex) -> bool:
        xp, matrix = self.jacobian.xp, self.jacobian.matrix
        identity = xp.eye(len(matrix), dtype=self.dtype)
        try:
            self._inverse = xp.linalg.inv(identity - self.dtype.type(alpha) * matrix)
        except np.linalg.LinAlgError:  # CuPy's default is to leave infinite values instead
            self._inverse = xp.full_like(identity, np.nan)
        return to_number(xp.isfinite(self._inverse).all())

    def solve(self, residual: Array) -> Array:
        if not len(residual):
            return residual.copy()
        return plain_dot(self.jacobian.xp)(self._inverse, residual)


class Krylov:
    """GMRES on products with J: no matrix, no factorisation, for states too large for one.

    Source: Saad & Schultz (1986), SIAM J. Sci. Stat. Comput. 7, 856-869; in stiff solvers: Brown & Hindmarsh
        (1986), SIAM J. Numer. Anal. 23, 610-638.
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


def dense_solver(dynamics: Dynamics, *, eager: bool, stats: Stats, with_time: bool = False) -> DenseSolver:
    """An `Lu` for one solve, or an `Inverse` where its arrays are not NumPy's."""
    made = EagerJacobian if eager else ReplayedJacobian
    kind = Lu if dynamics.xp is np else Inverse
    return kind(made(dynamics, with_time=with_time), stats)


def krylov_solver(dynamics: Dynamics, *, eager: bool, stats: Stats) -> Krylov:
    """A `Krylov` for one solve."""
    return Krylov(EagerLinearization(dynamics) if eager else ReplayedLinearization(dynamics), stats)
