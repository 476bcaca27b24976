"""From the command line to a run folder and back: every command on a real, if small, run."""

import json
import subprocess

import numpy as np
import odegrad
import pytest
from odegrad.train import cli
from odegrad.train.config import load_toml
from odegrad.train.data import load_dataset
from odegrad.train.run_folder import RunFolder
from training import COMMAND, call, environment, final_state, flags, tiny, train


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """One epoch on digits, as a person starts it: (run folder, what was printed)."""
    folder = tmp_path_factory.mktemp("digits")
    words = "train digits --epochs 1 --network 4-layer --batch-size 256 --json --out run".split()
    done = subprocess.run(
        [*COMMAND, *words], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    return folder / "run", done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of a tiny problem."""
    return train(tiny(tmp_path_factory.mktemp("tiny")))[0]


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing takes longer than these runs."""
    monkeypatch.setattr(cli, "_draw", lambda run, reporter: [])


@pytest.mark.parametrize(
    "name",
    ["test_accuracy", "best_test_accuracy", "loss", "nfe_forward", "nfe_backward", "parameters", "seconds"],
)
def test_training_prints_one_object_with_its_result(digits, name):
    assert json.loads(digits[1])[name] >= 0


def test_standard_output_has_one_line(digits):
    assert digits[1].count("\n") == 1


FILES = {
    "config.toml", "versions.json", "metrics.jsonl", "last.h5", "best.h5",
    "pictures/learning_curves.png", "pictures/nfe.png", "pictures/temporal_norms.png", "pictures/worst.png",
}  # fmt: skip


def test_the_run_folder_is_complete(digits):
    found = {str(file.relative_to(digits[0])) for file in digits[0].rglob("*") if file.is_file()}
    assert found == FILES


def test_the_resolved_configuration_is_in_the_run_folder(digits):
    config = load_toml(digits[0] / "config.toml")
    assert (config.dataset, config.epochs, config.batch_size, config.network) == ("digits", 1, 256, "4-layer")


def test_the_accuracy_reported_is_that_of_the_model_loaded(digits):
    data = load_dataset("digits")
    model = odegrad.load(digits[0], "last")
    found = (model.predict(data.test_images) == data.test_labels).mean()
    assert found == pytest.approx(json.loads(digits[1])["test_accuracy"], abs=1e-12)


def test_the_configuration_given_is_the_configuration_kept(run):
    assert load_toml(run.config_file) == tiny(run.path.parent)


def test_the_file_of_a_run_repeats_it(run, tmp_path, capsys, without_pictures):
    out = str(tmp_path / "again")
    assert call(capsys, "train", "--config", str(run.config_file), "--out", out, "--json")[0] == 0
    assert final_state(RunFolder(tmp_path / "again")) == final_state(run)


@pytest.fixture(scope="module")
def by_flags(tmp_path_factory):
    """A run whose every field was given as a flag: (configuration meant, standard error)."""
    folder = tmp_path_factory.mktemp("flags")
    config = tiny(folder, epochs=1, norm="pop-ti")  # fewer pictures
    words = [*COMMAND, "train", *flags(config)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    return config, done


def test_every_field_arrives_by_its_flag(by_flags):
    config, _ = by_flags
    assert load_toml(f"{config.out}/config.toml") == config


def test_without_a_terminal_progress_is_a_line_an_epoch(by_flags):
    lines = [line for line in by_flags[1].stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 1 and lines[0].startswith("epoch 1/1  loss ")


def test_without_json_the_result_is_lines(by_flags):
    assert any(line.startswith("test accuracy: ") for line in by_flags[1].stdout.splitlines())


@pytest.mark.parametrize("words", [["--batch-size", "1"], ["--batch-size", "256"], ["--limit", "3"], []])
@pytest.mark.parametrize("which", ["last", "best"])
def test_evaluate_reports_what_it_scored(run, capsys, words, which):
    code, out, _ = call(capsys, "evaluate", str(run.path), "--which", which, "--json", *words)
    found = json.loads(out)
    assert code == 0
    assert (found["checkpoint"], found["images"]) == (which, 3 if "--limit" in words else 16)


@pytest.mark.parametrize("name", ["test_accuracy", "loss", "nfe", "parameters", "seconds"])
def test_evaluate_names_accuracy_loss_and_cost(run, capsys, name):
    code, out, _ = call(capsys, "evaluate", str(run.path), "--json")
    assert json.loads(out)[name] > 0


def test_evaluate_finds_what_training_reported(run, capsys):
    last = json.loads(run.metrics.read_text().splitlines()[-1])
    code, out, _ = call(capsys, "evaluate", str(run.path), "--json")
    found = json.loads(out)
    assert (found["test_accuracy"], found["loss"]) == (last["test_accuracy"], last["test_loss"])


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.parametrize("batch_size", [1, 256])
def test_predict_names_the_class_of_each_image(run, tmp_path, capsys, which, batch_size):
    images = load_dataset("mnist", run.path.parent / "data").test_images
    np.save(tmp_path / "all.npy", images)
    words = ["--which", which, "--batch-size", str(batch_size), "--json"]
    code, out, _ = call(capsys, "predict", str(run.path), str(tmp_path / "all.npy"), *words)
    labels = [prediction["label"] for prediction in json.loads(out)["predictions"]]
    assert code == 0
    assert labels == odegrad.load(run.path, which).predict(images, batch_size).tolist()


def test_plot_draws_every_picture_again(run, capsys):
    code, out, _ = call(capsys, "plot", str(run.path), "--json")
    names = {path.rsplit("/", 1)[-1] for path in json.loads(out)["pictures"]}
    assert code == 0
    assert names == {"learning_curves.png", "nfe.png", "temporal_norms.png", "worst.png"}


def test_a_finished_run_has_nothing_to_resume(run, capsys, without_pictures):
    before = run.last.read_bytes(), run.metrics.read_bytes()
    code, out, _ = call(capsys, "resume", str(run.path), "--json")
    assert (code, json.loads(out)["epochs"]) == (0, 2)
    assert (run.last.read_bytes(), run.metrics.read_bytes()) == before
