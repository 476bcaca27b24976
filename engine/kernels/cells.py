"""The input gradient at stride 2 with a 3x3 kernel: cells of 2x2 pixels, all four from one gathered window.

The four phases of `conv` see one, two, two and four neighbours of the same 2x2 window of the cotangent.
Gathered for each phase they are copied nine times; here the window is copied once, its neighbours in the
order of a walk around it, so that those of each phase lie side by side and a phase multiplies some columns of
what was gathered:

    c | a     a: the neighbour that all phases see          walk: c a b d
    --+--                                                   phases: a, c a, a b, c a b d
    d | b     (or mirrored, depending on the padding)

Rows of cells are the outermost axis, so that the phases of odd rows, which are fewer where the height is odd,
multiply fewer rows. The two phases of a row meet in a buffer in the order of the pixels, which is copied by
whole rows of an image. Measured by `benchmarks/conv.py`.
"""

from __future__ import annotations

import numpy as np

from .gather import Phase, copy_pixels, with_border
from .geometry import Pair
from .products import rows_times
from .scratch import scratch
from .tiles import Tile, cut, for_each_tile

# Which part of the walk a phase sees, by its taps.
_SEEN = {(1, 1): slice(1, 2), (1, 2): slice(0, 2), (2, 1): slice(1, 3), (2, 2): slice(0, 4)}
_MOST_COVERED = 1.1  # an odd width is rounded up: at 7 the column that is not there costs what is gained
_FEWEST = 5 * 10**6  # multiplications: below, copies for each phase cost less than more calls


def is_cells(phases: list[Phase], target_shape: tuple[int, ...]) -> bool:
    """Whether these are the four phases of a 3x3 kernel at stride 2,
    on images that cells cover closely and enough.
    """
    if phases[0].step != (2, 2) or {phase.taps for phase in phases} != _SEEN.keys():
        return False
    rows, columns = phases[0].counts
    multiplications = target_shape[0] * rows * columns * sum(phase.matrix.size for phase in phases)
    return 2 * columns <= _MOST_COVERED * target_shape[2] and multiplications >= _FEWEST


def correlate_cells(source: np.ndarray, phases: list[Phase], target: np.ndarray) -> None:
    """Fill target (B, H, W, N) from source (B, ., ., C) by the four phases, on the host."""
    channels = source.shape[3]
    lowest = (min(phase.offset[0] for phase in phases), min(phase.offset[1] for phase in phases))
    walk = _walk(phases, lowest)
    matrices = [_in_order_of(walk, phase, lowest, channels) for phase in phases]
    counts = phases[0].counts  # of even pixels, which are never fewer than odd ones
    tiles = cut(np, source.shape[0], counts, 4 * channels, target.shape[3], target.dtype.itemsize)

    def work(tile: Tile) -> None:
        windows = _windows(source, walk, lowest, counts[1], tile, target.dtype)
        for row in (0, 1):
            _fill_rows(windows, phases[2 * row : 2 * row + 2], matrices[2 * row : 2 * row + 2], target, tile)

    for_each_tile(np, work, tiles)


def _walk(phases: list[Phase], lowest: Pair) -> list[Pair]:
    """The neighbours c, a, b, d as (row, column) of the window."""
    alone = next(phase for phase in phases if phase.taps == (1, 1))
    row, column = alone.offset[0] - lowest[0], alone.offset[1] - lowest[1]
    return [(row, 1 - column), (row, column), (1 - row, column), (1 - row, 1 - column)]


def _in_order_of(walk: list[Pair], phase: Phase, lowest: Pair, channels: int) -> np.ndarray:
    """The matrix of a phase (taps * C, N) with its taps in the order of the walk."""
    by_tap = phase.matrix.reshape(*phase.taps, channels, -1)
    above, before = phase.offset[0] - lowest[0], phase.offset[1] - lowest[1]
    return np.concatenate([by_tap[row - above, column - before] for row, column in walk[_SEEN[phase.taps]]])


def _windows(
    source: np.ndarray, walk: list[Pair], lowest: Pair, n_columns: int, tile: Tile, dtype: np.dtype
) -> np.ndarray:
    """(rows of cells, images, cells of a row, 4 * C): the neighbours of each cell,
    in the order of the walk.
    """
    start, stop = tile.rows.start, tile.rows.stop
    corner = (start + lowest[0], lowest[1])
    padded = with_border(
        np, source[tile.images], corner, (stop + lowest[0] + 1, n_columns + lowest[1] + 1), dtype
    )
    n_images, _, _, channels = padded.shape
    windows = scratch(np, "windows", (stop - start, n_images, n_columns, 4, channels), dtype)
    for place, (row, column) in enumerate(walk):
        seen = padded[:, row : row + stop - start, column : column + n_columns]
        copy_pixels(seen.transpose(1, 0, 2, 3), windows[:, :, :, place])
    return windows.reshape(stop - start, n_images, n_columns, 4 * channels)


def _fill_rows(
    windows: np.ndarray, pair: list[Phase], matrices: list[np.ndarray], target: np.ndarray, tile: Tile
) -> None:
    """The even or the odd rows of the target that belong to a tile, from the two phases of these rows."""
    start = tile.rows.start
    n_rows = min(tile.rows.stop, pair[0].counts[0]) - start
    if n_rows <= 0:
        return
    _, n_images, n_columns, depth = windows.shape
    rows = windows[:n_rows].reshape(-1, depth)
    n_target, channels = target.shape[3], depth // 4
    pixels = scratch(np, "product", (rows.shape[0], 2, n_target), target.dtype)
    for column, (phase, matrix) in enumerate(zip(pair, matrices, strict=True)):
        seen = _SEEN[phase.taps]
        rows_times(np, rows[:, seen.start * channels : seen.stop * channels], matrix, pixels[:, column])
    first = 2 * start + pair[0].first[0]
    images = target[tile.images, first : first + 2 * n_rows - 1 : 2]
    by_row = pixels.reshape(n_rows, n_images, 2 * n_columns, n_target)
    images[...] = by_row[:, :, : target.shape[2]].transpose(1, 0, 2, 3)
