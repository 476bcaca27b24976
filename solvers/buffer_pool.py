"""Idle buffers of finished solves, kept for the next one:
allocating and binding them anew costs more than a step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ..engine.forking import free_in_child

MAX_IDLE_BYTES = 2**31  # of all idle buffers together, the ones given back last excepted


class _Idle(NamedTuple):
    key: Any
    buffers: Any
    nbytes: int


class BufferPool:
    """Buffers by what they are good for; the least recently used ones are dropped beyond a number of bytes.

    The set that was given back last always stays: a training loop finds its buffers again whatever their
    size. A pool lives as long as the process.
    """

    def __init__(self, max_bytes: int = MAX_IDLE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = free_in_child(threading.Lock())
        self._idle: list[_Idle] = []  # least recently used first; a handful

    def take(self, key: Any, build: Callable[[], Any]) -> Any:
        """Buffers for one solve: idle ones of this key, or what `build()` makes."""
        with self._lock:
            for position in range(len(self._idle) - 1, -1, -1):
                if self._idle[position].key == key:
                    return self._idle.pop(position).buffers
        return build()

    def give_back(self, key: Any, buffers: Any) -> None:
        """The buffers are free for the next solve."""
        with self._lock:
            self._idle.append(_Idle(key, buffers, buffers.nbytes))
            while len(self._idle) > 1 and sum(idle.nbytes for idle in self._idle) > self._max_bytes:
                self._idle.pop(0)

    def drop(self, wanted: Callable[[Any], bool]) -> None:
        """Forget the idle buffers whose key `wanted` selects."""
        with self._lock:
            self._idle = [idle for idle in self._idle if not wanted(idle.key)]

    @property
    def nbytes(self) -> int:
        """Bytes of all idle buffers."""
        with self._lock:
            return sum(idle.nbytes for idle in self._idle)
