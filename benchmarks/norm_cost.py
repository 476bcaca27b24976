"""What does temporal batch normalization cost an evaluation in training, beside none and ordinary batch norm?

    python -m benchmarks.norm_cost [--toy] [--threads N] [--network NAME] [--batch B]

One evaluation of the dynamics of the paper's network on MNIST-sized images, forward and pulled back, as the training loop
replays it. Prints one JSON line a normalization; all are measured turn by turn. `over_none` is the time of both passes
over that without a norm.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from odegrad import random
from odegrad.engine.kernels.precision import accepting
from odegrad.layers import normalization, uniform_nodes
from odegrad.layers.normalization import READINGS
from odegrad.solvers.compiled import Purpose, compiled_for
from odegrad.solvers.dynamics import Dynamics
from odegrad.solvers.stages import ReplayStages
from odegrad.solvers.tableaus import DOPRI5
from odegrad.train.experiments.networks import dynamics
from threadpoolctl import threadpool_limits

from .measure import interleaved, machine, ratio, report, summary

ACCEPTED = 1e-3 / 25  # what a solve at rtol 1e-3 lets kernels round off


def passes(
    reading: str, network: str, shape: tuple[int, int, int], batch: int
) -> dict[str, Callable[[], None]]:
    """The forward evaluation and its pull-back."""

    def norm(channels: int) -> Any:
        return normalization(reading, channels, nodes=uniform_nodes(), momentum=0.1)

    net = dynamics(network, shape, norm)
    weights, stats = net.init(random.key(0)), net.init_stats()
    y0 = np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)
    solved = Dynamics(lambda t, y, w: net.apply(w, stats, t, y, mode="train"), 0.0, y0, weights, has_aux=True)
    return passes_of(solved)


def passes_of(solved: Dynamics) -> dict[str, Callable[[], None]]:
    """The forward evaluation of any dynamics and its pull-back."""
    purpose = Purpose("discrete", tuple(range(len(solved.params_leaves))), False)
    stages = ReplayStages(compiled_for(solved, purpose), solved, purpose, DOPRI5.stages, DOPRI5.fsal)
    stages.load(solved)
    stages.input(0)[...] = solved.initial_state()
    assert stages.seeds is not None
    stages.seeds[...] = 1e-3

    def accepted(call: Callable[[int, float], None]) -> Callable[[], None]:
        def run() -> None:
            with accepting(ACCEPTED):
                call(0, 0.3)

        return run

    return {"forward": accepted(stages.evaluate), "backward": accepted(stages.pull)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="tiny images, a fraction of a second")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of BLAS")
    parser.add_argument("--network", default="4-layer")
    parser.add_argument("--batch", type=int, default=256)
    given = parser.parse_args()
    shape, batch = ((8, 8, 1), 4) if given.toy else ((28, 28, 1), given.batch)
    with threadpool_limits(given.threads):
        calls = {
            (reading, name): call
            for reading in READINGS
            for name, call in passes(reading, given.network, shape, batch).items()
        }
        found = interleaved(calls, seconds=0.05 if given.toy else 30.0)
    both = {
        r: [a + b for a, b in zip(found[r, "forward"], found[r, "backward"], strict=True)] for r in READINGS
    }
    for reading, times in both.items():
        report(
            {
                "benchmark": "norm_cost", "what": reading, "network": given.network, "sizes": [batch, *shape],
                "dtype": "float32", "module": "numpy", "device": "cpu", "threads": given.threads, **summary(times),
                "forward_s": summary(found[reading, "forward"])["median_s"],
                "backward_s": summary(found[reading, "backward"])["median_s"],
                "over_none": ratio(times, both["none"]), "machine": machine(),
            }
        )  # fmt: skip


if __name__ == "__main__":
    main()
