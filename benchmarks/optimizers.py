"""What do clipping and an optimiser step cost: a leaf at a time, small leaves joined, and in one pass?

    python -m benchmarks.optimizers [--toy]

The weights of the paper's networks on MNIST: norms of the three groups of training, then AdamW and SGD with momentum on a
gradient that is clipped. `each` takes NumPy's calls leaf by leaf, `joined` joins small leaves, `one-pass` has machine code
for the large ones too, where numba is installed. Prints one JSON line a network, optimiser and way; all of a network are
measured turn by turn, in processor time. `over_each` is the time over that of a leaf at a time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import numpy as np
from odegrad import random
from odegrad.engine.jit.choice import CHOICE
from odegrad.engine.tree import Tree, leaves, tree_map
from odegrad.train import SGD, AdamW, optimizers
from odegrad.train.clipping import clip_factors, make_groups
from odegrad.train.config import TrainConfig
from odegrad.train.experiments import classifier
from odegrad.train.optimizers import Optimizer

from .measure import interleaved, machine, ratio, report, summary

NETWORKS = ("4-layer", "6-layer", "8-layer", "unet")
WAYS = {"each": "numpy", "joined": "numpy"} | ({"one-pass": "numba"} if find_spec("numba") else {})
KINDS: dict[str, Optimizer] = {"adamw": AdamW(weight_decay=0.02), "sgd": SGD(momentum=0.9, weight_decay=0.02)}


def step_each(
    step: Callable[..., Any], n_results: int, columns: Sequence[Sequence[Any]], settings: Sequence[Any]
) -> list[Any]:
    """A leaf at a time: what `step_leaves` is measured against."""
    return list(zip(*(step(*leaf) for leaf in zip(settings, *columns, strict=True)), strict=True))


def calls_of(weights: Tree, gradient: Tree) -> dict[str, Callable[[], Any]]:
    """Name of a step, and of the way after a blank, to a function that makes it once."""
    groups = make_groups(TrainConfig())
    scales, _ = clip_factors(gradient, groups)
    calls: dict[str, Callable[[], Any]] = {"clip factors": lambda: clip_factors(gradient, groups)}
    for name, optimizer in KINDS.items():
        for way, choice in WAYS.items():
            current = [weights, optimizer.init(weights)]  # old ones are freed, as in training

            def update(
                optimizer: Any = optimizer, current: list[Tree] = current, choice: str = choice
            ) -> None:
                os.environ[CHOICE] = choice
                current[:] = optimizer.update(gradient, current[1], current[0], 1e-3, scales)

            def update_each(update: Callable[[], Any] = update) -> Any:
                with patch.object(optimizers, "step_leaves", step_each):
                    return update()

            calls[f"{name} {way}"] = update_each if way == "each" else update
    return calls


def measure(network: str, seconds: float) -> None:
    """Time all steps on the weights of a network and print a line for each."""
    options: Any = {"network": network}
    net = classifier(TrainConfig(**options), (28, 28, 1), 10)
    weights = net.init(random.key(0), np.float32)
    rng = np.random.default_rng(0)
    gradient = tree_map(lambda w: rng.standard_normal(w.shape).astype(w.dtype), weights)
    calls = calls_of(weights, gradient)
    with patch.dict(os.environ):
        times = interleaved(calls, seconds=seconds, clock=time.thread_time)
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
        measure(network, 0.02 if given.toy else 10.0)


if __name__ == "__main__":
    main()
