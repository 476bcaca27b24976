"""The pictures of a run: which are drawn, and that they show the arrays of its layers."""

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError
from odegrad.train import run_folder
from odegrad.train.loop import Trainer
from odegrad.train.pictures import draw, temporal_norms
from odegrad.train.predictor import load
from PIL import Image
from training import Silent, tiny, train

CHEAP = {"method": "midpoint", "step_size": 0.5, "epochs": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tiny(tmp_path_factory.mktemp("run"), **CHEAP))[0]


@pytest.fixture(scope="module")
def drawn(run):
    run.pictures.rmdir()  # whoever cleans up may ask for them again
    return draw(run, Silent())


@pytest.mark.parametrize("name", ["learning_curves", "nfe", "temporal_norms", "worst"])
def test_each_picture_is_a_png_of_some_size(drawn, run, name):
    with Image.open(run.pictures / f"{name}.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300


def test_the_files_are_named(drawn, run):
    assert {path.name for path in drawn} == {path.name for path in run.pictures.iterdir()}


def test_without_tabn_there_are_no_temporal_norms(tmp_path):
    run, _ = train(tiny(tmp_path, norm="none", **CHEAP))
    assert {path.name for path in draw(run, Silent())} == {"learning_curves.png", "nfe.png", "worst.png"}


def test_a_run_without_an_epoch_has_nothing_to_draw(tmp_path):
    config = tiny(tmp_path)
    run = run_folder.create(config)
    trainer = Trainer(config, run, Silent())
    trainer.save(run.last, trainer.fresh_state())
    with pytest.raises(ArgumentError, match="epoch"):
        draw(run, Silent())


def test_every_norm_is_found(run):
    norms, _ = temporal_norms(load(run.path, "last"))
    assert [norm.gamma.shape for norm in norms.values()] == [(11, 16), (11, 32), (11, 16), (11, 1)]


def test_the_times_are_those_of_the_nodes(run):
    _, times = temporal_norms(load(run.path, "last"))
    np.testing.assert_allclose(times, np.linspace(0.0, 1.0, 11), atol=1e-15)


def test_the_norms_inside_skips_are_found(tmp_path):
    model = Trainer(tiny(tmp_path, network="unet"), run_folder.RunFolder(tmp_path / "run"), Silent()).model
    norms, _ = temporal_norms(model)
    assert len(norms) == 18
