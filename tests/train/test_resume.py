"""A run that was interrupted, at whatever instant and in whatever way, ends as if it had not been."""

import itertools
import os
import shutil
import signal
import subprocess
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from odegrad.engine.atomic import PARTIAL
from odegrad.engine.errors import DataError
from odegrad.train import checkpoint, loop, run_folder
from odegrad.train.interrupts import NoticedInterrupts
from training import COMMAND, Silent, call, environment, final_state, flags, tiny, train

STEPS = 5  # an epoch: 36 images, 8 a step; there are 2 epochs


class Dies(BaseException):
    """Stands for a kill: nothing catches it, nothing is tidied up."""


CHEAP = {"checkpoint_every": 2, "method": "midpoint", "step_size": 0.5}


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    """The folder with the data, and the final state of a run in it that was left alone."""
    folder = tmp_path_factory.mktemp("whole")
    run, _ = train(tiny(folder, **CHEAP))
    return folder, final_state(run)


@pytest.fixture
def config(problem, tmp_path):
    return tiny(problem[0], out=str(tmp_path / "run"), **CHEAP)


@pytest.fixture
def finished(problem, tmp_path):
    """A copy of the run that was left alone."""
    return run_folder.RunFolder(Path(shutil.copytree(problem[0] / "run", tmp_path / "finished")))


def resumed(run):
    loop.resume(run, Silent())
    return final_state(run)


@pytest.mark.parametrize("step", [0, 4, 5, 9])
def test_killed_in_a_step(problem, config, monkeypatch, step):
    run = run_folder.create(config)
    whole_step = loop.Trainer._step

    def dying_step(self, state, *rest):
        if state.step == step:
            raise Dies
        return whole_step(self, state, *rest)

    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr(loop.Trainer, "_step", dying_step)
        loop.train(config, run, Silent())
    assert resumed(run) == problem[1]


# The writes: step 0, 2, 4, best and last of the epoch, step 6, 8, 10 (the last of its epoch), last of the epoch.
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("number", [3, 4, 7])
def test_killed_around_the_write_of_a_checkpoint(problem, config, monkeypatch, number, is_before):
    run = run_folder.create(config)
    save, count = checkpoint.save, itertools.count()

    def dying_save(path, *rest):
        if next(count) == number:
            if not is_before:
                save(path, *rest)
            raise Dies
        save(path, *rest)

    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr(checkpoint, "save", dying_save)
        loop.train(config, run, Silent())
    assert resumed(run) == problem[1]


def test_a_torn_checkpoint_beside_the_whole_one_does_no_harm(problem, finished):
    partial = finished.last.with_name(finished.last.name + PARTIAL)
    partial.write_bytes(finished.last.read_bytes()[:1000])
    assert resumed(finished) == problem[1]


def test_a_record_that_was_torn_goes(problem, finished):
    with open(finished.metrics, "a") as file:
        file.write('{"step": 1')
    assert resumed(finished) == problem[1]


@pytest.fixture(scope="module")
def after_steps(problem, tmp_path_factory):
    """An adaptive run that saves each step: (its final state, step -> copy of its folder as it was then)."""
    folder = tmp_path_factory.mktemp("steps")
    config = tiny(problem[0], checkpoint_every=1, out=str(folder / "run"))
    trainer = loop.Trainer(config, run_folder.create(config), Silent())
    save = trainer.save

    def keeping_save(path, state):
        save(path, state)
        if path == trainer.run.last and not (folder / str(state.step)).exists():
            shutil.copytree(trainer.run.path, folder / str(state.step))

    trainer.save = keeping_save
    trainer.run_from(trainer.fresh_state())
    return final_state(trainer.run), folder


@pytest.mark.parametrize("n_steps", [1, 5, 8])
def test_steps_save_load_and_the_other_steps(after_steps, n_steps):
    whole, folder = after_steps
    assert resumed(run_folder.RunFolder(folder / str(n_steps))) == whole


# Processes that are really killed.


def started(config):
    words = [*COMMAND, "train", *flags(config), "--json"]
    return subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, process, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.002)


def steps_saved(run):
    return checkpoint.load(run.last).header["step"] if run.last.exists() else -1


@pytest.mark.parametrize("after", [0, 3, 6])
def test_a_process_killed_after_a_step_goes_on(problem, config, after):
    run = run_folder.RunFolder(Path(config.out))
    config = replace(config, checkpoint_every=1)
    process = started(config)
    wait_for(lambda: steps_saved(run) >= after, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert resumed(run) == problem[1]


@pytest.fixture(scope="module")
def interrupted(problem, tmp_path_factory):
    """A run that got Ctrl-C in its second epoch: (folder, exit code, standard output, standard error)."""
    out = str(tmp_path_factory.mktemp("ctrl-c") / "run")
    config = tiny(problem[0], out=out, **{**CHEAP, "checkpoint_every": 1, "epochs": 200})
    run = run_folder.RunFolder(Path(config.out))
    process = started(config)
    wait_for(lambda: steps_saved(run) >= STEPS + 1, process)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return run, process.returncode, out, err


def test_ctrl_c_has_its_exit_code(interrupted):
    assert interrupted[1:3] == (130, "")


def test_ctrl_c_says_what_was_saved_and_how_to_go_on(interrupted):
    run, _, _, err = interrupted
    assert f"saved after step {steps_saved(run)}; `odegrad resume {run.path}` goes on from there" in err
    assert "Traceback" not in err


def test_ctrl_c_saves_the_last_step_completed(problem, config, monkeypatch):
    config = replace(config, checkpoint_every=0)
    run = run_folder.create(config)
    whole_step = loop.Trainer._step

    def interrupted_step(self, state, *rest):
        new = whole_step(self, state, *rest)
        if state.step == 7:
            raise KeyboardInterrupt  # after the work of the eighth step, before it counts
        return new

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Trainer, "_step", interrupted_step)
        loop.train(config, run, Silent())
    assert steps_saved(run) == 7
    assert resumed(run) == problem[1]


def test_ctrl_c_that_python_throws_away_still_stops_the_run(problem, config, monkeypatch):
    """In silence: a traceback on standard error would be a warning here, and so an error."""
    config = replace(config, checkpoint_every=0)
    run = run_folder.create(config)
    whole_step = loop.Trainer._step

    def step_with_a_callback(self, state, *rest):
        if state.step == 7:
            target = Dies()
            reference = weakref.ref(target, lambda _: signal.raise_signal(signal.SIGINT))
            del target  # what the callback raises is printed and forgotten
            assert reference() is None
        return whole_step(self, state, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Trainer, "_step", step_with_a_callback)
        loop.train(config, run, Silent())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert steps_saved(run) == 8
    assert resumed(run) == problem[1]


def test_a_handler_of_the_program_stays():
    signals = []
    before = signal.signal(signal.SIGINT, lambda *_: signals.append(1))
    try:
        with NoticedInterrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, before)
    assert signals == [1]


@pytest.mark.parametrize("where", ["metrics.append", "checkpoint.save", "Model.score"])
def test_ctrl_c_at_the_end_of_an_epoch(problem, config, monkeypatch, where):
    """Between the last step of an epoch and its checkpoint nothing counts twice and nothing is lost."""
    run = run_folder.create(config)
    name, attribute = where.split(".")
    owner = getattr(loop, name)
    original, is_sent = getattr(owner, attribute), []

    def interrupting(*arguments, **options):
        value = original(*arguments, **options)
        if run.metrics.exists() or where != "checkpoint.save":
            if not is_sent:
                is_sent.append(True)
                raise KeyboardInterrupt
        return value

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, attribute, interrupting)
        loop.train(config, run, Silent())
    assert resumed(run) == problem[1]


def test_ctrl_c_before_the_first_step_leaves_no_folder(problem, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "load_dataset", interrupt)
    code, _, _ = call(capsys, "train", *flags(tiny(problem[0], out=str(tmp_path / "run"))))
    assert (code, (tmp_path / "run").exists()) == (130, False)


def test_a_change_of_the_configuration_is_said(finished):
    file, reporter = finished.config_file, Silent()
    file.write_text(file.read_text().replace("rtol = 0.001", "rtol = 0.01"))
    loop.resume(finished, reporter)
    assert reporter.messages == ["config.toml was edited: rtol = 0.01, was 0.001"]


def test_a_finished_run_without_its_metrics_says_so(finished):
    finished.metrics.unlink()
    with pytest.raises(DataError, match=r"metrics\.jsonl: no record of an epoch, though 2 are done"):
        loop.resume(finished, Silent())


def test_more_epochs_go_on_where_the_run_ended(finished):
    file = finished.config_file
    file.write_text(file.read_text().replace("\nepochs = 2", "\nepochs = 3"))
    assert loop.resume(finished, Silent()).steps == 3 * STEPS
