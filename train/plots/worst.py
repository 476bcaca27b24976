"""The images a network is most wrong about."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...engine.errors import ArgumentError
from .style import GREY, ORANGE, picture

_COLUMNS = 10


def draw_worst(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: str | os.PathLike[str],
    count: int = 40,
) -> None:
    """A sheet of the images whose true class got the least probability, worst first, as PNG.

    Args:
        images: uint8 (N, H, W, 1 or 3); labels: int (N,); probabilities: (N, len(classes)).
        count: images on the sheet at most; wrong ones have an orange frame.
    Raises: ArgumentError for shapes that do not belong together; OSError.
    """
    _check_classified(images, labels, probabilities, classes)
    answers = np.argmax(probabilities, axis=1)
    of_truth = probabilities[np.arange(len(labels)), labels]
    worst = np.argsort(of_truth, kind="stable")[:count]
    n_rows = math.ceil(len(worst) / _COLUMNS)
    with picture(path, 1.25 * _COLUMNS, 1.6 * n_rows + 0.5) as figure:
        panels = figure.subplots(n_rows, _COLUMNS, squeeze=False).ravel()
        for axes, index in zip(panels, worst, strict=False):
            truth, answer = labels[index], answers[index]
            _show_image(axes, images[index])
            _frame(axes, is_wrong=truth != answer)
            axes.set_title(
                f"{_short(classes[truth])}  #{index}\n"
                f"\N{RIGHTWARDS ARROW} {_short(classes[answer])} {probabilities[index, answer]:.0%}",
                fontsize=7,
                loc="center",
                color=ORANGE if truth != answer else "black",
            )
        for axes in panels[len(worst) :]:
            axes.set_visible(False)
        figure.suptitle(
            f"The {len(worst)} of {len(labels)} images whose class got the least probability. Above each: class, number, "
            f"\N{RIGHTWARDS ARROW} answer. Orange: wrong ({int(np.sum(answers != labels))} in all).",
            fontsize=9,
        )


def _short(name: str) -> str:
    """A class name that fits above an image."""
    return name if len(name) <= 15 else name[:14] + "\N{HORIZONTAL ELLIPSIS}"


def _show_image(axes: Any, image: np.ndarray) -> None:
    grey = image.shape[2] == 1
    axes.imshow(image[:, :, 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def _frame(axes: Any, is_wrong: bool) -> None:
    for spine in axes.spines.values():
        spine.set(visible=True, color=ORANGE if is_wrong else GREY, linewidth=2.0 if is_wrong else 0.6)


def _check_classified(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> None:
    if not len(labels):
        raise ArgumentError("`labels` is empty: there is nothing to draw")
    n = len(labels)
    is_right = (
        images.ndim == 4
        and len(images) == n
        and images.dtype == np.uint8
        and images.shape[3] in (1, 3)
        and probabilities.shape == (n, len(classes))
    )
    if not is_right:
        raise ArgumentError(
            f"expected images uint8 ({n}, H, W, 1 or 3) and probabilities ({n}, {len(classes)}); got "
            f"{images.dtype} {images.shape} and {probabilities.shape}"
        )
