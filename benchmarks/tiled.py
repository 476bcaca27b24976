"""What do tiles on own threads gain over one product after the other, on BLAS's threads?

    python -m benchmarks.tiled [--toy] [--threads N] [--seconds S] [--only NAME ...]

The slope of a perceptron d-h-d, or of convolutions with group norms, and its pull-back to state and parameters, replayed with
tiles (and BLAS at one thread, as a solve holds it) and without: products on BLAS's threads, convolutions and chains divided
one by one. Prints one JSON line a network and way; both are measured turn by turn. `over_blas` is the time of both passes
over that without tiles. Threads of BLAS spin for a while after a product: the tiles wait for them.
With `--threads 1` it is processor time that is measured, and what tiles gain is the cache.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
from odegrad.engine import replay
from odegrad.engine.fusion import schedule
from odegrad.engine.kernels.precision import accepting
from odegrad.engine.kernels.threads import one_blas_thread
from odegrad.engine.tiled import Tiled
from odegrad.solvers.compiled import Purpose, compiled_for
from odegrad.solvers.dynamics import Dynamics
from odegrad.solvers.stages import ReplayStages
from odegrad.solvers.tableaus import EULER
from threadpoolctl import threadpool_limits

from .iterations import ours
from .measure import interleaved, machine, ratio, report, summary
from .workloads import conv_net, tanh_network

NETWORKS = {  # (batch, state, hidden)
    "batch-4096": (4096, 32, 32),
    "batch-16384": (16384, 16, 64),
    "batch-65536": (65536, 8, 50),
    "conv-32": (32, 32, 32, 64, 4),  # images and the number of convolutions
}
TOY = {"mlp-4": (8, 4, 4), "conv-4": (2, 4, 4, 32, 1)}
ACCEPTED = 1e-2 / 25  # what a solve at rtol 1e-2 lets convolutions round off
WAYS = ("tiles", "blas")
SPINNING = 0.1  # seconds after which OpenBLAS's threads are asleep
EVALUATIONS = 5  # timed together: BLAS is held once a solve


def dynamics(batch: int, width: int, hidden: int) -> Dynamics:
    """y' = tanh(y w1 + b1) w2 + b2 on rows (batch, width)."""
    rng = np.random.default_rng(0)
    shapes = ((width, hidden), (hidden,), (hidden, width), (width,))
    params = [(rng.standard_normal(s) / np.sqrt(s[0])).astype(np.float32) for s in shapes]
    y0 = rng.standard_normal((batch, width)).astype(np.float32)
    return Dynamics(lambda t, y, p: tanh_network(ours, t, y, p), 0.0, y0, params, has_aux=False)


def image_dynamics(*sizes: int) -> Dynamics:
    """The slope of the workloads of this name: sizes of the images, and the number of convolutions."""
    batch, height, width, channels, n_convs = sizes
    given = conv_net("images", (batch, height, width, channels), n_convs, 1e-2, "float32")
    return Dynamics(lambda t, y, p: given.network(ours, t, y, p), 0.0, given.y0, given.params, has_aux=False)


def passes(solved: Dynamics, way: str) -> tuple[Callable[[], None], int]:
    """(slopes and pull-backs, the number of tiles of one evaluation)."""
    purpose = Purpose("discrete", tuple(range(len(solved.params_leaves))), False)
    divides_itself = way == "tiles" or "conv2d" in solved.program.operations
    stage_counts = EULER.stages, EULER.fsal
    untiled = patch.object(replay, "tiled_schedule", lambda plan, group: list(schedule(plan, group)))
    with nullcontext() if way == "tiles" else untiled:
        stages = ReplayStages(compiled_for(solved, purpose), solved, purpose, *stage_counts)
    stages.load(solved)
    stages.input(0)[...] = solved.initial_state()
    assert stages.seeds is not None
    stages.seeds[...] = 1e-3
    pieces = [piece for group in stages.workspace.schedules.values() for piece in group]

    def run() -> None:
        with accepting(ACCEPTED), one_blas_thread() if divides_itself else nullcontext():
            for _ in range(EVALUATIONS):
                stages.evaluate(0, 0.0)
                stages.pull(0, 0.0)

    return run, sum(len(piece.bounds) for piece in pieces if isinstance(piece, Tiled))


def measure(name: str, sizes: tuple[int, ...], given: argparse.Namespace) -> None:
    """Time both ways and print a line for each."""
    solved = dynamics(*sizes) if len(sizes) == 3 else image_dynamics(*sizes)
    bound = {way: passes(solved, way) for way in WAYS}
    clock = time.thread_time if given.threads == 1 else time.perf_counter
    seconds = 0.02 if given.toy else given.seconds
    calls = {"blas": bound["blas"][0], "pause": lambda: time.sleep(SPINNING), "tiles": bound["tiles"][0]}
    times = interleaved(calls, seconds=seconds, clock=clock)
    for way in WAYS:
        found = times[way]
        line: dict[str, Any] = {
            "benchmark": "tiled", "network": name, "method": way, "sizes": list(sizes), "dtype": "float32",
            "module": "odegrad", "device": "cpu", "threads": given.threads, "n_tiles": bound[way][1], "evaluations": EVALUATIONS,
            "over_blas": ratio(found, times["blas"]), "best_over_blas": round(found[0] / times["blas"][0], 3),
            **summary(found),
        }  # fmt: skip
        report(line | {"machine": machine()})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="a tiny network, for the tests")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of BLAS and of the tiles")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each network")
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), help="these networks")
    given = parser.parse_args()
    networks = TOY if given.toy else {n: s for n, s in NETWORKS.items() if n in (given.only or NETWORKS)}
    with threadpool_limits(given.threads):
        for name, sizes in networks.items():
            measure(name, sizes, given)


if __name__ == "__main__":
    main()
