"""Where the published files come from: a table of addresses and checksums, and the download into a cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import DataError


@dataclass(frozen=True)
class RemoteFile:
    """One published file.

    Args:
        name: file name, in the cache and in messages.
        checksum: "sha256:..." or "md5:..." of the published bytes.
        folders: addresses of folders that hold the file, tried in order.
    """

    name: str
    checksum: str
    folders: tuple[str, ...]

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(folder + self.name for folder in self.folders)

    def is_content_of(self, path: Path) -> bool:
        """Whether the file at `path` has exactly the published bytes."""
        algorithm, _, digest = self.checksum.partition(":")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest() == digest


_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
_CIFAR = ("https://www.cs.toronto.edu/~kriz/",)
_SVHN = ("http://ufldl.stanford.edu/housenumbers/",)
_TINY_IMAGENET = ("http://cs231n.stanford.edu/",)

REMOTE_FILES: dict[str, tuple[RemoteFile, ...]] = {
    "mnist": (
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            _MNIST,
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            _MNIST,
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            _MNIST,
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            _MNIST,
        ),
    ),
    "fashion-mnist": (
        RemoteFile("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d", _FASHION),
        RemoteFile("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe", _FASHION),
        RemoteFile("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79", _FASHION),
        RemoteFile("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310", _FASHION),
    ),
    "cifar10": (RemoteFile("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530", _CIFAR),),
    "cifar100": (RemoteFile("cifar-100-binary.tar.gz", "md5:03b5dce01913d631647c71ecec9e9cb8", _CIFAR),),
    "svhn": (
        RemoteFile("train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373", _SVHN),
        RemoteFile("test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3", _SVHN),
    ),
    "tiny-imagenet": (
        RemoteFile("tiny-imagenet-200.zip", "md5:90528d7ca1a48142e341f4ef8d21d0de", _TINY_IMAGENET),
    ),
}


def cache_folder(name: str) -> Path:
    """Where downloaded files of the data set `name` are kept between runs."""
    import pooch  # takes 0.1 s, so only here

    return Path(pooch.os_cache("odegrad")) / name


def fetch(name: str) -> Path:
    """The cache folder with all published files of `name`; those that are missing or damaged are downloaded.

    Raises: DataError with what each address answered.
    """
    folder = cache_folder(name)
    for file in REMOTE_FILES[name]:
        _fetch_file(file, folder)
    return folder


def _fetch_file(file: RemoteFile, folder: Path) -> None:
    import pooch

    answers = []
    for url in file.urls:
        try:
            pooch.retrieve(url, known_hash=file.checksum, fname=file.name, path=folder)
            return
        except (OSError, ValueError) as error:  # no network, no such page, disk full; a wrong checksum
            answers.append(f"{url}: {type(error).__name__}: {error}")
    raise DataError("; ".join(answers))
