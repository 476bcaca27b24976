"""`metrics.jsonl`: one JSON object a line, appended while training, cut back to the checkpoint on resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.atomic import replace_file
from ..engine.errors import ArgumentError, DataError


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What is known at the end of an epoch: a line of `metrics.jsonl`, and what progress and plots show.

    Args:
        step, epoch: optimiser steps and epochs done since the start of the run.
        lr: learning rate of the last step.
        seconds: of this epoch, evaluation included.
        *_loss, *_accuracy: means over images, accuracies in [0, 1]; None for a part that was not evaluated.
        nfe_forward, nfe_backward: mean evaluations of the dynamics a solve, in training; VJPs are not
            counted, so that a backward pass over kept stages has next to none.
        n_rejected: mean rejected steps a solve, in training.
        nfe_evaluation: mean evaluations of the dynamics a solve, in evaluation; None if there was none.
        train_memory_mb, evaluation_memory_mb: most memory that CuPy's pool held of the GPU in either phase,
            in MiB; None on the CPU.
    """

    step: int
    epoch: int
    lr: float
    seconds: float
    train_loss: float
    train_accuracy: float
    nfe_forward: float
    nfe_backward: float
    n_rejected: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    nfe_evaluation: float | None = None
    train_memory_mb: float | None = None
    evaluation_memory_mb: float | None = None
    kind: str = "epoch"


_NEEDED = tuple(field.name for field in fields(EpochRecord) if field.default is MISSING)


def append(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Add one line and hand it to the operating system; `record["step"]` (int) orders it in the run."""
    if type(record.get("step")) is not int:
        raise ArgumentError(f"`record` must have an int `step`; got {record.get('step')!r}")
    line = json_text(record) + "\n"
    try:
        with open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(line)
    except OSError as error:
        error.filename = os.fspath(path)  # writing, unlike opening, fails without a name
        raise


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a file, [] if there is none. A last line without its end, torn by a kill, is left out.

    Raises: DataError names the first other line that is not a JSON object with an int `step`.
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    *lines, _torn = text.split(b"\n")
    return [_parsed(line, f"{os.fspath(path)}, line {number}") for number, line in enumerate(lines, start=1)]


def cut_back(path: str | os.PathLike[str], step: int) -> None:
    """Keep the records up to optimiser step `step`, in place and at once; a torn last line goes."""
    if os.path.exists(path):
        kept = [record for record in read(path) if record["step"] <= step]
        replace_file(path, ["".join(json_text(record) + "\n" for record in kept).encode()])


def json_text(value: Any) -> str:
    """Strict JSON: NumPy numbers and arrays become numbers and lists, paths strings,
    NaN and infinity null.
    """
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """`value` in the types that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        raise DataError(f"{where}: expected a JSON object with an int `step`; got {line[:80]!r}")
    return record


def epochs_of(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The records that end an epoch; DataError for one that lacks a number."""
    for record in records:
        if record.get("kind") == "epoch":
            missing = [name for name in _NEEDED if name not in record]
            if missing:
                raise DataError(f"metrics: the record of step {record['step']} has no {', '.join(missing)}")
            yield record
