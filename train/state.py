"""Everything a run consists of between two optimiser steps, to and from a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..engine.errors import CheckpointError
from ..engine.tree import Tree
from .checkpoint import Checkpoint, match, named_arrays, restored_tree
from .config import TrainConfig
from .model import Model, Preprocessing


@dataclass(frozen=True)
class Totals:
    """Sums over the epoch so far, so that a resumed epoch reports the same numbers."""

    images: int = 0
    solves: int = 0
    loss: float = 0.0
    correct: int = 0
    nfe_forward: int = 0
    nfe_backward: int = 0
    rejected: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Best:
    """The epoch with the lowest validation loss so far (the first of equals), and its test accuracy.

    The loss, because the accuracy on a few hundred held-out images is a coarse number that many epochs share.
    Without validation images there is nothing to choose by, and the newest epoch is the best.
    """

    epoch: int
    validation_loss: float | None
    test_accuracy: float


@dataclass(frozen=True)
class RunState:
    """The state after `step` optimiser steps, `step_in_epoch` of them in epoch `epoch` (from 0).

    Random numbers follow from the seed and these counters: there is no generator to save.
    """

    weights: Tree
    stats: Tree
    optimizer: Tree
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    totals: Totals = field(default_factory=Totals)
    best: Best | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, on the host."""
        trees = {"weights": self.weights, "stats": self.stats, "optimizer": self.optimizer}
        return {
            name: array
            for prefix, tree in trees.items()
            for name, array in named_arrays(tree, prefix).items()
        }

    def header(self, config: TrainConfig, preprocessing: Preprocessing) -> dict[str, Any]:
        """What else a checkpoint holds."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "totals": asdict(self.totals),
            "best": None if self.best is None else asdict(self.best),
            "config": asdict(config),
            "preprocessing": {
                "mean": preprocessing.mean.tolist(),
                "std": preprocessing.std.tolist(),
                "shape": list(preprocessing.shape),
                "classes": list(preprocessing.classes),
            },
        }

    @classmethod
    def restored(cls, fresh: RunState, checkpoint: Checkpoint) -> RunState:
        """The state in a checkpoint; `fresh` says which arrays it must have. Raises CheckpointError."""
        expected = {name: (array.shape, array.dtype) for name, array in fresh.arrays().items()}
        match(checkpoint.arrays, expected)
        header = checkpoint.header
        try:
            counters = {name: int(header[name]) for name in ("step", "epoch", "step_in_epoch")}
            totals = Totals(**header["totals"])
            best = None if header["best"] is None else Best(**header["best"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint's header lacks what a run needs: {error}") from error
        return replace(
            fresh,
            weights=restored_tree(fresh.weights, checkpoint.arrays, "weights"),
            stats=restored_tree(fresh.stats, checkpoint.arrays, "stats"),
            optimizer=restored_tree(fresh.optimizer, checkpoint.arrays, "optimizer"),
            totals=totals,
            best=best,
            **counters,
        )


def preprocessing_of(checkpoint: Checkpoint) -> Preprocessing:
    """How the run of a checkpoint prepared its images."""
    try:
        found = checkpoint.header["preprocessing"]
        height, width, channels = map(int, found["shape"])
        return Preprocessing(
            np.array(found["mean"], dtype=np.float64),
            np.array(found["std"], dtype=np.float64),
            (height, width, channels),
            tuple(map(str, found["classes"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's header lacks its preprocessing: {error}") from error


def with_state(model: Model, state: RunState) -> Model:
    """The model with the weights and statistics of a state."""
    return replace(model, weights=state.weights, stats=state.stats)
