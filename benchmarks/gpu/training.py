"""A slice of a training on CIFAR-10: so many minutes from the start, or from where the last slice ended.

    python -m benchmarks.gpu.training --data FOLDER --out FOLDER [--from FOLDER] [--minutes M] [--config FILE] [--toy]

The run is the U-Net with TA-BN by the paper's recipe in TF32, with convolutions that repeat their bits, or what the TOML
file says. Its checkpoint is written to OUT/checkpoint in parts (`checkpoint_parts`); `--from` names a folder of such parts,
from which it goes on exactly. When time is up, the step at work is finished and saved.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from odegrad.train import loop, metrics, run_folder
from odegrad.train.checkpoint import load
from odegrad.train.config import TrainConfig, load_toml, make_config
from odegrad.train.run_folder import RunFolder

from .checkpoint_parts import INDEX, join, split
from .device import parsed, tell

RECIPE = {
    "dataset": "cifar10", "network": "unet", "device": "cuda", "precision": "tf32", "deterministic": True,
    "validation_fraction": 0.0,
}  # fmt: skip
TOY = {"dataset": "digits", "network": "4-layer", "epochs": 2, "batch_size": 512, "validation_fraction": 0.0}


class UntilTimeIsUp:
    """A reporter that ends the run, as Ctrl-C does, after the first step beyond a moment."""

    def __init__(self, end: float) -> None:
        self.end, self.n_steps = end, 0

    def update(self, numbers: Any) -> None:
        self.n_steps += 1
        if time.monotonic() >= self.end:
            raise KeyboardInterrupt

    def end_epoch(self, record: Any) -> None:
        tell(benchmark="training", what="epoch", **{k: v for k, v in asdict(record).items() if v is not None})

    def message(self, text: str) -> None:
        tell(benchmark="training", note=text)

    def start_epoch(self, *arguments: Any, **options: Any) -> None: ...
    def close(self) -> None: ...


def configuration(given: argparse.Namespace) -> TrainConfig:
    """The recipe or the file, with the data where they are now."""
    config = load_toml(given.config) if given.config else make_config(TOY if given.toy else RECIPE)
    return replace(config, data_dir=given.data)


def begun(given: argparse.Namespace, folder: Path) -> tuple[RunFolder, bool]:
    """The run, joined from parts or new, and whether it is to be resumed."""
    earlier = Path(given.earlier) if given.earlier else None
    if earlier is not None and (earlier / INDEX).exists():
        return join(earlier, folder / "run", given.data), True
    return run_folder.create(replace(configuration(given), out=str(folder / "run"))), False


def main() -> None:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", help="folder with the published files of the data set")
        parser.add_argument("--out", required=True, help="where the checkpoint's parts go")
        parser.add_argument("--from", dest="earlier", metavar="FOLDER", help="parts of an earlier slice")
        parser.add_argument("--minutes", type=float, default=8.0)
        parser.add_argument("--config", help="TOML file of the configuration of the run")

    started = time.monotonic()
    given = parsed(__doc__, add)
    with tempfile.TemporaryDirectory() as scratch:
        run, is_resumed = begun(given, Path(scratch))
        reporter = UntilTimeIsUp(started + 60 * given.minutes)
        is_finished = False
        with contextlib.suppress(KeyboardInterrupt):
            if is_resumed:
                loop.resume(run, reporter)
            else:
                loop.train(run.config(), run, reporter)
            is_finished = True
        parts = split(run, Path(given.out) / "checkpoint")
        header = load(run.last).header
        epochs = list(metrics.epochs_of(metrics.read(run.metrics))) if run.metrics.exists() else []
        tell(
            benchmark="training", what="slice", device=given.device.name, is_resumed=is_resumed,
            is_finished=is_finished, steps_now=reporter.n_steps, step=header["step"], epoch=header["epoch"],
            seconds=round(time.monotonic() - started, 1),
            test_accuracy=epochs[-1]["test_accuracy"] if epochs else None,
            parts={part.name: os.path.getsize(part) for part in parts},
        )  # fmt: skip


if __name__ == "__main__":
    main()
