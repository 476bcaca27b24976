"""What each command takes, and how words become that. The docstrings are the help that tyro shows."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import tyro

from ..engine.errors import ArgumentError
from ..solvers.options import GRADIENTS
from .config import TrainConfig, make_config, read_toml


@dataclass(frozen=True, kw_only=True)
class _Common:
    json: bool = False
    """Print one JSON object on standard output, and nothing else there."""
    debug: bool = False
    """Show the traceback of an error (also: set ODEGRAD_DEBUG)."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments(_Common, TrainConfig):
    """Train a neural ODE on DATASET (digits by default) in a new run folder.

    Every field of the configuration is a flag; flags stand over --config,
    which stands over the data set's defaults.
    """

    config: str | None = None
    """TOML file with fields of the configuration."""

    def __post_init__(self) -> None:
        """Nothing: values are checked when the TrainConfig is made, with all problems in one message."""


@dataclass(frozen=True, kw_only=True)
class RunArguments(_Common):
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, made by `odegrad train`."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(RunArguments):
    """Loss, accuracy and cost of a trained network on the test images."""

    which: Literal["last", "best"] = "last"
    """Checkpoint: of the last epoch, or of the epoch with the lowest validation loss."""
    batch_size: int = 0
    """Images solved together, with common steps; 0 takes the configured number, 1 solves each alone."""
    limit: int = 0
    """Score only the first so many test images; 0 takes all."""


@dataclass(frozen=True, kw_only=True)
class ResumeArguments(RunArguments):
    """Continue an interrupted run from its last checkpoint."""


@dataclass(frozen=True, kw_only=True)
class PlotArguments(RunArguments):
    """Draw the pictures of a run."""


@dataclass(frozen=True, kw_only=True)
class PredictArguments(RunArguments):
    """Classify the images in FILES (PNG, JPEG, .npy, idx) with a trained network."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILES...")]
    """Files with images of the size that the network was trained on."""
    which: Literal["last", "best"] = "best"
    """Checkpoint: of the last epoch, or of the epoch with the lowest validation loss."""
    batch_size: int = 0
    """Images solved together, with common steps; 0 takes the configured number, 1 solves each alone."""


@dataclass(frozen=True, kw_only=True)
class AuditArguments(_Common):
    """Judge every gradient method against a float64 reference; writes a page with pictures.

    TARGET is the name of a problem (linear, spiral, lorenz, van-der-pol, tabn-train, tabn-population,
    tabn-eval), a run folder, or a Python file that defines f(t, y, params), y0, ts, params and, if wanted,
    loss(ys). A file is run. lorenz-10 and van-der-pol-100 have another horizon and another mu; lorenz-1,3,10
    is one page of all three. Of a run the network is taken, and not its method, gradient and tolerances:
    dopri5 at each of RTOLS is judged.
    """

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """Problem, run folder or Python file."""
    out: str | None = None
    """Folder for the page; by default audits/<name>."""
    gradients: tuple[str, ...] = GRADIENTS
    """Methods to judge."""
    rtols: tuple[float, ...] = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
    """Relative tolerances; atol is rtol times the largest entry of y0."""
    dtypes: tuple[Literal["float32", "float64"], ...] = ("float64", "float32")
    """Precisions."""
    mode: Literal["train", "eval"] = "train"
    """Mode of the layers, for a run folder."""
    batch_size: int = 8
    """Test images that are solved together, for a run folder."""
    peers: bool = True
    """Put torchdiffeq and diffrax beside, on a named problem, where they are installed
    (the extra `peers`)."""


@dataclass(frozen=True, kw_only=True)
class SolveArguments(_Common):
    """Solve a textbook problem; draws the solution, every attempted step,
    and what accuracy costs beside SciPy.

    PROBLEM is one of DETEST's (A1 to E5), lorenz, kepler, pleiades, van-der-pol-1, van-der-pol-1000,
    robertson or hires; with -mirrored after its name it is run backwards in time.
    """

    problem: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROBLEM")]
    """Name of a textbook problem."""
    method: str | None = None
    """Method of `odeint`; by default dopri5, for stiff problems radau5."""
    rtol: float = 1e-6
    """Relative tolerance."""
    atol: float | None = None
    """Absolute tolerance; by default rtol times the size of the smallest component that matters."""
    step_size: float | None = None
    """Step of a method with fixed steps; by default a thousandth of the interval."""
    rtols: tuple[float, ...] = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
    """Tolerances of the work-precision diagram."""
    out: str | None = None
    """Folder for the pictures; by default solves/<name>."""


_POSITIONAL = ("run", "files", "target", "problem")
_TYPES: dict[str, type[Any]] = {
    "train": TrainArguments,
    "evaluate": EvaluateArguments,
    "resume": ResumeArguments,
    "predict": PredictArguments,
    "plot": PlotArguments,
    "audit": AuditArguments,
    "solve": SolveArguments,
}


class HelpShown(Exception):
    """--help was given and answered."""


def parse(command: str, words: list[str]) -> Any:
    """The arguments of a command.

    Raises: ArgumentError for an unknown flag, with the nearest one, or a value that is none; ConfigError and
        FileNotFoundError for the file of --config; HelpShown.
    """
    if command == "train":
        return _parse_train(words)
    arguments, spare = _parse_known(command, words)
    if spare:
        raise ArgumentError(f"`odegrad {command}` got more than it takes: {' '.join(spare)}")
    return arguments


def _parse_train(words: list[str]) -> TrainArguments:
    """Flags over the TOML file of --config over the defaults of the data set.

    The data set decides the defaults and may be given as a word, as a flag or in the file, so that the words
    are parsed again once it is known.
    """
    config_file = _value_of("--config", words)
    in_file = {} if config_file is None else read_toml(config_file)
    base = make_config(in_file)
    arguments, spare = _parse_known("train", words, _as_train_arguments(base))
    if len(spare) > 1:
        raise ArgumentError(f"`odegrad train` takes one DATASET; got {' '.join(spare)}")
    dataset = spare[0] if spare else arguments.dataset
    if dataset != base.dataset:
        base = make_config({**in_file, "dataset": dataset})
        arguments, _ = _parse_known("train", words, _as_train_arguments(base))
    return dataclasses.replace(arguments, dataset=dataset)


def config_of(arguments: TrainArguments) -> TrainConfig:
    """The configuration among the arguments; ConfigError lists all wrong values."""
    return TrainConfig(**{field.name: getattr(arguments, field.name) for field in fields(TrainConfig)})


def _as_train_arguments(config: TrainConfig) -> TrainArguments:
    return TrainArguments(**dataclasses.asdict(config))


def _value_of(flag: str, words: Sequence[str]) -> str | None:
    """The last value of a flag, given as `--flag value` or `--flag=value`, before the words are parsed."""
    values = [word.partition("=")[2] for word in words if word.startswith(flag + "=")]
    values += [after for word, after in zip(words, words[1:], strict=False) if word == flag]
    return values[-1] if values else None


def _parse_known(command: str, words: list[str], default: Any = None) -> tuple[Any, list[str]]:
    """(arguments, words that belong to no flag); a wrong flag or value is an ArgumentError."""
    said = io.StringIO()
    options = {} if default is None else {"default": default}
    program = "odegrad train [DATASET]" if command == "train" else f"odegrad {command}"
    try:
        with contextlib.redirect_stderr(said):
            arguments, unknown = tyro.cli(
                _TYPES[command], args=words, prog=program, return_unknown_args=True, **options
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise HelpShown from None
        raise ArgumentError(f"{_reason(said.getvalue())} (`odegrad {command} --help`)") from None
    flags = [word for word in unknown if word.startswith("-")]
    if flags:
        raise ArgumentError(_unknown_flags(command, flags))
    return arguments, unknown


def _reason(boxed: str) -> str:
    """Why words could not be read; for a flag of several numbers tyro names neither its type nor the word."""
    text = _first_paragraph(boxed)
    listed = re.search(r"parsing (--\S+): Could not find valid parse for arguments: (\[.*\])", text)
    if listed is None:
        return text
    words = ", ".join(re.findall(r"'([^']*)'", listed[2]))
    return f"`{listed[1]}` takes numbers such as 1e-3 1e-6; got {words}"


def _first_paragraph(boxed: str) -> str:
    """The sentence in tyro's error box: what stands before its first rule, without the frame."""
    lines = [line.strip("│ ").rstrip() for line in boxed.splitlines() if line.startswith("│")]
    paragraph: list[str] = []
    for line in lines:
        if set(line) <= {"─"}:
            break
        paragraph.append(line)
    return " ".join(paragraph) or " ".join(boxed.split())


def _unknown_flags(command: str, flags: list[str]) -> str:
    names = [field.name for field in fields(_TYPES[command]) if field.name not in _POSITIONAL]
    known = [f"--{name.replace('_', '-')}" for name in names]
    described = []
    for flag in flags:
        name = flag.partition("=")[0].replace("_", "-")
        close = difflib.get_close_matches(name, known, n=1)
        described.append(f"unknown flag {name}" + (f", did you mean {close[0]}?" if close else ""))
    return f"{'; '.join(described)} (`odegrad {command} --help` lists all)"
