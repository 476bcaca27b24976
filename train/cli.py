"""The command line: odegrad train | evaluate | resume | predict | plot | audit | solve.

Results go to standard output, everything else to standard error. Exit codes: 0; 2 for a mistake of the user;
1 for a failure; 130 after Ctrl-C, once the run has been saved.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from ..engine.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    ConfigError,
    DataError,
    NeuralODEError,
)
from . import run_folder
from .metrics import json_text
from .progress import Reporter, make_reporter

_USER_ERRORS = (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    ConfigError,
    DataError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


# What each command does. Modules that load the whole library are imported by the command that needs them.


def _train(arguments: Any, reporter: Reporter) -> Any:
    from . import loop
    from .arguments import config_of

    run = run_folder.create(config_of(arguments))
    reporter.message(f"run folder {run.path}")
    try:
        result = loop.train(run.config(), run, reporter)
    except BaseException:
        run_folder.discard_unused(run)
        raise
    _draw(run, reporter)
    return result


def _evaluate(arguments: Any, reporter: Reporter) -> Any:
    run = run_folder.find(arguments.run)
    from . import evaluation

    return evaluation.evaluate(run, reporter, arguments.which, arguments.batch_size, arguments.limit)


def _resume(arguments: Any, reporter: Reporter) -> Any:
    run = run_folder.find(arguments.run)
    from . import loop

    result = loop.resume(run, reporter)
    _draw(run, reporter)
    return result


def _plot(arguments: Any, reporter: Reporter) -> Any:
    run = run_folder.find(arguments.run)
    return {"pictures": _draw(run, reporter)}


def _draw(run: run_folder.RunFolder, reporter: Reporter) -> list[Any]:
    from . import pictures  # matplotlib takes 0.3 s

    return list(pictures.draw(run, reporter))


def _predict(arguments: Any, reporter: Reporter) -> Any:
    if not arguments.files:
        raise ArgumentError("`odegrad predict RUN FILES...` needs at least one file with images")
    run = run_folder.find(arguments.run)
    from . import predictor
    from .data import read_images

    model = predictor.load(run.path, arguments.which)
    classes = model.preprocessing.classes
    images = read_images(arguments.files, model.preprocessing.shape)
    probabilities = model.predict_proba(images, arguments.batch_size)
    labels = probabilities.argmax(axis=1)
    return {
        "predictions": [
            {"image": number, "label": label, "class": classes[label], "probability": row[label]}
            for number, (label, row) in enumerate(zip(labels, probabilities, strict=True))
        ]
    }


def _audit(arguments: Any, reporter: Reporter) -> Any:
    from .audit import audit, audit_growth, growing_problems
    from .audit.sources import problem_of

    asked = arguments.gradients, arguments.rtols, arguments.dtypes
    growing = growing_problems(arguments.target)
    if growing is not None:
        folder = arguments.out or f"audits/{arguments.target}"
        reporter.message(f"audit of {arguments.target} in {folder}")
        return audit_growth(*growing, folder, *asked, peers=arguments.peers)
    problem = problem_of(arguments.target, arguments.mode, arguments.batch_size)
    folder = arguments.out or f"audits/{problem.name}"
    reporter.message(f"audit of {problem.name} in {folder}")
    return audit(problem, folder, *asked, peers=arguments.peers)


def _solve(arguments: Any, reporter: Reporter) -> Any:
    from .solve import named_problem
    from .solve.report import report

    problem = named_problem(arguments.problem)
    folder = arguments.out or f"solves/{problem.name}"
    reporter.message(f"solve of {problem.name} in {folder}")
    asked = arguments.method, arguments.rtol, arguments.atol, arguments.step_size, arguments.rtols
    return report(problem, folder, *asked)


_COMMANDS: dict[str, Callable[[Any, Reporter], Any]] = {
    "train": _train,
    "evaluate": _evaluate,
    "resume": _resume,
    "predict": _predict,
    "plot": _plot,
    "audit": _audit,
    "solve": _solve,
}
_USAGE = """usage: odegrad COMMAND ...

  odegrad train [DATASET]        train a neural ODE; every field of the configuration is a flag
  odegrad evaluate RUN           loss, accuracy and cost on the test images
  odegrad resume RUN             continue an interrupted run
  odegrad predict RUN FILES...   classify images
  odegrad plot RUN               draw the pictures of a run
  odegrad audit TARGET           judge every gradient method on a problem, a run or a Python file
  odegrad solve PROBLEM          solve a textbook problem; pictures of solution, steps and cost

`odegrad COMMAND --help` has the flags; --json prints one JSON object; --version prints the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` as `sys.argv[1:]`. Returns the exit code, and never raises an Exception."""
    words = list(sys.argv[1:] if argv is None else argv)
    is_debug = "--debug" in words or bool(os.environ.get("ODEGRAD_DEBUG"))
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print("odegrad: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001  the last stop: every error becomes one line and an exit code
        if is_debug:
            traceback.print_exc()
        print(f"odegrad: error: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, _USER_ERRORS) else 1


def _dispatch(words: list[str]) -> int:
    if words[:1] in (["-h"], ["--help"]):
        print(_USAGE, end="")
        return 0
    if words[:1] == ["--version"]:
        print(f"odegrad {run_folder.odegrad_version()}")
        return 0
    if not words or words[0] not in _COMMANDS:
        raise ArgumentError(_unknown_command(words))
    from .arguments import HelpShown, parse  # tyro takes 0.1 s, so only here

    try:
        arguments = parse(words[0], words[1:])
    except HelpShown:
        return 0
    reporter = make_reporter(sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints is not the result
            result = _COMMANDS[words[0]](arguments, reporter)
    finally:
        reporter.close()
    values = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    print(json_text(values) if arguments.json else _readable(values), flush=True)
    return 0


def _unknown_command(words: list[str]) -> str:
    known = ", ".join(_COMMANDS)
    if not words:
        return f"a command is missing: one of {known} (`odegrad --help`)"
    close = difflib.get_close_matches(words[0], _COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of {known}"
    return f"unknown command {words[0]!r}: {hint} (`odegrad --help`)"


def _readable(values: Mapping[str, Any]) -> str:
    """`name: value` lines; a list has a line for each item."""
    lines = []
    for name, value in values.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        lines += [f"{name.replace('_', ' ')}: {_readable_value(item)}" for item in items]
    return "\n".join(lines)


def _readable_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {_readable_value(item)}" for name, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _one_line(error: Exception) -> str:
    """The message on one line; an error that is not one of ours or the system's comes with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, (NeuralODEError, OSError)) and text:
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


if __name__ == "__main__":
    sys.exit(main())
