"""The configuration: checked values, TOML in and out, names refused with the nearest match."""

import dataclasses
import tomllib
from typing import get_args

import pytest
from odegrad.engine.errors import ConfigError
from odegrad.train.config import (
    DatasetName,
    TrainConfig,
    defaults_for,
    load_toml,
    make_config,
    read_toml,
    to_toml,
)
from odegrad.train.data import DATASETS

BAD_VALUES = [  # (field, value, what the message says)
    ("dataset", "mnits", "did you mean 'mnist'?"),
    ("dataset", 3, "`dataset` must be one of digits, mnist,"),
    ("norm", "TABN ", "did you mean 'tabn'?"),
    ("network", "4_layer", "did you mean '4-layer'?"),
    ("lr", 0.0, "`lr` must be positive and finite; got 0.0"),
    ("lr", float("nan"), "`lr` must be positive and finite; got nan"),
    ("rtol", float("inf"), "`rtol` must be positive and finite; got inf"),
    ("lr", "fast", "`lr` must be of type float; got 'fast' (str)"),
    ("epochs", 2.0, "`epochs` must be of type int; got 2.0 (float)"),
    ("epochs", True, "`epochs` must be of type int; got True (bool)"),
    ("epochs", 0, "`epochs` must be at least 1; got 0"),
    ("batch_size", 1, "`batch_size` must be at least 2; got 1"),
    ("tabn_nodes", 1, "`tabn_nodes` must be at least 2; got 1"),
    ("tabn_momentum", 0.0, "`tabn_momentum` must be in (0, 1]; got 0.0"),
    ("tabn_momentum", 1.0001, "`tabn_momentum` must be in (0, 1]"),
    ("validation_fraction", 1.0, "`validation_fraction` must be in [0, 1); got 1.0"),
    ("weight_decay", -0.1, "`weight_decay` must be finite and not negative; got -0.1"),
    ("augment", 1, "`augment` must be of type bool; got 1 (int)"),
    ("out", 3, "`out` must be of type str or none; got 3 (int)"),
    ("seed", -1, "`seed` must be in [0, 2**64); got -1"),
]
GOOD_VALUES = [
    ("tabn_momentum", 1.0),
    ("validation_fraction", 0.0),
    ("clip_weights", 0.0),
    ("seed", 2**64 - 1),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_VALUES)
def test_a_bad_value_is_named(field, value, message):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{field: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(("field", "value"), GOOD_VALUES)
def test_a_value_at_the_border_is_taken(field, value):
    assert getattr(TrainConfig(**{field: value}), field) == value


def test_all_problems_come_in_one_message():
    with pytest.raises(ConfigError) as caught:
        TrainConfig(lr=-1.0, epochs=0, norm="batch")
    assert len(caught.value.problems) == 3


def test_an_int_is_taken_for_a_float():
    assert type(TrainConfig(lr=1).lr) is float


def test_the_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0


def test_the_data_sets_are_those_that_can_be_loaded():
    assert get_args(DatasetName) == DATASETS


@pytest.mark.parametrize("dataset", DATASETS)
def test_each_data_set_has_defaults(dataset):
    assert defaults_for(dataset).dataset == dataset


def test_digits_has_the_defaults_of_the_fields():
    assert defaults_for("digits") == TrainConfig()


def test_the_paper_recipe_for_colour_images():
    config = defaults_for("cifar10")
    recipe = (config.optimizer, config.lr, config.weight_decay, config.epochs, config.batch_size)
    assert recipe == ("adamw", 1e-3, 0.02, 128, 256)


def test_values_stand_over_the_defaults_of_their_data_set():
    config = make_config({"dataset": "mnist", "epochs": 3})
    assert (config.network, config.epochs) == ("4-layer", 3)


@pytest.mark.parametrize(
    ("name", "match"),
    [("learning-rate", "expected one of"), ("weight-decay", "`weight_decay`"), ("epoch", "`epochs`")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, match):
    with pytest.raises(ConfigError, match=match):
        make_config({name: 1})


def test_every_unknown_name_is_listed():
    with pytest.raises(ConfigError, match=r"`batchsize`.*`sead`"):
        make_config({"batchsize": 1, "sead": 2})


AWKWARD = [
    TrainConfig(),
    TrainConfig(out='a "quoted" \\ path\n\x7f\x00 é😀', data_dir="/tmp", lr=1e-300, penalty=1e22),
    TrainConfig(augment=True, seed=2**64 - 1, clip_gamma=0, validation_fraction=0.1 + 0.2),
]


@pytest.mark.parametrize("config", AWKWARD, ids=["defaults", "strings", "numbers"])
def test_toml_gives_the_configuration_back(config, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config), encoding="utf-8", newline="\n")
    assert load_toml(file) == config


def test_toml_has_a_line_for_each_field_that_is_set():
    written = tomllib.loads(to_toml(TrainConfig()))
    assert set(written) == {field.name for field in dataclasses.fields(TrainConfig)} - {"out", "data_dir"}


def test_read_toml_gives_only_what_the_file_sets(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('dataset = "mnist"\nlr = 1\n')
    assert read_toml(file) == {"dataset": "mnist", "lr": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = ", "not a TOML file"),
        ("\xff", "not a TOML file"),
        ("lr = 'x'", "`lr` must be of type float; got 'x'"),
        ("eepochs = 3", "did you mean `epochs`?"),
        ("[train]\nlr = 1.0", "unknown name `train`"),
        ("dataset = ['mnist']", "`dataset` must be one of"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(text, message, tmp_path):
    file = tmp_path / "c.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_toml(file)
    assert str(caught.value).startswith(str(file)) and message in str(caught.value)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_toml(tmp_path / "none.toml")
