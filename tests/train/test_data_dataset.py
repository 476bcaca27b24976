"""The checks of `Dataset`, the split for validation, and the digits that ship with the package."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from odegrad.engine import random
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, DataError
from odegrad.train.data import Dataset, load_dataset, split_validation


def make(**changes):
    """A valid data set of 20 + 5 images whose pixels are all the image's number, with some fields changed."""
    numbers = np.arange(20, dtype=np.uint8)
    fields = {
        "name": "toy",
        "train_images": np.broadcast_to(numbers[:, None, None, None], (20, 4, 3, 1)).copy(),
        "train_labels": np.arange(20) % 3,
        "test_images": np.zeros((5, 4, 3, 1), np.uint8),
        "test_labels": np.zeros(5, np.int64),
        "classes": ("a", "b", "c"),
        "allows_flip": False,
    }
    return Dataset(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_images": np.zeros((20, 4, 3, 1))},
            r"training part: images must be uint8.*got float64 \(20, 4, 3, 1\)",
        ),
        ({"train_images": np.zeros((20, 4, 3), np.uint8)}, r"images must be uint8.*got uint8 \(20, 4, 3\)"),
        ({"train_images": [[1]]}, "images must be uint8.*got list"),
        ({"train_images": np.zeros((20, 4, 3, 2), np.uint8)}, "1 or 3 channels"),
        ({"train_images": np.zeros((19, 4, 3, 1), np.uint8)}, "19 images and 20 labels"),
        ({"test_images": np.zeros((5, 4, 4, 1), np.uint8)}, r"\(4, 3, 1\) and test images \(4, 4, 1\)"),
        (
            {"test_images": np.zeros((0, 4, 3, 1), np.uint8), "test_labels": np.zeros(0, int)},
            "test part.*at least one",
        ),
        ({"test_images": np.zeros((5, 0, 3, 1), np.uint8)}, "at least one image and one pixel"),
        ({"test_labels": np.zeros(5, np.int32)}, r"labels must be int64 \(N,\); got int32 \(5,\)"),
        ({"test_labels": np.zeros((5, 1), np.int64)}, "labels must be int64"),
        ({"test_labels": np.array([0, 1, 3, 0, 0])}, r"in \[0, 3\); got 3 at index 2"),
        ({"test_labels": np.array([0, -1, 3, 0, 0])}, "got -1 at index 1"),
        ({"classes": ()}, "classes"),
        ({"classes": (1, 2, 3)}, "classes"),
    ],
)
def test_wrong_field_is_refused(changes, message):
    with pytest.raises(DataError, match=f"toy.*{message}"):
        make(**changes)


def test_all_problems_of_a_part_come_in_one_message():
    with pytest.raises(DataError, match="images must be uint8.*; labels must be int64"):
        make(train_images=None, train_labels=None)


def test_image_shape_and_colour():
    dataset = make()
    assert (dataset.image_shape, dataset.is_colour) == ((4, 3, 1), False)


# validation


@pytest.mark.parametrize(("held_out", "count"), [(0, 0), (1, 1), (19, 19), (0.0, 0), (0.25, 5), (0.1, 2)])
def test_split_has_the_size_asked_for(held_out, count):
    training, validation = split_validation(make(), held_out, random.key(0))
    assert (len(training.labels), len(validation.labels)) == (20 - count, count)


def test_split_parts_the_training_images():
    training, validation = split_validation(make(), 7, random.key(0))
    numbers = np.concatenate([training.images[:, 0, 0, 0], validation.images[:, 0, 0, 0]])
    assert sorted(numbers) == list(range(20))


def test_split_keeps_the_original_order():
    for part in split_validation(make(), 7, random.key(0)):
        assert np.all(np.diff(part.images[:, 0, 0, 0].astype(int)) > 0)


def test_split_keeps_image_and_label_together():
    for part in split_validation(make(), 7, random.key(0)):
        assert np.array_equal(part.images[:, 0, 0, 0] % 3, part.labels)


@pytest.mark.parametrize(("seed", "is_same"), [(0, True), (1, False)])
def test_split_follows_from_the_key(seed, is_same):
    first = split_validation(make(), 7, random.key(0))[1]
    second = split_validation(make(), 7, random.key(seed))[1]
    assert np.array_equal(first.images, second.images) is is_same


@pytest.mark.parametrize("held_out", [-1, 20, 1.0, -0.1, 0.99, float("nan")])
def test_split_that_leaves_nothing_is_refused(held_out):
    with pytest.raises(ArgumentError, match="held_out"):
        split_validation(make(), held_out, random.key(0))


@pytest.mark.parametrize("held_out", ["0.1", None, True])
def test_split_by_another_type_is_refused(held_out):
    with pytest.raises(ArgumentTypeError, match="held_out"):
        split_validation(make(), held_out, random.key(0))


# digits


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_digits_have_the_published_size(digits):
    assert (digits.train_images.shape, digits.test_images.shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))


def test_digits_have_the_published_counts(digits):
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_have_the_published_pixels(digits):
    """The counts of ink in the original order, as one digest of the bytes of the UCI file's 64 columns."""
    images = np.concatenate([digits.train_images, digits.test_images])
    counts = np.rint(images * (16 / 255)).astype(np.uint8)
    assert hashlib.sha256(counts.tobytes()).hexdigest() == DIGEST


def test_first_digit_is_the_published_zero(digits):
    row = [0, 0, 5, 13, 9, 1, 0, 0]
    assert np.rint(digits.train_images[0, 0, :, 0] / 255 * 16).tolist() == row


def test_digits_span_black_to_white(digits):
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 255)


DIGEST = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
