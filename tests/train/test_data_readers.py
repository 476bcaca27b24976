"""Readers of published files: what was written comes back, and damage gives one DataError."""

from __future__ import annotations

import functools
import gzip
import io
import tarfile
import zipfile

import data_files
import h5py
import numpy as np
import pytest
from data_files import FORMATS, N_CLASSES, draw_parts
from hypothesis import given, settings
from hypothesis import strategies as st
from odegrad.engine.errors import DataError
from odegrad.train.data import Dataset, load_dataset
from odegrad.train.data import cifar as cifar_module
from odegrad.train.data import idx as idx_module
from odegrad.train.data import tiny_imagenet as tiny_module
from scipy.io import savemat

ALL_FORMATS = pytest.mark.parametrize("form", FORMATS)


def write_and_load(form, folder, train, test):
    name, write = FORMATS[form]
    write(folder, train, test)
    return load_dataset(name, folder, download=False)


def assert_fails(name, folder, *words):
    """Loading fails with one DataError that mentions every word."""
    with pytest.raises(DataError) as caught:
        load_dataset(name, folder, download=False)
    for word in words:
        assert word in str(caught.value)


@ALL_FORMATS
def test_images_read_back(form, tmp_path):
    train, test = draw_parts(FORMATS[form][0])
    dataset = write_and_load(form, tmp_path, train, test)
    tolerance = (
        3 if "tiny" in form else 0
    )  # JPEG keeps a flat image to within rounding of its colour transform
    for expected, got in ((train[0], dataset.train_images), (test[0], dataset.test_images)):
        assert got.shape == expected.shape
        assert np.abs(got.astype(int) - expected).max() <= tolerance


@ALL_FORMATS
def test_labels_read_back(form, tmp_path):
    train, test = draw_parts(FORMATS[form][0])
    dataset = write_and_load(form, tmp_path, train, test)
    assert dataset.train_labels.tolist() == train[1].tolist()
    assert dataset.test_labels.tolist() == test[1].tolist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist", False),
        ("svhn", False),
        ("fashion-mnist", True),
        ("cifar10", True),
        ("cifar100", True),
        ("tiny-imagenet", True),
    ],
)
def test_only_digits_must_not_be_flipped(name, expected, tmp_path):
    form = next(form for form, (of, _) in FORMATS.items() if of == name)
    assert write_and_load(form, tmp_path, *draw_parts(name)).allows_flip is expected


@ALL_FORMATS
def test_classes_match_the_labels(form, tmp_path):
    name = FORMATS[form][0]
    classes = write_and_load(form, tmp_path, *draw_parts(name)).classes
    assert len(set(classes)) == N_CLASSES[name]


def test_tiny_imagenet_classes_have_their_names(tmp_path):
    dataset = write_and_load("tiny-imagenet-folder", tmp_path, *draw_parts("tiny-imagenet"))
    assert dataset.classes == tuple(f"name of {wnid}, and more" for wnid in data_files.WNIDS)


def test_cifar100_label_names_are_alphabetical(tmp_path):
    classes = write_and_load("cifar100-binary-folder", tmp_path, *draw_parts("cifar100")).classes
    assert list(classes) == sorted(classes)


# damage


@functools.cache
def written(form, root):
    """The bytes of the files of a valid data set, by their paths below its folder."""
    folder = root / form
    folder.mkdir()
    FORMATS[form][1](folder, *draw_parts(FORMATS[form][0]))
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("published")


@st.composite
def damaged(draw, files):
    """`files` with one of them cut short, with flipped bits, or with a slice replaced."""
    name = draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    near_start = st.integers(0, min(300, len(content) - 1))
    position = draw(st.one_of(near_start, st.integers(0, len(content) - 1)))
    kind = draw(st.sampled_from(("cut", "flip", "replace")))
    if kind == "cut":
        content = content[:position]
    elif kind == "flip":
        content[position] ^= 1 << draw(st.integers(0, 7))
    else:
        content[position : position + draw(st.integers(0, 40))] = draw(st.binary(max_size=40))
    return name, bytes(content)


@ALL_FORMATS
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_gives_a_data_set_or_a_data_error(form, root, data):
    files = written(form, root)
    name, content = data.draw(damaged(files))
    path = root / form / name
    path.write_bytes(content)
    try:
        assert isinstance(load_dataset(FORMATS[form][0], root / form, download=False), Dataset)
    except DataError as error:
        assert str(root / form) in str(error)
    finally:
        path.write_bytes(files[name])


@ALL_FORMATS
def test_empty_file_is_named(form, tmp_path, root):
    files = written(form, root)
    name = next(name for name in sorted(files) if "words.txt" not in name)
    data_files.write_files(tmp_path, {**files, name: b""})
    assert_fails(FORMATS[form][0], tmp_path, name)


@ALL_FORMATS
def test_cut_file_is_named(form, tmp_path, root):
    files = written(form, root)
    name = max(files, key=lambda name: (len(files[name]), name))
    data_files.write_files(tmp_path, {**files, name: files[name][:-5]})
    assert_fails(FORMATS[form][0], tmp_path, name)


@pytest.mark.parametrize("form", [f for f in FORMATS if "tiny" not in f and "svhn" not in f])
def test_label_out_of_range_is_refused(form, tmp_path):
    train, test = draw_parts(FORMATS[form][0])
    n_classes = N_CLASSES[FORMATS[form][0]]
    labels = train[1].copy()
    labels[3] = n_classes
    FORMATS[form][1](tmp_path, (train[0], labels), test)
    assert_fails(FORMATS[form][0], tmp_path, f"labels must be in [0, {n_classes}); got {n_classes}")


# idx


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\0\0\x08\x01" + bytes(4), "begins 00 00 08 03"),
        (b"\0\0\x0d\x03" + bytes(12), "begins 00 00 08 03"),
        (b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff1", "in its header; got 1"),
        (data_files.idx_bytes(np.zeros((10, 28, 27))), "training images are (28, 27, 1)"),
        (data_files.idx_bytes(np.zeros((9, 28, 28))), "got 9 images and 10 labels"),
        (data_files.idx_bytes(np.zeros((0, 28, 28))), "at least one image"),
    ],
    ids=["one axis", "float type", "huge shape", "other size", "count", "no images"],
)
def test_idx_images_of_another_shape_are_refused(content, word, tmp_path):
    data_files.write_idx_set(tmp_path, *draw_parts("mnist"))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    assert_fails("mnist", tmp_path, word)


def test_gzip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(idx_module, "_LIMIT", 10_000)
    data_files.write_idx_set(tmp_path, *draw_parts("mnist"))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    assert_fails("mnist", tmp_path, "train-images", "more than the 10000 bytes allowed")


# CIFAR


def test_batches_of_unequal_size_are_refused(tmp_path, root):
    files = written("cifar10-binary-folder", root)
    name = "cifar-10-batches-bin/data_batch_3.bin"
    data_files.write_files(tmp_path, {**files, name: files[name][: 1 + 3072]})
    assert_fails("cifar10", tmp_path, "batches of one size", "[2, 2, 1, 2, 2]")


def test_archive_that_lacks_a_member_is_refused(tmp_path):
    files = data_files.cifar_files("cifar10", "binary", *draw_parts("cifar10"))
    del files["cifar-10-batches-bin/data_batch_4.bin"]
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(data_files.tar_gz(files))
    assert_fails("cifar10", tmp_path, "lacks cifar-10-batches-bin/data_batch_4.bin")


def test_archive_of_too_many_bytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_module, "_LIMIT", 100_000)
    files = data_files.cifar_files("cifar10", "binary", *draw_parts("cifar10"))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(data_files.tar_gz({"bomb": bytes(200_000), **files}))
    assert_fails("cifar10", tmp_path, "more than the 100000 bytes allowed")


def test_checksum_of_an_archive_is_verified(tmp_path):
    archive = data_files.tar_gz(data_files.cifar_files("cifar10", "binary", *draw_parts("cifar10")))
    padded = bytearray(gzip.compress(gzip.decompress(archive) + bytes(3 << 20)))  # far behind the last member
    padded[-8] ^= 1
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(padded)
    assert_fails("cifar10", tmp_path, "CRC check failed")


def test_archive_writes_nothing(tmp_path):
    files = data_files.cifar_files("cifar10", "binary", *draw_parts("cifar10"))
    folder = tmp_path / "inner"
    folder.mkdir()
    hostile = {"../escaped": b"x", str(tmp_path / "absolute"): b"x", **files}
    (folder / "cifar-10-binary.tar.gz").write_bytes(data_files.tar_gz(hostile))
    load_dataset("cifar10", folder, download=False)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "inner"]


def test_link_in_the_place_of_a_member_is_not_followed(tmp_path):
    files = data_files.cifar_files("cifar10", "binary", *draw_parts("cifar10"))
    linked = "cifar-10-batches-bin/test_batch.bin"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if name == linked:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(packed.getvalue())
    assert_fails("cifar10", tmp_path, f"lacks {linked}")


# SVHN


def svhn_variables(**changes):
    images, labels = draw_parts("svhn")[0]
    return {"X": np.moveaxis(images, 0, -1), "y": np.where(labels == 0, 10, labels)[:, None], **changes}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"X": np.zeros((32, 32, 3, 10))}, "got X float64 (32, 32, 3, 10)"),
        ({"X": np.zeros((32, 31, 3, 10), np.uint8)}, "got X uint8 (32, 31, 3, 10)"),
        ({"X": np.array(["text"])}, "got y"),
        ({"y": np.full((10, 1), 0)}, "from 1 to 10; got 0"),
        ({"y": np.full((10, 1), 11)}, "from 1 to 10; got 11"),
        ({"y": np.full((10, 1), 1.5)}, "from 1 to 10; got 1.5"),
        ({"y": np.full((10, 1), np.nan)}, "from 1 to 10; got nan"),
        ({"y": np.full((9, 1), 1)}, "10 images and 9 labels"),
        ({"y": {"a": 1}}, "got X uint8"),
    ],
    ids=["float X", "other size", "text", "label 0", "label 11", "label 1.5", "label NaN", "count", "struct"],
)
def test_other_variables_in_a_mat_file_are_refused(changes, word, tmp_path):
    data_files.write_svhn(tmp_path, *draw_parts("svhn"))
    savemat(tmp_path / "train_32x32.mat", svhn_variables(**changes))
    assert_fails("svhn", tmp_path, "train_32x32.mat", word)


def test_mat_file_without_y_is_refused(tmp_path):
    data_files.write_svhn(tmp_path, *draw_parts("svhn"))
    savemat(tmp_path / "test_32x32.mat", {"X": svhn_variables()["X"]})
    assert_fails("svhn", tmp_path, "test_32x32.mat", "got X uint8")


def test_mat_file_of_the_hdf5_kind_is_refused(tmp_path):
    data_files.write_svhn(tmp_path, *draw_parts("svhn"))
    with h5py.File(tmp_path / "train_32x32.mat", "w") as file:
        file["X"] = svhn_variables()["X"]
    assert_fails("svhn", tmp_path, "train_32x32.mat")


# Tiny-ImageNet


def tiny_changed(tmp_path, name, content):
    files = data_files.tiny_files(*draw_parts("tiny-imagenet"))
    data_files.write_files(tmp_path, {**files, f"tiny-imagenet-200/{name}": content})


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("wnids.txt", b"../../../../etc\n", "'../../../../etc'"),
        ("wnids.txt", b"n01443537\nn01443537\n", "different WordNet ids"),
        ("wnids.txt", b"n01443537\nn99999999\n", "train/n99999999/images"),
        ("wnids.txt", b"\xff\xfe", "UTF-8"),
        ("val/val_annotations.txt", b"../../secret.JPEG\tn01443537\t0\n", "line 1"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn99999999\t0\n", "line 1"),
        ("val/val_annotations.txt", b"val_77.JPEG\tn01443537\t0\n", "val_77.JPEG"),
        ("val/val_annotations.txt", b"", "at least one image"),
        ("val/images/val_0.JPEG", data_files.jpeg(np.zeros((32, 64, 3), np.uint8)), "64 x 32 pixels"),
        ("val/images/val_0.JPEG", b"GIF89a" + bytes(50), "val_0.JPEG"),
    ],
    ids=[
        "wnid climbs",
        "wnid twice",
        "no images",
        "not text",
        "name climbs",
        "unknown class",
        "no file",
        "no lines",
        "size",
        "not JPEG",
    ],
)
def test_damaged_tiny_imagenet_is_refused(name, content, word, tmp_path):
    tiny_changed(tmp_path, name, content)
    assert_fails("tiny-imagenet", tmp_path, word)


def test_training_images_come_in_the_order_of_their_numbers(tmp_path):
    images, labels = draw_parts("tiny-imagenet")[0]
    files = data_files.tiny_files((images, labels), (images[:4], labels[:4]))
    white, folder = (
        np.full((64, 64, 3), 255, np.uint8),
        f"tiny-imagenet-200/train/{data_files.WNIDS[0]}/images",
    )
    files[f"{folder}/{data_files.WNIDS[0]}_10.JPEG"] = data_files.jpeg(white)  # as text, 10 comes before 2
    data_files.write_files(tmp_path, files)
    dataset = load_dataset("tiny-imagenet", tmp_path, download=False)
    n_first = int((labels == 0).sum())
    assert dataset.train_images[n_first].min() == 255


def test_grey_jpeg_becomes_colour(tmp_path):
    tiny_changed(tmp_path, "val/images/val_0.JPEG", data_files.jpeg(np.full((64, 64), 77, np.uint8)))
    assert np.all(load_dataset("tiny-imagenet", tmp_path, download=False).test_images[0] == 77)


def test_zip_member_that_unpacks_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_module, "_TEXT_LIMIT", 1000)
    files = data_files.tiny_files(*draw_parts("tiny-imagenet"))
    files["tiny-imagenet-200/wnids.txt"] = bytes(100_000)
    with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert_fails("tiny-imagenet", tmp_path, "tiny-imagenet-200.zip", "wnids.txt", "longer")
