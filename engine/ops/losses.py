"""Softmax and the cross-entropy of class labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..primitive import primitive
from ..trace import dtype_of, shape_of
from .functions import exp
from .reductions import logsumexp, max, mean, stop_gradient, sum


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) along an axis, shifted by the maximum so that it cannot overflow."""
    shifted = exp(x - stop_gradient(max(x, axis, keepdims=True)))
    return shifted / sum(shifted, axis, keepdims=True)


def log_softmax(x: Any, axis: int = -1) -> Any:
    """x - logsumexp(x) along an axis."""
    return x - logsumexp(x, axis, keepdims=True)


@primitive("pick")
def pick(xp, x, labels):
    """x[i, labels[i]] for x (B, K) and integer labels (B,).

    ArgumentError for labels on the host that are none of 0..K-1: here, since a replay gets new ones.
    """
    k = x.shape[1]
    if xp is np and labels.size and (labels.min() < 0 or labels.max() >= k):
        raise ArgumentError(f"labels must lie in 0..{k - 1}; got {labels.min()}..{labels.max()}")
    return x[xp.arange(x.shape[0]), labels]


@pick.vjp(saves=("x.shape", "labels"))
def pick_vjp(ybar, x_shape, labels):
    """ybar at the picked entries of zeros."""
    return place_picked(ybar, labels, width=x_shape[1]), None


@primitive("place_picked")
def place_picked(xp, x, labels, *, width):
    """Zeros (B, width) with x[i] at [i, labels[i]]: the transpose of pick."""
    result = xp.zeros((x.shape[0], width), x.dtype)
    result[xp.arange(x.shape[0]), labels] = x
    return result


@place_picked.vjp(saves=("labels",))
def place_picked_vjp(ybar, labels, *, width):
    """xbar = ybar at the picked entries."""
    return pick(ybar, labels), None


def softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    """Mean over the batch of -log softmax(logits)[label]; logits (B, K), integer labels (B,) in 0..K-1."""
    n, k = _checked(logits, labels)
    assert n > 0
    return mean(logsumexp(logits, -1) - pick(logits, labels))


def _checked(logits: Any, labels: Any) -> tuple[int, int]:
    """(B, K), or ArgumentError that lists what does not fit."""
    shape = shape_of(logits)
    if len(shape) != 2 or shape_of(labels) != shape[:1] or not shape[0]:
        raise ArgumentError(
            f"cross-entropy wants logits (B, K), labels (B,), B >= 1; got {shape}, {shape_of(labels)}"
        )
    if dtype_of(labels).kind not in "iu":
        raise ArgumentError(f"cross-entropy wants integer labels; got dtype {dtype_of(labels)}")
    return shape[0], shape[1]


def mse(prediction: Any, target: Any) -> Any:
    """Mean of (prediction - target)**2 over all entries."""
    difference = prediction - target
    return mean(difference * difference)
