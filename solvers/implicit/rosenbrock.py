"""The Rosenbrock method of order 2 with an error estimate of order 3:
linear solves instead of Newton iterations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.backend import Array
from ...engine.errors import ArgumentTypeError
from ...engine.trace import base_value
from ...engine.tree import leaves
from ..dynamics import Dynamics
from ..method import AnyStep, Method, Norm
from ..stages import EagerStages, Stages
from ..stats import Stats
from ..step_polynomial import read_polynomial
from .linear_solvers import DenseSolver, dense_solver

D = 1.0 / (2.0 + math.sqrt(2.0))
E32 = 6.0 + math.sqrt(2.0)


@dataclass(frozen=True)
class Rosenbrock23(Method):
    """Shampine and Reichelt's Rosenbrock 2(3) pair (`ode23s`): order 2, L-stable, for crude tolerances.

    Each step needs the exact Jacobian, and df/dt where f depends on time; both come from the traced f.
    """

    name = "rosenbrock23"
    order = 2
    stages = 3
    fsal = True
    error_order = 3
    interpolates = True
    source = "Shampine & Reichelt (1997), SIAM J. Sci. Comput. 18, 1-22, section 3"

    def check(self, y0: Any) -> None:
        if base_value(leaves(y0)[0]).dtype.kind == "c":
            raise ArgumentTypeError(
                f"method={self.name!r} needs a Jacobian, which a function of complex numbers has only if it is analytic; "
                "got a complex `y0`. Use 'kvaerno5', which does not rely on it"
            )

    def step_on(self, stages: Stages, dynamics: Dynamics, norm: Norm, stats: Stats) -> AnyStep:
        solver = dense_solver(dynamics, eager=isinstance(stages, EagerStages), stats=stats, with_time=True)
        return RosenbrockStep(stages, solver)


class RosenbrockStep:
    """One step, with W = I - h d J, d = 1 / (2 + sqrt 2),
    T = df/dt and the rows [y, F_0, F_1, F_2] of `Stages`:

        W k_1 = F_0 + h d T
        W (k_2 - k_1) = F_1 - k_1,   F_1 = f(t + h/2, y + h/2 k_1)
        y_new = y + h k_2,           F_2 = f(t + h, y_new), the F_0 of the next step
        W k_3 = F_2 - e (k_2 - F_1) - 2 (k_1 - F_0) + h d T,   e = 6 + sqrt 2
        error = h/6 (k_1 - 2 k_2 + k_3)

    Cost: 2 evaluations of f, one Jacobian (none after a rejected step) and one factorisation.
    """

    n_evaluations = 2

    def __init__(self, stages: Stages, solver: DenseSolver) -> None:
        self.stages, self.solver = stages, solver
        self.failure = ""
        self.y_new: Array = stages.rows[0]
        self._h = 0.0
        self._is_current = False  # whether the Jacobian is that of row 0
        self._k = [stages.xp.empty_like(stages.rows[0]) for _ in range(3)]

    def evaluate_start(self, t: float) -> None:
        """F_0 = f(t, y) for the state in row 0."""
        self.stages.input(0)[...] = self.stages.rows[0]
        self.stages.evaluate(0, t)

    def advance(self, t: float, t_next: float) -> None:
        """To `y_new` at t_next; where W is singular that is NaN and `failure` says so."""
        stages, solver, rows = self.stages, self.solver, self.stages.rows
        if not self._is_current:
            solver.linearize(t, rows[0])
            self._is_current = True
        self._h = h = t_next - t
        solver.prepare(h * D)
        assert solver.jacobian.time is not None
        time_part = solver.jacobian.time * rows.dtype.type(h * D)
        middle, end = stages.input(1), stages.input(2)
        k1 = solver.solve(rows[1] + time_part)
        middle[...] = rows[0] + rows.dtype.type(0.5 * h) * k1
        stages.evaluate(1, t + 0.5 * h)
        k2 = solver.solve(rows[2] - k1) + k1
        end[...] = rows[0] + rows.dtype.type(h) * k2
        stages.evaluate(2, t_next)
        k3 = solver.solve(rows[3] - rows.dtype.type(E32) * (k2 - rows[2]) - 2.0 * (k1 - rows[1]) + time_part)
        self._k = [k1, k2, k3]
        self.y_new = stages.xp.full_like(end, np.nan) if solver.problem else end
        self.failure = solver.problem

    def error_estimate(self) -> Array:
        """h/6 (k_1 - 2 k_2 + k_3)."""
        if self.failure:
            return self.stages.xp.full_like(self.y_new, np.inf)
        k1, k2, k3 = self._k
        return self.y_new.dtype.type(self._h / 6.0) * (k1 - 2.0 * k2 + k3)

    def shift(self) -> None:
        """The new state becomes row 0 and the slope there row 1."""
        self.stages.rows[0] = self.y_new
        self.stages.rows[1] = self.stages.rows[3]
        self._is_current = False

    def polynomial(self, h: float) -> Array:
        """(3, n): coefficients of the quadratic y + h [theta (1 - theta) k_1 + theta (theta - 2 d) k_2] / (1
        - 2 d).
        """
        k1, k2, _ = self._k
        scale = h / (1.0 - 2.0 * D)
        block = self.stages.xp.stack([self.stages.rows[0], k1 - 2.0 * D * k2, k2 - k1])
        block[1:] *= scale
        return block

    def interpolate(self, thetas: np.ndarray, h: float, *, derivative: bool = False) -> Array:
        """The state (or its time derivative) at several points of the step, (m, n)."""
        return read_polynomial(self.stages.xp, self.polynomial(h), thetas, h, derivative=derivative)
