"""How fast are small systems in machine code, beside replay and diffrax (if installed), and how long is the first call?

    python -m benchmarks.compiled [--toy] [--threads N] [--seconds S] [--clock wall|processor]

Two problems, in float32 and float64:
    spiral    forward, loss and full gradient of the workload of that name (`workloads.py`), and the same under `jit`
    lorenz    a plain solve of Lorenz's system over [0, 20], float64, rtol = atol = 1e-8
Losses and gradients are compared before anything is timed; states of the chaotic system at t = 2. Prints one JSON line a
method; times are means of five calls in a row. `first_s` is the first call in a process of its own with nothing on disk,
`new_program_s` in one that finds the loops of the solver on disk, which are the same for all problems, but not this program,
`from_disk_s` in one that finds both: of odegrad with numba's import, of diffrax without JAX's. It needs numba, the `jit`
extra. On a machine that others use too, `--clock processor` counts the processor time of all threads of the process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from odegrad import odeint
from threadpoolctl import threadpool_limits

from .iterations import check, diffrax_iterations, our_iteration
from .measure import CLOCKS, interleaved, machine, ratio, report, summary
from .workloads import spiral

Call = Callable[[], Any]
TOLERANCE = 1e-8
REPEATS = 5  # calls timed together, as a training loop makes them: the first after another method runs on cold caches
START, END, EARLY = [1.0, 1.0, 1.0], 20.0, 2.0


def lorenz(t: Any, y: Any, xp: Any = np) -> Any:
    x, y_, z = y[0], y[1], y[2]
    return xp.stack([10.0 * (y_ - x), x * (28.0 - z) - y_, x * y_ - 8.0 / 3.0 * z])


def lorenz_solves(t1: float) -> dict[str, Call]:
    """name -> solve, which returns the state at t1."""

    def ours(execution: str) -> Call:
        y0, ts = np.array(START), np.array([0.0, t1])
        return lambda: odeint(lorenz, y0, ts, rtol=TOLERANCE, atol=TOLERANCE, execution=execution).ys[-1]

    found = {f"odegrad {execution}": ours(execution) for execution in ("compiled", "replay")}
    if importlib.util.find_spec("diffrax") is None:
        return found
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    term = diffrax.ODETerm(lambda t, y, args: lorenz(t, y, jnp))
    control = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)

    @jax.jit
    def solve(y0: Any) -> Any:
        sol = diffrax.diffeqsolve(
            term, diffrax.Dopri5(), 0.0, t1, None, y0, stepsize_controller=control, max_steps=10_000
        )
        return sol.ys[-1]

    y0 = jnp.asarray(START)
    return found | {"diffrax": lambda: np.asarray(jax.block_until_ready(solve(y0)))}


def iterations_of(dtype: str) -> dict[str, Call]:
    """name -> one training iteration of the spiral."""
    given = spiral(dtype)
    ours = {
        f"odegrad {execution}{', jit' * is_jitted}": our_iteration(
            given, "discrete", execution=execution, is_jitted=is_jitted
        )
        for execution in ("compiled", "replay")
        for is_jitted in (True, False)
    }
    return ours | diffrax_iterations(given)


def calls_of(problem: str, dtype: str) -> dict[str, Call]:
    """name -> what is timed."""
    return iterations_of(dtype) if problem == "spiral" else lorenz_solves(END)


def check_calls(problem: str, dtype: str, calls: dict[str, Call]) -> None:
    """AssertionError where a method gives another loss, gradient or state."""
    if problem == "spiral":
        check(spiral(dtype), calls)
        return
    early = {name: solve() for name, solve in lorenz_solves(EARLY).items()}
    for name, state in early.items():
        off = float(np.abs(state - early["odegrad replay"]).max())
        assert off <= 1e3 * TOLERANCE * np.abs(state).max(), f"{name}: off by {off:.1e} at t = {EARLY}"


def first_calls(problem: str, dtype: str, method: str, clock: str) -> dict[str, float]:
    """Seconds of a method's first call in a process of its own, by what it finds on disk."""
    with tempfile.TemporaryDirectory() as folder:
        found = {"first_s": first_call(problem, dtype, method, folder, clock)}
        if method.startswith("odegrad compiled"):
            found["from_disk_s"] = first_call(problem, dtype, method, folder, clock)
            for kept in Path(folder).iterdir():
                if kept.is_file():
                    kept.unlink()
                elif not kept.name.startswith("loops_"):
                    shutil.rmtree(kept)
            found["new_program_s"] = first_call(problem, dtype, method, folder, clock)
    return {name: round(seconds, 3) for name, seconds in found.items()}


def first_call(problem: str, dtype: str, method: str, folder: str, clock: str) -> float:
    command = [
        sys.executable,
        "-m",
        "benchmarks.compiled",
        "--clock",
        clock,
        "--first",
        problem,
        dtype,
        method,
    ]
    environment = {**os.environ, "ODEGRAD_CACHE_DIR": folder}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return json.loads(output)


def time_first_call(clock: Callable[[], float], problem: str, dtype: str, method: str) -> float:
    call = calls_of(problem, dtype)[method]
    start = clock()
    call()
    return clock() - start


def measure(problem: str, dtype: str, given: argparse.Namespace) -> None:
    """Check that all methods agree, time them and print a line for each."""
    calls = calls_of(problem, dtype)
    check_calls(problem, dtype, calls)
    seconds, repeats = (0.05, 1) if given.toy else (given.seconds, REPEATS)
    times = interleaved(calls, seconds=seconds, repeats=repeats, clock=CLOCKS[given.clock])
    for name, found in times.items():
        line: dict[str, Any] = {
            "benchmark": "compiled", "problem": problem, "method": name, "dtype": dtype, "device": "cpu",
            "sizes": [3] if problem == "lorenz" else [20, 2, 50, 2], "module": name.partition(" ")[0],
            "threads": given.threads, "clock": given.clock, **summary(found),
        }  # fmt: skip
        if name.startswith("odegrad"):
            line["time_over_that_of"] = {
                other: ratio(found, times[other]) for other in times if other != name
            }
        if not given.toy and not name.startswith("odegrad replay"):
            line |= first_calls(problem, dtype, name, given.clock)
        packages = ["numba", *(["jax", "diffrax"] if any("diffrax" in other for other in times) else [])]
        report(line | {"machine": machine(*packages)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="a few calls in float64, for the tests")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="of BLAS; XLA takes what it finds"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each problem is measured")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="what is measured")
    parser.add_argument("--first", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    with threadpool_limits(given.threads):
        if given.first:
            print(json.dumps(time_first_call(CLOCKS[given.clock], *given.first)))
            return
        problems = [("spiral", "float32"), ("spiral", "float64"), ("lorenz", "float64")]
        for problem, dtype in problems[1:] if given.toy else problems:
            measure(problem, dtype, given)


if __name__ == "__main__":
    main()
