"""The forward solution between its accepted times: written down step by step, read at any time later.

With the interpolant of the method, of degree p, a step is the polynomial y(t + theta h) = sum_j theta**j C_j:
p + 1 states' worth of memory, whatever the number of stages. A method without one is read by cubic Hermite
interpolation from the states and slopes at the accepted times, two states' worth a step; its error of order
h**4 is no larger than that of any such method here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..engine.backend import Array, to_xp
from ..engine.product_precision import plain_dot, product_precision


class StepMade(Protocol):
    """What is read of the `Integrator` that has just made a step (or, in `dense_output`, is about to)."""

    t_start: float
    t: float
    t1: float
    stages: Any
    step: Any
    stats: Any

    @property
    def y(self) -> Array: ...

    @property
    def is_done(self) -> bool: ...


class DenseOutput(ABC):
    """y(t) for all t from the first accepted time to the last one,
    continuously differentiable where f is continuous.

    Attributes:
        times: accepted times so far.
        blocks: what is known of each step (or accepted time), arrays (rows, n).
    """

    def __init__(self, xp: ModuleType, dtype: np.dtype, t0: float, direction: float) -> None:
        """Before the first step; `direction` is that of time, 1.0 or -1.0."""
        self.xp, self.dtype = xp, dtype
        self.blocks: list[Array] = []
        self.times = [t0]
        self._direction = direction
        self._ordered = [direction * t0]  # ascending in both directions of time

    def add(self, integrator: StepMade) -> int:
        """Write down the accepted step that `integrator` has just made; returns the bytes it takes."""
        blocks = self._blocks_of(integrator)
        self.add_blocks(integrator.t, blocks)
        return sum(block.nbytes for block in blocks)

    def add_blocks(self, t: float, blocks: list[Array]) -> None:
        """A step that ends at t, with what is known of it."""
        self.times.append(t)
        self._ordered.append(self._direction * t)
        self.blocks += blocks

    def trim(self) -> None:
        """Leave out the end of a solve that failed, as far as it cannot be read."""
        del self.times[self.n_readable + 1 :], self._ordered[self.n_readable + 1 :]

    @property
    def n_readable(self) -> int:
        """Steps of which enough is known."""
        return len(self.blocks)

    def read(self, t: float, out: Array) -> None:
        """out (n,) = y(t). Cost: one product of p + 1 numbers with as many states."""
        step = min(max(bisect_left(self._ordered, self._direction * t) - 1, 0), len(self.times) - 2)
        start, end = self.times[step], self.times[step + 1]
        self._read(step, 1.0 if t == end else (t - start) / (end - start), end - start, out)

    def read_many(self, times: np.ndarray, *, derivative: bool = False) -> Array:
        """y, or its time derivative, at the times (m,), (m, n): one product a step that some of them lie in.

        At an accepted time the step that ends there answers.
        """
        ends = np.array(self.times)
        steps = np.searchsorted(self._ordered, self._direction * times, side="left") - 1
        steps = np.clip(steps, 0, len(ends) - 2)
        left, right = ends[steps], ends[steps + 1]
        thetas = np.where(times == right, 1.0, (times - left) / (right - left))
        rows = self.xp.empty((len(times), self.blocks[0].shape[1]), self.dtype)
        for step in np.unique(steps).tolist():
            chosen = np.flatnonzero(steps == step)
            h = self.times[step + 1] - self.times[step]
            rows[to_xp(self.xp, chosen)] = self._at(step, thetas[chosen], h, derivative)
        return rows

    @abstractmethod
    def _blocks_of(self, integrator: StepMade) -> list[Array]: ...

    @abstractmethod
    def _read(self, step: int, theta: float, h: float, out: Array) -> None: ...

    @abstractmethod
    def _at(self, step: int, thetas: np.ndarray, h: float, derivative: bool) -> Array: ...

    def _weights(self, numbers: Any) -> Array:
        return to_xp(self.xp, np.array(numbers, self.dtype))


class StepPolynomials(DenseOutput):
    """From the interpolant of the method: a block of coefficients for each step."""

    def _blocks_of(self, integrator: StepMade) -> list[Array]:
        return [integrator.step.polynomial(integrator.t - integrator.t_start)]

    def _read(self, step: int, theta: float, h: float, out: Array) -> None:
        block = self.blocks[step]
        plain_dot(self.xp)(self._weights([theta**j for j in range(len(block))]), block, out=out)

    def _at(self, step: int, thetas: np.ndarray, h: float, derivative: bool) -> Array:
        block = self.blocks[step]
        powers = np.arange(len(block))
        weights: np.ndarray = thetas[:, None] ** powers
        if derivative:
            weights = np.hstack([np.zeros((len(thetas), 1)), weights[:, :-1] * powers[1:]]) / h
        with product_precision("fp32"):
            return self._weights(weights) @ block


class CubicHermite(DenseOutput):
    """From states and slopes: a block [y, f] for each accepted time.

    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section II.6, equation (6.7).
    """

    @property
    def n_readable(self) -> int:
        return max(len(self.blocks) - 1, 0)

    def _blocks_of(self, integrator: StepMade) -> list[Array]:
        start = integrator.stages.rows[:2].copy()
        return [start, self._end(integrator)] if integrator.is_done else [start]

    @staticmethod
    def _end(integrator: StepMade) -> Array:
        """The last state and its slope, which no step begins with: one evaluation of f more."""
        stages, y = integrator.stages, integrator.y
        block = stages.xp.stack([y, y])
        stages.input(0)[...] = y
        stages.evaluate(0, integrator.t)
        block[1] = stages.rows[1]
        integrator.stats.nfe += 1
        return block

    def _read(self, step: int, theta: float, h: float, out: Array) -> None:
        rest = 1.0 - theta
        start = [rest * rest * (1.0 + 2.0 * theta), h * theta * rest * rest]
        end = [theta * theta * (3.0 - 2.0 * theta), -h * theta * theta * rest]
        dot = plain_dot(self.xp)
        dot(self._weights(start), self.blocks[step], out=out)
        out += dot(self._weights(end), self.blocks[step + 1])

    def _at(self, step: int, thetas: np.ndarray, h: float, derivative: bool) -> Array:
        theta, rest = thetas[:, None], 1.0 - thetas[:, None]
        if derivative:
            bump = 6.0 * theta * rest / h
            start = np.hstack([-bump, rest * (1.0 - 3.0 * theta)])
            end = np.hstack([bump, theta * (3.0 * theta - 2.0)])
        else:
            start = np.hstack([rest * rest * (1.0 + 2.0 * theta), h * theta * rest * rest])
            end = np.hstack([theta * theta * (3.0 - 2.0 * theta), -h * theta * theta * rest])
        with product_precision("fp32"):
            return self._weights(start) @ self.blocks[step] + self._weights(end) @ self.blocks[step + 1]


def dense_output(integrator: StepMade, *, interpolates: bool) -> DenseOutput:
    """An empty record of the solve that `integrator` is about to make;
    whether its method has an interpolant.
    """
    kind = StepPolynomials if interpolates else CubicHermite
    direction = math.copysign(1.0, integrator.t1 - integrator.t)
    return kind(integrator.stages.xp, integrator.stages.rows.dtype, integrator.t, direction)
