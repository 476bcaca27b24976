"""The kernel for augmentation, against the augmentation of training: the same bits from the same draws."""

import numpy as np
import pytest
from cuda_on_cpu import Guarded
from cuda_on_device import PLACES, kernels_at
from odegrad.engine import random
from odegrad.engine.cuda import augment as cuda
from odegrad.engine.errors import ArgumentError
from odegrad.train.data import augment, augmentation
from odegrad.train.data.augmentation import draw_changes

KEY = random.key(11)
OPTIONS = {
    "nothing": {"flip": False, "crop_pad": 0, "erase": 0.0},
    "flip": {"flip": True, "crop_pad": 0, "erase": 0.0},
    "crop": {"flip": False, "crop_pad": 3, "erase": 0.0},
    "erase": {"flip": False, "crop_pad": 0, "erase": 0.7},
    "all": {"flip": True, "crop_pad": 4, "erase": 0.5},
}


@pytest.fixture(autouse=True, params=PLACES)
def kernels(request, monkeypatch):
    kernels_at(request.param, monkeypatch)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", [(9, 7, 5, 3), (4, 8, 8, 1), (1, 3, 4, 65)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_the_images_are_those_of_training(rng, dtype, shape, options):
    images = rng.standard_normal(shape).astype(dtype)
    out = Guarded(shape, dtype, offset=1)
    assert cuda.augment(images, draw_changes(shape, KEY, **options), out=out.array) is out.array
    np.testing.assert_array_equal(out.check(), augment(images, KEY, **options))


def test_training_changes_images_on_a_device_by_it(rng, fake_cupy, monkeypatch):
    monkeypatch.setattr(augmentation, "fits_augment", cuda.fits_augment)
    images = rng.standard_normal((5, 8, 8, 3))
    found = augment(fake_cupy.asarray(images), KEY, **OPTIONS["all"])
    np.testing.assert_array_equal(found.get(), augment(images, KEY, **OPTIONS["all"]))


def test_a_device_without_the_kernel_changes_them_alike(rng, fake_cupy):
    images = rng.standard_normal((5, 8, 8, 3))
    found = augment(fake_cupy.asarray(images), KEY, **OPTIONS["all"])
    np.testing.assert_array_equal(found.get(), augment(images, KEY, **OPTIONS["all"]))


def test_more_blocks_than_are_launched_at_once(rng, monkeypatch):
    monkeypatch.setattr(cuda, "MOST_BLOCKS", 2)
    images = rng.standard_normal((30, 8, 8, 3))
    changes = draw_changes(images.shape, KEY, **OPTIONS["all"])
    np.testing.assert_array_equal(cuda.augment(images, changes), augment(images, KEY, **OPTIONS["all"]))


@pytest.mark.parametrize(
    "changes, got",
    [(np.zeros((3, 7)), r"float64 \(3, 7\)"), (np.zeros((2, 7), np.int32), r"int32 \(2, 7\)")],
    ids=["dtype", "length"],
)
def test_another_table_is_refused(changes, got):
    with pytest.raises(ArgumentError, match=rf"must be int32 \(3, 7\), row-major; got {got}"):
        cuda.augment(np.zeros((3, 4, 4, 1)), changes)


def test_what_fits(monkeypatch):
    x = np.ones((2, 4, 4, 3), np.float32)
    assert cuda.fits_augment(x) and not cuda.fits_augment(x[:, ::2]) and not cuda.fits_augment(x[:0])
    assert not cuda.fits_augment(x.astype(np.float16)) and not cuda.fits_augment(x[0])
    monkeypatch.setattr(cuda, "MOST_VALUES", x.size)
    assert not cuda.fits_augment(x)
