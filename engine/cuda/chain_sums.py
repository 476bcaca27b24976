"""Sums at the end of a chain: how the values are shared among blocks.

A sum over neighbouring axes sees the array as (outer, rows, columns) and removes `rows`. A block takes some
of the results of one (outer, columns), `width` of them, and a piece of the rows, which its `lanes` share;
what it finds is added up in a tree in shared memory. Where the rows are more than a block's, each writes one
row of a partial sum, and a second pass adds those (`chain_finish`). Nothing depends on which block is done
first: the same values give the same bits, on any card.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..fusion import is_sum
from ..program import Program, Step

THREADS = 256  # of a block
ROWS_A_THREAD = 16  # at least, before the rows are cut into pieces
BLOCKS = 2048  # at most, by cutting rows: a few for each multiprocessor of the largest cards
MANY = 1 << 15  # results from which a thread can have one of its own

FOLD = """
template <typename T, int LANES, int WIDTH> __device__ T folded(T* shared, T value) {
  const int lane = threadIdx.x / WIDTH;
  int half = 1;
  while (half < LANES) half *= 2;
  shared[threadIdx.x] = value;
  __syncthreads();
  for (half /= 2; half > 0; half /= 2) {
    if (lane < half && lane + half < LANES) shared[threadIdx.x] += shared[threadIdx.x + half * WIDTH];
    __syncthreads();
  }
  const T total = shared[threadIdx.x];
  __syncthreads();
  return total;
}
"""


@dataclass(frozen=True)
class Axes:
    """An array seen as (outer, rows, columns)."""

    outer: int
    rows: int
    columns: int

    @property
    def results(self) -> int:
        return self.outer * self.columns


def summed_axes(program: Program, step: Step) -> Axes | None:
    """The array that a step sums, seen so that it sums the rows; None if it is no sum,
    or sums axes that lie apart.
    """
    if not is_sum(step):
        return None
    source, target = program.metas[step.inputs[0]].shape, program.metas[step.output].shape
    if step.op.name == "sum":
        summed = set(step.static["axes"])
    elif step.op.name == "mean_leading":
        summed = set(range(len(source) - 1))
    else:
        extra = len(source) - len(target)
        summed = {k for k, n in enumerate(source) if k < extra or target[k - extra] != n}
    places = [k for k, n in enumerate(source) if k in summed and n != 1]
    first, last = (places[0], places[-1]) if places else (0, -1)
    if any(n != 1 for k, n in enumerate(source) if first < k < last and k not in summed):
        return None
    return Axes(math.prod(source[:first]), math.prod(source[first : last + 1]), math.prod(source[last + 1 :]))


def common_axes(found: Sequence[Axes]) -> Axes | None:
    """Axes in which blocks can find partial sums for all of these at once;
    None if they have no rows in common.
    """
    outer, columns = max(axes.outer for axes in found), max(axes.columns for axes in found)
    size = found[0].outer * found[0].rows * found[0].columns
    rows = size // (outer * columns)
    if outer * columns * rows != size or rows == 1 and any(axes.rows > 1 for axes in found):
        return None
    return Axes(outer, rows, columns)


@dataclass(frozen=True)
class Sharing:
    """The blocks of a chain with sums: (tiles, pieces) of them,
    `width` results times `lanes` threads each.
    """

    axes: Axes
    width: int
    lanes: int
    piece: int  # rows
    tiles: int
    pieces: int

    @classmethod
    def of(cls, axes: Axes) -> Sharing:
        """Depends on the sizes alone."""
        takes_all = axes.results >= MANY or axes.rows <= ROWS_A_THREAD  # one thread all rows of a result
        side = axes.results if takes_all else axes.columns
        width = -(-side // -(-side // THREADS))  # equal tiles
        lanes = min(THREADS // width, axes.rows)
        tiles = -(-axes.results // width)
        most = max(1, BLOCKS // tiles)
        piece = max(lanes * ROWS_A_THREAD, -(-axes.rows // most))
        piece = -(-piece // lanes) * lanes
        return cls(axes, width, lanes, piece, tiles, -(-axes.rows // piece))

    @property
    def threads(self) -> int:
        return self.width * self.lanes

    @property
    def partial_size(self) -> int:
        return self.axes.results * self.pieces

    def terms(self, wanted: Axes) -> int:
        """Partial sums that make up one result of a sum."""
        return self.partial_size // wanted.results
