"""How large is our error beside that of SciPy's implementation of the same method, at the same tolerance?

    python -m benchmarks.same_tolerance [--toy] [--pairs NAME ...] [--page FILE]

All 25 DETEST problems, and their time-mirrored forms integrated backward, at tolerances from 1e-3 to 1e-12,
rtol = atol, against the stored solutions at the 20 output times. PI control (controller="pi") takes other steps than
SciPy and the default, and the error of one solve depends on where its steps happen to fall: the same tables for it show by
how much. Prints one JSON line a problem and pair; `--page` writes the tables in docs/solvers/same_tolerance.md.
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

PAIRS = {"bosh3": "RK23", "dopri5": "RK45", "dop853": "DOP853"}
LAST = 12  # digits of the tightest tolerance
LIMIT = 1.2


@dataclass(frozen=True)
class Row:
    """One problem: our errors over SciPy's (tolerances,); forward, `mirrored` and backward, and forward with PI control."""

    problem: str
    rtols: list[float]
    forward: np.ndarray
    mirrored: np.ndarray
    pi: np.ndarray


def ratios(
    problem: Textbook, method: str, rtols: Sequence[float], controller: str | None = None
) -> np.ndarray:
    """Our errors over SciPy's (len(rtols),)."""
    solvers = {"mine": ours(method, controller=controller), "theirs": scipys(PAIRS[method])}
    points = measure(problem, solvers, rtols)
    errors = np.array([point.error for point in points]).reshape(len(rtols), 2)
    return errors[:, 0] / errors[:, 1]


def row(problem: Textbook, method: str, last: int) -> Row:
    rtols = [10.0**-k for k in range(3, last + 1)]
    return Row(
        problem.name,
        rtols,
        ratios(problem, method, rtols),
        ratios(mirrored(problem), method, rtols),
        ratios(problem, method, rtols, controller="pi"),
    )


def table(method: str, rows: Sequence[Row]) -> str:
    theirs = PAIRS[method]
    names = [f"{rtol:.0e}" for rtol in rows[0].rtols]
    lines = [
        f"## {method} over SciPy's {theirs}\n",
        "| problem |" + "".join(f" {name} |" for name in names),
        "|---|" + "---|" * len(names),
    ]
    lines += [f"| {row.problem} |" + "".join(f" {r:.2f} |" for r in row.forward) for row in rows]
    kinds = {
        "Forward (the table)": np.concatenate([row.forward for row in rows]),
        "Mirrored and backward": np.concatenate([row.mirrored for row in rows]),
        'Forward, `controller="pi"`': np.concatenate([row.pi for row in rows]),
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
            found = row(PROBLEMS[name], method, 4 if arguments.toy else LAST)
            rows.append(found)
            report(
                {
                    "benchmark": "same_tolerance", "problem": name, "method": method, "peer": PAIRS[method],
                    "sizes": [PROBLEMS[name].y0.size], "dtype": "float64", "device": "cpu", "rtol": found.rtols,
                    "ratio": np.round(found.forward, 3).tolist(), "mirrored": np.round(found.mirrored, 3).tolist(),
                    "pi": np.round(found.pi, 3).tolist(), "machine": machine("scipy"),
                }
            )  # fmt: skip
        parts.append(table(method, rows))
    if arguments.page is not None:
        arguments.page.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
