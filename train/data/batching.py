"""The order of an epoch: which images each step sees follows from (key, epoch, step) and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...engine import random
from ...engine.errors import ArgumentError


def batches_per_epoch(n: int, batch_size: int) -> int:
    """The number of batches of `n` rows: the last partial batch counts unless it has one row.

    A batch norm cannot learn a variance from one row. Raises ArgumentError if no batch is left.
    """
    if batch_size < 1:
        raise ArgumentError(f"`batch_size` must be at least 1; got {batch_size}")
    whole, rest = divmod(n, batch_size)
    count = whole + (rest > 1)
    if n < 1 or count == 0:
        raise ArgumentError(f"{n} images make no batch of {batch_size}: a partial batch needs at least 2")
    return count


def batches(n: int, batch_size: int, key: np.ndarray, *, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
    """The batches of one epoch as row indices, int64 (batch_size,) and perhaps a shorter last one.

    Args:
        n: the number of images; each epoch sees each of them at most once.
        key: uint32 (2,), as from `engine.random.key(seed)`, the same in all epochs.
        epoch: the epoch's number; its order is a permutation drawn from fold_in(key, epoch).
        start: the first step to give, in [0, batches_per_epoch]: a resumed run goes on where it stopped.
    Raises: ArgumentError, at the call.
    """
    count = batches_per_epoch(n, batch_size)
    if not 0 <= start <= count:
        raise ArgumentError(f"`start` must be in [0, {count}], the batches of an epoch; got {start}")
    order = random.permutation(random.fold_in(key, epoch), n)
    return (order[step * batch_size : (step + 1) * batch_size] for step in range(start, count))
