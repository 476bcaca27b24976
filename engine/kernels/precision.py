"""How much rounding error a caller accepts of the kernels, beyond that of plain sums.

An ODE is solved to a tolerance, so that within a solve a faster algorithm with more round-off may be the better one.
Nothing is accepted by default: outside of `accepting(...)` every kernel rounds as a plain sum does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_local = threading.local()


@contextmanager
def accepting(error: float) -> Iterator[None]:
    """Inside the block, on this thread, results may be off by `error` relative to their largest entry."""
    before = accepted_error()
    _local.error = error
    try:
        yield
    finally:
        _local.error = before


def accepted_error() -> float:
    """What the innermost `accepting` on this thread said; 0 outside of any."""
    return getattr(_local, "error", 0.0)
