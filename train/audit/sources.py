"""Problems from outside: a run folder, or a Python file of the user."""

from __future__ import annotations

import functools
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...engine import ops
from ...engine.errors import ArgumentError, NeuralODEError, SolveError
from ...layers import Chain, Layer, ODEBlock, TABatchNorm
from ...layers.chain import Skip
from ...solvers.times import output_times
from .. import run_folder
from ..data import load_dataset
from ..model import Model
from ..predictor import restored
from .case import Case, Problem, arrays_problem, cast, half_square
from .node_offsets import dynamics_of
from .problems import named_problem

_FILE_NAMES = ("f", "y0", "ts", "params")


def problem_of(target: str, mode: str, batch_size: int) -> Problem:
    """The problem that `target` means: a Python file, a run folder, or the name of a problem.

    Args:
        mode: "train" or "eval", for a run folder.
        batch_size: images of a run's test part that are solved together.
    Raises: ArgumentError, CheckpointError, DataError, FileNotFoundError.
    """
    if target.endswith(".py"):
        return file_problem(target)
    if os.path.isdir(target):
        return run_problem(run_folder.find(target), mode, batch_size)
    return named_problem(target)


def file_problem(path: str) -> Problem:
    """The problem in a Python file that defines `f(t, y, params)`, `y0`, `ts`, `params` and, if it likes,
    `loss(ys)`.

    The file is run: audit only files that you trust.
    Raises: FileNotFoundError; ArgumentError for a file that fails, lacks a part or has one of the wrong kind.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no file {path!r} with a problem (f, y0, ts, params)")
    found = _run_file(path)
    missing = [name for name in _FILE_NAMES if name not in found]
    if missing:
        raise ArgumentError(
            f"{path} defines no {', '.join(missing)}; expected f(t, y, params), y0, ts, params and, if "
            "wanted, loss(ys)"
        )
    loss = found.get("loss", half_square)
    for name, value in (("f", found["f"]), ("loss", loss)):
        if not callable(value):
            raise ArgumentError(f"{path}: `{name}` must be a function; got {value!r}")
    f = _located(path, found["f"])
    case = Case(f, found["y0"], output_times(found["ts"]), found["params"], _located(path, loss))
    return arrays_problem(Path(path).stem, f"The problem in `{Path(path).name}`.", case)


def _run_file(path: str) -> dict[str, Any]:
    """What the file defines; its folder can be imported from while it runs."""
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.insert(0, folder)
    try:
        return runpy.run_path(path)
    except (Exception, SystemExit) as error:
        raise _mistake(path, error) from error
    finally:
        sys.path.remove(folder)


def _located(path: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its errors with file and line; a solve inside it fails under its own name."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except SolveError:
            raise
        except Exception as error:
            raise _mistake(path, error) from error

    return call


def _mistake(path: str, error: BaseException) -> ArgumentError:
    """The error of code in the file, with the last line of it that was reached."""
    reached = traceback.extract_tb(error.__traceback__)
    lines: list[int | None] = [frame.lineno for frame in reached if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    kind = "" if isinstance(error, NeuralODEError) else f"{type(error).__name__}: "
    return ArgumentError(f"{path}{'' if line is None else f', line {line}'}: {kind}{error}")


def run_problem(run: run_folder.RunFolder, mode: str, batch_size: int) -> Problem:
    """The first ODE of a run's network on its first test images, with the loss by the rest of it."""
    if batch_size < 2:
        raise ArgumentError(f"`batch_size` must be at least 2 images, for batch statistics; got {batch_size}")
    model, _ = restored(run, "last")
    data = load_dataset(model.config.dataset, model.config.data_dir)
    images, labels = model.inputs(data.test_images[:batch_size]), data.test_labels[:batch_size]
    position, block = _first_block(model)
    before, after = model.network.layers[:position], range(position + 1, len(model.network.layers))
    state: Any = images
    for k, layer in enumerate(before):
        state, _ = layer.apply(model.weights[k], model.stats[k], None, state, mode="eval")

    def build(dtype: np.dtype[Any]) -> Case:
        weights, stats = cast(model.weights, dtype), cast(model.stats, dtype)

        def loss(ys: Any) -> Any:
            x = ys[-1]
            for k in after:
                x, _ = model.network.layers[k].apply(weights[k], stats[k], None, x, mode="eval")
            return ops.softmax_cross_entropy(x, labels)

        ts = np.array([block.t0, block.t1], np.float64)
        f, params = dynamics_of(block.net, weights[position], stats[position], mode)
        return Case(f, np.asarray(state, dtype), ts, params, loss, tuple(_nodes(block.net)))

    about = (
        f"The ODE of the run `{run.path.name}` in mode {mode}, {len(labels)} test images, cross-entropy of "
        "its head; gamma and alpha move as a whole (sums over nodes). Solved by dopri5 at the tolerances "
        "below: the method, gradient and tolerances that the run was trained with play no part."
    )
    return Problem(f"{run.path.name}-{mode}", about, build)


def _nodes(layer: Layer) -> Iterator[float]:
    """The nodes of all TA-BN layers."""
    if isinstance(layer, TABatchNorm):
        yield from layer.nodes
    inner = layer.layers if isinstance(layer, Chain) else [layer.inner] if isinstance(layer, Skip) else []
    for part in inner:
        yield from _nodes(part)


def _first_block(model: Model) -> tuple[int, ODEBlock]:
    for position, layer in enumerate(model.network.layers):
        if isinstance(layer, ODEBlock):
            return position, layer
    raise ArgumentError("the network of this run has no ODEBlock to audit")
