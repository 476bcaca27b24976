"""Where `load_dataset` looks, what it says when nothing is there, and its download into the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import data_files
import numpy as np
import pooch
import pytest
from odegrad.engine.errors import ArgumentError, DataError
from odegrad.train.data import DATASETS, channel_statistics, load_dataset, remote

REAL_FOLDER = os.environ.get("ODEGRAD_DATA")


@pytest.fixture(autouse=True)
def sealed(tmp_path_factory, monkeypatch):
    """An empty cache, no ODEGRAD_DATA, and a network on which nothing answers."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(pooch, "os_cache", lambda project: cache / project)
    monkeypatch.delenv("ODEGRAD_DATA", raising=False)

    def no_network(self, url, output_file, pooch, **options):
        raise ConnectionError(f"no route to {url}")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", no_network)
    return cache / "odegrad"


@pytest.fixture
def mnist(tmp_path):
    """A folder with a small MNIST, and its training labels."""
    folder = tmp_path / "published"
    folder.mkdir()
    train, test = data_files.draw_parts("mnist")
    data_files.write_idx_set(folder, train, test)
    return folder, train[1]


@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
def test_files_are_found_in_a_folder_and_its_subfolders(below, mnist, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(mnist[0], root / below)
    assert np.array_equal(load_dataset("mnist", root, download=False).train_labels, mnist[1])


def test_environment_variable_names_the_folder(mnist, monkeypatch):
    monkeypatch.setenv("ODEGRAD_DATA", str(mnist[0]))
    assert np.array_equal(load_dataset("mnist", download=False).train_labels, mnist[1])


def test_data_dir_goes_before_the_environment_variable(mnist, monkeypatch, tmp_path):
    monkeypatch.setenv("ODEGRAD_DATA", str(tmp_path / "not there"))
    assert np.array_equal(load_dataset("mnist", mnist[0], download=False).train_labels, mnist[1])


def test_subfolder_goes_before_the_folder_itself(mnist, tmp_path):
    train, test = data_files.draw_parts("mnist", seed=1)
    (mnist[0] / "mnist").mkdir()
    data_files.write_idx_set(mnist[0] / "mnist", train, test)
    assert np.array_equal(load_dataset("mnist", mnist[0], download=False).train_labels, train[1])


def test_extracted_folder_itself_may_be_given(tmp_path):
    data_files.cifar_writer("cifar10", "binary", packed=False)(tmp_path, *data_files.draw_parts("cifar10"))
    assert len(load_dataset("cifar10", tmp_path / "cifar-10-batches-bin", download=False).train_labels) == 10


@pytest.mark.parametrize("source", ["data_dir", "ODEGRAD_DATA"])
def test_folder_that_is_not_there_is_an_error(source, tmp_path, monkeypatch):
    missing = str(tmp_path / "not there")
    if source == "ODEGRAD_DATA":
        monkeypatch.setenv(source, missing)
    with pytest.raises(DataError, match=f"{source}.*existing folder.*not there"):
        load_dataset("mnist", missing if source == "data_dir" else None)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
@pytest.mark.parametrize("download", [True, False])
def test_missing_files_say_where_and_how(name, download, tmp_path, sealed):
    with pytest.raises(DataError) as caught:
        load_dataset(name, tmp_path, download=download)
    message = str(caught.value)
    for word in (
        str(tmp_path / name),
        str(sealed / name),
        remote.REMOTE_FILES[name][-1].name,
        "ODEGRAD_DATA",
    ):
        assert word in message
    assert ("no route to" in message) is download


def test_incomplete_set_is_missing(mnist):
    os.remove(mnist[0] / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match="were not found"):
        load_dataset("mnist", mnist[0], download=False)


@pytest.mark.parametrize(("typed", "meant"), [("fashion_mnist", "fashion-mnist"), ("CIFAR-10", "cifar10")])
def test_unknown_name_gets_the_nearest_match(typed, meant):
    with pytest.raises(ArgumentError, match=f"Did you mean '{meant}'"):
        load_dataset(typed)


def test_files_of_the_sister_set_are_refused(mnist, monkeypatch):
    content = (mnist[0] / "train-labels-idx1-ubyte.gz").read_bytes()
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    files = remote.REMOTE_FILES["mnist"]
    labels = dataclasses.replace(files[1], checksum=checksum)
    monkeypatch.setitem(remote.REMOTE_FILES, "mnist", (files[0], labels, *files[2:]))
    with pytest.raises(DataError, match="expected the labels of fashion-mnist; got those of mnist"):
        load_dataset("fashion-mnist", mnist[0], download=False)


# download


class Server:
    """Answers the addresses of a data set with the files of a folder, and counts."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.requests = []
        self.refused = ()

    def __call__(self, downloader, url, output_file, pooch, **options):
        self.requests.append(url)
        if url in self.refused:
            raise ConnectionError(f"{url} does not answer")
        shutil.copyfile(self.folder / url.rpartition("/")[2], output_file)


@pytest.fixture
def server(mnist, monkeypatch):
    """The published MNIST is the small one, and the network serves it."""
    serve = Server(mnist[0])
    monkeypatch.setattr(
        pooch.HTTPDownloader, "__call__", lambda self, *args, **options: serve(self, *args, **options)
    )
    files = [
        dataclasses.replace(
            file, checksum="sha256:" + hashlib.sha256((mnist[0] / file.name).read_bytes()).hexdigest()
        )
        for file in remote.REMOTE_FILES["mnist"]
    ]
    monkeypatch.setitem(remote.REMOTE_FILES, "mnist", tuple(files))
    return serve


def test_missing_files_are_downloaded(server, mnist):
    assert np.array_equal(load_dataset("mnist").train_labels, mnist[1])


def test_download_happens_once(server):
    load_dataset("mnist")
    load_dataset("mnist")
    assert len(server.requests) == 4


def test_cache_is_used_without_the_network(server, mnist):
    load_dataset("mnist")
    assert np.array_equal(load_dataset("mnist", download=False).train_labels, mnist[1])


def test_damaged_cache_is_downloaded_anew(server, mnist, sealed):
    load_dataset("mnist")
    (sealed / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    assert np.array_equal(load_dataset("mnist").train_labels, mnist[1])


def test_second_address_is_tried(server, mnist):
    server.refused = tuple(file.urls[0] for file in remote.REMOTE_FILES["mnist"])
    assert np.array_equal(load_dataset("mnist").train_labels, mnist[1])


def test_download_with_a_wrong_checksum_is_refused(server, mnist, sealed):
    (mnist[0] / "train-labels-idx1-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match="hash"):
        load_dataset("mnist")
    assert not (sealed / "mnist" / "train-labels-idx1-ubyte.gz").exists()


@pytest.mark.parametrize("name", remote.REMOTE_FILES)
def test_checksums_have_the_length_of_their_kind(name):
    lengths = {"md5": 32, "sha256": 64}
    for file in remote.REMOTE_FILES[name]:
        algorithm, _, digest = file.checksum.partition(":")
        assert len(digest) == lengths[algorithm] and int(digest, 16)


# the real files, where a folder with them is given

REAL = {
    "mnist": ((60_000, 10_000), "0.13066 0.30811"),
    "cifar10": ((50_000, 10_000), "0.49140 0.48216 0.44653 0.24703 0.24349 0.26159"),
}


@pytest.mark.parametrize("name", REAL)
def test_published_statistics(name):
    if not REAL_FOLDER:
        pytest.skip("ODEGRAD_DATA names no folder with the published files")
    try:
        dataset = load_dataset(name, REAL_FOLDER, download=False)
    except DataError as error:
        if "were not found" not in str(error):
            raise
        pytest.skip(f"ODEGRAD_DATA has no {name}")
    sizes, statistics = REAL[name]
    assert (len(dataset.train_labels), len(dataset.test_labels)) == sizes
    got = np.concatenate(channel_statistics(dataset.train_images))
    assert np.abs(got - np.array(statistics.split(), float)).max() < 1e-5
