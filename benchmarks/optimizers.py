"""What do clipping and an optimiser step cost, small leaves joined and a leaf at a time?

    python -m benchmarks.optimizers [--toy]

The weights of the paper's networks on MNIST, clipped in the three groups of training, then AdamW and SGD with momentum.
Prints one JSON line a network, optimiser and way; all of a network are measured turn by turn, in processor time.
`over_each` is the time over that of a leaf at a time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
from odegrad import random
from odegrad.engine.tree import Tree, leaves, tree_map
from odegrad.train import SGD, AdamW, optimizers
from odegrad.train.clipping import clip_groups, make_groups
from odegrad.train.config import TrainConfig
from odegrad.train.experiments import classifier
from odegrad.train.optimizers import Optimizer

from .measure import interleaved, machine, ratio, report, summary

NETWORKS = ("4-layer", "6-layer", "unet")
KINDS: dict[str, Optimizer] = {"adamw": AdamW(weight_decay=0.02), "sgd": SGD(momentum=0.9, weight_decay=0.02)}


def step_each(
    step: Callable[..., Any], columns: Sequence[Sequence[Any]], settings: Sequence[Any]
) -> list[Any]:
    """A leaf at a time: what `step_leaves` is measured against."""
    return list(zip(*(step(*leaf) for leaf in zip(settings, *columns, strict=True)), strict=True))


def calls_of(weights: Tree, gradient: Tree) -> dict[str, Callable[[], Any]]:
    """Name of a step, and of the way after a blank, to a function that makes it once."""
    groups = make_groups(TrainConfig())
    calls: dict[str, Callable[[], Any]] = {"clip joined": lambda: clip_groups(gradient, groups)}
    for name, optimizer in KINDS.items():
        state = optimizer.init(weights)

        def update(optimizer: Any = optimizer, state: Tree = state) -> Any:
            return optimizer.update(gradient, state, weights, 1e-3)

        def update_each(update: Callable[[], Any] = update) -> Any:
            with patch.object(optimizers, "step_leaves", step_each):
                return update()

        calls |= {f"{name} joined": update, f"{name} each": update_each}
    return calls


def measure(network: str, seconds: float) -> None:
    """Time all steps on the weights of a network and print a line for each."""
    options: Any = {"network": network}
    net = classifier(TrainConfig(**options), (28, 28, 1), 10)
    weights = net.init(random.key(0), np.float32)
    rng = np.random.default_rng(0)
    gradient = tree_map(lambda w: rng.standard_normal(w.shape).astype(w.dtype), weights)
    times = interleaved(calls_of(weights, gradient), seconds=seconds, clock=time.thread_time)
    for name, found in times.items():
        what, _, way = name.partition(" ")
        line: dict[str, Any] = {
            "benchmark": "optimizers", "network": network, "what": what, "method": way, "leaves": len(leaves(weights)),
            "sizes": [sum(leaf.size for leaf in leaves(weights))], "dtype": "float32", "module": "numpy", "device": "cpu",
            **summary(found),
        }  # fmt: skip
        if what != "clip":
            line["over_each"] = ratio(found, times[f"{what} each"])
        report(line | {"machine": machine()})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="the smallest network, a moment only")
    given = parser.parse_args()
    for network in NETWORKS[:1] if given.toy else NETWORKS:
        measure(network, 0.02 if given.toy else 5.0)


if __name__ == "__main__":
    main()
