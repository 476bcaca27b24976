"""MNIST and Fashion-MNIST: the same four file names, two data sets.

Sources: LeCun, Cortes & Burges, The MNIST database of handwritten digits; Xiao, Rasul & Vollgraf (2017),
Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms, arXiv 1708.07747.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...engine.errors import DataError
from .classes import DIGITS, FASHION_MNIST
from .dataset import Dataset
from .files import parsing
from .idx import read_pair
from .remote import REMOTE_FILES

_OTHER = {"mnist": "fashion-mnist", "fashion-mnist": "mnist"}


def read_mnist(paths: Sequence[Path]) -> Dataset:
    """MNIST from its training images, training labels, test images and test labels. DataError."""
    return _read("mnist", paths, DIGITS, allows_flip=False)


def read_fashion_mnist(paths: Sequence[Path]) -> Dataset:
    """Fashion-MNIST from the same four files of its own. DataError."""
    return _read("fashion-mnist", paths, FASHION_MNIST, allows_flip=True)


def _read(name: str, paths: Sequence[Path], classes: tuple[str, ...], allows_flip: bool) -> Dataset:
    train_images, train_labels, test_images, test_labels = paths
    _refuse_files_of_the_other(name, train_labels)
    train = read_pair(train_images, train_labels, len(classes))
    test = read_pair(test_images, test_labels, len(classes))
    return Dataset(name, *train, *test, classes, allows_flip)


def _refuse_files_of_the_other(name: str, train_labels: Path) -> None:
    """Each set would read without a complaint in the other's place; the published labels tell them apart."""
    other = _OTHER[name]
    with parsing(train_labels, "a file that can be read"):
        is_other = REMOTE_FILES[other][1].is_content_of(train_labels)
    if is_other:
        raise DataError(
            f"{train_labels}: expected the labels of {name}; got those of {other}. The two sets share their "
            f"file names: keep them in subfolders {name}/ and {other}/.",
            path=train_labels,
        )
