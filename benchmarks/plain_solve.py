"""How long does a solve without gradients take, beside SciPy, torchdiffeq and diffrax where they are installed?

    python -m benchmarks.plain_solve [--toy] [--threads N] [--seconds S] [--clock wall|processor]

Lorenz's system over [0, 20] in float64 at rtol = atol = 1e-8, one system, and 1,000 of them as one state with shared steps.
The states at t = 2 are compared before anything is timed: later the system has made round-off large. Prints one JSON line a
method, with the time of each peer over it; all are measured turn by turn. Odegrad's machine code is measured where numba
is installed. On a machine that others use too, `--clock processor` counts the processor time of all threads.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from odegrad import odeint
from scipy.integrate import solve_ivp
from threadpoolctl import threadpool_limits

from .measure import CLOCKS, interleaved, machine, ratio, report, summary

TOLERANCE, EARLY, END = 1e-8, 2.0, 20.0
Solver = Callable[
    [np.ndarray, float], tuple[np.ndarray, int]
]  # (state (3, n), end) -> state there, evaluations


def lorenz(t: Any, y: Any, stack: Callable[[list[Any]], Any] = np.stack) -> Any:
    a, b, c = y[0], y[1], y[2]
    return stack([10.0 * (b - a), a * (28.0 - c) - b, a * b - 8.0 / 3.0 * c])


def our_solvers() -> dict[str, Solver]:
    """By replay, and in machine code where numba is installed."""

    def solver(execution: str) -> Solver:
        def solve(y0: np.ndarray, end: float) -> tuple[np.ndarray, int]:
            sol = odeint(lorenz, y0, [0.0, end], rtol=TOLERANCE, atol=TOLERANCE, execution=execution)
            return sol.ys[-1], sol.stats.nfe

        return solve

    kinds = ["replay", *(["compiled"] if importlib.util.find_spec("numba") else [])]
    return {f"odegrad {kind}": solver(kind) for kind in kinds}


def scipy_solver(y0: np.ndarray, end: float) -> tuple[np.ndarray, int]:
    shape = y0.shape

    def flat(t: float, y: np.ndarray) -> np.ndarray:
        return lorenz(t, y.reshape(shape)).reshape(-1)

    found = solve_ivp(flat, (0.0, end), y0.reshape(-1), t_eval=[end], rtol=TOLERANCE, atol=TOLERANCE)
    return found.y[:, -1].reshape(shape), int(found.nfev)


def torch_solver() -> dict[str, Solver]:
    if importlib.util.find_spec("torchdiffeq") is None:
        return {}
    import torch
    import torchdiffeq

    def solve(y0: np.ndarray, end: float) -> tuple[np.ndarray, int]:
        nfe = 0

        def f(t: Any, y: Any) -> Any:
            nonlocal nfe
            nfe += 1
            return lorenz(t, y, torch.stack)

        times = torch.tensor([0.0, end], dtype=torch.float64)
        with torch.no_grad():
            ys = torchdiffeq.odeint(f, torch.from_numpy(y0), times, rtol=TOLERANCE, atol=TOLERANCE)
        return ys[-1].numpy(), nfe

    return {"torchdiffeq": solve}


def diffrax_solver() -> dict[str, Solver]:
    if importlib.util.find_spec("diffrax") is None:
        return {}
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    control = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
    term = diffrax.ODETerm(lambda t, y, _: lorenz(t, y, jnp.stack))

    @jax.jit
    def compiled(y0: Any, end: Any) -> tuple[Any, Any]:
        sol = diffrax.diffeqsolve(
            term, diffrax.Dopri5(), 0.0, end, None, y0, stepsize_controller=control, max_steps=100_000,
            saveat=diffrax.SaveAt(t1=True), adjoint=diffrax.ForwardMode(),
        )  # fmt: skip
        return sol.ys[0], sol.stats["num_steps"]

    def solve(y0: np.ndarray, end: float) -> tuple[np.ndarray, int]:
        y, n_steps = jax.block_until_ready(compiled(jnp.asarray(y0), end))
        return np.asarray(y), 6 * int(n_steps) + 2

    return {"diffrax": solve}


def check(solvers: dict[str, Solver], y0: np.ndarray) -> None:
    """All solvers agree while round-off is small."""
    states = {name: solve(y0, EARLY)[0] for name, solve in solvers.items()}
    first = next(iter(states.values()))
    for name, state in states.items():
        distance = float(abs(state - first).max())
        assert distance <= 1e-4, f"{name} is {distance:.1e} away at t = {EARLY}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="short solves without peers, for the tests")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of BLAS and of PyTorch")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each size")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="what is measured")
    given = parser.parse_args()
    with threadpool_limits(given.threads):
        for n_systems in (1, 4) if given.toy else (1, 1000):
            measure(n_systems, given)


def measure(n_systems: int, given: argparse.Namespace) -> None:
    """Compare, time and print a line for each solver."""
    y0 = 1.0 + np.random.default_rng(0).uniform(-0.5, 0.5, (3, n_systems))
    solvers = our_solvers()
    if not given.toy:
        solvers |= {"scipy RK45": scipy_solver, **torch_solver(), **diffrax_solver()}
    check(solvers, y0)
    end = 0.1 if given.toy else END
    calls = {name: lambda solve=solve: solve(y0, end) for name, solve in solvers.items()}
    nfe = {name: call()[1] for name, call in calls.items()}
    times = interleaved(calls, seconds=0.02 if given.toy else given.seconds, clock=CLOCKS[given.clock])
    for name, found in times.items():
        line: dict[str, Any] = {
            "benchmark": "plain_solve", "method": name, "sizes": [3, n_systems], "dtype": "float64",
            "module": name.partition(" ")[0], "device": "cpu", "threads": given.threads, "clock": given.clock,
            "rtol": TOLERANCE,
            "nfe": nfe[name], **summary(found),
        }  # fmt: skip
        if name.startswith("odegrad"):
            line["time_over_that_of"] = {
                peer: ratio(found, times[peer]) for peer in times if not peer.startswith("odegrad")
            }
        packages = [p for p in ("torchdiffeq", "diffrax") if p in times]
        report(line | {"machine": machine("scipy", *packages)})


if __name__ == "__main__":
    main()
