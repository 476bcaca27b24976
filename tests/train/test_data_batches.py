"""Batches of an epoch, channel statistics and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad.engine import random
from odegrad.engine.errors import ArgumentError, ArgumentTypeError
from odegrad.train.data import batches, batches_per_epoch, channel_statistics, normalise

KEY = random.key(3)


def epoch_of(n, batch_size, epoch=0, **options):
    return [batch.tolist() for batch in batches(n, batch_size, KEY, epoch=epoch, **options)]


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (10, 5, [5, 5]),
        (11, 5, [5, 5]),  # one row left: dropped
        (12, 5, [5, 5, 2]),
        (3, 5, [3]),
        (3, 1, [1, 1, 1]),  # whole batches of one row are what was asked for
    ],
)
def test_last_batch_is_kept_unless_it_has_one_row(n, batch_size, sizes):
    assert [len(batch) for batch in epoch_of(n, batch_size)] == sizes
    assert batches_per_epoch(n, batch_size) == len(sizes)


def test_epoch_visits_each_row_once():
    rows = sum(epoch_of(103, 10), [])
    assert sorted(rows) == list(range(103))


def test_epochs_have_different_orders():
    assert epoch_of(50, 10, epoch=0) != epoch_of(50, 10, epoch=1)


@pytest.mark.parametrize("start", [0, 1, 3, 6])
def test_resumed_epoch_goes_on_where_it_stopped(start):
    assert epoch_of(52, 10, epoch=7, start=start) == epoch_of(52, 10, epoch=7)[start:]


@pytest.mark.parametrize(("n", "batch_size"), [(0, 4), (1, 4), (5, 0), (5, -1)])
def test_no_batch_is_an_error(n, batch_size):
    with pytest.raises(ArgumentError):
        batches(n, batch_size, KEY, epoch=0)


@pytest.mark.parametrize("start", [-1, 4])
def test_start_outside_the_epoch_is_an_error(start):
    with pytest.raises(ArgumentError, match="start"):
        batches(30, 10, KEY, epoch=0, start=start)


@pytest.fixture(params=[(3000, 4, 5, 3), (1, 1, 2, 1)], ids=str)
def images(request):
    return np.random.default_rng(0).integers(0, 256, request.param, dtype=np.uint8)


def test_statistics_are_those_of_float64(images):
    mean, std = channel_statistics(images)
    exact = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(std, exact.std(axis=(0, 1, 2)), rtol=1e-13)


def test_statistics_of_a_view_are_the_same(images):
    mirrored = images[:, :, ::-1]
    assert np.array_equal(channel_statistics(mirrored), channel_statistics(images))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalised_images_follow_the_formula(images, dtype):
    mean, std = np.array([0.4, 0.5, 0.3])[: images.shape[3]], np.array([0.2, 0.3, 0.1])[: images.shape[3]]
    got = normalise(images, mean, std, dtype)
    expected = (images.astype(np.float64) / 255 - mean) / std
    assert got.dtype == dtype
    assert np.abs(got - expected).max() <= 4 * np.finfo(dtype).eps * np.max(1 / std)


def test_normalised_training_images_have_mean_0_and_std_1(images):
    if len(images) == 1:
        images = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)
    normalised = normalise(images, *channel_statistics(images), np.float64)
    assert np.abs(normalised.mean(axis=(0, 1, 2))).max() < 1e-12
    assert np.abs(normalised.std(axis=(0, 1, 2)) - 1).max() < 1e-12


@pytest.mark.parametrize(
    ("mean", "std", "word"),
    [
        ([0.5], [0.0], "positive"),
        ([np.nan], [1.0], "finite"),
        ([0.5, 0.5], [1.0], "shape"),
        ([0.5], [-1.0], "positive"),
    ],
)
def test_normalise_refuses_other_statistics(mean, std, word):
    with pytest.raises(ArgumentError, match=word):
        normalise(np.zeros((1, 2, 2, 1), np.uint8), np.array(mean), np.array(std))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (np.zeros((1, 2, 2, 1)), ArgumentTypeError),
        ([[0]], ArgumentTypeError),
        (np.zeros((2, 2, 1), np.uint8), ArgumentError),
        (np.zeros((0, 2, 2, 1), np.uint8), ArgumentError),
    ],
    ids=["float", "list", "three axes", "empty"],
)
def test_statistics_refuse_what_is_not_images(wrong, error):
    with pytest.raises(error, match="`images`"):
        channel_statistics(wrong)
