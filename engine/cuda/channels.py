"""How rows of channels (..., C) are shared out: in every pass of the grid a thread meets the same channels.

A block takes THREADS * PACK values at a time, a number that C divides, so that slot s of each block belongs
to channel s % C. What a thread needs of its PACK channels, it keeps in registers, for any C, also where a
pack holds the end of one row and the start of the next. Sums over rows end in two steps without atomics, so
that they come out the same each time: a tree in each block, and then the blocks in their order,
in double precision.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..backend import Array
from .source import MOST_THREADS, blocks_for, is_plain, pack_size

USUAL_THREADS = 256
# Blocks of a sum, whose bits depend on them: hence the same on every card, and enough to fill a large one.
MOST_BLOCKS = 512
COLUMNS = 8  # channels that a block of the second step works on: 32 bytes of float32 are read at once
FINISH_THREADS = 512  # in such a block
SIZES = f"""
#define COLUMNS {COLUMNS}
#define FINISH_THREADS {FINISH_THREADS}
#define SLOTS (THREADS * PACK)
"""


class Shares(NamedTuple):
    """The size of a grid."""

    blocks: int
    threads: int


def fits_channels(x: Array) -> bool:
    """Whether x (..., C) can be shared out: float32 or float64, row-major, not empty, C / gcd(C, PACK)
    <= 1024.
    """
    return is_plain(x) and x.ndim > 0 and x.size > 0 and _unit(x) <= MOST_THREADS


def shares_of(x: Array) -> Shares:
    """The grid for x (..., C): whole warps if 256 threads hold whole rows of them,
    else the most threads that do.
    """
    unit = _unit(x)
    step = math.lcm(unit, 32) if math.lcm(unit, 32) <= USUAL_THREADS else unit
    threads = max(step, USUAL_THREADS // step * step)
    return Shares(blocks_for(x.size, threads * pack_size(x.dtype), MOST_BLOCKS), threads)


def finish_shares(channels: int) -> Shares:
    """The grid of a second step."""
    return Shares(-(-channels // COLUMNS), FINISH_THREADS)


def _unit(x: Any) -> int:
    """The fewest threads whose packs hold whole rows."""
    channels = x.shape[-1]
    return channels // math.gcd(channels, pack_size(x.dtype))
