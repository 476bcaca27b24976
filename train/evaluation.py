"""How good a trained run is on its test images."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..engine.errors import ArgumentError
from .data import load_dataset
from .predictor import restored
from .progress import Reporter
from .run_folder import RunFolder


@dataclass(frozen=True)
class Evaluation:
    """What `odegrad evaluate` reports; accuracy in [0, 1], nfe a mean over solves of `batch_size` images."""

    run: str
    checkpoint: str
    epoch: int
    images: int
    batch_size: int
    test_accuracy: float
    loss: float
    nfe: float
    parameters: int
    parameters_published: int
    seconds: float


def evaluate(
    run: RunFolder, reporter: Reporter, which: str = "last", batch_size: int = 0, limit: int = 0
) -> Evaluation:
    """Score a checkpoint on the test images.

    Args:
        which: "last" or "best".
        batch_size: images solved together, with common steps; 0 takes the configured number. The answer for
            an image depends on it a little, since the steps are chosen for the whole batch.
        limit: score only the first so many images; 0 takes all.
    Raises: CheckpointError, DataError, ArgumentError.
    """
    if limit < 0 or batch_size < 0:
        raise ArgumentError(f"`limit` and `batch_size` must not be negative; got {limit} and {batch_size}")
    model, state = restored(run, which)
    data = load_dataset(model.config.dataset, model.config.data_dir)
    n = min(limit or len(data.test_labels), len(data.test_labels))
    size = batch_size or model.config.eval_batch_size
    reporter.message(f"{run.path}: {which} checkpoint on {n} test images, {size} at a time")
    started = time.perf_counter()
    scores = model.score(data.test_images[:n], data.test_labels[:n], size)
    return Evaluation(
        run=str(run.path),
        checkpoint=which,
        epoch=state.epoch,
        images=n,
        batch_size=size,
        test_accuracy=scores.accuracy,
        loss=scores.loss,
        nfe=scores.nfe,
        seconds=time.perf_counter() - started,
        **model.parameter_counts(),
    )
