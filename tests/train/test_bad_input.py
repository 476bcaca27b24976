"""What a person can get wrong, and what can go wrong: one clear line, an exit code, and no file damaged."""

import errno
import json
import resource
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest
from data_files import MNIST_FILES, write_idx_set
from odegrad.engine.tree import tree_map
from odegrad.train import checkpoint, loop, metrics, run_folder
from PIL import Image
from training import (
    COMMAND,
    SIZE,
    Silent,
    call,
    contents,
    environment,
    final_state,
    flags,
    quadrants,
    tiny,
    train,
    write_quadrants,
)

CHEAP = {"method": "midpoint", "step_size": 0.5}
SEVERAL = ["evaluate", "resume", "predict", "plot"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run; tests that spoil it take a copy."""
    return train(tiny(tmp_path_factory.mktemp("finished"), **CHEAP))[0]


@pytest.fixture
def run(finished, tmp_path):
    return run_folder.RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(quadrants(1, 3)[0][0, :, :, 0]).save(path)
    return path


def refused(capsys, *words, code=2):
    """The one line of a command that fails with `code`."""
    found, out, err = call(capsys, *map(str, words))
    assert (found, out) == (code, "")
    *progress, line = err.splitlines()
    assert line.startswith("odegrad: error: ") and "Traceback" not in err
    assert not any(text.startswith("odegrad: error") for text in progress)
    return line


def words_for(command, run, picture):
    return [command, run.path, *([picture] if command == "predict" else [])]


# Data.


def test_missing_data_says_where_it_looked_and_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pooch, "retrieve", offline)
    (tmp_path / "empty").mkdir()
    line = refused(capsys, "train", *flags(tiny(tmp_path, data_dir=str(tmp_path / "empty"))))
    assert all(
        text in line for text in (str(tmp_path / "empty"), MNIST_FILES[0], "--data-dir", "ODEGRAD_DATA")
    )


def offline(*arguments, **options):
    raise OSError("no network in this test")


def test_a_data_folder_that_is_none_is_named(tmp_path, capsys):
    line = refused(capsys, "train", "mnist", "--data-dir", tmp_path / "none", "--out", tmp_path / "run")
    assert f"got '{tmp_path / 'none'}'" in line


def test_labels_out_of_range_are_named(tmp_path, capsys):
    images, labels = quadrants(12, 1)
    labels[7] = 10
    (tmp_path / "data").mkdir()
    write_idx_set(tmp_path / "data", (images, labels), quadrants(8, 2))
    assert "[0, 10)" in refused(capsys, "train", *flags(tiny(tmp_path)))


@pytest.mark.parametrize("name", MNIST_FILES)
def test_truncated_data_is_named(tmp_path, capsys, name):
    file = write_quadrants(tmp_path / "data") / f"{name}.gz"
    file.write_bytes(file.read_bytes()[:-12])
    assert str(file) in refused(capsys, "train", *flags(tiny(tmp_path)))


def test_images_of_one_colour_hold_nothing_to_learn(tmp_path, capsys):
    part = np.zeros((12, SIZE, SIZE, 1), np.uint8), np.arange(12) % 4
    (tmp_path / "data").mkdir()
    write_idx_set(tmp_path / "data", part, part)
    assert "nothing to learn from" in refused(capsys, "train", *flags(tiny(tmp_path)))


def test_a_run_that_could_not_begin_leaves_no_folder(tmp_path, capsys):
    refused(capsys, "train", *flags(tiny(tmp_path, data_dir=str(tmp_path / "none"))))
    assert not (tmp_path / "run").exists()


def test_a_validation_part_that_leaves_too_little_is_refused(tmp_path, capsys):
    write_quadrants(tmp_path / "data", n_train=2)
    line = refused(capsys, "train", *flags(tiny(tmp_path, validation_fraction=0.5)))
    assert "needs at least 2" in line


def test_a_batch_larger_than_the_data_takes_it_all(tmp_path):
    _, result = train(tiny(tmp_path, batch_size=1000, epochs=2, **CHEAP))
    assert result.steps == 2


# NaN.


@pytest.fixture
def nan_in(monkeypatch):
    """A function that makes the images of a step, or the weights before it, NaN."""

    def spoil(what, at_step):
        whole_step = loop.Trainer._step

        def spoilt_step(self, state, *rest):
            if state.step == at_step and what == "images":
                self.model.inputs = lambda images: np.full(images.shape, np.nan, np.float32)
            if state.step == at_step and what == "weights":
                state = replace(state, weights=tree_map(lambda leaf: leaf * np.float32("nan"), state.weights))
            return whole_step(self, state, *rest)

        monkeypatch.setattr(loop.Trainer, "_step", spoilt_step)

    return spoil


@pytest.mark.parametrize("method", ["dopri5", "midpoint"])
@pytest.mark.parametrize(("what", "code", "message"), [("images", 2, "finite"), ("weights", 1, "non-finite")])
def test_nan_has_its_exit_code(tmp_path, capsys, nan_in, what, code, message, method):
    nan_in(what, at_step=3)
    config = tiny(tmp_path, method=method, step_size=0.5)
    assert message in refused(capsys, "train", *flags(config), code=code)


def test_a_failure_says_where_in_the_run(tmp_path, capsys, nan_in):
    nan_in("weights", at_step=7)
    _, _, err = call(capsys, "train", *flags(tiny(tmp_path, **CHEAP)))
    assert f"failed after step 7, in epoch 2; `odegrad resume {tmp_path / 'run'}` goes on" in err


def test_nan_leaves_the_last_checkpoint_whole(tmp_path, capsys, nan_in):
    nan_in("weights", at_step=3)
    refused(capsys, "train", *flags(tiny(tmp_path, checkpoint_every=2, **CHEAP)), code=1)
    assert checkpoint.load(tmp_path / "run" / "last.h5").header["step"] == 2


def test_a_learning_rate_that_is_too_large_ends_with_advice(tmp_path, capsys):
    config = tiny(tmp_path, lr=1e30, optimizer="sgd", clip_weights=0.0, warmup_epochs=0.0, **CHEAP)
    line = refused(capsys, "train", *flags(config), code=1)
    assert "finite" in line


def test_too_many_steps_are_a_failure(tmp_path, capsys):
    line = refused(capsys, "train", *flags(tiny(tmp_path, max_steps=2, rtol=1e-6, atol=1e-6)), code=1)
    assert "max_steps" in line


# Checkpoints and run folders.


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


DAMAGES = [(truncate, "truncated"), (flip_a_bit, "damaged"), (empty, "no odegrad checkpoint")]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=["truncated", "flipped", "empty"])
@pytest.mark.parametrize("command", SEVERAL)
def test_a_damaged_checkpoint_is_refused_and_nothing_written(run, picture, capsys, command, damage, message):
    for path in (run.last, run.best):
        damage(path)
    before = contents(run.path)
    assert message in refused(capsys, *words_for(command, run, picture))
    assert contents(run.path) == before


@pytest.mark.parametrize("command", SEVERAL)
def test_a_checkpoint_of_another_architecture_is_refused(run, picture, capsys, command):
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace('"4-layer"', '"6-layer"'))
    before = contents(run.path)
    line = refused(capsys, *words_for(command, run, picture))
    assert "another architecture" in line and "weights/0" in line
    assert contents(run.path) == before


@pytest.mark.parametrize("command", SEVERAL)
def test_a_configuration_of_another_version_is_refused(run, picture, capsys, command):
    with open(run.config_file, "a") as file:
        file.write("learning_rate = 3\n")
    assert "unknown name `learning_rate`" in refused(capsys, *words_for(command, run, picture))


@pytest.mark.parametrize("command", SEVERAL)
def test_a_run_without_a_checkpoint_is_refused(run, picture, capsys, command):
    run.last.unlink()
    assert "last.h5 missing" in refused(capsys, *words_for(command, run, picture))


def test_a_run_without_its_best_checkpoint_is_refused_where_that_is_needed(run, picture, capsys):
    run.best.unlink()
    assert "best.h5: no checkpoint there" in refused(capsys, "predict", run.path, picture)


def test_damaged_metrics_are_named(run, capsys):
    run.metrics.write_text("{]\n" + run.metrics.read_text())
    assert "metrics.jsonl, line 1: not JSON" in refused(capsys, "plot", run.path)


def test_a_damaged_list_of_versions_is_named(run, capsys):
    run.versions_file.write_text("{")
    assert "versions.json" in refused(capsys, "resume", run.path)


def test_a_folder_in_use_is_not_written_to(run, capsys):
    before = contents(run.path)
    line = refused(capsys, "train", *flags(tiny(run.path.parent, **CHEAP)))
    assert "holds files" in line and "odegrad resume" in line
    assert contents(run.path) == before


def test_a_run_before_its_first_epoch_has_no_pictures(tmp_path, capsys):
    config = tiny(tmp_path, **CHEAP)
    run = run_folder.create(config)
    trainer = loop.Trainer(config, run, Silent())
    trainer.save(run.last, trainer.fresh_state())
    assert "epoch" in refused(capsys, "plot", run.path)


# Images to predict.


def test_a_picture_of_another_size_is_refused(finished, tmp_path, capsys):
    Image.fromarray(np.zeros((9, 5), np.uint8)).save(tmp_path / "big.png")
    line = refused(capsys, "predict", finished.path, tmp_path / "big.png")
    assert f"expected a picture {SIZE} wide and {SIZE} high; got 5 x 9" in line


def test_an_array_of_another_size_is_refused(finished, tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8), np.uint8))
    assert "(3, 8, 8)" in refused(capsys, "predict", finished.path, tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["text.txt", "text.png", "text.npy", "text.gz"])
def test_a_file_of_another_kind_is_refused(finished, tmp_path, capsys, name):
    (tmp_path / name).write_text("not an image")
    assert name in refused(capsys, "predict", finished.path, tmp_path / name)


def test_a_missing_file_is_named(finished, tmp_path, capsys):
    line = refused(capsys, "predict", finished.path, tmp_path / "none.png")
    assert f"{tmp_path / 'none.png'}: No such file or directory" in line


def test_a_negative_batch_size_is_refused(finished, picture, capsys):
    line = refused(capsys, "predict", finished.path, picture, "--batch-size", "-1")
    assert "must not be negative; got -1" in line


# A full disk.


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("write", ["os.fsync", "checkpoint.save", "metrics.append"])
def test_a_disk_that_fills_up_in_training_leaves_the_last_checkpoint_whole(
    tmp_path, capsys, monkeypatch, write
):
    whole = final_state(train(tiny(tmp_path / "whole", **CHEAP))[0])
    config = tiny(tmp_path, checkpoint_every=2, data_dir=str(tmp_path / "whole" / "data"), **CHEAP)
    whole_step = loop.Trainer._step
    owner, name = (
        {"os": checkpoint.os, "checkpoint": checkpoint, "metrics": metrics}[write.split(".")[0]],
        write.split(".")[1],
    )

    def step_that_fills(self, state, *rest):
        if state.step == 4:
            patch.setattr(owner, name, full)
        return whole_step(self, state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_step", step_that_fills)
        line = refused(capsys, "train", *flags(config), code=1)
    run = run_folder.RunFolder(tmp_path / "run")
    assert "No space left on device" in line
    assert checkpoint.load(run.last).header["step"] == 4
    loop.resume(run, Silent())
    assert final_state(run) == whole


def limit_files():
    """No file of this process may grow beyond 8 KiB: less than a checkpoint, more than the configuration."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def test_a_file_that_cannot_be_written_is_named(run):
    before = contents(run.path)
    file = run.config_file
    file.write_text(file.read_text().replace("\nepochs = 2", "\nepochs = 3"))
    before["config.toml"] = file.read_bytes()
    done = subprocess.run(
        [*COMMAND, "resume", str(run.path), "--json"],
        env=environment(), preexec_fn=limit_files, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("odegrad: error: [Errno 27] File too large: ")
    after = contents(run.path)
    assert after.pop("metrics.jsonl").startswith(before.pop("metrics.jsonl"))
    assert after == before


def test_the_files_of_a_failed_command_are_json_still(run, capsys, monkeypatch):
    monkeypatch.setattr(metrics, "append", full)
    run.config_file.write_text(run.config_file.read_text().replace("\nepochs = 2", "\nepochs = 3"))
    refused(capsys, "resume", run.path, code=1)
    assert [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()] == [1, 2]
