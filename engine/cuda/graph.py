"""A row of launches captured once as a CUDA graph, and launched again as one.

What is captured takes its memory from a pool of its own (`backend.private_memory`): a graph keeps addresses, and the memory
behind them must never be given to anyone else. Numbers cross in page-locked memory: the copies are part of the
graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from .. import backend
from ..backend import Array, PrivateMemory
from ..product_precision import Products, current_products

logger = logging.getLogger("odegrad")


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
    """`work()` as one launch, with the memory that it works in.

    It must launch the same whenever it is called, must not wait for the device, and must have been carried out in this
    memory before (`backend.carry_out`).
    Raises: whatever CuPy raises for work that cannot be captured, such as a call of cuBLAS.
    """

    def __init__(self, work: Callable[[], None], memory: PrivateMemory) -> None:
        self._memory = memory
        self._graph = backend.captured(work, memory)

    def launch(self) -> None:
        """Carry it out, in the order of the current stream."""
        self._graph.launch()


class Recorder:
    """What the graphs of one workspace share: memory, since they are launched one after the other, and what is refused."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}  # names of groups, and why they are launched kernel by kernel

    @cached_property
    def memory(self) -> PrivateMemory:
        return backend.private_memory()


class RecordedGroup:
    """A group of a program as a function of t: launched kernel by kernel the first time, as a graph from then on.

    Args:
        name, body: the group, and its launches; they read no time but from the table of numbers.
        fill: what fills in the numbers that depend on time, a launch beside the graph; None if the group needs none.
    A time that lies on the device means that all of it is being captured for something larger.
    """

    def __init__(
        self, name: str, body: Callable[[Any], None], fill: Callable[[Any], None] | None, recorder: Recorder
    ) -> None:
        self._name, self._body, self._fill, self._recorder = name, body, fill, recorder
        self._graphs: dict[Products, Graph | None] = {}  # None: carried out once

    def __call__(self, t: Any) -> None:
        if self._fill is not None:
            self._fill(t)
        if self._name in self._recorder.refused or backend.is_array(t):
            self._body(t)
            return
        products = current_products()
        if products not in self._graphs:
            self._graphs[products] = None
            backend.carry_out(lambda: self._body(t), self._recorder.memory)
            return
        graph = self._graphs[products] or self._captured(products)
        if graph is None:
            self._body(t)
        else:
            graph.launch()

    def _captured(self, products: Products) -> Graph | None:
        try:
            graph = Graph(lambda: self._body(None), self._recorder.memory)
        except Exception as error:  # noqa: BLE001 - CuPy raises errors of many kinds
            self._recorder.refused[self._name] = str(error) or type(error).__name__
            logger.debug("odegrad: `%s` is launched kernel by kernel: %s", self._name, error)
            return None
        self._graphs[products] = graph
        return graph
