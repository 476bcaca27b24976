"""A row of launches captured once as a CUDA graph, and launched again as one.

What is captured takes its memory from a pool of its own (`backend.private_memory`): a graph keeps addresses, and the memory
behind them must never be given to anyone else. Numbers cross in page-locked memory: the copies are part of the
graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend
from ..backend import Array, PrivateMemory


class Mailbox:
    """Numbers that cross between the host and the device without a wait: the host's side is page-locked.

    Attributes:
        host: float64 (n,), NumPy.
        device: float64 (n,), CuPy.
    """

    def __init__(self, xp: Any, size: int) -> None:
        self.host = backend.page_locked(size)
        self.device: Array = xp.zeros(size, np.float64)

    def send(self) -> None:
        """Start to copy from the host to the device."""
        backend.start_upload(self.device, self.host)

    def fetch(self) -> None:
        """Start to copy from the device to the host."""
        backend.start_download(self.host, self.device)


class Graph:
    """`work()` as one launch.

    `work` is called twice, once to be carried out, so that the pool has its memory, and once to be captured. It must
    launch the same whenever it is called, and must not wait for the device.
    Raises: whatever CuPy raises for work that cannot be captured, such as a call of cuBLAS.
    """

    def __init__(self, work: Callable[[], None], memory: PrivateMemory) -> None:
        self._memory = memory
        self._graph = backend.captured(work, memory)

    def launch(self) -> None:
        """Carry it out, in the order of the current stream."""
        self._graph.launch()
