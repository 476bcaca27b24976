"""The readings of normalisation that the ablation compares, by name."""

from __future__ import annotations

from typing import Any

from .activations import Identity
from .batch_norm import BatchNorm
from .layer import Layer, check_choice
from .ta_batch_norm import TABatchNorm

READINGS = ("tabn", "none", "minibatch", "pop-ti")


def normalization(reading: str, channels: int, **tabn: Any) -> Layer:
    """The normalisation layer of a network's dynamics.

    Args:
        reading: "tabn" (TABatchNorm), "none" (nothing), "minibatch" (statistics of the batch in training and
            test), or "pop-ti" (one running pair shared by all times).
        channels: number of channels.
        tabn: options of TABatchNorm; of them the other readings take momentum and eps.
    """
    check_choice("reading", reading, READINGS)
    if reading == "tabn":
        return TABatchNorm(channels, **tabn)
    if reading == "none":
        return Identity()
    shared = {name: value for name, value in tabn.items() if name in ("momentum", "eps")}
    return BatchNorm(channels, "minibatch" if reading == "minibatch" else "running", **shared)
