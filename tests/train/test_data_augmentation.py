"""Augmentation: each change is one that the description allows, and its frequencies are those it promises."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad.engine import random
from odegrad.engine.errors import ArgumentError
from odegrad.train.data import augment

KEY = random.key(5)


@pytest.fixture(scope="module")
def images():
    """Every pixel differs from all others and from 0."""
    return np.arange(1, 1 + 400 * 8 * 6 * 3, dtype=np.float64).reshape(400, 8, 6, 3)


def possible_crops(image, pad):
    """All cuts of one padded image, by loops."""
    height, width, channels = image.shape
    padded = np.zeros((height + 2 * pad, width + 2 * pad, channels))
    padded[pad : pad + height, pad : pad + width] = image
    return {
        (top, left): padded[top : top + height, left : left + width]
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
    }


def found_crops(images, augmented, pad):
    """(top, left, is flipped) of each augmented image; fails if one is no cut of its image."""
    found = []
    for image, result in zip(images, augmented, strict=True):
        candidates = [
            (*place, is_flipped)
            for is_flipped in (False, True)
            for place, cut in possible_crops(image[:, ::-1] if is_flipped else image, pad).items()
            if np.array_equal(cut, result)
        ]
        assert len(candidates) == 1
        found.append(candidates[0])
    return np.array(found)


def test_nothing_asked_for_changes_nothing(images):
    assert np.array_equal(augment(images, KEY, flip=False, crop_pad=0, erase=0), images)


@pytest.mark.parametrize("flip", [False, True])
def test_each_result_is_a_cut_of_its_own_image(images, flip):
    found = found_crops(images[:60], augment(images[:60], KEY, flip=flip, crop_pad=2, erase=0), 2)
    assert found[:, 2].any() == flip


def test_half_of_the_images_are_flipped(images):
    flipped = augment(images, KEY, flip=True, crop_pad=0, erase=0)[:, 0, 0, 0] != images[:, 0, 0, 0]
    assert abs(flipped.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(images))


def test_every_place_of_a_crop_is_used(images):
    found = found_crops(images[:200], augment(images[:200], KEY, flip=False, crop_pad=1, erase=0), 1)
    assert len(np.unique(found[:, :2], axis=0)) == 9


def erased_boxes(images, **options):
    """(top, left, height, width) of the box of zeros in each image that has one, and nothing but a box."""
    augmented = augment(images, KEY, flip=False, crop_pad=0, **options)
    boxes = []
    for image, result in zip(images, augmented, strict=True):
        is_zero = result[..., 0] == 0
        if is_zero.any():
            rows, columns = np.flatnonzero(is_zero.any(1)), np.flatnonzero(is_zero.any(0))
            assert is_zero[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert not result[is_zero].any()
            boxes.append((rows[0], columns[0], len(rows), len(columns)))
        assert np.array_equal(result[~is_zero], image[~is_zero])
    return np.array(boxes)


def test_erased_pixels_form_one_box(images):
    assert len(erased_boxes(images, erase=1.0)) == len(images)


def test_erasing_has_its_probability(images):
    share = len(erased_boxes(images, erase=0.3)) / len(images)
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / len(images))


def test_erased_area_has_its_range():
    images = np.ones((400, 40, 40, 1))
    boxes = erased_boxes(images, erase=1.0)
    area = boxes[:, 2] * boxes[:, 3] / 1600
    assert 0.015 < area.min() < 0.05 and 0.28 < area.max() < 0.36  # whole rows and columns: within rounding
    assert abs(area.mean() - 0.175) < 5 * 0.31 / np.sqrt(12 * 400)


def test_erased_box_may_touch_each_edge():
    boxes = erased_boxes(np.ones((400, 12, 12, 1)), erase=1.0)
    first, size = boxes[:, :2], boxes[:, 2:]
    is_inside = (size < 12).all(axis=1)  # a box as high or wide as the image touches two edges anyway
    assert first[is_inside].min(axis=0).tolist() == [0, 0]
    assert (first + size)[is_inside].max(axis=0).tolist() == [12, 12]


@pytest.mark.parametrize("shape", [(5, 1, 1, 3), (3, 2, 9, 1)])
def test_tiny_images_keep_their_shape(shape):
    assert augment(np.ones(shape), KEY, flip=True, crop_pad=4, erase=1.0).shape == shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(images, dtype):
    assert augment(images[:5].astype(dtype), KEY, flip=True).dtype == dtype


def test_input_is_not_written_to(images):
    before = images[:20].copy()
    augment(images[:20], KEY, flip=True, erase=1.0)
    assert np.array_equal(images[:20], before)


@pytest.mark.parametrize(("seed", "is_same"), [(5, True), (6, False)])
def test_changes_follow_from_the_key(images, seed, is_same):
    other = augment(images, random.key(seed), flip=True)
    assert np.array_equal(augment(images, KEY, flip=True), other) is is_same


@pytest.mark.parametrize(
    ("images", "options"),
    [
        (np.ones((2, 4, 4, 3), np.uint8), {}),
        (np.ones((4, 4, 3)), {}),
        (np.ones((2, 4, 4, 3)), {"crop_pad": -1}),
        (np.ones((2, 4, 4, 3)), {"erase": 1.5}),
    ],
    ids=["bytes", "three axes", "pad", "probability"],
)
def test_wrong_argument_is_refused(images, options):
    with pytest.raises(ArgumentError):
        augment(images, KEY, flip=True, **options)
