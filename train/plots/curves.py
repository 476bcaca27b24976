"""Curves against the epoch: loss, error, and the cost of a solve."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...engine.errors import ArgumentError
from .style import BLUE, GREEN, GREY, ORANGE, picture

_PARTS = (("train", BLUE, "-", "o"), ("validation", ORANGE, "--", "s"), ("test", GREEN, "-.", "^"))


def draw_learning_curves(epochs: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Loss and error (1 - accuracy, logarithmic) of each part against the epoch, as PNG.

    Args:
        epochs: `EpochRecord`s as `metrics.read` gives them; None where a part was not evaluated.
    Raises: ArgumentError if there are none; OSError.
    """
    _check_any(epochs)
    with picture(path, 9.0, 3.6) as figure:
        loss, error = figure.subplots(1, 2)
        for part, colour, line, mark in _PARTS:
            options = {
                "color": colour,
                "linestyle": line,
                "marker": mark,
                "label": part,
                **_marks(len(epochs)),
            }
            x, losses = _series(epochs, f"{part}_loss")
            if x:
                loss.plot(x, losses, **options)
            x, accuracies = _series(epochs, f"{part}_accuracy")
            if x:
                errors = [100.0 * (1.0 - accuracy) for accuracy in accuracies]
                error.plot(x, errors, **{**options, "label": f"{part} (last {errors[-1]:.2f}%)"})
        loss.set(title="Loss", xlabel="epoch", ylabel="mean cross-entropy (nats)")
        error.set(title="Error", xlabel="epoch", ylabel="wrong (%)")
        _log_if_positive(loss)
        _log_if_positive(error)
        for axes in (loss, error):
            _integer_epochs(axes)
            axes.legend()


def draw_nfe(epochs: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Mean evaluations of the dynamics a solve, forward and backward, and rejected steps, against the epoch,
    as PNG.

    Raises: ArgumentError if there are no epochs; OSError.
    """
    _check_any(epochs)
    with picture(path, 9.0, 3.6) as figure:
        nfe, rejected = figure.subplots(1, 2, width_ratios=(2, 1))
        for key, label, colour, line, mark in (
            ("nfe_forward", "training, forward", BLUE, "-", "o"),
            ("nfe_backward", "training, backward", ORANGE, "--", "s"),
            ("nfe_evaluation", "evaluation", GREEN, "-.", "^"),
        ):
            x, values = _series(epochs, key)
            if x:
                nfe.plot(
                    x, values, color=colour, linestyle=line, marker=mark, label=label, **_marks(len(epochs))
                )
        nfe.set(title="Cost of a solve", xlabel="epoch", ylabel="evaluations of the dynamics (mean)")
        nfe.set_ylim(bottom=0.0)
        nfe.legend()
        rejected.plot(*_series(epochs, "n_rejected"), color=GREY, marker="o", **_marks(len(epochs)))
        rejected.set(title="Rejected steps", xlabel="epoch", ylabel="rejected steps a solve (mean)")
        rejected.set_ylim(bottom=0.0)
        for axes in (nfe, rejected):
            _integer_epochs(axes)


def _series(epochs: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """(epochs, values) of the records that have a number for `key`."""
    points = [(record["epoch"], record[key]) for record in epochs if record.get(key) is not None]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _marks(n_epochs: int) -> dict[str, Any]:
    """A dozen marks a curve, however long it is."""
    return {"markevery": max(1, n_epochs // 12), "markersize": 4}


def _log_if_positive(axes: Any) -> None:
    """A logarithmic axis, labelled in plain numbers, where every value can be shown on one."""
    from matplotlib.ticker import LogLocator, NullFormatter

    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    if not (values > 0.0).all():
        return
    axes.set_yscale("log")
    decades = np.log10(values.max() / values.min())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3.0 else (1.0,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _integer_epochs(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _check_any(epochs: Sequence[Mapping[str, Any]]) -> None:
    if not epochs:
        raise ArgumentError("`epochs` is empty: there is nothing to draw before the first epoch has ended")
