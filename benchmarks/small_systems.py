"""How long does one evaluation of f take in a solve of a small system, all overhead included, beside SciPy?

    python -m benchmarks.small_systems [--toy]

Textbook problems of 1 to 51 components by dopri5 and by SciPy's RK45 at rtol 1e-6, measured turn by turn. Both call the
same NumPy function; ours is traced once and replayed. Prints one JSON line a problem and solver: seconds a solve, and
microseconds an evaluation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from odegrad import odeint
from odegrad.train.solve import PROBLEMS, Textbook
from scipy.integrate import solve_ivp

from .measure import interleaved, machine, ratio, report, summary

NAMES = ("A3", "lorenz", "B5", "D3", "C1", "pleiades", "C4")
RTOL = 1e-6


def calls_of(problem: Textbook) -> dict[str, Callable[[], int]]:
    """Solves that return their evaluations of f."""
    times = {"rtol": RTOL, "atol": RTOL}

    def with_odegrad() -> int:
        return odeint(problem.f, problem.y0, problem.ts, **times).stats.nfe

    def with_scipy() -> int:
        ends = problem.ts[0], problem.ts[-1]
        return int(solve_ivp(problem.f, ends, problem.y0, t_eval=problem.ts, **times).nfev)

    return {"odegrad dopri5": with_odegrad, "scipy RK45": with_scipy}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="two problems for an instant, for the tests")
    toy = parser.parse_args().toy
    for name in NAMES[:2] if toy else NAMES:
        calls = calls_of(PROBLEMS[name])
        nfe = {solver: call() for solver, call in calls.items()}
        times: dict[str, Any] = interleaved(calls, seconds=0.05 if toy else 4.0)
        for solver, found in times.items():
            numbers = summary(found)
            report(
                {
                    "benchmark": "small_systems", "problem": name, "method": solver, "rtol": RTOL,
                    "sizes": [PROBLEMS[name].y0.size], "dtype": "float64", "module": "numpy", "device": "cpu",
                    **numbers, "nfe": nfe[solver], "us_per_nfe": round(1e6 * numbers["median_s"] / nfe[solver], 2),
                    "times_scipy": ratio(found, times["scipy RK45"]), "machine": machine("scipy"),
                }
            )  # fmt: skip


if __name__ == "__main__":
    main()
