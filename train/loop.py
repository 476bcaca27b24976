"""Training: from a configuration to a run folder, step by step, resumable at any step."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..engine import ops, random
from ..engine.backend import Array, memory_peak, module_for_device, start_memory_phase, to_number
from ..engine.errors import DataError, NonFiniteDynamics
from ..engine.kernels.threads import one_blas_thread
from ..engine.transforms import value_and_grad
from ..engine.tree import Tree
from ..layers import solves
from . import checkpoint, metrics
from .clipping import clip_factors, make_groups
from .config import TrainConfig
from .data import (
    Dataset,
    LabelledImages,
    augment,
    batches,
    batches_per_epoch,
    channel_statistics,
    load_dataset,
    split_validation,
)
from .feed import feed
from .interrupts import NoticedInterrupts
from .metrics import EpochRecord
from .model import Model, Preprocessing, Scores
from .optimizers import make_optimizer
from .progress import Reporter, StepNumbers
from .run_folder import RunFolder
from .schedules import make_schedule
from .state import Best, RunState, Totals, with_state

INIT, SPLIT, ORDER, AUGMENT, DROPOUT = range(5)  # streams of random numbers, each folded from the seed


@dataclass(frozen=True)
class Result:
    """What a finished run reports; accuracies in [0, 1]."""

    run: str
    dataset: str
    network: str
    norm: str
    epochs: int
    steps: int
    loss: float
    test_accuracy: float
    best_test_accuracy: float
    best_epoch: int
    nfe_forward: float
    nfe_backward: float
    nfe_evaluation: float
    seconds: float
    seconds_per_epoch: float
    parameters: int
    parameters_published: int
    peak_memory_mb: float
    peak_gpu_memory_mb: float | None = None


def train(config: TrainConfig, run: RunFolder, reporter: Reporter) -> Result:
    """Train from scratch in the folder `run`.

    A checkpoint of step 0 is written first, so that the run can be resumed from then on.
    Raises: DataError, the errors of a solve, OSError; KeyboardInterrupt after the state was saved.
    """
    trainer = Trainer(config, run, reporter)
    state = trainer.fresh_state()
    trainer.save(run.last, state)
    return trainer.run_from(state)


def resume(run: RunFolder, reporter: Reporter) -> Result:
    """Go on from the last checkpoint of a run; on the same machine and versions the result is the same bit
    for bit.

    Raises: CheckpointError for a checkpoint that is damaged or of another architecture,
        and what `train` raises.
    """
    for change in run.version_changes():
        reporter.message(f"not the same bit for bit: {change}")
    found, config = checkpoint.load(run.last), run.config()
    for change in _config_changes(found, config):
        reporter.message(f"config.toml was edited: {change}")
    trainer = Trainer(config, run, reporter)
    state = RunState.restored(trainer.fresh_state(), found)
    # An epoch's record is written before the checkpoint behind it: one of an unfinished epoch has yet to come
    # again.
    metrics.cut_back(run.metrics, state.step - 1 if state.step_in_epoch else state.step)
    return trainer.run_from(state)


class Trainer:
    """One run: its data, model, optimiser, and the loop over epochs and steps."""

    def __init__(self, config: TrainConfig, run: RunFolder, reporter: Reporter) -> None:
        self.config, self.run, self.reporter = config, run, reporter
        self.key = random.key(config.seed)
        self.data = load_dataset(config.dataset, config.data_dir)
        self.training, self.validation = split_validation(
            self.data, config.validation_fraction, self._key(SPLIT)
        )
        self.steps_per_epoch = batches_per_epoch(len(self.training.labels), config.batch_size)
        self.model = Model.fresh(config, preprocessing(self.data, self.training), self._key(INIT))
        self.xp = module_for_device(config.device)
        self.optimizer = make_optimizer(config)
        self.learning_rate: Callable[[int], float] = make_schedule(config, self.steps_per_epoch)
        self.groups = make_groups(config)
        self.gradient = value_and_grad(self._loss, has_aux=True)

    def fresh_state(self) -> RunState:
        """The state before the first step."""
        weights = self.model.weights
        return RunState(weights, self.model.stats, self.optimizer.init(weights))

    def run_from(self, state: RunState) -> Result:
        """The loop over what is left of the run. The last completed step is saved even when it is
        interrupted.
        """
        self.state = state
        try:
            # BLAS's idle threads would take half a core from the convolutions.
            with self.model.products(), one_blas_thread(), NoticedInterrupts() as interrupts:
                while self.state.epoch < self.config.epochs:
                    self._epoch(interrupts)
                    interrupts.check()
        except KeyboardInterrupt:
            self.save(self.run.last, self.state)
            self.reporter.message(
                f"saved after step {self.state.step}; `odegrad resume {self.run.path}` goes on from there"
            )
            raise
        except Exception:
            self.reporter.message(
                f"failed after step {self.state.step}, in epoch {self.state.epoch + 1}; `odegrad resume {self.run.path}` "
                "goes on from the last checkpoint"
            )
            raise
        finally:
            self.reporter.close()
        return self._result()

    def _epoch(self, interrupts: NoticedInterrupts) -> None:
        state, config = self.state, self.config
        epoch = state.epoch
        self.reporter.start_epoch(epoch + 1, config.epochs, self.steps_per_epoch, done=state.step_in_epoch)
        started = time.perf_counter() - state.totals.seconds
        order = batches(
            len(self.training.labels),
            config.batch_size,
            self._key(ORDER),
            epoch=epoch,
            start=state.step_in_epoch,
        )
        start_memory_phase(self.xp)
        jobs = (partial(self.batch, rows) for rows in order)
        with closing(feed(jobs, self.xp)) as fed:
            for batch in fed:
                interrupts.check()
                self.state = self._step(self.state, batch, started)
                self.reporter.update(_shown(self.state.totals))
                if config.checkpoint_every and self.state.step % config.checkpoint_every == 0:
                    self.save(self.run.last, self.state)
        self._end_epoch(started)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images, normalised, and labels of a step, on the host."""
        return self.model.inputs(self.training.images[rows]), self.training.labels[rows]

    def _step(self, state: RunState, batch: Sequence[Array], started: float) -> RunState:
        """One optimiser step: a new state, so that an interruption leaves the old one whole."""
        x, labels = batch
        if self.config.augment:  # where the images are: a GPU changes them by one kernel
            x = self._augmented(x, random.fold_in(self._key(AUGMENT), state.step))
        key = random.fold_in(self._key(DROPOUT), state.step)
        (loss, (logits, seen)), gradient = self.gradient(state.weights, state.stats, x, labels, key)
        loss = float(to_number(loss))
        scales, norms = clip_factors(gradient, self.groups)
        if not math.isfinite(loss) or not math.isfinite(norms["weights"]):
            raise NonFiniteDynamics(
                f"training: loss {loss} with gradient norm {norms['weights']:.3e} in step {state.step} (epoch "
                f"{state.epoch + 1}); the state before it is in the last checkpoint. Lower `lr`, or clip harder.",
                step=state.step, loss=loss,
            )  # fmt: skip
        weights, optimizer = self.optimizer.update(
            gradient, state.optimizer, state.weights, self.learning_rate(state.step), scales
        )
        return replace(
            state,
            weights=weights,
            stats=self.model.network.update_stats(state.stats, seen),
            optimizer=optimizer,
            step=state.step + 1,
            step_in_epoch=state.step_in_epoch + 1,
            totals=_added(state.totals, loss, logits, labels, seen, time.perf_counter() - started),
        )

    def _augmented(self, images: Array, key: np.ndarray) -> Array:
        """Shifts by up to an eighth of the image; mirroring and erasing as they suit the kind of image."""
        pad = max(1, images.shape[1] // 8)
        erase = 0.5 if self.data.is_colour else 0.0
        return augment(images, key, flip=self.data.allows_flip, crop_pad=pad, erase=erase)

    def _loss(self, weights: Tree, stats: Tree, x: Any, labels: Any, key: np.ndarray) -> tuple[Any, Any]:
        """(mean cross-entropy + penalty, (logits, what the layers saw))."""
        network = self.model.network
        logits, seen = network.apply(weights, stats, None, x, mode="train", key=key)
        loss = ops.softmax_cross_entropy(logits, labels)
        if self.config.penalty:
            loss = loss + self.config.penalty * network.penalty(weights)
        return loss, (logits, seen)

    def _end_epoch(self, started: float) -> None:
        """Evaluate, write the record and the checkpoints, and move on to the next epoch."""
        state = self.state
        model = with_state(self.model, state)
        memory = [memory_peak(self.xp)]
        start_memory_phase(self.xp)
        test = model.score(self.data.test_images, self.data.test_labels)
        validation = model.score(*self.validation) if len(self.validation.labels) else None
        memory.append(memory_peak(self.xp))
        seconds = time.perf_counter() - started
        record = _record(state, self.learning_rate(state.step - 1), seconds, validation, test, memory)
        best = state.best
        loss = None if validation is None else validation.loss
        is_best = _is_best(loss, best)
        if is_best:
            best = Best(state.epoch + 1, loss, test.accuracy)
        finished = replace(state, epoch=state.epoch + 1, step_in_epoch=0, totals=Totals(), best=best)
        metrics.append(self.run.metrics, asdict(record))
        if is_best:
            self.save(self.run.best, finished)
        self.save(self.run.last, finished)
        self.state = finished  # at last: interrupted before this, the epoch ends anew on resume
        self.reporter.end_epoch(record)

    def save(self, path: os.PathLike[str], state: RunState) -> None:
        """Write a checkpoint of `state`."""
        checkpoint.save(path, state.arrays(), state.header(self.config, self.model.preprocessing))

    def _key(self, stream: int) -> np.ndarray:
        return random.fold_in(self.key, stream)

    def _result(self) -> Result:
        """From the metrics on disk, so that a resumed run reports all of its epochs."""
        epochs = list(metrics.epochs_of(metrics.read(self.run.metrics)))
        if not epochs:
            raise DataError(
                f"{self.run.metrics}: no record of an epoch, though {self.state.epoch} are done; put the file back, or "
                "train anew"
            )
        last, best = epochs[-1], self.state.best
        assert best is not None
        seconds = sum(record["seconds"] for record in epochs)
        return Result(
            run=str(self.run.path),
            dataset=self.config.dataset,
            network=self.config.network,
            norm=self.config.norm,
            epochs=len(epochs),
            steps=self.state.step,
            loss=last["test_loss"],
            test_accuracy=last["test_accuracy"],
            best_test_accuracy=best.test_accuracy,
            best_epoch=best.epoch,
            nfe_forward=last["nfe_forward"],
            nfe_backward=last["nfe_backward"],
            nfe_evaluation=last["nfe_evaluation"],
            seconds=seconds,
            seconds_per_epoch=seconds / len(epochs),
            peak_memory_mb=_peak_memory_mb(),
            peak_gpu_memory_mb=_peak_gpu_memory_mb(epochs),
            **self.model.parameter_counts(),
        )


def preprocessing(data: Dataset, training: LabelledImages) -> Preprocessing:
    """Pixel statistics of the images that are trained on, none of those held out."""
    mean, std = channel_statistics(training.images)
    return Preprocessing(mean, std, data.image_shape, data.classes)


def _config_changes(found: checkpoint.Checkpoint, config: TrainConfig) -> list[str]:
    """What the configuration says otherwise than the one in the checkpoint."""
    then, now = found.header.get("config", {}), asdict(config)
    return [
        f"{name} = {now[name]!r}, was {then[name]!r}"
        for name in now
        if then.get(name, now[name]) != now[name]
    ]


def _is_best(loss: float | None, before: Best | None) -> bool:
    if before is None or before.validation_loss is None or loss is None:
        return True
    return loss < before.validation_loss


def _peak_gpu_memory_mb(epochs: list[dict[str, Any]]) -> float | None:
    """The most memory of a GPU in any phase, in MiB; None without one."""
    names = ("train_memory_mb", "evaluation_memory_mb")
    found = [record[name] for record in epochs for name in names if record.get(name) is not None]
    return max(found, default=None)


def _peak_memory_mb() -> float:
    """The most memory this process has held, in MiB; the system counts KiB, on macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _added(totals: Totals, loss: float, logits: Any, labels: Any, seen: Tree, seconds: float) -> Totals:
    n = len(labels)
    found = [solved.stats for solved in solves(seen)]
    return Totals(
        images=totals.images + n,
        solves=totals.solves + 1,
        loss=totals.loss + n * loss,
        correct=totals.correct + to_number((logits.argmax(axis=1) == labels).sum()),
        nfe_forward=totals.nfe_forward + sum(stats.nfe for stats in found),
        nfe_backward=totals.nfe_backward + sum(stats.nfe_backward for stats in found),
        rejected=totals.rejected + sum(stats.n_rejected for stats in found),
        seconds=seconds,
    )


def _shown(totals: Totals) -> StepNumbers:
    return StepNumbers(
        loss=totals.loss / totals.images,
        accuracy=totals.correct / totals.images,
        nfe_forward=totals.nfe_forward / totals.solves,
        nfe_backward=totals.nfe_backward / totals.solves,
        n_rejected=totals.rejected / totals.solves,
    )


def _record(
    state: RunState,
    lr: float,
    seconds: float,
    validation: Scores | None,
    test: Scores,
    memory: Sequence[int | None],
) -> EpochRecord:
    """The numbers of a finished epoch; `memory` holds the bytes of a GPU that training and evaluation
    took.
    """
    numbers = _shown(state.totals)
    train_mb, evaluation_mb = (None if n_bytes is None else n_bytes / 2**20 for n_bytes in memory)
    return EpochRecord(
        step=state.step,
        epoch=state.epoch + 1,
        lr=lr,
        seconds=seconds,
        train_loss=numbers.loss,
        train_accuracy=numbers.accuracy,
        nfe_forward=numbers.nfe_forward,
        nfe_backward=numbers.nfe_backward,
        n_rejected=numbers.n_rejected,
        validation_loss=None if validation is None else validation.loss,
        validation_accuracy=None if validation is None else validation.accuracy,
        test_loss=test.loss,
        test_accuracy=test.accuracy,
        nfe_evaluation=test.nfe,
        train_memory_mb=train_mb,
        evaluation_memory_mb=evaluation_mb,
    )
