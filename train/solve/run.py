"""One solve of a textbook problem, with every attempted step written down."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ...engine.errors import ArgumentError
from ...solvers.leapfrog import Leapfrog
from ...solvers.methods import method_named
from ...solvers.odeint import odeint
from ...solvers.solution import StepInfo
from ...solvers.stats import Stats
from .problem import Textbook
from .work_precision import error_of

_PARTS = 50  # states drawn for each interval between output times
_FIXED_STEPS = 1000


@dataclass(frozen=True)
class Run:
    """What a solve did.

    Attributes:
        ts, ys: times (N,) and states (N, D) to draw.
        attempts: every attempted step, in order.
        error: distance to the stored solution, see `error_of`.
    """

    problem: Textbook
    method: str
    rtol: float
    atol: float
    ts: np.ndarray
    ys: np.ndarray
    attempts: list[StepInfo]
    stats: Stats
    error: float
    seconds: float


def solve(
    problem: Textbook,
    method: str,
    rtol: float,
    atol: float | None = None,
    step_size: float | None = None,
    max_steps: int = 100_000,
) -> Run:
    """Solve the problem and keep what there is to draw.

    Args:
        atol: by default rtol times `problem.smallest`.
        step_size: of a method with fixed steps; by default a thousandth of the interval.
    Raises: what `odeint` raises; ArgumentError for leapfrog.
    """
    chosen = method_named(method)
    if isinstance(chosen, Leapfrog):
        raise ArgumentError(
            f"the textbook problems are systems of first order, y' = f(t, y); {chosen.name} is for x'' = a(t, x). Use 'rk4' or "
            "an adaptive method"
        )
    ts = fine_times(problem.ts) if chosen.is_adaptive else problem.ts
    if not chosen.is_adaptive and step_size is None:
        step_size = abs(float(problem.ts[-1] - problem.ts[0])) / _FIXED_STEPS
    attempts: list[StepInfo] = []
    atol = rtol * problem.smallest if atol is None else atol
    start = time.perf_counter()
    sol = odeint(
        problem.f, problem.y0, ts, method=chosen, rtol=rtol, atol=atol, step_size=step_size, max_steps=max_steps,
        callback=attempts.append,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    error = error_of(problem, sol.ys[:: _PARTS if chosen.is_adaptive else 1])
    ys = sol.ys
    if not chosen.is_adaptive:  # steps end at each output time: more of these would make more steps
        ts = np.array([ts[0], *(step.t + step.h for step in attempts)])
        ys = np.stack([problem.y0, *(step.y for step in attempts)])
    return Run(problem, chosen.name, rtol, atol, ts, ys, attempts, sol.stats, error, seconds)


def fine_times(ts: np.ndarray) -> np.ndarray:
    """ts (T,) with each interval divided into parts; every `_PARTS`-th of them is a time of ts."""
    n = (len(ts) - 1) * _PARTS
    fine = np.interp(np.arange(n + 1) / _PARTS, np.arange(len(ts)), ts)
    fine[::_PARTS] = ts
    return fine
