"""Tiles: the pieces of a batch that a convolution works on,
small enough for what it gathers to stay in cache.

Tiles depend on the sizes alone, never on the number of threads, and so do the bits of what is computed in a
tile. Measured by `benchmarks/conv.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np

from .threads import one_blas_thread, run_shares

_BYTES_HOST = 1 << 20  # gathered values of one tile: they share the caches with the kernel and the result
_BYTES_DEVICE = 1 << 28  # a device wants few, large products
_AT_LEAST = 8  # enough to divide a small batch evenly over threads
_FLOPS = 2e7  # about 0.3 ms: below, handing a tile to a thread costs more than it saves


@dataclass(frozen=True)
class Tile:
    """Images and rows of windows that are worked on together."""

    images: slice
    rows: slice


@lru_cache(maxsize=512)
def cut(
    xp: ModuleType, n_images: int, positions: tuple[int, int], depth: int, width: int, itemsize: int
) -> tuple[Tile, ...]:
    """Tiles that cover n_images of `positions` (rows, columns) windows;
    each is whole images or rows of one image.

    A window takes `depth` gathered values and 2 * depth * width flops.
    """
    rows, columns = positions
    n_windows = max(1, (_BYTES_HOST if xp is np else _BYTES_DEVICE) // (depth * itemsize))
    if n_windows < rows * columns:
        n_rows = max(1, n_windows // columns)
        return tuple(
            Tile(slice(image, image + 1), slice(row, min(row + n_rows, rows)))
            for image in range(n_images)
            for row in range(0, rows, n_rows)
        )
    per_tile = n_windows // (rows * columns)
    if xp is np:
        worth_a_tile = int(_FLOPS / (2 * rows * columns * depth * width)) + 1
        per_tile = min(per_tile, max(worth_a_tile, -(-n_images // _AT_LEAST)))
    return tuple(
        Tile(slice(image, min(image + per_tile, n_images)), slice(0, rows))
        for image in range(0, n_images, per_tile)
    )


def for_each_tile(xp: ModuleType, work: Callable[[Tile], None], tiles: Sequence[Tile]) -> None:
    """work(tile) for every tile, on the host by as many threads as BLAS has, each taking the next one left.

    Tiles must write to places of their own, so that the order does not matter.
    """
    remaining = iter(tiles)

    def work_on(_: int = 0) -> None:
        for tile in remaining:
            work(tile)

    if xp is not np:
        work_on()
        return
    with one_blas_thread() as n_threads:
        run_shares(work_on, min(n_threads, len(tiles)))
