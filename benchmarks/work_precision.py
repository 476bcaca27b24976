"""How many evaluations of f does an error cost, beside SciPy and, where they are installed, torchdiffeq and diffrax?

    python -m benchmarks.work_precision [--toy] [--groups NAME ...] [--problems NAME ...] [--curves FILE] [--page FOLDER]

DETEST, Lorenz, Kepler (e = 0.9), Pleiades, van der Pol (mu = 1 and 1000), Robertson and HIRES, at tolerances from 1e-3
down, against the stored solutions; a group holds the methods of one order of all packages. Everybody calls the very same
NumPy function, whose calls are counted, and gives its solution at the same output times. Prints one JSON line a problem
and solver. `--curves` keeps what was measured, so that a run can be continued; `--page` writes tables and pictures.
docs/solvers/work_precision.md is made again from what is stored, without the peers and without measuring, by

    python -m benchmarks.work_precision --curves benchmarks/results/work_precision-cpu.jsonl --page docs/solvers
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from odegrad.train.solve import PROBLEMS, Textbook
from odegrad.train.solve.work_precision import MOST_EVALUATIONS, Point, Solver, counted, measure, ours, scipys

from .measure import machine, report
from .work_precision_page import write_page

# At the tightest tolerances these would take hours: an evaluation from within them takes 20 times as long.
SLOW = ("torchdiffeq", "diffrax")
TINY = 1e-30  # of complex steps


@dataclass(frozen=True)
class Group:
    """Methods to compare: ours, SciPy's, torchdiffeq's and diffrax's, at the tolerances 10**-3 to 10**-last.

    The SLOW ones are measured to 10**-last_of_slow.
    """

    ours: tuple[str, ...]
    scipy: tuple[str, ...]
    torchdiffeq: tuple[str, ...]
    diffrax: tuple[str, ...]
    last: int
    last_of_slow: int
    is_stiff: bool = False


GROUPS = {
    "order-3": Group(("bosh3",), ("RK23",), ("bosh3",), ("Bosh3",), 8, 6),
    "order-5": Group(("dopri5", "tsit5"), ("RK45",), ("dopri5",), ("Dopri5", "Tsit5"), 12, 9),
    "order-8": Group(("dop853",), ("DOP853",), ("dopri8",), ("Dopri8",), 12, 9),
    "stiff": Group(
        ("radau5", "kvaerno5", "esdirk5", "rosenbrock23"),
        ("Radau", "BDF", "LSODA"),
        (),
        ("Kvaerno5",),
        10,
        6,
        True,
    ),
}


def torchdiffeqs(method: str) -> Solver:
    """`torchdiffeq.odeint` in double precision."""
    import torch
    import torchdiffeq

    def solve(problem: Textbook, rtol: float, atol: float) -> tuple[np.ndarray, int]:
        f, count = counted(problem.f)

        def tensors(t: Any, y: Any) -> Any:
            return torch.from_numpy(np.ascontiguousarray(f(float(t), y.numpy())))

        y0, ts = torch.from_numpy(problem.y0.copy()), torch.from_numpy(problem.ts.copy())
        with torch.no_grad():
            found = torchdiffeq.odeint(tensors, y0, ts, rtol=rtol, atol=atol, method=method)
        return found.numpy(), count()

    return solve


def diffraxes(method: str) -> Solver:
    """`diffrax.diffeqsolve` in double precision with its PIDController, compiled once a problem.

    A column of a Jacobian is a directional derivative, taken by a complex step, and counts as one evaluation.
    """
    import diffrax
    import jax

    jax.config.update("jax_enable_x64", True)

    @cache
    def compiled(problem: Textbook) -> tuple[Any, dict[str, Any]]:
        current: dict[str, Any] = {}
        like = jax.ShapeDtypeStruct(problem.y0.shape, np.float64)

        def host(t: Any, y: Any) -> np.ndarray:
            return np.asarray(current["f"](float(t), np.asarray(y)))

        def host_push(t: Any, y: Any, ydot: Any) -> np.ndarray:
            ahead = current["f"](float(t), np.asarray(y) + 1j * TINY * np.asarray(ydot))
            return np.imag(ahead) / TINY

        @jax.custom_jvp
        def f(t: Any, y: Any) -> Any:
            return jax.pure_callback(host, like, t, y, vmap_method="sequential")

        @f.defjvp
        def push(primals: Any, tangents: Any) -> Any:
            pushed = jax.pure_callback(host_push, like, *primals, tangents[1], vmap_method="sequential")
            return f(*primals), pushed

        def run(rtol: Any, atol: Any) -> Any:
            return diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, y, args: f(t, y)),
                getattr(diffrax, method)(), problem.ts[0], problem.ts[-1], None, problem.y0.copy(),
                saveat=diffrax.SaveAt(ts=problem.ts.copy()), max_steps=MOST_EVALUATIONS,
                stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            ).ys  # fmt: skip

        return jax.jit(run), current

    def solve(problem: Textbook, rtol: float, atol: float) -> tuple[np.ndarray, int]:
        run, current = compiled(problem)
        current["f"], count = counted(problem.f)
        return np.asarray(run(rtol, atol)), count()

    return solve


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def names_of(group: Group) -> list[str]:
    """The methods of all packages, by names that begin with the package; ours first."""
    packages = ("odegrad", "scipy", "torchdiffeq", "diffrax")
    columns = (group.ours, group.scipy, group.torchdiffeq, group.diffrax)
    return [
        f"{package} {method}"
        for package, methods in zip(packages, columns, strict=True)
        for method in methods
    ]


def solvers_of(group: Group) -> dict[str, Solver]:
    """Those of the packages that are installed, by the names of `names_of`."""
    found = {f"odegrad {method}": ours(method) for method in group.ours}
    found |= {f"scipy {method}": scipys(method) for method in group.scipy}
    if is_installed("torch") and is_installed("torchdiffeq"):
        found |= {f"torchdiffeq {method}": torchdiffeqs(method) for method in group.torchdiffeq}
    if is_installed("diffrax"):
        found |= {f"diffrax {method}": diffraxes(method) for method in group.diffrax}
    return found


def problems_of(group: Group, names: Iterable[str] | None) -> list[Textbook]:
    """Those of the group's kind, stiff or not."""
    chosen = [p for p in PROBLEMS.values() if p.is_stiff is group.is_stiff]
    return [p for p in chosen if names is None or p.name in names]


class Curves:
    """What has been measured, kept in a file after each problem: a line for each problem and solver.

    Errors keep six digits; NaN, of a solve that failed, is null.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.points: list[Point] = []
        if path is not None and path.exists():
            self.points = [
                point for line in path.read_text().splitlines() for point in _points_of(json.loads(line))
            ]

    def has(self, problem: Textbook, solver: str) -> bool:
        return any((p.problem, p.solver) == (problem.name, solver) for p in self.points)

    def add(self, points: list[Point]) -> None:
        """All points of one problem and solver."""
        self.points += points
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(_line_of(points)) + "\n")


def _line_of(points: list[Point]) -> dict[str, Any]:
    return {
        "benchmark": "work_precision", "problem": points[0].problem, "method": points[0].solver,
        "rtol": [float(f"{p.rtol:.6g}") for p in points], "nfe": [p.nfe for p in points],
        "error": [None if p.failure else float(f"{p.error:.6g}") for p in points],
        "failure": [p.failure for p in points],
    }  # fmt: skip


def _points_of(line: dict[str, Any]) -> list[Point]:
    columns = zip(line["rtol"], line["nfe"], line["error"], line["failure"], strict=True)
    return [
        Point(line["problem"], line["method"], rtol, nfe, np.nan if error is None else error, failure)
        for rtol, nfe, error, failure in columns
    ]


def run(group: Group, problems: list[Textbook], rtols: list[float], curves: Curves) -> None:
    """Measure what has not been measured, and print a line for each problem and solver."""
    for problem in problems:
        for name, solver in solvers_of(group).items():
            if curves.has(problem, name):
                continue
            start = time.perf_counter()
            n = group.last_of_slow - 2 if name.startswith(SLOW) else len(rtols)
            points = measure(problem, {name: solver}, rtols[:n])
            curves.add(points)
            report_curve(problem, name, points, time.perf_counter() - start)


def report_curve(problem: Textbook, solver: str, points: list[Point], seconds: float) -> None:
    report(
        {
            "benchmark": "work_precision", "problem": problem.name, "method": solver, "sizes": [problem.y0.size],
            "dtype": "float64", "device": "cpu", "rtol": [p.rtol for p in points], "nfe": [p.nfe for p in points],
            "error": [None if p.failure else float(f"{p.error:.3g}") for p in points],
            "failures": sorted({p.failure for p in points} - {""}), "seconds": round(seconds, 3), "machine": machine(),
        }
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="two problems at two tolerances, for the tests")
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS))
    parser.add_argument("--curves", type=Path, help="file of points to continue")
    parser.add_argument("--page", type=Path, help="folder for the page and its pictures")
    arguments = parser.parse_args()
    curves = Curves(arguments.curves)
    for name in arguments.groups:
        group = GROUPS[name]
        names = ("A3", "robertson") if arguments.toy else arguments.problems
        last = 4 if arguments.toy else group.last
        run(group, problems_of(group, names), [10.0**-k for k in range(3, last + 1)], curves)
    if arguments.page is not None:
        write_page(curves.points, {name: names_of(GROUPS[name]) for name in arguments.groups}, arguments.page)


if __name__ == "__main__":
    main()
