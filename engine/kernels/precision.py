"""How much rounding error a caller accepts of the kernels, beyond that of plain sums.

An ODE is solved to a tolerance, so that within a solve a faster algorithm with more round-off may be the
better one. Nothing is accepted by default: outside of `accepting(...)` every kernel rounds as a plain sum
does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_accepted: ContextVar[float] = ContextVar("accepted_error", default=0.0)  # shares on other threads inherit it


@contextmanager
def accepting(error: float) -> Iterator[None]:
    """Inside the block, on this thread and in shares of its work, results may be off by `error` relative to
    their largest entry."""
    before = accepted_error()
    _accepted.set(error)
    try:
        yield
    finally:
        _accepted.set(before)


def accepted_error() -> float:
    """What the innermost `accepting` around said; 0 outside of any."""
    return _accepted.get()
