"""How long does one training iteration take, and how much memory, beside torchdiffeq and diffrax if installed?

    python -m benchmarks.iteration [--toy] [--threads N] [--only NAME ...] [--dtype D] [--slow] [--seconds S]
                                   [--clock wall|processor]

Forward, loss and full gradient of the networks in `workloads`, with the same weights, inputs and tolerances for everyone;
losses and gradients are compared before anything is timed. Prints one JSON line a method; all are measured turn by turn.
Memory is the growth of the resident set in two iterations of a process of its own. `--threads` limits BLAS and PyTorch;
XLA takes what it finds. On a machine that is not idle use one thread (PyTorch's threads wait for each other, and a busy core
makes it many times slower) and `--clock processor`, the processor time of all threads. `--slow` adds peers that need
minutes an iteration.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from .iterations import all_iterations, check
from .measure import CLOCKS, interleaved, machine, ratio, report, summary
from .workloads import Workload, toy, workloads

PEER_PACKAGES = {"torchdiffeq": ("torch", "torchdiffeq"), "diffrax": ("jax", "diffrax")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = workloads()
    parser.add_argument("--toy", action="store_true", help="tiny networks without peers, for the tests")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of BLAS and of PyTorch")
    parser.add_argument("--only", nargs="+", choices=[*known, *toy()], help="these workloads")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--slow", action="store_true", help="peers that need minutes an iteration, too")
    parser.add_argument("--seconds", type=float, help="how long each workload is measured")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="what is measured")
    parser.add_argument("--growth-of", metavar="METHOD", help=argparse.SUPPRESS)
    given = parser.parse_args()
    makers = toy() if given.toy else workloads(given.dtype)
    with threadpool_limits(given.threads):
        for name in given.only or makers:
            if given.growth_of:
                print(json.dumps(growth(makers[name](), given.growth_of, given.threads)))
            else:
                measure(makers[name](), given)


def measure(workload: Workload, given: argparse.Namespace) -> None:
    """Check that all methods agree, time them and print a line for each."""
    iterations = all_iterations(workload, given.threads, peers=not given.toy, slow=given.slow)
    counts = check(workload, iterations)
    seconds = 0.05 if given.toy else given.seconds or workload.seconds
    times = interleaved(iterations, seconds=seconds, clock=CLOCKS[given.clock])
    memory = (
        {} if given.toy else {name: _growth_in_a_process(workload.name, name, given) for name in iterations}
    )
    for name, found in times.items():
        line: dict[str, Any] = {
            "benchmark": "iteration", "workload": workload.name, "method": name,
            "sizes": list(workload.y0.shape), "dtype": str(workload.y0.dtype), "module": name.partition(" ")[0],
            "device": "cpu", "threads": given.threads, "clock": given.clock, "rtol": workload.rtol, "atol": workload.atol,
            **summary(found), **counts[name],
        }  # fmt: skip
        if name in memory:
            line["memory_mb"] = memory[name]
        if name.startswith("odegrad"):
            peers = {peer: ratio(found, times[peer]) for peer in times if not peer.startswith("odegrad")}
            line["time_over_that_of"] = peers
        packages = [p for peer in PEER_PACKAGES for p in PEER_PACKAGES[peer] if any(peer in n for n in times)]
        report(line | {"machine": machine(*packages)})


def growth(workload: Workload, method: str, n_threads: int) -> float:
    """MB by which two iterations raise this process's largest resident set; NaN where Linux does not tell it."""
    iteration = all_iterations(workload, n_threads, peers="odegrad" not in method, slow=True)[method]
    before = _largest_resident_mb()
    iteration()
    iteration()
    return round(_largest_resident_mb() - before, 1)


def _largest_resident_mb() -> float:
    """Of this program; `getrusage` would count what its parent had when it was started."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM"):
            return float(line.split()[1]) / 1024
    return float("nan")


def _growth_in_a_process(workload: str, method: str, given: argparse.Namespace) -> float:
    command = [
        sys.executable, "-m", "benchmarks.iteration", "--only", workload, "--growth-of", method,
        "--threads", str(given.threads), "--dtype", given.dtype,
    ]  # fmt: skip
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
