"""`TrainConfig`: everything that defines a run, in one frozen record that flags and TOML files fill in."""

from __future__ import annotations

import difflib
import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..engine.errors import ConfigError

DatasetName = Literal["digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "tiny-imagenet"]
NetworkName = Literal["4-layer", "6-layer", "8-layer", "10-layer", "12-layer", "unet"]
NormName = Literal["tabn", "none", "minibatch", "pop-ti"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run. The defaults are those of `digits`; `defaults_for` has those of the other data sets.

    Raises: ConfigError on construction; one message lists every field that has a wrong type or value.
    """

    dataset: DatasetName = "digits"
    """The images to learn: digits ships with the package, the others are looked for or downloaded once."""
    data_dir: str | None = None
    """Folder with the published data files; by default ODEGRAD_DATA, then the download cache."""
    validation_fraction: float = 0.05
    """Share of the training images held out to choose the best checkpoint, in [0, 1);
    with 0 it is the last."""
    augment: bool = True
    """Random crop and erasing of the training images, and flips where a mirrored image keeps its class."""

    network: NetworkName = "6-layer"
    """Dynamics of the neural ODE: the paper's networks, by their number of layers."""
    norm: NormName = "tabn"
    """Normalisation inside the dynamics: temporal adaptive, none, mini-batch statistics in training and test,
    or one running pair shared by all times."""
    normalize: Literal["batch", "population"] = "batch"
    """TA-BN in training: by the moments of this very batch,
    or by the population grid held constant for a pass."""
    tabn_nodes: int = 101
    """Nodes of the TA-BN time grid on [0, 1], both ends included."""
    tabn_momentum: float = 0.1
    """How far a TA-BN node moves towards the moments seen exactly at it, in (0, 1]."""
    unvisited: Literal["skip", "initial"] = "skip"
    """TA-BN nodes without enough observations in evaluation: interpolated over,
    or read with initial values."""
    dropout: float = 0.2
    """Probability of dropping a feature before the last linear layer, in [0, 1)."""

    method: Literal["dopri5", "rk4", "midpoint", "euler"] = "dopri5"
    """Runge-Kutta method."""
    rtol: float = 1e-2
    """Relative tolerance of a step."""
    atol: float = 1e-2
    """Absolute tolerance of a step."""
    step_size: float = 0.1
    """Step of rk4, midpoint and euler on [0, 1]; dopri5 chooses its own."""
    max_steps: int = 1000
    """Attempted steps that a solve may take."""
    gradient: Literal["discrete", "tape", "backsolve", "interpolated", "reversible"] = "discrete"
    """How the solve is differentiated: adjoint of the steps taken, tape, continuous adjoint of a state
    solved backwards or read from dense output, or adjoint of reversible steps."""
    drift_limit: float = 1e3
    """Tolerances by which backsolve and reversible may miss the state at the start
    when they solve it back."""
    keep: Literal["auto", "all", "none"] = "auto"
    """Stage residuals of the discrete adjoint: kept under a byte budget, always, or recomputed."""
    execution: Literal["replay", "eager"] = "replay"
    """Dynamics replayed as a program with reused buffers, or evaluated anew at each call."""

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimiser."""
    lr: float = 2e-3
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of sgd, in [0, 1)."""
    weight_decay: float = 0.02
    """Weight decay: decoupled for adamw, added to the gradient for adam and sgd."""
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    """Learning rate after the warm-up: constant, times 0.1 from half-way on, or a half cosine down to 0."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises linearly to its peak."""
    clip_weights: float = 10.0
    """Largest norm of the whole gradient; 0 never clips."""
    clip_gamma: float = 1.0
    """Largest norm of the gradient of all normalisation scales (gamma); 0 never clips."""
    clip_alpha: float = 1.0
    """Largest norm of the gradient of all normalisation shifts (alpha); 0 never clips."""
    penalty: float = 0.1
    """Weight of the pull of TA-BN's scales to 1 and shifts to 0."""

    epochs: int = 25
    """Passes over the training images."""
    batch_size: int = 32
    """Images in an optimiser step; at least 2, since batch statistics need two."""
    eval_batch_size: int = 256
    """Images solved together in evaluation."""
    seed: int = 0
    """Seed of the weights, the validation split, the order of images, augmentation and dropout."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of states and weights."""
    device: Literal["cpu", "cuda"] = "cpu"
    """NumPy on the processor or CuPy on a GPU."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Operands of matrix products and convolutions on a GPU: float32, or rounded to TF32 or bfloat16
    (and added in float32)."""
    deterministic: bool = False
    """On a GPU, only algorithms of convolutions that repeat their bits."""

    out: str | None = None
    """Run folder to make; by default a new, numbered one in runs/."""
    checkpoint_every: int = 0
    """Optimiser steps between checkpoints; 0 writes one at the start and at the end of each epoch only."""

    def __post_init__(self) -> None:
        problems = [problem for name in _field_types() if (problem := self._problem(name))]
        problems += self._contradictions()
        if problems:
            raise ConfigError("configuration: " + "; ".join(problems), problems=tuple(problems))

    def _contradictions(self) -> list[str]:
        """What is wrong with fields that are right each for itself."""
        if self.precision not in ("tf32", "bf16"):
            return []
        problem = f"`precision` = {self.precision!r} rounds the operands of float32 products on a GPU"
        if self.device == "cpu":
            return [
                f"{problem}, and `device` is 'cpu', whose products are float32; use 'fp32', or device 'cuda'"
            ]
        if self.dtype == "float64":
            return [
                f"{problem}, and `dtype` is 'float64', which is never rounded; use 'fp32', or dtype 'float32'"
            ]
        return []

    def _problem(self, name: str) -> str | None:
        """What is wrong with the field `name`; an int is taken for a float."""
        value, expected = getattr(self, name), _field_types()[name]
        if expected is float and type(value) is int:
            value = float(value)
            object.__setattr__(self, name, value)  # the only write to a record under construction
        if not _has_type(value, expected):
            return _wrong_type(name, value, expected)
        if name in _RANGES:
            low, high, wording = _RANGES[name]
            if not low <= value < high:
                return f"`{name}` must be {wording}; got {value!r}"
        return None


_TINY = math.ulp(0.0)  # the least positive number: as a lower bound it excludes zero alone
_POSITIVE = (_TINY, math.inf, "positive and finite")
_NOT_NEGATIVE = (0.0, math.inf, "finite and not negative")
_FRACTION = (0.0, 1.0, "in [0, 1)")
_AT_LEAST = {least: (least, math.inf, f"at least {least}") for least in (0, 1, 2)}

_RANGES: dict[str, tuple[float, float, str]] = {  # name -> least value, first value above, in words
    "validation_fraction": _FRACTION,
    "tabn_nodes": _AT_LEAST[2],
    "tabn_momentum": (_TINY, math.nextafter(1.0, 2.0), "in (0, 1]"),
    "dropout": _FRACTION,
    "rtol": _POSITIVE,
    "atol": _POSITIVE,
    "step_size": _POSITIVE,
    "max_steps": _AT_LEAST[1],
    "drift_limit": _POSITIVE,
    "lr": _POSITIVE,
    "momentum": _FRACTION,
    "weight_decay": _NOT_NEGATIVE,
    "warmup_epochs": _NOT_NEGATIVE,
    "clip_weights": _NOT_NEGATIVE,
    "clip_gamma": _NOT_NEGATIVE,
    "clip_alpha": _NOT_NEGATIVE,
    "penalty": _NOT_NEGATIVE,
    "epochs": _AT_LEAST[1],
    "batch_size": _AT_LEAST[2],
    "eval_batch_size": _AT_LEAST[1],
    "seed": (0, 2**64, "in [0, 2**64)"),
    "checkpoint_every": _AT_LEAST[0],
}

_PAPER: dict[str, Any] = {  # Zheng et al. (2024), the recipe of the experiments on images
    "rtol": 1e-3,
    "atol": 1e-3,
    "lr": 1e-3,
    "schedule": "step",
    "warmup_epochs": 0.0,
    "epochs": 128,
    "batch_size": 256,
    "dropout": 0.5,
    "augment": False,
    "network": "4-layer",
}
_SHORT: dict[str, Any] = {  # a few epochs instead of 128
    "lr": 2e-3,
    "schedule": "cosine",
    "warmup_epochs": 0.2,
    "epochs": 3,
    "batch_size": 128,
    "dropout": 0.2,
}
_COLOUR = {**_PAPER, "augment": True, "network": "8-layer"}
_DEFAULTS: dict[
    str, dict[str, Any]
] = {  # what differs from the defaults of the fields, which are those of digits
    "digits": {},
    "mnist": {**_PAPER, **_SHORT},
    "fashion-mnist": {**_PAPER, "network": "6-layer", "epochs": 20},
    "cifar10": _COLOUR,
    "cifar100": _COLOUR,
    "svhn": _COLOUR,
    "tiny-imagenet": {**_COLOUR, "network": "unet"},
}


def defaults_for(dataset: str) -> TrainConfig:
    """The recommended configuration of a data set; ConfigError for an unknown name."""
    return make_config({"dataset": dataset})


def make_config(values: Mapping[str, Any]) -> TrainConfig:
    """The defaults of the data set `values["dataset"]` (digits if absent) with `values` over them.

    Raises: ConfigError lists every unknown name, with the nearest field, or every wrong value.
    """
    unknown = [_unknown(name) for name in values if name not in _field_types()]
    if unknown:
        raise ConfigError("configuration: " + "; ".join(unknown), problems=tuple(unknown))
    dataset = values.get("dataset", "digits")
    defaults = _DEFAULTS.get(dataset, {}) if isinstance(dataset, str) else {}
    return TrainConfig(**{**defaults, **values})


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields that the TOML file sets, checked; those it leaves out are not there.

    Raises: ConfigError names the file and every unknown name, wrong type or wrong value; FileNotFoundError.
    """
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{os.fspath(path)}: not a TOML file: {error}", path=path) from error
    try:
        make_config(values)
    except ConfigError as error:
        raise ConfigError(f"{os.fspath(path)}: {error}", path=path) from error
    return values


def load_toml(path: str | os.PathLike[str]) -> TrainConfig:
    """The configuration that a TOML file describes; what it leaves out has the data set's default."""
    return make_config(read_toml(path))


def to_toml(config: TrainConfig) -> str:
    """Every field, a line each, so that `load_toml` gives an equal configuration; None (not set)
    is left out.
    """
    lines = [
        f"{name} = {_toml_value(value)}\n" for name, value in asdict(config).items() if value is not None
    ]
    return "".join(lines)


def _toml_value(value: Any) -> str:
    """A number, truth value or string in TOML, whose basic strings escape like JSON's, DEL besides."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


@cache
def _field_types() -> dict[str, Any]:
    """Name -> annotated type of each field, in order."""
    hints = get_type_hints(TrainConfig)
    return {field.name: hints[field.name] for field in fields(TrainConfig)}


def _has_type(value: Any, expected: Any) -> bool:
    if get_origin(expected) is Literal:
        return isinstance(value, str) and value in get_args(expected)
    return type(value) in (get_args(expected) or (expected,))  # exact: True is no number here


def _wrong_type(name: str, value: Any, expected: Any) -> str:
    """The message for a value that is not of the annotated type, or not one of the words allowed."""
    if get_origin(expected) is not Literal:
        wanted = " or ".join(
            "none" if t is type(None) else t.__name__ for t in get_args(expected) or (expected,)
        )
        return f"`{name}` must be of type {wanted}; got {value!r} ({type(value).__name__})"
    choices = get_args(expected)
    close = difflib.get_close_matches(str(value).lower().replace("_", "-"), choices, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"`{name}` must be one of {', '.join(choices)}; got {value!r}{hint}"


def _unknown(name: str) -> str:
    """The message for a name that is no field."""
    close = difflib.get_close_matches(name.replace("-", "_"), _field_types(), n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"expected one of {', '.join(_field_types())}"
    return f"unknown name `{name}`: {hint}"
