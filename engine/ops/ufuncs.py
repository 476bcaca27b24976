"""How an operation that NumPy has as a ufunc is replayed."""

from __future__ import annotations

import numpy as np

from ..primitive import Primitive
from .wide import channel_operand


def replay_as(op: Primitive, function: np.ufunc) -> None:
    """Replay `op` as one NumPy ufunc call with `out=`, where it pays on long rows,
    or as a part of a fused run.
    """
    op.chunk_calls = ((function, tuple(f"x{k}" for k in range(function.nin)), "out"),)
    if function.nin == 2:
        op.writes_into(
            lambda out, a, b: channel_operand(function, out, a, b) or [(function, (a, b), {"out": out})]
        )
    else:
        op.writes_into(lambda out, x: [(function, (x,), {"out": out})])
