"""Whether the rows of a batch depend on each other."""

from __future__ import annotations

import numpy as np

from ...engine.backend import Array, to_host, to_number, to_xp
from ...engine.errors import ArgumentError
from .batch import Batch

N_PARTITIONS = 2


def check_uncoupled(batch: Batch, t0: float, rows: Array) -> int:
    """ArgumentError where the slope of a row changes when other rows leave the batch;
    returns the calls of f made.

    For each of two random partitions f is called on all rows (B, n), moved a little, those of one half
    further than those of the other, and on each half alone: that is what the solve will do as rows finish.
    Two rows of which one depends on the other are found unless both partitions leave them together, which is
    certain not to happen where each row depends on many, as through a mean. Changes below the root of the
    machine epsilon, relative to the slope, may be round-off:
    products with matrices round differently for batches of different sizes.
    Cost: six calls, four batches' worth.
    """
    if batch.size < 2 or batch.width == 0:
        return 0
    rng = np.random.default_rng(0)
    for _ in range(N_PARTITIONS):
        halves = np.split(rng.permutation(batch.size), [batch.size // 2])
        moved = _moved(batch, rows, halves[0], rng)
        whole = _slope(batch, t0, moved, "an array of times (B, 1, ..., 1), one for each row")
        for half in halves:
            chosen = to_xp(batch.xp, half)
            alone = _slope(batch, t0, moved[chosen], f"{len(half)} of the {batch.size} rows")
            _compare(batch, half, alone, whole[chosen])
    return 3 * N_PARTITIONS


def _moved(batch: Batch, rows: Array, further: np.ndarray, rng: np.random.Generator) -> Array:
    """The rows moved away from zero by a tenth, those in `further` by four, each value differently;
    signs are kept.
    """
    size = abs(rows)
    typical = to_number((size**2).mean()) ** 0.5 or 1.0
    factor = rng.uniform(0.05, 0.15, rows.shape)
    factor[further] += 0.3
    sign = batch.xp.where(rows.real < 0, -1.0, 1.0).astype(size.dtype)
    return rows + to_xp(batch.xp, factor.astype(size.dtype)) * sign * (size + 0.1 * typical)


def _slope(batch: Batch, t0: float, rows: Array, what: str) -> Array:
    try:
        return batch.slope(np.full(len(rows), t0), rows)
    except Exception as error:
        raise ArgumentError(
            f"independent=True calls f with {what}, and it failed: {type(error).__name__}: {error}. f must take t as an "
            "array that broadcasts against y, and any number of rows: what belongs to single rows, in params or captured, "
            "must be a part of the state (with slope zero)"
        ) from error


def _compare(batch: Batch, half: np.ndarray, alone: Array, together: Array) -> None:
    """ArgumentError where the slopes of these rows differ;
    rows with values that are not finite say nothing.
    """
    change, size = to_host(abs(alone - together)), to_host(abs(together))
    usable = np.isfinite(change).all(axis=1) & np.isfinite(size).all(axis=1)
    if not usable.any():
        return
    largest = np.where(usable, size.max(axis=1, initial=0.0), 0.0)
    scale = np.maximum(largest, 1e-3 * largest.max())
    worst = np.where(usable, change.max(axis=1, initial=0.0), 0.0)
    is_coupled = worst > float(np.finfo(batch.dtype).eps) ** 0.5 * scale
    if is_coupled.any():
        i = int(np.argmax(np.where(is_coupled, worst / np.where(scale > 0, scale, 1.0), 0.0)))
        raise ArgumentError(
            f"independent=True needs rows that do not depend on each other: the slope of row {int(half[i])} (size "
            f"{size[i].max():.3e}) changes by {worst[i]:.3e} when {batch.size - len(half)} of the {batch.size} rows leave "
            "the batch. Statistics over the batch, and sums, neighbours or products along its first axis couple rows: "
            "solve it as one system, without independent=True",
            row=int(half[i]),
        )
