"""Where do the seconds of an epoch of `odegrad train` go?

    python -m benchmarks.epoch [--toy] [--threads N] [--data-dir FOLDER] [--dataset NAME] [--network NAME] [--epochs N]

Trains with TA-BN as `odegrad train` does and adds up the seconds of the parts of a run. What is neither gradients, nor
the optimiser, nor evaluation is `overhead`: reading and augmenting the data, metrics, checkpoints, progress. Prints one
JSON line an epoch (the first one traces the programs as well).
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from odegrad.train import loop, run_folder
from odegrad.train.config import TrainConfig, make_config
from odegrad.train.model import Model
from odegrad.train.progress import make_reporter
from threadpoolctl import threadpool_limits

from .measure import machine, report


class Stopwatch:
    """Seconds by part; the parts must not contain each other."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds[part] += time.perf_counter() - start

        return run


class TimedTrainer(loop.Trainer):
    """A run whose work is timed."""

    def __init__(self, config: TrainConfig, run: run_folder.RunFolder) -> None:
        super().__init__(config, run, make_reporter(io.StringIO()))
        self.watch = Stopwatch()
        self.gradient = self.watch.timed("gradient", self.gradient)
        self.rows: list[dict[str, Any]] = []

    def _epoch(self, *arguments: Any) -> None:
        self.watch.seconds.clear()
        start = time.perf_counter()
        super()._epoch(*arguments)
        total = time.perf_counter() - start
        parts = dict(self.watch.seconds)
        self.rows.append({"median_s": total, **parts, "overhead": total - sum(parts.values())})


def epochs(config: TrainConfig) -> list[dict[str, Any]]:
    """Seconds by part, of each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_folder.create(config, folder)
        trainer = TimedTrainer(config, run)
        with ExitStack() as stack:
            for owner, name, part in (
                (loop, "clip_factors", "optimizer"),
                (type(trainer.optimizer), "update", "optimizer"),
                (Model, "score", "evaluation"),
            ):
                timed = trainer.watch.timed(part, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, timed))
            trainer.run_from(trainer.fresh_state())
    return trainer.rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="a narrow network on digits, a second or two")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of BLAS")
    parser.add_argument("--data-dir", type=Path, help="folder with the published data files")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--network", default="4-layer")
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    values = {"dataset": given.dataset, "network": given.network, "epochs": given.epochs}
    if given.data_dir is not None:
        values["data_dir"] = str(given.data_dir)
    if given.toy:
        values = {"dataset": "digits", "network": "4-layer", "epochs": 1, "method": "euler", "step_size": 1.0}
    config = make_config(values)
    with threadpool_limits(given.threads):
        rows = epochs(config)
    for number, row in enumerate(rows, 1):
        share = row["overhead"] / row["median_s"]
        report(
            {
                "benchmark": "epoch", "what": f"{config.dataset} {config.network}", "epoch": number,
                "sizes": [config.batch_size], "dtype": "float32", "module": "numpy", "device": "cpu",
                "threads": given.threads, "spread": 0.0,
                **{name: round(seconds, 4) for name, seconds in row.items()},
                "overhead_share": round(share, 4), "machine": machine(),
            }
        )  # fmt: skip


if __name__ == "__main__":
    main()
