"""The forward solution between its accepted times: written down step by step, read at any time later.

With the interpolant of the method, of degree p, a step is the polynomial y(t + theta h) = sum_j theta**j C_j: p + 1
states' worth of memory, whatever the number of stages. A method without one is read by cubic Hermite interpolation
from the states and slopes at the accepted times, two states' worth a step; its error of order h**4 is no larger than
that of any such method here.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

from ..engine.backend import Array, to_xp
from .loop import Integrator


class DenseOutput:
    """y(t) for all t from the first accepted time to the last one, continuously differentiable where f is continuous.

    `blocks` holds what is known of each step (or accepted time).
    """

    def __init__(self, integrator: Integrator) -> None:
        """Before the first step."""
        rows = integrator.stages.rows
        self.xp, self.dtype = integrator.stages.xp, rows.dtype
        self.blocks: list[Array] = []
        self._times = [integrator.t]
        self._direction = math.copysign(1.0, integrator.t1 - integrator.t0)
        self._ordered = [self._direction * integrator.t]  # ascending in both directions of time

    def add(self, integrator: Integrator) -> int:
        """Write down the accepted step that `integrator` has just made; returns the bytes it takes."""
        self._times.append(integrator.t)
        self._ordered.append(self._direction * integrator.t)
        blocks = self._blocks_of(integrator)
        self.blocks += blocks
        return sum(block.nbytes for block in blocks)

    def read(self, t: float, out: Array) -> None:
        """out (n,) = y(t). Cost: one product of p + 1 numbers with as many states."""
        step = min(max(bisect_left(self._ordered, self._direction * t) - 1, 0), len(self._times) - 2)
        start, end = self._times[step], self._times[step + 1]
        self._read(step, 1.0 if t == end else (t - start) / (end - start), end - start, out)

    def _blocks_of(self, integrator: Integrator) -> list[Array]:
        raise NotImplementedError

    def _read(self, step: int, theta: float, h: float, out: Array) -> None:
        raise NotImplementedError

    def _weights(self, numbers: list[float]) -> Array:
        return to_xp(self.xp, np.array(numbers, self.dtype))


class StepPolynomials(DenseOutput):
    """From the interpolant of the method."""

    def _blocks_of(self, integrator: Integrator) -> list[Array]:
        return [integrator.step.polynomial(integrator.t - integrator.t_start)]

    def _read(self, step: int, theta: float, h: float, out: Array) -> None:
        block = self.blocks[step]
        self.xp.dot(self._weights([theta**j for j in range(len(block))]), block, out=out)


class CubicHermite(DenseOutput):
    """From states and slopes: a block [y, f] for each accepted time.

    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section II.6, equation (6.7).
    """

    def _blocks_of(self, integrator: Integrator) -> list[Array]:
        start = integrator.stages.rows[:2].copy()
        return [start, self._end(integrator)] if integrator.is_done else [start]

    @staticmethod
    def _end(integrator: Integrator) -> Array:
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
        self.xp.dot(self._weights(start), self.blocks[step], out=out)
        out += self.xp.dot(self._weights(end), self.blocks[step + 1])


def dense_output(integrator: Integrator) -> DenseOutput:
    """An empty record of the solve that `integrator` is about to make."""
    return (StepPolynomials if integrator.method.interpolates else CubicHermite)(integrator)
