"""How large is our error beside that of SciPy's implementation of the same method, at the same tolerance?

    python -m benchmarks.same_tolerance [--toy] [--pairs NAME ...] [--page FILE]

All 25 DETEST problems, and their time-mirrored forms integrated backward, at tolerances from 1e-3 to 1e-12 (bosh3: 1e-8),
rtol = atol, against the stored solutions at the 20 output times. The error of one solve depends on where its steps happen
to fall: a change of the tolerance by a tenth may change it threefold, SciPy's as well as ours, most of all where the error
changes its sign between two tolerances. So every tolerance stands for five around it, and what is compared is the
geometric mean; the numbers of single solves are given beside it, also of those with SciPy's step-size control
(controller="i" instead of the default). Prints one JSON line a problem and pair; `--page` writes
the table in docs/solvers/same_tolerance.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from odegrad.train.solve import PROBLEMS, Textbook, mirrored
from odegrad.train.solve.work_precision import measure, ours, scipys

from .measure import machine, report

PAIRS = {"bosh3": ("RK23", 8), "dopri5": ("RK45", 12), "dop853": ("DOP853", 12)}
NEARBY = (0.8, 0.9, 1.0, 1.1, 1.25)
LIMIT = 1.2


@dataclass(frozen=True)
class Row:
    """One problem: our errors over SciPy's, forward at nearby tolerances (tolerances, len(NEARBY)).

    At the tolerances alone: `mirrored` and integrated backward, and with the `classical` control of steps.
    """

    problem: str
    rtols: list[float]
    ratios: np.ndarray
    mirrored: np.ndarray
    classical: np.ndarray

    @property
    def typical(self) -> np.ndarray:
        """(tolerances,): geometric means over nearby tolerances."""
        return np.exp(np.log(self.ratios).mean(axis=1))

    @property
    def single(self) -> np.ndarray:
        return self.ratios[:, NEARBY.index(1.0)]


def ratios(problem: Textbook, method: str, rtols: Sequence[float], controller: str = "pi") -> np.ndarray:
    """Our errors over SciPy's (len(rtols),)."""
    theirs, _ = PAIRS[method]
    solvers = {"mine": ours(method, controller=controller), "theirs": scipys(theirs)}
    points = measure(problem, solvers, rtols)
    errors = np.array([point.error for point in points]).reshape(len(rtols), 2)
    return errors[:, 0] / errors[:, 1]


def row(problem: Textbook, method: str, last: int) -> Row:
    rtols = [10.0**-k for k in range(3, last + 1)]
    nearby = ratios(problem, method, [factor * rtol for rtol in rtols for factor in NEARBY])
    backward = ratios(mirrored(problem), method, rtols)
    classical = ratios(problem, method, rtols, controller="i")
    return Row(problem.name, rtols, nearby.reshape(len(rtols), len(NEARBY)), backward, classical)


def table(method: str, rows: Sequence[Row]) -> str:
    theirs, _ = PAIRS[method]
    names = [f"{rtol:.0e}" for rtol in rows[0].rtols]
    lines = [
        f"## {method} over SciPy's {theirs}\n",
        "| problem |" + "".join(f" {name} |" for name in names),
        "|---|" + "---|" * len(names),
    ]
    lines += [f"| {row.problem} |" + "".join(f" {r:.2f} |" for r in row.typical) for row in rows]
    kinds = {
        "Typical (the table)": np.concatenate([row.typical for row in rows]),
        "Single solves": np.concatenate([row.single for row in rows]),
        "Single solves, mirrored and backward": np.concatenate([row.mirrored for row in rows]),
        "Single solves, controller='i'": np.concatenate([row.classical for row in rows]),
    }
    lines.append("\n| | median | at most 1.2 | largest |\n|---|---|---|---|")
    for kind, found in kinds.items():
        share = float(np.mean(found <= LIMIT))
        lines.append(f"| {kind} | {np.median(found):.2f} | {share:.0%} of {found.size} | {found.max():.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="two problems at two tolerances, for the tests")
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--page", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    names = [name for name in PROBLEMS if len(name) == 2]
    parts = [
        "# Errors at the same tolerance\n",
        "Made by `python -m benchmarks.same_tolerance --page FILE`.\n",
    ]
    for method in arguments.pairs:
        rows = []
        for name in names[:2] if arguments.toy else names:
            found = row(PROBLEMS[name], method, 4 if arguments.toy else PAIRS[method][1])
            rows.append(found)
            report(
                {
                    "benchmark": "same_tolerance", "problem": name, "method": method, "peer": PAIRS[method][0],
                    "sizes": [PROBLEMS[name].y0.size], "dtype": "float64", "device": "cpu", "rtol": found.rtols,
                    "ratio": np.round(found.typical, 3).tolist(), "single": np.round(found.single, 3).tolist(),
                    "mirrored": np.round(found.mirrored, 3).tolist(),
                    "classical": np.round(found.classical, 3).tolist(), "machine": machine("scipy"),
                }
            )  # fmt: skip
        parts.append(table(method, rows))
    if arguments.page is not None:
        arguments.page.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
