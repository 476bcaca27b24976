"""Radau IIA of order 5: three stages solved together,
by a real and a complex linear system a Newton iteration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...engine.backend import Array, to_xp
from ...engine.errors import ArgumentTypeError
from ...engine.product_precision import plain_dot
from ...engine.trace import base_value
from ...engine.tree import leaves
from ..dynamics import Dynamics
from ..method import AnyStep, Method, Norm
from ..stages import EagerStages, Stages
from ..stats import Stats
from ..step_polynomial import read_polynomial
from .linear_solvers import DenseSolver, dense_solver
from .newton import Contraction, round_off_size

ROOT6 = math.sqrt(6.0)
C = np.array([(4.0 - ROOT6) / 10.0, (4.0 + ROOT6) / 10.0, 1.0])
POWERS = C[:, None] ** np.arange(1, 4)  # of theta = c_i in the collocation polynomial without its constant
# A integrates the polynomials that interpolate the slopes: A c**(q - 1) = c**q / q.
A = POWERS / np.arange(1, 4) @ np.linalg.inv(C[:, None] ** np.arange(3))
TO_COLLOCATION = np.linalg.inv(POWERS)  # from Z to the coefficients of that polynomial
E = np.array([-13.0 - 7.0 * ROOT6, -13.0 + 7.0 * ROOT6, -1.0]) / 3.0  # of the error estimate
STOP = 1e-2  # error left in the stages, in units of the tolerances
SLOW = 0.03  # a rate of the Newton iteration that is worth a new Jacobian


def _eigenvalues() -> tuple[float, complex, np.ndarray]:
    """The real eigenvalue of A**-1, the complex one above the axis,
    and the eigenvectors [v, w, conj w] as columns.
    """
    values, vectors = np.linalg.eig(np.linalg.inv(A))
    real, above = int(np.argmin(abs(values.imag))), int(np.argmax(values.imag))
    v, w = vectors[:, real].real, vectors[:, above]
    return float(values[real].real), complex(values[above]), np.stack([v, w, w.conj()], axis=1)


def _bend() -> np.ndarray:
    """(4,): coefficients of theta to theta**4 in the integral of prod_i (1 - s / c_i) from 0 to theta.

    Its slope is 1 at theta = 0 and vanishes at all c_i; it is 0 at theta = 1,
    since the quadrature of the c_i is exact.
    """
    product = np.polynomial.polynomial.polyfromroots(C)
    return product / product[0] / np.arange(1, 5)


MU_REAL, MU_COMPLEX, V = _eigenvalues()
V_INVERSE = np.linalg.inv(V)[:2]  # the third row is the conjugate of the second
BEND = _bend()


@dataclass(frozen=True)
class Radau5(Method):
    """Radau IIA of order 5: L-stable, three fully implicit stages, dense output of order 4. For real states.

    The fewest evaluations of f of the implicit methods here at moderate and tight tolerances; each step
    factorises two matrices, one of them complex, unless its size and the Jacobian are those of the step
    before.
    """

    name = "radau5"
    order = 5
    stages = 4
    fsal = False
    error_order = 4
    interpolates = True
    controller = "predictive"
    source = "Hairer & Wanner (1996), Solving ODEs II, section IV.8"

    def check(self, y0: Any) -> None:
        if base_value(leaves(y0)[0]).dtype.kind == "c":
            raise ArgumentTypeError(
                f"method={self.name!r} is for real states; got a complex `y0`. Use 'kvaerno5'"
            )

    def step_on(self, stages: Stages, dynamics: Dynamics, norm: Norm, stats: Stats) -> AnyStep:
        solver = dense_solver(dynamics, eager=isinstance(stages, EagerStages), stats=stats)
        return RadauStep(stages, solver, norm, stats)


class RadauStep:
    """One step on the rows [y, f, F_1, F_2, F_3]: Z_i = Y_i - y solve Z = h (A x I) F(y + Z),
    and y_new = y + Z_3.

    In the eigenvectors of A the Newton iteration falls apart into (I - h/mu J) dw = h/mu (V**-1 F) - w for
    the real eigenvalue mu of A**-1 and for one of the complex pair; the other is its conjugate.
    """

    def __init__(self, stages: Stages, solver: DenseSolver, norm: Norm, stats: Stats) -> None:
        rows, xp = stages.rows, stages.xp
        n, dtype = rows.shape[1], rows.dtype
        complex_dtype = np.result_type(dtype, np.complex64)
        self.stages, self.failure, self.n_evaluations = stages, "", 0
        self.y_new: Array = rows[0]
        self._norm, self._stats = norm, stats
        self._real, self._complex = solver, type(solver)(solver.jacobian, stats, complex_dtype)
        self._contraction = Contraction(STOP)
        self._z = xp.zeros((3, n), dtype)
        self._polynomial: Array = xp.zeros((4, n), dtype)  # of the latest accepted step, without its constant
        self._estimate: Array | None = None  # of the error of the latest step, where it has been asked for
        self._t = self._h = self._last_h = 0.0
        self._is_solved, self._was_rejected = True, True
        self._is_current, self._is_slow = False, True  # whether J is that of row 0; whether it ought to be
        self._v_real = to_xp(xp, V[:, 0].real.astype(dtype))
        self._v_complex = to_xp(xp, V[:, 1].astype(complex_dtype))
        self._v_inverse = to_xp(xp, V_INVERSE.astype(complex_dtype))
        self._to_collocation = to_xp(xp, TO_COLLOCATION.astype(dtype))
        self._bend = to_xp(xp, (MU_REAL * BEND).astype(dtype))
        self._e = to_xp(xp, (E / MU_REAL).astype(dtype))

    def evaluate_start(self, t: float) -> None:
        """f(t, y) for the state in row 0."""
        self.stages.input(0)[...] = self.stages.rows[0]
        self.stages.evaluate(0, t)

    def advance(self, t: float, t_next: float) -> None:
        """All stages from t to t_next; where they cannot be solved the new state is NaN and `failure` says
        why.
        """
        before = self._stats.n_newton
        self._t, self._h, self._estimate = t, t_next - t, None
        if self._is_slow and not self._is_current:
            self._linearize(t)
        self._is_solved = self._solve(t, t_next)
        if not self._is_solved and not self._is_current:
            self._linearize(t)
            self._is_solved = self._solve(t, t_next)
        problem = self._real.problem or self._complex.problem or self._contraction.failure
        self.failure = "" if self._is_solved else problem
        z = self._z[2]
        self.y_new = self.stages.rows[0] + z if self._is_solved else self.stages.xp.full_like(z, np.nan)
        self.n_evaluations = 3 * (self._stats.n_newton - before)

    def _linearize(self, t: float) -> None:
        self._real.linearize(t, self.stages.rows[0])
        self._complex.renew()
        self._is_current, self._is_slow = True, False

    def _solve(self, t: float, t_next: float) -> bool:
        """The Newton iteration, from the polynomial of the step before; whether it converged."""
        h, y, z, contraction = self._h, self.stages.rows[0], self._z, self._contraction
        outer = self.stages.xp.outer
        self._guess()
        self._real.prepare(h / MU_REAL)
        self._complex.prepare(h / MU_COMPLEX)
        w = self._v_inverse @ z
        contraction.slowest = 0.0
        contraction.begin()
        while True:
            self._evaluate_stages(t, t_next)
            slopes = self._v_inverse @ self.stages.rows[2:]
            dw_real = self._real.solve((slopes[0].real * (h / MU_REAL) - w[0].real).astype(y.dtype))
            dw_complex = self._complex.solve((slopes[1] * (h / MU_COMPLEX) - w[1]).astype(w.dtype))
            w[0] += dw_real
            w[1] += dw_complex
            change = outer(self._v_real, dw_real) + 2.0 * outer(self._v_complex, dw_complex).real
            z += change
            size = math.sqrt(sum(self._norm(part, y, y) ** 2 for part in change) / 3.0)
            verdict = contraction.judge(size, t, partial(round_off_size, self._norm, y))
            if verdict is not None:
                return verdict

    def _guess(self) -> None:
        """Z from the polynomial of the latest accepted step, continued to this one;
        zero before there is one.
        """
        if self._last_h == 0.0:
            self._z[...] = 0.0
            return
        ratio = self._h / self._last_h
        thetas = 1.0 + ratio * C
        powers = thetas[:, None] ** np.arange(1, 5) - 1.0  # row 0 is the end of that polynomial
        xp = self.stages.xp
        plain_dot(xp)(to_xp(xp, powers.astype(self._z.dtype)), self._polynomial, out=self._z)

    def _evaluate_stages(self, t: float, t_next: float) -> None:
        """Rows 2 to 4: f at the stages, an evaluation each."""
        stages = self.stages
        self._stats.n_newton += 1
        for i, c in enumerate(C, start=1):
            stages.xp.add(stages.rows[0], self._z[i - 1], out=stages.input(i))
            stages.evaluate(i, t_next if i == 3 else t + float(c) * self._h)

    def error_estimate(self) -> Array:
        """The damped estimate below.

        Where that would reject the first step or one after a rejected step, the same with f(t, y + estimate)
        instead of f(t, y), which is right for stiff components too: Hairer & Wanner, equation (8.20).
        """
        if not self._is_solved:
            self._was_rejected = True
            return self.stages.xp.full_like(self._z[2], np.inf)
        rows, error = self.stages.rows, self._damped_estimate()
        if self._norm(error, rows[0], self.y_new) < 1.0:
            return error
        if self._was_rejected:
            error = self._damped(self._slope_at(rows[0] + error))
        self._was_rejected = True
        return error

    def _damped_estimate(self) -> Array:
        """(I - h/mu J)**-1 (h f + E Z) / mu, mu the real eigenvalue: Hairer & Wanner, equation (8.19).

        h f + E Z is by how much h f(t, y) differs from the slope of the collocation polynomial there; the
        factor takes out the stiff components, on which a slope says nothing.
        """
        if self._estimate is None:
            self._estimate = self._damped(self.stages.rows[1])
        return self._estimate

    def _damped(self, slope: Array) -> Array:
        alpha = slope.dtype.type(self._h / MU_REAL)
        return self._real.solve(alpha * slope + plain_dot(self.stages.xp)(self._e, self._z))

    def _slope_at(self, y: Array) -> Array:
        """f at the start of the step and another state, in the row of the first stage."""
        self.stages.input(1)[...] = y
        self.stages.evaluate(1, self._t)
        self._stats.nfe += 1
        return self.stages.rows[2]

    def shift(self) -> None:
        """The new state becomes row 0; the polynomial of this step is the guess of the next."""
        self._polynomial, self._last_h = self._coefficients(), self._h
        self.stages.rows[0] = self.y_new
        self._is_current, self._was_rejected = False, False
        self._is_slow = self._contraction.slowest > SLOW

    def _coefficients(self) -> Array:
        """(4, n): coefficients of theta to theta**4 of the dense output.

        The collocation polynomial of degree 3 is of order 3 inside the step. Its slope is that of all stages,
        so that a multiple of `BEND` corrects its slope at the start and keeps both ends: the multiple h f + E
        Z gives order 4. That is mu times the error estimate without its factor, and with it as long as h is
        small; where h is not, the two polynomials are at most a quarter of the estimate apart.
        This is so too where the other estimate accepted the step: bent by that one, or not at all, the
        polynomial is further from the solution at h |J| up to some 20, by half and more at 4,
        and nearer by a tenth at most beyond.
        """
        xp = self.stages.xp
        coefficients = xp.outer(self._bend, self._damped_estimate())
        coefficients[:3] += plain_dot(xp)(self._to_collocation, self._z)
        return coefficients

    def polynomial(self, h: float) -> Array:
        """(5, n): coefficients C_j of the state sum_j theta**j C_j within the step,
        on an array of its own.
        """
        return self.stages.xp.concatenate([self.stages.rows[:1], self._coefficients()])

    def interpolate(self, thetas: np.ndarray, h: float, *, derivative: bool = False) -> Array:
        """The state (or its time derivative) at several points of the step, (m, n)."""
        return read_polynomial(self.stages.xp, self.polynomial(h), thetas, h, derivative=derivative)
