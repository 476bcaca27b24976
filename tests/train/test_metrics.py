"""metrics.jsonl: lines appended, read, cut back; torn and damaged lines."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError, DataError
from odegrad.train.metrics import EpochRecord, append, cut_back, epochs_of, json_text, read


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (10, 20, 30):
        append(path, {"step": step, "loss": 1 / step})
    return path


def test_each_record_is_a_line_of_json(log):
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [10, 20, 30]


def test_records_come_back(log):
    assert read(log) == [{"step": step, "loss": 1 / step} for step in (10, 20, 30)]


def test_a_missing_file_has_no_records(tmp_path):
    assert read(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("torn", ["", '{"st', '{"step": 40, "loss": 0.1}', "\x00\x00\x00"])
def test_a_torn_last_line_is_left_out(log, torn):
    log.write_text(log.read_text() + torn)
    assert [record["step"] for record in read(log)] == [10, 20, 30]


@pytest.mark.parametrize("line", ['{"st', "[]", "", '{"loss": 1}', '{"step": "3"}', '{"step": true}', "\x00"])
def test_a_damaged_line_before_the_last_is_named(log, line):
    first, *rest = log.read_text().splitlines()
    log.write_text("\n".join([first, line, *rest, ""]))
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2"):
        read(log)


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (9, 0), (10, 1), (29, 2), (30, 3), (99, 3)])
def test_cut_back_keeps_what_the_checkpoint_knows(log, step, kept):
    lines = log.read_bytes().splitlines(keepends=True)
    cut_back(log, step)
    assert log.read_bytes() == b"".join(lines[:kept])


def test_cut_back_removes_a_torn_line(log):
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"step": 3')
    cut_back(log, 30)
    assert log.read_bytes() == whole


def test_cut_back_of_no_file_makes_none(tmp_path):
    cut_back(tmp_path / "none.jsonl", 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("record", [{}, {"step": None}, {"step": 1.0}, {"step": True}])
def test_a_record_without_a_step_is_refused(log, record):
    with pytest.raises(ArgumentError, match="int `step`"):
        append(log, record)


def test_numpy_paths_and_non_finite_numbers_become_strict_json():
    record = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": np.array([1.0, np.nan]),
        "d": (float("inf"), Path("x")),
        "e": np.bool_(True),
        3: None,
    }
    expected = {"a": 0.5, "b": 3, "c": [1.0, None], "d": [None, "x"], "e": True, "3": None}
    assert json.loads(json_text(record)) == expected


def test_an_epoch_record_that_lacks_numbers_is_refused():
    with pytest.raises(DataError, match="record of step 3 has no epoch, lr, seconds"):
        list(epochs_of([{"step": 3, "kind": "epoch"}]))


def test_an_epoch_record_is_a_line_of_its_kind(tmp_path):
    numbers = dict.fromkeys(
        ("lr", "seconds", "train_loss", "train_accuracy", "nfe_forward", "nfe_backward", "n_rejected"), 0.5
    )
    record = asdict(EpochRecord(step=3, epoch=1, **numbers))
    append(tmp_path / "m.jsonl", record)
    append(tmp_path / "m.jsonl", {"step": 3, "kind": "test"})
    assert list(epochs_of(read(tmp_path / "m.jsonl"))) == [record]
