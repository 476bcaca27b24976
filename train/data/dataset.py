"""`Dataset`: labelled images in a training and a test part, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...engine import random
from ...engine.errors import ArgumentError, ArgumentTypeError, DataError


class LabelledImages(NamedTuple):
    """images uint8 (N, H, W, C) and labels int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification problem on images of one size.

    Args:
        name: what messages and run folders call it.
        train_images, test_images: uint8 (N, H, W, C), rows from top to bottom, C = 1 (grey) or
            3 (red, green, blue).
        train_labels, test_labels: int64 (N,), each in [0, len(classes)).
        classes: the name of each label.
        allows_flip: whether a mirrored image still belongs to its class; never so for digits.
    Raises: DataError names the part and what is wrong with it.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    allows_flip: bool

    def __post_init__(self) -> None:
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            raise DataError(f"{self.name}: `classes` must be a non-empty tuple of str; got {self.classes!r}")
        check_labelled(self.train_images, self.train_labels, len(self.classes), f"{self.name}, training part")
        check_labelled(self.test_images, self.test_labels, len(self.classes), f"{self.name}, test part")
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"{self.name}: training images are {self.train_images.shape[1:]} and test images "
                f"{self.test_images.shape[1:]}; expected one (H, W, C) for both"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels

    @property
    def is_colour(self) -> bool:
        """Whether the images have three channels."""
        return self.image_shape[2] == 3


def check_labelled(images: Any, labels: Any, n_classes: int, where: str) -> LabelledImages:
    """`images` and `labels` unchanged, or one DataError that begins with `where` and lists what is wrong."""
    problems = []
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        problems.append(f"images must be uint8 (N, H, W, C); got {_described(images)}")
    elif images.shape[3] not in (1, 3):
        problems.append(f"images must have 1 or 3 channels, last; got {_described(images)}")
    elif images.size == 0:
        problems.append(f"there must be at least one image and one pixel; got {_described(images)}")
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        problems.append(f"labels must be int64 (N,); got {_described(labels)}")
    elif isinstance(images, np.ndarray) and images.ndim and len(images) != len(labels):
        problems.append(
            f"there must be one label an image; got {len(images)} images and {len(labels)} labels"
        )
    elif labels.size and (labels.min() < 0 or labels.max() >= n_classes):
        first = int(np.flatnonzero((labels < 0) | (labels >= n_classes))[0])
        problems.append(f"labels must be in [0, {n_classes}); got {labels[first]} at index {first}")
    if problems:
        raise DataError(f"{where}: " + "; ".join(problems))
    return LabelledImages(images, labels)


def _described(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def split_validation(
    dataset: Dataset, held_out: float | int, key: np.ndarray
) -> tuple[LabelledImages, LabelledImages]:
    """Divide the training part at random into (training, validation), both in the original order.

    Args:
        dataset: its test part is left alone.
        held_out: a float in [0, 1) is the fraction for validation (rounded to images), an int their number.
        key: uint32 (2,), as from `engine.random.key(seed)`; one key always gives one split.
    Returns: copies; the validation part is empty when nothing is held out.
    Raises: ArgumentError, ArgumentTypeError if `held_out` is not such a number or leaves no training image.
    """
    n = len(dataset.train_labels)
    count = _held_out_count(held_out, n)
    order = random.permutation(key, n)
    validation, training = np.sort(order[:count]), np.sort(order[count:])
    return (
        LabelledImages(dataset.train_images[training], dataset.train_labels[training]),
        LabelledImages(dataset.train_images[validation], dataset.train_labels[validation]),
    )


def _held_out_count(held_out: float | int, n: int) -> int:
    """The number of images held out of `n`."""
    if isinstance(held_out, bool) or not isinstance(held_out, (int, float, np.integer, np.floating)):
        raise ArgumentTypeError(f"`held_out` must be a float (fraction) or an int (count); got {held_out!r}")
    if isinstance(held_out, (float, np.floating)):
        if not 0.0 <= held_out < 1.0:
            raise ArgumentError(f"a fraction `held_out` must be in [0, 1); got {held_out}")
        held_out = round(float(held_out) * n)
    if not 0 <= held_out < n:
        raise ArgumentError(f"`held_out` must leave 1 of {n} training images; got {held_out} held out")
    return int(held_out)
