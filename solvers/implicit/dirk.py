"""Diagonally implicit Runge-Kutta methods: what a user chooses, and their step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...engine.backend import Array, to_xp
from ...engine.errors import ArgumentError
from ...engine.product_precision import plain_dot
from ..dynamics import Dynamics
from ..method import AnyStep, Method, Norm
from ..stages import EagerStages, Stages
from ..stats import Stats
from ..step_polynomial import read_polynomial
from .dirk_tableau import DirkTableau
from .dirk_tableaus import ESDIRK5, IMPLICIT_EULER, KVAERNO5, TRAPEZOID
from .linear_solvers import LinearSolver, dense_solver, krylov_solver
from .newton import Newton
from .on_numpy import check_numpy

LINEAR_SOLVERS = ("dense", "krylov")
SLOW = 0.03  # a rate of the Newton iteration that is worth a new Jacobian: it saves an iteration a stage


@dataclass(frozen=True)
class DiagonallyImplicit(Method):
    """A diagonally implicit Runge-Kutta method; its stages are solved by simplified Newton iterations.

    Args:
        linear_solver: "dense" (Jacobian as a matrix, LU factorisations)
            or "krylov" (GMRES on products with the
            Jacobian: no matrix, for large states).
    """

    linear_solver: str = "dense"

    tableau: ClassVar[DirkTableau]

    def __init_subclass__(cls) -> None:
        tableau = cls.tableau
        cls.name, cls.source = tableau.name, tableau.source
        cls.order, cls.error_order = tableau.order, tableau.error_order
        cls.stages, cls.fsal, cls.interpolates = tableau.stages, True, True

    def __post_init__(self) -> None:
        if self.linear_solver not in LINEAR_SOLVERS:
            raise ArgumentError(
                f"`linear_solver` must be one of {', '.join(map(repr, LINEAR_SOLVERS))}; got {self.linear_solver!r}"
            )

    def check(self, y0: Any) -> None:
        if self.linear_solver == "krylov":
            check_numpy(self.name, y0)

    def step_on(self, stages: Stages, dynamics: Dynamics, norm: Norm, stats: Stats) -> AnyStep:
        make = krylov_solver if self.linear_solver == "krylov" else dense_solver
        solver = make(dynamics, eager=isinstance(stages, EagerStages), stats=stats)
        return DirkStep(
            stages, self.tableau, solver, norm, stats, keeps_jacobian=self.linear_solver == "dense"
        )


@dataclass(frozen=True)
class ImplicitEuler(DiagonallyImplicit):
    """Implicit Euler: order 1, L-stable, fixed steps. rtol and atol say how exactly each step is solved."""

    tableau = IMPLICIT_EULER


@dataclass(frozen=True)
class Trapezoid(DiagonallyImplicit):
    """The trapezoidal rule: order 2, A-stable, not L-stable, fixed steps.
    rtol and atol say how exactly each is solved.
    """

    tableau = TRAPEZOID


@dataclass(frozen=True)
class Kvaerno5(DiagonallyImplicit):
    """Kvaerno's 5(4) pair: L-stable, six implicit stages."""

    tableau = KVAERNO5


@dataclass(frozen=True)
class Esdirk5(DiagonallyImplicit):
    """Kennedy and Carpenter's ESDIRK5(4)7L[2]SA2: L-stable, six implicit stages, a smaller error constant."""

    tableau = ESDIRK5


class DirkStep:
    """A step on the rows [y, k_1, ..., k_s] of `Stages`, k_i = (Y_i - y - h sum_{j < i} a_ij k_j)
    / (h gamma).

    The slopes are taken from the stages and not from f, which would magnify what is left of a stiff
    component's error. The Jacobian of one state serves later ones too while the Newton iteration converges
    fast with it.
    """

    def __init__(
        self,
        stages: Stages,
        tableau: DirkTableau,
        solver: LinearSolver,
        norm: Norm,
        stats: Stats,
        *,
        keeps_jacobian: bool,
    ) -> None:
        self.stages, self.tableau, self.solver = stages, tableau, solver
        self.numbers = tableau.numbers
        self.n_evaluations = 0  # of the latest step
        self.failure, self._is_solved = "", True
        self.newton = Newton(stages, solver, norm, stats)
        self._stats = stats
        self._keeps_jacobian = keeps_jacobian
        self._is_current, self._is_slow = False, True  # whether J is that of row 0; whether it ought to be
        s, rows = tableau.stages, stages.rows
        self.y_new: Array = rows[0]
        self._h = 0.0
        self._base = stages.xp.empty(rows.shape[1], rows.dtype)
        self._end = stages.input(s - 1)
        a = self.numbers.a
        guesses = a - np.diag(np.diag(a)) + self.numbers.gamma * self.numbers.predictor
        self._weights = np.stack([a - np.diag(np.diag(a)), guesses])  # (2, s, s), times h
        self._scaled = np.ones((2, s, s + 1), rows.dtype)
        self._heads = [rows[: i + 1] for i in range(s)]

    def evaluate_start(self, t: float) -> None:
        """k_1 = f(t, y) for the state in row 0."""
        self.stages.input(0)[...] = self.stages.rows[0]
        self.stages.evaluate(0, t)

    def advance(self, t: float, t_next: float) -> None:
        """All stages from t to t_next; where they cannot be solved the new state is NaN and `failure` says
        why.
        """
        before = self._stats.n_newton
        if self._is_slow and not self._is_current:
            self._linearize(t)
        is_solved = self._solve_stages(t, t_next)
        if not is_solved and not self._is_current:
            self._linearize(t)
            is_solved = self._solve_stages(t, t_next)
        self.y_new = self._end if is_solved else self.stages.xp.full_like(self._end, np.nan)
        self._is_solved, self.failure = is_solved, "" if is_solved else self.newton.failure
        self.n_evaluations = self._stats.n_newton - before

    def _linearize(self, t: float) -> None:
        self.solver.linearize(t, self.stages.rows[0])
        self._is_current, self._is_slow = True, False

    def _solve_stages(self, t: float, t_next: float) -> bool:
        self._h = h = t_next - t
        stages, rows, xp, c = self.stages, self.stages.rows, self.stages.xp, self.numbers.c
        alpha = h * self.numbers.gamma
        np.multiply(self._weights, h, out=self._scaled[:, :, 1:], casting="same_kind")
        weights, dot = to_xp(xp, self._scaled), plain_dot(xp)
        self.solver.prepare(alpha)
        self.newton.contraction.slowest = 0.0
        for i in range(1, self.tableau.stages):
            dot(weights[0, i, : i + 1], self._heads[i], out=self._base)
            dot(weights[1, i, : i + 1], self._heads[i], out=stages.input(i))
            t_i = t_next if c[i] == 1.0 else t + float(c[i]) * h
            if not self.newton.solve(i, t_i, alpha, self._base):
                return False
            xp.subtract(stages.input(i), self._base, out=rows[i + 1])
            rows[i + 1] /= rows.dtype.type(alpha)
        return True

    def error_estimate(self) -> Array:
        """h sum_i (b_i - b_embedded_i) k_i; times (I - h gamma J)**-1 unless the embedded solution is one of
        the stages.

        A stage is as well damped as the solution. Any other sum of slopes magnifies the stiff components, and
        the estimate with them, which the factor undoes: Hairer & Wanner (1996), Solving ODEs II,
        section IV.8 (8.20).
        """
        xp = self.stages.xp
        if not self._is_solved:
            return xp.full_like(self._end, np.inf)
        assert self.numbers.b_error is not None
        weights = (self._h * self.numbers.b_error).astype(self._end.dtype)
        error = plain_dot(xp)(to_xp(xp, weights), self.stages.rows[1:])
        return error if self.tableau.embedded_is_stage else self.solver.solve(error)

    def shift(self) -> None:
        """The new state becomes row 0 and the slope at its end row 1."""
        rows = self.stages.rows
        rows[0] = self.y_new
        rows[1] = rows[self.tableau.stages]
        self._is_current = False
        self._is_slow = not self._keeps_jacobian or self.newton.contraction.slowest > SLOW

    def polynomial(self, h: float) -> Array:
        """(p + 1, n): coefficients C_j of the state sum_j theta**j C_j within the step,
        on an array of its own.
        """
        interpolant = self.numbers.interpolant
        weights = np.zeros((interpolant.shape[1] + 1, self.tableau.stages + 1), self._end.dtype)
        weights[0, 0] = 1.0
        weights[1:, 1:] = h * interpolant.T
        return plain_dot(self.stages.xp)(to_xp(self.stages.xp, weights), self.stages.rows)

    def interpolate(self, thetas: np.ndarray, h: float, *, derivative: bool = False) -> Array:
        """The state (or its time derivative) at several points of the step, (m, n)."""
        return read_polynomial(self.stages.xp, self.polynomial(h), thetas, h, derivative=derivative)
