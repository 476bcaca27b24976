"""The sizes of Winograd's F(4x4, 3x3), and from which sizes of a convolution on its transforms pay,
in one way or another.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 4  # outputs a side
SEEN = 6  # source pixels a side that a block sees


class Limits(NamedTuple):
    """Where the transforms pay, and how much they take at a time. Measured by one thread beside plain sums.

    Attributes:
        channels: below so many on a side they cost more than they save.
        values: blocks times channels, below which the transform of the kernel is not worth it.
        filled: the part of the outputs that the blocks cover which must be wanted.
        few_channels, filled_of_few: the same part below so many channels.
        tile: blocks times channels of a tile.
    """

    channels: int
    values: int
    filled: float
    few_channels: int
    filled_of_few: float
    tile: int
