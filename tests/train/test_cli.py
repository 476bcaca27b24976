"""The command line: what is printed where, exit codes, precedence of flags, file and defaults.

The training itself is replaced by fakes: these tests are about what stands between a person and it.
"""

import errno
import json
import sys
import types
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import odegrad.train
import pytest
from odegrad.engine.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteDynamics,
)
from odegrad.train import run_folder
from odegrad.train.cli import main
from odegrad.train.config import TrainConfig, defaults_for, to_toml


@dataclass(frozen=True)
class Result:
    test_accuracy: float
    loss: float
    run: Path


class Model:
    preprocessing = types.SimpleNamespace(shape=(8, 8, 1), classes=("zero", "one"))

    def predict_proba(self, images, batch_size):
        return np.stack([images.mean(axis=(1, 2, 3)) / 255, 1 - images.mean(axis=(1, 2, 3)) / 255], axis=1)


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Fakes of the modules that do the work; the list of what was called."""
    made = []

    def fake(name, **functions):
        module = types.ModuleType(f"odegrad.train.{name}")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(odegrad.train, name, module, raising=False)

    def work(name):
        def call(*arguments):
            [reporter] = [argument for argument in arguments if hasattr(argument, "message")]
            made.append((name, *(argument for argument in arguments if argument is not reporter)))
            print("a library prints this")
            reporter.message("working")
            return Result(test_accuracy=0.975, loss=float("nan"), run=Path("x"))

        return call

    fake("loop", train=work("train"), resume=work("resume"))
    fake("evaluation", evaluate=work("evaluate"))
    fake("pictures", draw=lambda run, reporter: [run.pictures / "nfe.png"])
    fake("predictor", load=lambda path, which: Model())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODEGRAD_DEBUG", raising=False)
    return made


@pytest.fixture
def finished_run(calls):
    run = run_folder.create(TrainConfig(out="done"))
    run.last.write_bytes(b"")
    return run


def config_of_call(calls) -> TrainConfig:
    [(_, config, _run)] = calls
    return config


# Configuration.


def test_digits_is_the_default(calls):
    assert main(["train"]) == 0
    assert config_of_call(calls) == TrainConfig()


@pytest.mark.parametrize(
    "words", [["mnist"], ["--dataset", "mnist"], ["--dataset=mnist"], ["--seed", "0", "mnist"]], ids=" ".join
)
def test_a_data_set_comes_with_its_defaults(calls, words):
    assert main(["train", *words]) == 0
    assert config_of_call(calls) == defaults_for("mnist")


def flag_and_value(name):
    """A value other than the default, as words and as it should arrive."""
    default = getattr(TrainConfig(), name)
    chosen = {
        "dataset": "svhn",
        "network": "unet",
        "norm": "none",
        "normalize": "population",
        "unvisited": "initial",
        "method": "rk4",
        "gradient": "tape",
        "keep": "all",
        "execution": "eager",
        "optimizer": "sgd",
        "schedule": "step",
        "dtype": "float64",
        "device": "cuda",
        "data_dir": "some/folder",
        "out": "some/run",
    }
    if name in ("augment", "deterministic"):
        return [], True
    if name == "precision":
        return ["tf32", "--device", "cuda"], "tf32"  # a CPU rounds nothing
    value = chosen[name] if name in chosen else type(default)(3) if type(default) is int else 0.25
    return [str(value)], value


@pytest.mark.parametrize("name", [field.name for field in fields(TrainConfig)])
def test_every_field_is_a_flag(calls, name, fake_cupy):
    """A device among them, which stands for a GPU here."""
    words, value = flag_and_value(name)
    assert main(["train", f"--{name.replace('_', '-')}", *words]) == 0
    assert getattr(config_of_call(calls), name) == value


def test_a_file_stands_over_the_defaults_and_a_flag_over_the_file(calls, tmp_path):
    (tmp_path / "c.toml").write_text('dataset = "mnist"\nlr = 0.5\nepochs = 7\n')
    assert main(["train", "--config", "c.toml", "--lr", "0.25"]) == 0
    config = config_of_call(calls)
    assert (config.dataset, config.network, config.lr, config.epochs) == ("mnist", "4-layer", 0.25, 7)


@pytest.mark.parametrize("words", [["digits"], ["--dataset", "digits"]], ids=" ".join)
def test_a_data_set_on_the_command_line_stands_over_that_of_the_file(calls, tmp_path, words):
    (tmp_path / "c.toml").write_text('dataset = "mnist"\nepochs = 7\n')
    assert main(["train", *words, "--config=c.toml"]) == 0
    config = config_of_call(calls)
    assert (config.dataset, config.network, config.epochs) == ("digits", "6-layer", 7)


def test_the_configuration_of_a_run_repeats_it(calls, tmp_path):
    (tmp_path / "c.toml").write_text(to_toml(defaults_for("cifar10")))
    assert main(["train", "--config", "c.toml"]) == 0
    assert config_of_call(calls) == defaults_for("cifar10")


def test_the_run_gets_its_own_folder(calls):
    main(["train"])
    main(["train"])
    assert [run.path.name for _, _, run in calls] == ["digits-6-layer-tabn-001", "digits-6-layer-tabn-002"]


# Output.


@pytest.mark.parametrize("command", ["train", "resume", "evaluate"])
def test_json_is_all_there_is_on_standard_output(calls, finished_run, command, capsys):
    assert main([command, *([] if command == "train" else ["done"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"test_accuracy": 0.975, "loss": None, "run": "x"}


def test_progress_goes_to_standard_error(calls, capsys):
    main(["train"])
    printed = capsys.readouterr()
    assert (
        "working" in printed.err and "a library prints this" in printed.err and "working" not in printed.out
    )


def test_without_json_a_person_can_read_the_result(calls, capsys):
    main(["train"])
    assert capsys.readouterr().out == "test accuracy: 0.975\nloss: nan\nrun: x\n"


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_commands_get_the_run(calls, finished_run, command):
    main([command, "done"])
    assert calls[0][:2] == (command, finished_run)


def test_evaluation_gets_its_flags(calls, finished_run):
    main(["evaluate", "done", "--which", "best", "--batch-size", "1", "--limit", "7"])
    assert calls == [("evaluate", finished_run, "best", 1, 7)]


def test_plot_names_the_pictures(calls, finished_run, capsys):
    assert main(["plot", "--json", "done"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pictures": ["done/pictures/nfe.png"]}


def test_predict_names_class_and_probability_of_each_image(calls, finished_run, capsys):
    np.save("white.npy", np.full((8, 8), 255, np.uint8))
    np.save("two.npy", np.zeros((2, 8, 8), np.uint8))
    assert main(["predict", "done", "white.npy", "two.npy", "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert predictions[0] == {"image": 0, "label": 0, "class": "zero", "probability": 1.0}
    assert [prediction["class"] for prediction in predictions] == ["zero", "one", "one"]


@pytest.mark.parametrize("command", ["", "train", "evaluate", "resume", "predict", "plot"])
def test_help_is_shown(calls, command, capsys):
    assert main([*command.split(), "--help"]) == 0
    printed = capsys.readouterr()
    assert f"usage: odegrad {command}" in printed.out and printed.err == ""


def test_help_shows_the_defaults_of_the_data_set(calls, capsys):
    main(["train", "mnist", "--help"])
    mnist = capsys.readouterr().out
    assert "4-layer" in mnist and "--weight-decay" in mnist


def test_the_version_is_printed(calls, capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("odegrad ")


# Mistakes: exit code 2, one line.

MISTAKES = [
    ([], "a command is missing: one of train"),
    (["trian"], "did you mean train?"),
    (["train", "mnits"], "did you mean 'mnist'?"),
    (["train", "digits", "mnist"], "takes one DATASET; got digits mnist"),
    (["train", "--lrr", "3"], "unknown flag --lrr, did you mean --lr?"),
    (["train", "--weight_decai=3"], "unknown flag --weight-decai, did you mean --weight-decay?"),
    (["plot", "done", "--lr", "3"], "unknown flag --lr (`odegrad plot --help` lists all)"),
    (["train", "--lr", "fast"], "--lr: could not convert string to float: 'fast'"),
    (["train", "--lr"], "Missing value for argument '--lr'"),
    (["train", "--norm", "batch"], "invalid choice 'batch' for argument '--norm'"),
    (["train", "--epochs", "1.5"], "--epochs"),
    (
        ["train", "--lr", "-1", "--epochs", "0"],
        "`lr` must be positive and finite; got -1.0; `epochs` must be at least 1",
    ),
    (["train", "--config", "none.toml"], "none.toml"),
    (["train", "--config", "."], "Is a directory"),
    (
        ["train", "--config", "bad.toml"],
        "bad.toml: configuration: unknown name `eepochs`: did you mean `epochs`?",
    ),
    (["train", "--out", "full"], "`out` must be a new or empty folder"),
    (["evaluate"], "RUN"),
    (["evaluate", "none"], "no run folder 'none'"),
    (["resume", "full"], "config.toml, versions.json, last.h5 missing"),
    (["plot", "done", "more"], "`odegrad plot` got more than it takes: more"),
    (["predict", "done"], "at least one file"),
    (["predict", "done", "none.png"], "none.png"),
]


@pytest.mark.parametrize(
    ("words", "message"), MISTAKES, ids=[" ".join(words) or "nothing" for words, _ in MISTAKES]
)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_a_mistake_is_one_line_and_exit_code_2(
    calls, finished_run, words, message, columns, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", columns)
    Path("bad.toml").write_text("eepochs = 3")
    Path("full").mkdir()
    Path("full/x").write_text("x")
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith("odegrad: error: ") and message in printed.err


ERRORS = [
    (ArgumentError("wrong"), 2, "wrong"),
    (ConfigError("wrong"), 2, "wrong"),
    (DataError("no\nfile"), 2, "no file"),
    (CheckpointError("damaged"), 2, "damaged"),
    (FileNotFoundError(2, "No such file", "x"), 2, "x"),
    (NonFiniteDynamics("NaN at t=0.5"), 1, "NaN at t=0.5"),
    (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
    (MemoryError(), 1, "MemoryError"),
    (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero (--debug shows where)"),
    (KeyboardInterrupt(), 130, "odegrad: interrupted"),
]


def failing(monkeypatch, error, before=lambda run: None):
    def train(config, run, reporter):
        before(run)
        raise error

    monkeypatch.setattr(sys.modules["odegrad.train.loop"], "train", train)


@pytest.mark.parametrize(("error", "code", "message"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_is_one_line_and_its_exit_code(calls, monkeypatch, capsys, error, code, message):
    failing(monkeypatch, error)
    assert main(["train", "--json"]) == code
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    assert message in printed.err.splitlines()[-1]


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_a_traceback_is_shown_on_request(calls, monkeypatch, capsys, way):
    failing(monkeypatch, DataError("wrong"))
    if way == "variable":
        monkeypatch.setenv("ODEGRAD_DEBUG", "1")
    assert main(["train", *(["--debug"] if way == "flag" else [])]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_run_that_never_began_leaves_no_folder(calls, monkeypatch):
    failing(monkeypatch, DataError("no data"))
    main(["train", "--out", "new"])
    assert not Path("new").exists()


@pytest.mark.parametrize("name", ["last", "metrics"])
def test_a_run_that_has_written_something_stays(calls, monkeypatch, name):
    failing(monkeypatch, DataError("no data"), before=lambda run: getattr(run, name).write_text("x"))
    main(["train", "--out", "new"])
    assert {"config.toml", "versions.json"} < {file.name for file in Path("new").iterdir()}
