"""Many arrays in one launch: a table on the device has a row for each, and a block works on CHUNK values of
one, whose row it finds by bisection.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, to_xp

CHUNK = 4096  # values of a block: four passes of 256 float4

ROW_OF_BLOCK = """
template <typename Row> __device__ inline Row row_of_block(const Row* rows, int count) {
  int low = 0, high = count;  // the last row that begins at this block or before it
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (rows[middle].first_block <= blockIdx.x) low = middle; else high = middle;
  }
  return rows[low];
}
"""


def sent(xp: Any, table: np.ndarray) -> tuple[Array, int]:
    """(the table on the device, the blocks of a launch); `first_block` of each row follows from its `size`.

    No size may be 0. The table holds addresses: who launches sees to it that the arrays live as long.
    """
    blocks = -(-table["size"] // CHUNK)
    table["first_block"] = np.cumsum(blocks) - blocks
    return to_xp(xp, table.view(np.uint8)), int(blocks.sum())
