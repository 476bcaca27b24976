"""What the loop needs of a method that is no explicit Runge-Kutta tableau: implicit,
multistep and symplectic ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..engine.backend import Array
from .dynamics import Dynamics
from .stages import Stages
from .stats import Stats

Norm = Callable[[Array, Array, Array], float]  # (difference, y, y_new) in units of the tolerances


class AnyStep(Protocol):
    """One step on the rows [y, k_1, ..., k_s] of `Stages`, as the loop drives it.

    `y_new` is the state after the latest `advance`,
    `n_evaluations` what that cost (f at its start not counted).
    """

    y_new: Array
    n_evaluations: int

    def evaluate_start(self, t: float) -> None:
        """Row 1 = f(t, y) for the state in row 0."""
        ...

    def advance(self, t: float, t_next: float) -> None:
        """From the state and slope in rows 0 and 1 at t to `y_new` at t_next."""
        ...

    def error_estimate(self) -> Array:
        """Estimate (n,) of the error of the latest `advance`; infinite where no new state was found."""
        ...

    def shift(self) -> None:
        """The new state becomes row 0; for a method with `fsal` its slope becomes row 1."""
        ...

    def interpolate(self, thetas: np.ndarray, h: float, *, derivative: bool = False) -> Array:
        """The state (m, n), or its time derivative, at t + theta h within the latest step."""
        ...

    def polynomial(self, h: float) -> Array:
        """(p + 1, n): coefficients C_j of the state sum_j theta**j C_j within it, on an array of its own."""
        ...


@runtime_checkable
class SolvingStep(Protocol):
    """A step that solves equations: `failure` says why the latest `advance` could not; empty where it could,
    or where f was NaN or infinite.
    """

    failure: str


class Method(ABC):
    """A way to make steps.

    Attributes:
        name: what a user passes as `method`.
        order: of the error of a solution.
        stages: number of slopes kept as rows of `Stages`.
        fsal: whether a step ends with f at its end, the first slope of the next.
        error_order: power of h with which the error estimate vanishes; None for a method with fixed steps.
        interpolates: whether there is dense output.
        controller: name of the step-size control where the user chooses none;
            None is that of all other methods.
        source: where it is published.
    """

    name: str
    order: int
    stages: int
    fsal: bool
    error_order: int | None
    interpolates: bool
    source: str
    controller: str | None = None

    @property
    def is_adaptive(self) -> bool:
        """Whether it estimates its error and chooses its steps."""
        return self.error_order is not None

    @abstractmethod
    def step_on(self, stages: Stages, dynamics: Dynamics, norm: Norm, stats: Stats) -> AnyStep:
        """The step of this method for one solve.

        A method that iterates does so until `norm` is small,
        and counts in `stats` what the loop does not see.
        """

    def check(self, y0: Any) -> None:
        """Raise ArgumentError for an initial state (a tree of arrays) that this method cannot advance."""
        del y0
