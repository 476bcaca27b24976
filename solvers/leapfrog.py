"""Leapfrog (Stormer-Verlet): symplectic and time-reversible steps for second-order systems x'' = a(t, x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.backend import Array
from ..engine.errors import ArgumentError
from ..engine.trace import shape_of
from ..engine.tree import leaves, leaves_with_paths, path_name
from .dynamics import Dynamics
from .method import AnyStep, Method, Norm
from .stages import Stages
from .stats import Stats
from .step_polynomial import hermite_coefficients, read_polynomial


@dataclass(frozen=True)
class Leapfrog(Method):
    """Kick, drift, kick, from (x, v) at t to t + h:

        w = v + h/2 a(t, x),    x1 = x + h w,    v1 = w + h/2 a(t + h, x1).

    The state is a tree of two arrays of one shape, and f returns (v, a(t, x)): the slope of the positions is
    the leaf of the velocities itself, which is how they are told apart, and that of the velocities does not
    depend on them. Both are read off the recorded f, at no evaluation. Then the map is symplectic (the energy
    of a Hamiltonian system oscillates and does not drift), undoes itself when h changes sign, and keeps
    linear and angular momentum, all to round-off.

    Cost: 1 nfe a step, since the slope at its end is that at the start of the next. Dense output:
        cubic Hermite.
    Raises: ArgumentError for another state or other dynamics.
    Source: Hairer, Lubich & Wanner (2006), Geometric Numerical Integration, section I.1.4, equation (1.17).
    """

    name = "leapfrog"
    order = 2
    stages = 2
    fsal = True
    error_order = None
    interpolates = True
    source = "Verlet (1967), Phys. Rev. 159, 98-103; Hairer, Lubich & Wanner (2006), section I.1.4"

    def step_on(self, stages: Stages, dynamics: Dynamics, norm: Norm, stats: Stats) -> AnyStep:
        return LeapfrogStep(stages, *_windows(dynamics))

    def check(self, y0: Any) -> None:
        shapes = [shape_of(leaf) for leaf in leaves(y0)]
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            found = ", ".join(
                f"{f'y0/{path_name(path)}' if path else 'y0'}: {list(shape_of(x))}"
                for path, x in leaves_with_paths(y0)
            )
            raise ArgumentError(
                "'leapfrog' advances positions and velocities: `y0` must be a tree of two arrays of one shape, such as "
                f"(x0, v0); got {found or 'no arrays'}"
            )


def _windows(dynamics: Dynamics) -> tuple[slice, slice]:
    """Where positions and velocities lie in the flat state."""
    program, size = dynamics.program, dynamics.layout.sizes[0]
    windows = slice(0, size), slice(size, 2 * size)
    states = program.inputs[1:3]
    candidates = [i for i in (0, 1) if program.outputs[i] == states[1 - i]]
    if not candidates:
        raise ArgumentError(
            "'leapfrog' solves x' = v, v' = a(t, x): f must return the velocities themselves as the slope of the "
            "positions, `return v, acceleration`; got other expressions for both slopes. For momenta p = m v solve for "
            "v, or use a method for first-order systems ('dopri5', 'rk4')"
        )
    for i in candidates:
        if not _depends(dynamics, program.outputs[1 - i], states[1 - i]):
            return windows[i], windows[1 - i]
    raise ArgumentError(
        "'leapfrog' solves x' = v, v' = a(t, x): the acceleration must not depend on the velocities (friction, a magnetic "
        "or Coriolis force), or the steps are neither symplectic nor of order 2; got an f whose acceleration uses them. "
        "Use a method for first-order systems ('dopri5', 'rk4')"
    )


def _depends(dynamics: Dynamics, output: int, on: int) -> bool:
    """Whether the value in slot `output` is computed from that in slot `on`."""
    needed = {output}
    for op, inputs, result, _ in reversed(dynamics.program.steps):
        if result in needed and not op.is_flat:
            needed.update(inputs)
    return on in needed


class LeapfrogStep:
    """One step on the rows [y, f at its start, f at its end]."""

    n_evaluations = 1

    def __init__(self, stages: Stages, x: slice, v: slice) -> None:
        self.stages = stages
        rows, moved = stages.rows, stages.input(1)
        self.y_new: Array = stages.xp.empty_like(rows[0])
        self._x, self._v, self._acceleration = rows[0, x], rows[0, v], rows[1, v]
        self._moved_x, self._moved_v = moved[x], moved[v]
        self._new_x, self._new_v = self.y_new[x], self.y_new[v]
        self._end_velocity, self._end_acceleration = rows[2, x], rows[2, v]

    def evaluate_start(self, t: float) -> None:
        """Row 1 = f(t, y) for the state in row 0."""
        self.stages.input(0)[...] = self.stages.rows[0]
        self.stages.evaluate(0, t)

    def advance(self, t: float, t_next: float) -> None:
        """Kick, drift, kick; row 2 becomes the slope at the end."""
        h, xp = t_next - t, self.stages.xp
        moved_x, moved_v = self._moved_x, self._moved_v
        xp.multiply(self._acceleration, 0.5 * h, out=moved_v)
        xp.add(self._v, moved_v, out=moved_v)
        xp.multiply(moved_v, h, out=moved_x)
        xp.add(self._x, moved_x, out=moved_x)
        self._new_x[...], self._new_v[...] = moved_x, moved_v  # evaluating may overwrite the input
        self.stages.evaluate(1, t_next)
        self._new_v += 0.5 * h * self._end_acceleration
        self._end_velocity[...] = self._new_v

    def error_estimate(self) -> Array:
        """There is none: infinite, so that no controller accepts it."""
        return self.stages.xp.full_like(self.y_new, np.inf)

    def shift(self) -> None:
        """The new state becomes row 0, and its slope row 1."""
        self.stages.rows[0] = self.y_new
        self.stages.rows[1] = self.stages.rows[2]

    def polynomial(self, h: float) -> Array:
        """(4, n): coefficients of the cubic Hermite interpolant."""
        rows = self.stages.rows
        return hermite_coefficients(self.stages.xp, rows[0], rows[1], self.y_new, rows[2], h)

    def interpolate(self, thetas: np.ndarray, h: float, *, derivative: bool = False) -> Array:
        """The state (m, n), or its time derivative, at t + theta h within the latest step."""
        return read_polynomial(self.stages.xp, self.polynomial(h), thetas, h, derivative=derivative)
