"""A problem small enough to train on in a second, in the published format of MNIST, and runs of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from data_files import Part, write_idx_set
from odegrad.train import loop, run_folder
from odegrad.train.checkpoint import load
from odegrad.train.cli import main
from odegrad.train.config import TrainConfig, make_config
from odegrad.train.run_folder import RunFolder

SIZE = 6
COMMAND = [sys.executable, "-m", "odegrad.train.cli"]


class Silent:
    """A reporter that keeps its messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def start_epoch(self, *arguments: Any, **options: Any) -> None: ...
    def update(self, numbers: Any) -> None: ...
    def end_epoch(self, record: Any) -> None: ...
    def close(self) -> None: ...


def quadrants(n: int, seed: int) -> Part:
    """Noisy grey images with one bright quadrant, and its number: linearly separable."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    images = rng.integers(0, 100, (n, SIZE, SIZE, 1), dtype=np.uint8)
    half = SIZE // 2
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(label, 2)
        image[row * half :, column * half :][:half, :half] += np.uint8(120)
    return images, labels


def write_quadrants(folder: Path, n_train: int = 40, n_test: int = 16) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_idx_set(folder, quadrants(n_train, 1), quadrants(n_test, 2))
    return folder


def tiny(folder: Path, **changes: Any) -> TrainConfig:
    """A configuration of 2 epochs of 5 steps on the data in `folder`/data, which is written if need be."""
    data = folder / "data"
    if not data.is_dir():
        write_quadrants(data)
    values = {
        "dataset": "mnist",
        "data_dir": str(data),
        "out": str(folder / "run"),
        "network": "4-layer",
        "tabn_nodes": 11,
        "epochs": 2,
        "batch_size": 8,
        "eval_batch_size": 16,
        "validation_fraction": 0.1,
        "lr": 1e-2,
        "dropout": 0.1,
        "augment": True,
    }
    return make_config({**values, **changes})


def train(config: TrainConfig) -> tuple[RunFolder, loop.Result]:
    run = run_folder.create(config)
    return run, loop.train(run.config(), run, Silent())


def flags(config: TrainConfig) -> list[str]:
    """The configuration as words of the command line."""
    words = []
    for name, value in vars(config).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words


def call(capsys: Any, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command, run in this process."""
    capsys.readouterr()
    code = main(list(words))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to see whether one was changed."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def final_state(run: RunFolder) -> dict[str, Any]:
    """What two runs that are the same have in common: arrays as bytes, counters, and metrics but for seconds."""
    found = load(run.last)
    best = load(run.best)
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return {
        "arrays": {name: array.tobytes() for name, array in found.arrays.items()},
        "best arrays": {name: array.tobytes() for name, array in best.arrays.items()},
        "header": {name: value for name, value in found.header.items() if name not in ("config", "totals")},
        "metrics": [
            {name: value for name, value in record.items() if name != "seconds"} for record in records
        ],
    }


def environment() -> dict[str, str]:
    """Of a subprocess: one thread, so that a run does not depend on what else the machine does."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
