"""What are the solutions of the textbook problems, to the last digits of a double?

    python -m benchmarks.detest_references [--only NAME ...] [--out FILE]

Problems that magnify round-off (Lorenz, Kepler, Pleiades) are solved by Taylor series with 40 digits, and with fewer digits
and terms: see `taylor_references`. Every other problem is solved twice in extended precision (80-bit long doubles, 64 bits
of mantissa), by two methods that share nothing: Radau IIA collocation with 9 points, order 17, with Newton iterations, and
Gragg's extrapolated midpoint rule of order 20. The first is stored; beside it, as the uncertainty, stands the distance to
the second, on stiff problems as far as an explicit method gets. Prints one JSON line a problem. Needs a machine whose long
double is wider than its double (x86-64). The file in train/solve was made by this script with its defaults, in five minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from odegrad.train.solve import PROBLEMS, Textbook
from scipy.linalg import lu_factor, lu_solve

from .measure import report
from .taylor_references import SERIES
from .taylor_references import reference as taylor_reference

FILE = Path(__file__).parents[1] / "train" / "solve" / "references.npz"
Real = np.longdouble
Step = Callable[[Any, np.ndarray, Any], tuple[np.ndarray, np.ndarray]]  # (t, y, h) -> y1, error estimate
COLUMNS = 10
POINTS = 9
LONGEST_EXPLICIT = 40.0  # a stiff problem is left to Radau IIA beyond it


def gragg(f: Callable[..., Any]) -> Step:
    """Midpoint rules of 2, 4, ..., 20 substeps, extrapolated to none."""

    def midpoint(t: Any, y: np.ndarray, h: Any, n: int) -> np.ndarray:
        """The change of y, which suffers less from round-off than y."""
        part = h / n
        before, now = np.zeros_like(y), part * f(t, y)
        for i in range(1, n):
            before, now = now, before + 2 * part * f(t + i * part, y + now)
        return now

    def step(t: Any, y: np.ndarray, h: Any) -> tuple[np.ndarray, np.ndarray]:
        row: list[np.ndarray] = []
        for j in range(1, COLUMNS + 1):
            new = [midpoint(t, y, h, 2 * j)]
            for k, earlier in enumerate(row, start=1):
                new.append(new[-1] + (new[-1] - earlier) / ((Real(j) / (j - k)) ** 2 - 1))
            row, shorter = new, row
        return y + row[-1], row[-1] - shorter[-1]

    return step


def legendre(n: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P_n and P_(n-1) at x."""
    before, now = np.zeros_like(x), np.ones_like(x)
    for k in range(n):
        before, now = now, ((2 * k + 1) * x * now - k * before) / Real(k + 1)
    return now, before


def gauss(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss's quadrature on [0, 1]."""
    x = np.cos(np.pi * (np.arange(n) + 0.75) / (n + 0.5)).astype(Real)
    for _ in range(5):
        p, q = legendre(n, x)
        x = x - p * (x * x - 1) / (n * (x * p - q))
    q = legendre(n, x)[1]
    return (x + 1) / 2, (1 - x * x) / (n * q) ** 2


def radau_nodes(n: int) -> np.ndarray:
    """Zeros of P_n - P_(n-1) on [0, 1], the last of them 1."""
    start = np.polynomial.legendre.legroots([0.0] * (n - 1) + [-1.0, 1.0]).real
    x = np.sort(start)[:-1].astype(Real)
    for _ in range(5):
        (p, q), (_, r) = legendre(n, x), legendre(n - 1, x)
        slope = (n * (x * p - q) - (n - 1) * (x * q - r)) / (x * x - 1)
        x = x - (p - q) / slope
    return np.append((x + 1) / 2, Real(1))


def collocation(c: np.ndarray) -> np.ndarray:
    """a_ij: the integral from 0 to c_i of the Lagrange polynomial of node j."""
    x, w = gauss(len(c))
    a = np.empty((len(c), len(c)), Real)
    for i, end in enumerate(c):
        for j in range(len(c)):
            others = np.delete(c, j)
            a[i, j] = end * (w * np.prod((end * x[:, None] - others) / (c[j] - others), axis=1)).sum()
    return a


def radau(f: Callable[..., Any]) -> Step:
    """Two half steps of Radau IIA; the whole step beside them is the error estimate."""
    c = radau_nodes(POINTS)
    a = collocation(c)

    def single(t: Any, y: np.ndarray, h: Any) -> np.ndarray:
        n = y.size
        matrix = np.eye(n * POINTS) - float(h) * np.kron(a.astype(float), jacobian(f, t, y))
        if not np.isfinite(matrix).all():
            return np.full_like(y, np.nan)
        factors = lu_factor(matrix)
        change = np.outer(c * h, f(t, y))
        last = np.inf
        for _ in range(40):
            slopes = np.stack([f(t + c_i * h, y + d) for c_i, d in zip(c, change, strict=True)])
            residual = (change - h * (a @ slopes)).astype(float)
            if not np.isfinite(residual).all():
                break
            update = lu_solve(factors, residual.ravel()).reshape(change.shape)
            change = change - update
            size = float((np.abs(update) / (np.abs(y) + np.abs(change).max(axis=0) + 1e-300)).max())
            if size < 1e-18 or (size >= 0.5 * last and size < 1e-15):
                return y + change[-1]
            last = size
        return np.full_like(y, np.nan)

    def step(t: Any, y: np.ndarray, h: Any) -> tuple[np.ndarray, np.ndarray]:
        end = single(t + h / 2, single(t, y, h / 2), h / 2)
        return end, end - single(t, y, h)

    return step


def jacobian(f: Callable[..., Any], t: Any, y: np.ndarray) -> np.ndarray:
    """Differences, good enough for Newton's method: what it converges to does not depend on them."""
    columns = []
    for j in range(y.size):
        nudge = np.zeros_like(y)
        nudge[j] = 1e-9 * max(abs(y[j]), Real(1e-6) * abs(y).max(), Real(1e-9))
        columns.append((f(t, y + nudge) - f(t, y - nudge)) / (2 * nudge[j]))
    return np.stack(columns, axis=1).astype(float)


def walk(problem: Textbook, step: Step, order: int, tolerance: float, ts: np.ndarray) -> np.ndarray:
    """States at ts (T, D); each step's estimate stays below `tolerance` times the largest value so far, by component."""
    t, y = Real(ts[0]), problem.y0.astype(Real)
    largest = np.abs(y)
    h = Real(1e-3) * (ts[1] - ts[0])
    states = [y]
    for end in ts[1:].astype(Real):
        while t != end:
            rest = end - t
            is_last = abs(h) >= abs(rest)
            y_new, error = step(t, y, rest if is_last else h)
            size = float(np.max(np.abs(error) / (np.maximum(largest, np.abs(y_new)) + 1e-30)))
            if size <= tolerance:
                t, y = (end if is_last else t + h), y_new
                largest = np.maximum(largest, np.abs(y))
            if size < 1e-2 * tolerance:  # perhaps round-off, which says nothing about the step
                factor = 2.0
            else:
                factor = 0.8 * (tolerance / size) ** (1 / order) if np.isfinite(size) else 0.2
            if not (is_last and size <= tolerance and factor <= 1.0):
                h = (rest if is_last and size > tolerance else h) * min(max(factor, 0.1), 2.0)
        states.append(y)
    return np.stack(states)


def solve(problem: Textbook) -> tuple[np.ndarray, float]:
    """The stored solution (T, D), and how far the other method is from it, relative to the scale of each component."""
    if problem.name in SERIES:
        return taylor_reference(problem)
    f, ts = problem.f, problem.ts
    tolerance = 1e-14 if problem.is_stiff else 1e-16  # terms of a stiff f cancel
    with np.errstate(all="ignore"):
        implicit = walk(problem, radau(f), 2 * POINTS - 1, 1e-15, ts)
        n = len(ts) if not problem.is_stiff else max(2, int(np.sum(ts <= LONGEST_EXPLICIT)))
        explicit = walk(problem, gragg(f), 2 * COLUMNS - 1, tolerance, ts[:n])
    scale = np.maximum(np.abs(implicit).max(axis=0), problem.smallest)
    distance = float((np.abs(explicit - implicit[:n]) / scale).max())
    return implicit.astype(float), distance


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--out", type=Path, default=FILE, help="file to write; other problems in it stay")
    arguments = parser.parse_args()
    stored: dict[str, Any] = dict(np.load(arguments.out)) if arguments.out.exists() else {}
    for name in arguments.only:
        start = time.perf_counter()
        states, distance = solve(PROBLEMS[name])
        stored[name], stored[f"{name}/uncertainty"] = states, np.float64(distance)
        np.savez_compressed(arguments.out, **stored)
        report({"problem": name, "uncertainty": distance, "seconds": round(time.perf_counter() - start, 2)})


if __name__ == "__main__":
    main()
