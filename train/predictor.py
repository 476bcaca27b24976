"""A run's model, ready to classify."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal

from ..engine import random
from ..engine.errors import ArgumentError
from . import checkpoint, run_folder
from .model import Model
from .optimizers import make_optimizer
from .state import RunState, preprocessing_of, with_state

Device = Literal["cpu", "cuda"]


def load(run: str | os.PathLike[str], which: str = "best", *, device: Device | None = None) -> Model:
    """The trained model of a run folder.

    Args:
        run: folder that `odegrad train` made.
        which: "best" (lowest validation loss) or "last".
        device: where it computes, "cpu" or "cuda"; by default where it was trained.
    Returns: a Model; `.predict(images)` takes uint8 images of the size it was trained on.
    Raises: CheckpointError if the folder or the checkpoint is missing, damaged, or of another architecture.
    """
    return restored(run_folder.find(run), which, device)[0]


def restored(run: run_folder.RunFolder, which: str, device: Device | None = None) -> tuple[Model, RunState]:
    """The model of a run, on `device` if it is given, and the state it was saved in."""
    if which not in ("best", "last"):
        raise ArgumentError(f"`which` must be 'best' or 'last'; got {which!r}")
    found = checkpoint.load(run.best if which == "best" else run.last)
    config = run.config()
    if device is not None:
        precision = config.precision if device == "cuda" else "fp32"  # a CPU rounds nothing
        config = replace(config, device=device, precision=precision)
    model = Model.fresh(config, preprocessing_of(found), random.key(config.seed))
    fresh = RunState(model.weights, model.stats, make_optimizer(config).init(model.weights))
    state = RunState.restored(fresh, found)
    return with_state(model, state), state
