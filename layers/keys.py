"""Keys inside a trace: a stream of random numbers for each layer, derived from the one key of a call."""

from __future__ import annotations

from typing import Any

from ..engine import random
from ..engine.primitive import primitive


@primitive("fold_key", is_flat=True)
def fold_key_array(xp, key, *, integer):
    """`random.fold_in` as an operation: in a program it depends on the key only,
    so that it runs once per solve.
    """
    return random.fold_in(key, integer)


def fold_key(key: Any, integer: int) -> Any:
    """A key derived from `key` (uint32 (2,), traced or not) and an integer; None stays None."""
    return None if key is None else fold_key_array(key, integer=integer)
