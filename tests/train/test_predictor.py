"""A run's model, loaded from Python."""

import numpy as np
import odegrad
import pytest
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, CheckpointError
from odegrad.train.data import load_dataset
from training import SIZE, tiny, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tiny(tmp_path_factory.mktemp("run"), epochs=3))[0]


@pytest.fixture(scope="module")
def model(run):
    return odegrad.load(run.path)


@pytest.fixture(scope="module")
def images(run):
    return load_dataset("mnist", run.path.parent / "data").test_images


def test_a_label_for_each_image(model, images):
    labels = model.predict(images)
    assert (labels.shape, labels.dtype) == ((16,), np.int64)


@pytest.mark.parametrize("n", [1, 2, 256])
def test_probabilities_sum_to_one(model, images, n):
    probabilities = model.predict_proba(np.resize(images, (n, SIZE, SIZE, 1)))
    assert (probabilities.shape, probabilities.dtype) == ((n, 10), np.float64)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)


def test_the_label_is_the_most_probable_class(model, images):
    np.testing.assert_array_equal(model.predict(images), model.predict_proba(images).argmax(axis=1))


def test_grey_images_need_no_channel_axis(model, images):
    np.testing.assert_array_equal(model.predict_proba(images[..., 0]), model.predict_proba(images))


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_batches_change_an_answer_by_no_more_than_the_tolerance(model, images, batch_size):
    """The steps are chosen for the whole batch, so that rtol = atol = 1e-3 bounds the difference."""
    difference = model.predict_proba(images, batch_size) - model.predict_proba(images)
    assert abs(difference).max() <= 20 * model.config.rtol


def test_equal_images_have_equal_answers(model, images):
    probabilities = model.predict_proba(np.repeat(images[:1], 5, axis=0))
    np.testing.assert_allclose(probabilities, probabilities[[0] * 5], atol=1e-5)


def test_predicting_leaves_the_model_as_it_was(model, images):
    first = model.predict_proba(images)
    np.testing.assert_array_equal(model.predict_proba(images), first)


@pytest.mark.parametrize("which", ["last", "best"])
def test_both_checkpoints_can_be_loaded(run, images, which):
    assert odegrad.load(run.path, which).predict(images).shape == (16,)


def test_the_best_is_loaded_unless_asked_otherwise(run, images):
    best = odegrad.load(run.path, "best").predict_proba(images)
    np.testing.assert_array_equal(odegrad.load(str(run.path)).predict_proba(images), best)


def test_the_names_of_the_classes_come_with_the_model(model):
    assert model.preprocessing.classes == tuple("0123456789")


BAD = [
    ([[0]], ArgumentTypeError, "uint8"),
    (np.zeros((1, SIZE, SIZE, 1), np.float32), ArgumentTypeError, "float32"),
    (np.zeros((1, SIZE + 1, SIZE, 1), np.uint8), ArgumentError, rf"\(N, {SIZE}, {SIZE}, 1\)"),
    (np.zeros((0, SIZE, SIZE, 1), np.uint8), ArgumentError, "N >= 1"),
    (np.zeros((SIZE, SIZE), np.uint8), ArgumentError, "got"),
]


@pytest.mark.parametrize(
    ("images", "error", "message"), BAD, ids=lambda value: getattr(value, "__name__", "")
)
def test_images_of_another_kind_are_refused(model, images, error, message):
    with pytest.raises(error, match=message):
        model.predict(images)


def test_a_negative_batch_size_is_refused(model, images):
    with pytest.raises(ArgumentError, match="`batch_size`"):
        model.predict(images, -1)


def test_another_checkpoint_is_refused(run):
    with pytest.raises(ArgumentError, match="'best' or 'last'"):
        odegrad.load(run.path, "newest")


def test_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no run folder"):
        odegrad.load(tmp_path / "none")
