"""What a person sees while a run goes on: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TextIO

from .metrics import EpochRecord


class StepNumbers(NamedTuple):
    """What is shown after an optimiser step; loss and accuracy are means over the epoch so far."""

    loss: float
    accuracy: float
    nfe_forward: float
    nfe_backward: float
    n_rejected: float


class Reporter(Protocol):
    """What the training loop tells a person."""

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int = 0) -> None:
        """Epoch `epoch` (from 1) of `epochs` begins; it has `steps` steps,
        of which `done` are done already.
        """

    def update(self, numbers: StepNumbers) -> None:
        """One more optimiser step is done."""

    def end_epoch(self, record: EpochRecord) -> None:
        """The epoch is done."""

    def message(self, text: str) -> None:
        """A line that is not about an epoch."""

    def close(self) -> None:
        """Nothing more comes; may be called at any time."""


def make_reporter(stream: TextIO) -> Reporter:
    """A bar if `stream` is a terminal, plain lines if it is a file or a pipe."""
    return BarReporter(stream) if stream.isatty() else PlainReporter(stream)


@dataclass
class _Position:
    """Where in the run we are, and since when; seconds by a monotonic clock."""

    epoch: int = 0
    epochs: int = 0
    steps: int = 0
    done: int = 0
    first: int = 0  # steps of the whole run that were done when this process began
    since: float = 0.0

    def begin(self, epoch: int, epochs: int, steps: int, done: int, now: float) -> None:
        if self.epoch == 0:
            self.first, self.since = (epoch - 1) * steps + done, now
        self.epoch, self.epochs, self.steps, self.done = epoch, epochs, steps, done

    @property
    def overall(self) -> int:
        """Steps done in the whole run."""
        return (self.epoch - 1) * self.steps + self.done

    def remaining(self, now: float) -> float:
        """Seconds until the end at the mean speed of this process so far; NaN before the first step."""
        done = self.overall - self.first
        return (now - self.since) / done * (self.epochs * self.steps - self.overall) if done else float("nan")


class PlainReporter:
    """A line for each epoch, and within long epochs one every `interval` seconds."""

    def __init__(
        self, stream: TextIO, interval: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._interval, self._clock = stream, interval, clock
        self._position = _Position()
        self._last_line = clock()

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int = 0) -> None:
        self._position.begin(epoch, epochs, steps, done, self._clock())

    def update(self, numbers: StepNumbers) -> None:
        where = self._position
        where.done += 1
        if self._clock() - self._last_line >= self._interval:
            eta = duration(where.remaining(self._clock()))
            self.message(
                f"epoch {where.epoch}/{where.epochs}  step {where.done}/{where.steps}  "
                f"{step_text(numbers)}  ETA {eta}"
            )

    def end_epoch(self, record: EpochRecord) -> None:
        where = self._position
        eta = duration(where.remaining(self._clock()))
        self.message(f"epoch {where.epoch}/{where.epochs}  {epoch_text(record)}  ETA {eta}")

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
        self._last_line = self._clock()

    def close(self) -> None:
        pass


class BarReporter:
    """One bar over all steps of the run, with the numbers of the last step;
    a line above it for each epoch.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # rich takes 0.05 s, so only here

        self._console = Console(file=stream, highlight=False, markup=False)
        self._position = _Position()
        self._bar: Any = None
        self._task: Any = None

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int = 0) -> None:
        where = self._position
        where.begin(epoch, epochs, steps, done, time.monotonic())
        if self._bar is None:
            self._bar = _bar(self._console)
            self._task = self._bar.add_task("", total=epochs * steps, numbers="")
            self._bar.start()
        self._show("")

    def update(self, numbers: StepNumbers) -> None:
        self._position.done += 1
        self._show(step_text(numbers))

    def end_epoch(self, record: EpochRecord) -> None:
        self.message(f"epoch {self._position.epoch}/{self._position.epochs}  {epoch_text(record)}")

    def message(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, numbers: str) -> None:
        where = self._position
        self._bar.update(
            self._task,
            completed=where.overall,
            description=f"epoch {where.epoch}/{where.epochs}",
            numbers=f"{numbers}  ETA {duration(where.remaining(time.monotonic()))}".strip(),
        )


def _bar(console: Any) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[numbers]}"),
        console=console,
        refresh_per_second=4,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def step_text(numbers: StepNumbers) -> str:
    """The numbers of a step in one line."""
    return (
        f"loss {numbers.loss:.4f}  acc {numbers.accuracy:.2%}  "
        f"nfe {numbers.nfe_forward:.0f}+{numbers.nfe_backward:.0f}  rejected {numbers.n_rejected:g}"
    )


def epoch_text(record: EpochRecord) -> str:
    """The numbers of an epoch in one line; evaluations that were not made are left out."""
    parts = [f"loss {record.train_loss:.4f}", f"acc {record.train_accuracy:.2%}"]
    if record.validation_accuracy is not None:
        parts.append(f"validation {record.validation_accuracy:.2%}")
    if record.test_accuracy is not None:
        parts.append(f"test {record.test_accuracy:.2%}")
    parts += [
        f"nfe {record.nfe_forward:.1f}+{record.nfe_backward:.1f}",
        f"rejected {record.n_rejected:.2f}",
        f"lr {record.lr:.2e}",
        *_memory_text(record),
        duration(record.seconds),
    ]
    return "  ".join(parts)


def _memory_text(record: EpochRecord) -> list[str]:
    """The memory of a GPU that training and evaluation took."""
    if record.train_memory_mb is None or record.evaluation_memory_mb is None:
        return []
    return [f"GPU memory {record.train_memory_mb:.0f}+{record.evaluation_memory_mb:.0f} MiB"]


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 4.2s, 3m05s, 2h07m, 3d04h; "?" if they are not known."""
    if seconds != seconds:
        return "?"
    if seconds < 60.0 - 0.05:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"
