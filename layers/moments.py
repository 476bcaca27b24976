"""Moments of a batch, and the running averages that follow them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..engine import ops
from ..engine.backend import Array, namespace_of, to_number, to_xp
from ..engine.errors import ArgumentError, NonFiniteDynamics
from ..engine.trace import shape_of
from ..engine.tree import Tree
from ..solvers.solution import Aux


class Moments(NamedTuple):
    """What a normalisation layer saw: mean and unbiased variance of each channel, both (C,), or (N, C)
    from a solve.
    """

    mean: Any
    var: Any


def batch_moments(x: Any) -> tuple[Any, Any, Moments]:
    """Mean and biased variance (C,) over all axes of x but channels, and what is recorded of them.

    Raises: ArgumentError if there is only one value a channel: its variance means nothing.
    """
    n = math.prod(shape_of(x)[:-1])
    if n < 2:
        raise ArgumentError(
            f"batch statistics need at least two values a channel; got an input of shape {shape_of(x)}. "
            "Leave out a last batch of one row, or use mode='eval'"
        )
    mean, var = ops.moments(x)
    return mean, var, Moments(mean, var * (n / (n - 1)))


def observations(seen: Tree) -> tuple[np.ndarray | None, Moments | None]:
    """(times, moments with a leading axis of observations) of what a normalisation layer saw.

    From a solve the order is that of time along the integration, ties in the order of evaluation; a single
    call has no times.
    """
    if not isinstance(seen, Aux):
        return None, None if seen is None else Moments(*(part[None] for part in seen))
    if seen.values is None:
        return seen.ts, None
    backwards = len(seen.ts) > 1 and seen.ts[-1] < seen.ts[0]
    order = np.argsort(-seen.ts if backwards else seen.ts, kind="stable")
    if np.array_equal(order, np.arange(len(order))):
        return seen.ts, seen.values
    index = to_xp(namespace_of(seen.values.mean), order)
    return seen.ts[order], Moments(*(part[index] for part in seen.values))


def check_finite(moments: Moments) -> None:
    """NonFiniteDynamics if an observation is NaN or infinite: it would stay in the averages for ever.
    One device read.
    """
    xp = namespace_of(*moments)
    bad = sum((~xp.isfinite(part)).sum() for part in moments)
    if n_bad := to_number(bad):
        mean = moments.mean
        raise NonFiniteDynamics(
            f"normalisation saw a mean or variance that is not finite in {n_bad} of {2 * mean.size} observations; its "
            f"input overflows {mean.dtype}. Lower the learning rate, or look at the weights before this layer"
        )


def moving_average(start: Array, observed: Array, rates: np.ndarray) -> Array:
    """start[k] moved towards each observation in turn: x <- x + rate[i, k] (observed[i] - x) for i = 0, ...,
    N - 1.

    Written out, x = prod_i (1 - r_i) start + sum_i r_i prod_(j > i) (1 - r_j) observed_i: the shares of N
    observations in K averages are found on the host, and the rest is one matrix product.

    Args:
        start: (K, C). observed: (N, C), finite. rates: (N, K) float64 on the host, in [0, 1].
    """
    xp = namespace_of(start, observed)
    kept_after = np.ones((len(rates) + 1, rates.shape[1]))
    kept_after[:-1] = np.cumprod(1.0 - rates[::-1], axis=0)[
        ::-1
    ]  # row i: what observations i, i + 1, ... leave
    shares = rates * kept_after[1:]
    kept, shares = to_xp(xp, kept_after[0].astype(start.dtype)), to_xp(xp, shares.astype(start.dtype))
    return kept[:, None] * start + shares.T @ observed
