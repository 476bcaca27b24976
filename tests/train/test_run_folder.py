"""Run folders: made once, never over another, found again or refused with what is missing."""

import json

import pytest
from odegrad.engine.errors import CheckpointError, ConfigError
from odegrad.train.config import TrainConfig
from odegrad.train.run_folder import RunFolder, create, find, versions

CONFIG = TrainConfig(dataset="mnist", network="4-layer", norm="pop-ti", lr=0.25)


def test_runs_are_named_and_numbered(tmp_path):
    names = [create(CONFIG, tmp_path / "runs").path.name for _ in range(3)]
    assert names == [f"mnist-4-layer-pop-ti-00{i}" for i in (1, 2, 3)]


def test_a_new_run_holds_its_configuration(tmp_path):
    assert create(CONFIG, tmp_path).config() == CONFIG


def test_a_new_run_holds_its_versions(tmp_path):
    assert json.loads(create(CONFIG, tmp_path).versions_file.read_text()) == versions()


@pytest.mark.parametrize("name", ["odegrad", "python", "numpy", "platform", "machine", "cores", "threads"])
def test_versions_are_known(name):
    assert versions()[name] not in (None, "", [], "not installed")


def test_a_run_goes_where_it_is_told(tmp_path):
    config = TrainConfig(out=str(tmp_path / "new" / "run"))
    assert create(config).path == tmp_path / "new" / "run"


def test_an_empty_folder_is_taken(tmp_path):
    assert create(TrainConfig(out=str(tmp_path))).path == tmp_path


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(ConfigError, match="holds files"):
        create(TrainConfig(out=str(tmp_path)))
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        create(TrainConfig(out=str(tmp_path / "run")))


def finished(tmp_path) -> RunFolder:
    run = create(CONFIG, tmp_path)
    run.last.write_bytes(b"")
    return run


def test_a_run_is_found(tmp_path):
    run = finished(tmp_path)
    assert find(run.path) == run


@pytest.mark.parametrize("name", ["config.toml", "versions.json", "last.h5"])
def test_what_is_missing_from_a_run_is_named(tmp_path, name):
    run = finished(tmp_path)
    (run.path / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} missing"):
        find(run.path)


def test_all_that_is_missing_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.toml, versions\.json, last\.h5 missing"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mnist-4-layer-popti-001", "Did you mean '.*mnist-4-layer-pop-ti-001'"),
        ("zzz", "Runs in '.*': mnist-4-layer-pop-ti-001"),
        ("no/such", "Neither is there a folder"),
    ],
)
def test_a_missing_run_comes_with_a_hint(tmp_path, name, hint):
    finished(tmp_path)
    with pytest.raises(CheckpointError, match=hint):
        find(tmp_path / name)


def test_nothing_has_changed_since_just_now(tmp_path):
    assert create(CONFIG, tmp_path).version_changes() == []


@pytest.mark.parametrize("text", ["[]", "{", "3"])
def test_damaged_versions_are_refused(tmp_path, text):
    run = create(CONFIG, tmp_path)
    run.versions_file.write_text(text)
    with pytest.raises(CheckpointError, match=r"versions\.json: not (a )?JSON"):
        run.version_changes()


def test_changed_versions_are_named(tmp_path):
    run = create(CONFIG, tmp_path)
    run.versions_file.write_text(json.dumps(versions() | {"numpy": "1.0"}))
    assert [line.split(" then,")[0] for line in run.version_changes()] == ["numpy: 1.0"]
