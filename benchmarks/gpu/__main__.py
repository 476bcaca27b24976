"""All parts in turn, each in its own process and time, into OUT/gpu.json and OUT/gpu.md.

    python -m benchmarks.gpu OUT [--data FOLDER --minutes M [--from FOLDER]] [--only PART ...] [--limit SECONDS] [--toy]

A part that fails or takes too long is reported, and the rest goes on; results are written after each. With `--data` the
last M minutes train on CIFAR-10, and the other parts have what is left of the limit. Ends with 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .device import why_no_gpu
from .report import Findings, Line, PartResult

ROOT = Path(__file__).parents[2]
LIMIT = 505.0  # seconds: with the installation, and the last words of a part, nine minutes
TO_SAVE = 45.0  # seconds that a slice of training may take beyond its minutes: it loads data, and ends a step
TO_END = 7.0  # seconds that the test takes which is under way when the time for tests is over
TO_SAY = 8.0  # seconds that a part has after Ctrl-C
SAID = 2_000  # characters of a part's last words that are kept


@dataclass(frozen=True)
class Part:
    """A program and the seconds it may take."""

    name: str
    command: tuple[str, ...]
    seconds: float  # given to the program where its command says SECONDS, less what it needs to end
    takes_rest: bool = False  # of all seconds, if they are more


def python(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *words)


def parts_of(given: argparse.Namespace) -> list[Part]:
    """The parts asked for, in order; their seconds add up to less than LIMIT."""

    def measured(name: str, limit: float, seconds: float, *words: str, module: str | None = None) -> Part:
        """A program of this package, each of whose comparisons is measured for `seconds`."""
        more = ("--toy",) if given.toy else ("--seconds", str(seconds), *words)
        return Part(name, python(f"benchmarks.gpu.{module or name}", *more), limit)

    workers = ("-n", "8") if importlib.util.find_spec("xdist") else ()
    options = (
        "-m gpu -q --tb=short --seconds SECONDS --continue-on-collection-errors -p no:cacheprovider "
        "-W default::DeprecationWarning"  # of versions that are newer than those it was written with
    )
    tests = python("pytest", *options.split(), *workers)
    folders = ("engine", "layers", "solvers", "train")  # first what the rest is made of
    suite = [f"tests/{folder}" for folder in folders]
    parts = [
        measured("card", 25.0, 1.0),
        measured("kernels", 60.0, 6.0),
        Part("tests", (*tests, "--maxfail=25", "tests"), 90.0),
        measured("conv-w5", 100.0, 20.0, "--only", "conv-w5", module="solves"),
        measured("unet", 75.0, 12.0),
        measured("spiral", 70.0, 15.0, "--only", "spiral", module="solves"),
        measured("lorenz", 65.0, 4.0),
        Part("suite", (*tests, "--device", "cupy", *suite), 15.0, takes_rest=True),
    ]
    if given.data or given.toy:
        words = ["benchmarks.gpu.training", "--out", str(given.out), "--minutes", str(given.minutes)]
        words += ["--data", given.data] if given.data else ["--toy"]
        words += ["--from", given.earlier] if given.earlier else []
        parts.append(Part("training", python(*words), 60 * given.minutes + TO_SAVE))
    unknown = set(given.only or ()) - {part.name for part in parts}
    if unknown:
        sys.exit(f"no part named {', '.join(unknown)}; there are {', '.join(part.name for part in parts)}")
    return [part for part in parts if not given.only or part.name in given.only]


def run(part: Part, limit: float, findings: Findings) -> PartResult:
    """Run a part for at most `limit` seconds; the JSON lines that it has printed by then are kept."""
    started = time.monotonic()
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
        with subprocess.Popen(
            [f"{limit - TO_SAY - TO_END:.0f}" if word == "SECONDS" else word for word in part.command],
            stdout=printed,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        ) as process:
            code = ended(process, limit)
        printed.seek(0)
        text = printed.read()
    findings.lines += json_lines(text)
    state = {0: "done", None: "timed out"}.get(code, "failed")
    others = [line for line in text.splitlines() if not line.startswith("{")]
    said = "\n".join(others)[-SAID:] if state != "done" or part.name in ("tests", "suite") else ""
    return PartResult(part.name, state, round(time.monotonic() - started, 1), said)


def ended(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """The exit status, or None for a process that was ended after `limit` seconds: first by Ctrl-C, so that it can say
    how far it got, then with whatever it has started."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        for number, patience in ((signal.SIGINT, TO_SAY), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(patience)
        return None


def json_lines(text: str) -> list[Line]:
    """The results among what a part printed; a line that was cut off is left out."""
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--data", help="folder with CIFAR-10's published files")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training")
    parser.add_argument(
        "--from", dest="earlier", metavar="FOLDER", help="parts of an earlier slice's checkpoint"
    )
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything")
    parser.add_argument("--toy", action="store_true", help="tiny sizes on NumPy, for the tests")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + given.limit
    findings = Findings(problem=None if given.toy else why_no_gpu())
    findings.write(given.out)
    if findings.problem is not None:
        print(
            f"no GPU was found: {findings.problem}; {given.out}/gpu.md lists what is unmeasured",
            file=sys.stderr,
        )
        return 2
    parts = parts_of(given)
    reserved = sum(part.seconds for part in parts if part.name == "training")
    for part in parts:
        left = end - time.monotonic() - (0.0 if part.name == "training" else reserved)
        if left < 5.0:
            findings.parts.append(PartResult(part.name, "skipped", said="no time was left"))
        else:
            findings.parts.append(run(part, left if part.takes_rest else min(part.seconds, left), findings))
        result = findings.parts[-1]
        print(f"{result.name}: {result.state} after {result.seconds} s", file=sys.stderr, flush=True)
        findings.write(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
