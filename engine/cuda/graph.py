"""A row of launches captured once as a CUDA graph, and launched again as one.

What is captured takes its memory from a pool of its own (`backend.private_memory`): a graph keeps addresses,
and the memory behind them must never be given to anyone else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

from .. import backend
from ..backend import PrivateMemory
from ..product_precision import Products, current_products

logger = logging.getLogger("odegrad")

MOST_GRAPHS = 256  # of one kind of steps; a solve that keeps its steps has one for each


class Graph:
    """`work()` as one launch, with the memory that it works in.

    It must launch the same whenever it is called, must not wait for the device, and must have been carried
    out in this memory before (`backend.carry_out`).
    Raises: whatever CuPy raises for work that cannot be captured, such as a call of cuBLAS.
    """

    def __init__(self, work: Callable[[], None], memory: PrivateMemory) -> None:
        self._memory = memory
        self._graph = backend.captured(work, memory)

    def launch(self) -> None:
        """Carry it out, in the order of the current stream."""
        self._graph.launch()


class Recorder:
    """What the graphs of one workspace share: memory, since they are launched one after the other,
    and what is refused.
    """

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}  # names of groups, and why they are launched kernel by kernel

    @cached_property
    def memory(self) -> PrivateMemory:
        return backend.private_memory()


class RecordedGroup:
    """A group of a program as a function of t: launched kernel by kernel the first time,
    as a graph from then on.

    Args:
        name, body: the group, and its launches; they read no time but from the table of numbers.
        fill: what fills in the numbers that depend on time, a launch beside the graph;
            None if the group needs none.
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


class RecordedSteps:
    """Rows of launches on different buffers: carried out at the first use, captured at the second,
    launched from then on.

    Args:
        recorder: whose memory they work in.
        what: they are, for the line in the log that says why they cannot be captured.
    Attributes:
        is_refused: whether they are launched kernel by kernel.
    """

    def __init__(self, recorder: Recorder, what: str) -> None:
        self._recorder, self._what = recorder, what
        self._graphs: dict[Any, Graph | None] = {}  # None: carried out once
        self.is_refused = False

    def run(self, key: Any, work: Callable[[], None]) -> None:
        """Carry out `work`, which launches the same whenever it is called,
        on the buffers that `key` stands for.
        """
        key = key, current_products()
        if self.is_refused:
            work()
        elif key not in self._graphs:
            if len(self._graphs) >= MOST_GRAPHS:
                self._graphs.clear()
            self._graphs[key] = None
            backend.carry_out(work, self._recorder.memory)
        else:
            graph = self._graphs[key] or self._captured(key, work)
            (work if graph is None else graph.launch)()

    def refuse(self, reason: str) -> None:
        """From now on they are launched kernel by kernel."""
        if not self.is_refused:
            logger.info("odegrad: %s are launched kernel by kernel: %s", self._what, reason)
        self.is_refused = True

    def _captured(self, key: Any, work: Callable[[], None]) -> Graph | None:
        try:
            graph = Graph(work, self._recorder.memory)
        except Exception as error:  # noqa: BLE001 - CuPy raises errors of many kinds
            self.refuse(str(error) or type(error).__name__)
            return None
        self._graphs[key] = graph
        return graph
