"""Scores of a checkpoint: computed again by hand from the predictions."""

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError
from odegrad.train.data import load_dataset
from odegrad.train.evaluation import evaluate
from odegrad.train.predictor import load
from training import Silent, tiny, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tiny(tmp_path_factory.mktemp("run")))[0]


def by_hand(run, which, batch_size, limit):
    """(accuracy, mean cross-entropy) from probabilities."""
    data = load_dataset("mnist", run.path.parent / "data")
    labels = data.test_labels[:limit]
    probabilities = load(run.path, which).predict_proba(data.test_images[:limit], batch_size)
    chosen = probabilities[np.arange(len(labels)), labels]
    return (probabilities.argmax(axis=1) == labels).mean(), -np.log(chosen).mean()


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.parametrize(("batch_size", "limit"), [(16, 16), (1, 16), (256, 16), (5, 11)])
def test_scores_follow_from_the_probabilities(run, which, batch_size, limit):
    found = evaluate(run, Silent(), which, batch_size, limit)
    expected = by_hand(run, which, batch_size, limit)
    assert (found.test_accuracy, found.loss) == pytest.approx(expected, abs=1e-12)


def test_the_whole_test_part_is_scored_unless_limited(run):
    assert evaluate(run, Silent()).images == 16


def test_more_than_there_is_is_all_there_is(run):
    assert evaluate(run, Silent(), limit=1000).images == 16


def test_the_configured_batch_size_is_used_unless_given(run):
    assert evaluate(run, Silent()).batch_size == 16


def test_evaluations_are_a_mean_over_solves(run):
    """dopri5: two evaluations to begin with and six an attempted step, for each of the solves."""
    assert evaluate(run, Silent(), batch_size=16).nfe % 6 == 2


def test_the_epoch_of_the_checkpoint_is_reported(run):
    assert evaluate(run, Silent()).epoch == 2


@pytest.mark.parametrize(("batch_size", "limit"), [(-1, 0), (0, -1)])
def test_negative_numbers_are_refused(run, batch_size, limit):
    with pytest.raises(ArgumentError, match="must not be negative"):
        evaluate(run, Silent(), "last", batch_size, limit)
