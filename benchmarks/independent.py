"""What do steps of their own cost a batch, beside a loop that solves each of its systems alone?

    python -m benchmarks.independent [--toy] [--rows N]

Lorenz's system, 1,000 times, with different starts on its attractor and at different paces: a factor in front of the
slopes, a fourth component of the state, from 1 to 30 (log-uniform). dopri5 at rtol 1e-5 and atol 1e-7, 11 output times in
[0, 1]. Two methods make the same solutions: `odeint(..., independent=True)` of the batch, and a loop over `odeint` of
each row. Every row's evaluations of f are compared before anything is timed; the states are compared where the pace is
below 3, since faster rows amplify round-off beyond any tolerance. The loop of all rows takes a minute: it is timed on
every tenth row, and its time multiplied. Prints one JSON line a method.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from odegrad import odeint
from odegrad.solvers import Solution
from threadpoolctl import threadpool_limits

from .measure import interleaved, machine, ratio, report, summary

TIMES = np.linspace(0.0, 1.0, 11)
TOLERANCES = {"rtol": 1e-5, "atol": 1e-7}
PACES = (1.0, 30.0)


def lorenz(t: Any, y: Any) -> Any:
    """Lorenz's system at the pace that is the last component, which stays as it is."""
    x, y_, z, pace = y[..., 0], y[..., 1], y[..., 2], y[..., 3]
    slopes = [
        pace * 10.0 * (y_ - x),
        pace * (x * (28.0 - z) - y_),
        pace * (x * y_ - 8.0 / 3.0 * z),
        0.0 * pace,
    ]
    return np.stack(slopes, axis=-1)


def starts(n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Initial states (n_rows, 4): points on the attractor, and paces."""
    long = odeint(
        lorenz, np.array([1.0, 1.0, 20.0, 1.0]), np.linspace(0.0, 10.0 + 0.1 * n_rows, n_rows + 101)
    )
    paces = np.exp(rng.uniform(*np.log(PACES), n_rows))
    return np.column_stack([long.ys[101:, :3], rng.permutation(paces)])


def batch(y0: np.ndarray) -> Solution:
    return odeint(lorenz, y0, TIMES, independent=True, **TOLERANCES)


def loop(y0: np.ndarray) -> list[Solution]:
    return [odeint(lorenz, row, TIMES, **TOLERANCES) for row in y0]


def check(y0: np.ndarray) -> dict[str, Any]:
    """nfe of the batch over that of the loop, all rows; the states of slow rows agree."""
    together, alone = batch(y0), loop(y0)
    nfe = np.array([sol.stats.nfe for sol in alone])
    slow = np.flatnonzero(y0[:, 3] < 3.0)
    for row in slow:
        worst = np.abs(together.ys[:, row] - alone[row].ys).max()
        assert worst <= 1e-4, f"row {row}: the states differ by {worst:.1e}"
    per_row = together.stats.nfe_of_rows / nfe
    return {
        "nfe": together.stats.nfe,
        "nfe_alone": int(nfe.sum()),
        "nfe_over_alone": round(together.stats.nfe / int(nfe.sum()), 4),
        "nfe_over_alone_worst_row": round(float(per_row.max()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="20 rows, for the tests")
    parser.add_argument("--rows", type=int, default=1000)
    arguments = parser.parse_args()
    with threadpool_limits(1):
        measure(20 if arguments.toy else arguments.rows, arguments.toy)


def measure(n_rows: int, toy: bool) -> None:
    """Compare the counts of all rows, time both methods turn by turn and print a line for each."""
    y0 = starts(n_rows, np.random.default_rng(0))
    counts = check(y0)
    every = 1 if toy else 10
    calls = {"batch": lambda: batch(y0), "loop": lambda: loop(y0[::every])}
    times = interleaved(calls, seconds=0.05 if toy else 60.0)
    share = counts["nfe_alone"] / sum(sol.stats.nfe for sol in loop(y0[::every]))
    times["loop"] = [share * seconds for seconds in times["loop"]]
    for name, found in times.items():
        report({
            "benchmark": "independent", "method": name, "sizes": [n_rows, 4], "times": len(TIMES), "dtype": "float64",
            "module": "numpy", "device": "cpu", "threads": 1, **TOLERANCES, **summary(found), **counts,
            "loop_takes_times_as_long": ratio(times["loop"], found), "machine": machine(),
        })  # fmt: skip


if __name__ == "__main__":
    main()
