"""Images to predict, from the files that people have."""

from __future__ import annotations

import gzip
import io
import os
import pickle

import data_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odegrad.engine.errors import ArgumentError, DataError
from odegrad.train.data import read_images
from PIL import Image

rng = np.random.default_rng(1)
GREY = rng.integers(0, 256, (5, 4, 1), dtype=np.uint8)
COLOUR = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)


def picture(image, format="PNG", mode=None, **options):
    packed = io.BytesIO()
    opened = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    (opened.convert(mode) if mode else opened).save(packed, format, **options)
    return packed.getvalue()


def npy(array):
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def read(tmp_path, name, content, shape):
    path = tmp_path / name
    path.write_bytes(content)
    return read_images([path], shape)


PAIR = np.stack([GREY, 255 - GREY])
LOSSLESS = [
    ("a.png", picture(GREY), GREY[None]),
    ("a.PNG", picture(COLOUR), COLOUR[None]),
    ("one.npy", npy(GREY), GREY[None]),
    ("flat.npy", npy(GREY[..., 0]), GREY[None]),
    ("many.npy", npy(PAIR), PAIR),
    ("stack.npy", npy(PAIR[..., 0]), PAIR),
    ("fortran.npy", npy(np.asfortranarray(COLOUR)), COLOUR[None]),
    ("x.gz", gzip.compress(data_files.idx_bytes(PAIR[..., 0])), PAIR),
    ("x-ubyte", data_files.idx_bytes(PAIR[..., 0]), PAIR),
]


@pytest.mark.parametrize(("name", "content", "expected"), LOSSLESS, ids=[case[0] for case in LOSSLESS])
def test_images_read_back(name, content, expected, tmp_path):
    got = read(tmp_path, name, content, expected.shape[1:])
    assert got.dtype == np.uint8 and np.array_equal(got, expected)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg"])
def test_jpeg_is_read(name, tmp_path):
    flat = np.full((8, 8, 3), 90, np.uint8)
    assert np.abs(read(tmp_path, name, picture(flat, "JPEG"), (8, 8, 3)).astype(int) - 90).max() <= 2


def test_files_come_in_the_order_given(tmp_path):
    (tmp_path / "b.png").write_bytes(picture(GREY))
    (tmp_path / "a.npy").write_bytes(npy(PAIR))
    got = read_images([tmp_path / "b.png", str(tmp_path / "a.npy")], (5, 4, 1))
    assert np.array_equal(got, np.concatenate([GREY[None], PAIR]))


@pytest.mark.parametrize("shape", [(5, 4, 1), (5, 4, 3)])
def test_grey_and_colour_pictures_become_what_is_asked_for(shape, tmp_path):
    equal_channels = np.repeat(GREY, 3, axis=2)
    for image in (GREY, equal_channels):
        got = read(tmp_path, "a.png", picture(image), shape)
        assert np.array_equal(got[0], np.broadcast_to(GREY, shape))


WRONG = [
    ("a.png", picture(np.zeros((6, 4, 3), np.uint8)), "4 wide and 5 high; got 4 x 6"),
    ("a.png", picture(COLOUR, mode="RGBA"), "mode RGBA"),
    ("a.png", picture(COLOUR, transparency=(0, 0, 0)), "without transparency"),
    ("a.png", picture(COLOUR)[:40], "PNG or JPEG"),
    ("a.png", picture(COLOUR, "GIF"), "PNG or JPEG"),
    ("a.png", b"", "PNG or JPEG"),
    ("a.npy", npy(COLOUR / 255), "got float64"),
    ("a.npy", npy(COLOUR[:, :3]), r"\(5, 4, 3\); got an array \(5, 3, 3\)"),
    ("a.npy", npy(np.zeros((0, 5, 4, 3), np.uint8)), "npy|got an array"),
    ("a.npy", npy(COLOUR)[:-1], "npy"),
    ("a.npy", npy(COLOUR).replace(b"(5, 4, 3)", b"(9999999999, 4, 3)"), "npy"),
    ("a.gz", gzip.compress(b"hello", mtime=0), "idx"),
    ("a.bmp", b"", "expected a file .png"),
]


@pytest.mark.parametrize(("name", "content", "word"), WRONG, ids=lambda value: str(value)[:30])
def test_other_file_is_refused_by_name(name, content, word, tmp_path):
    with pytest.raises(DataError, match=f"{name}: .*({word})"):
        read(tmp_path, name, content, (5, 4, 3))


def test_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", COLOUR)
    with pytest.raises(DataError, match="npz archive"):
        read(tmp_path, "a.npy", (tmp_path / "a.npz").read_bytes(), (5, 4, 3))


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickle_named_npy_runs_nothing(tmp_path):
    target = tmp_path / "made by the pickle"
    with pytest.raises(DataError, match="a.npy"):
        read(tmp_path, "a.npy", pickle.dumps(RunsCode(target)), (5, 4, 3))
    assert not target.exists()


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="gone.png.*No such file"):
        read_images([tmp_path / "gone.png"], (5, 4, 3))


def test_no_files_are_refused():
    with pytest.raises(ArgumentError, match="at least one"):
        read_images([], (5, 4, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.mark.parametrize("case", LOSSLESS, ids=[case[0] for case in LOSSLESS])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_gives_images_or_a_data_error(case, folder, data):
    name, content, expected = case
    damaged = bytearray(content)
    damaged[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = damaged[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    try:
        got = read(folder, name, bytes(damaged), expected.shape[1:])
        assert got.dtype == np.uint8 and got.shape[1:] == expected.shape[1:]
    except DataError as error:
        assert name in str(error)
