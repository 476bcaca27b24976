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
from ..product_precision import current_products

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
        self.refused: dict[str, str] = {}  # names, and why what they stand for is launched kernel by kernel

    @cached_property
    def memory(self) -> PrivateMemory:
        return backend.private_memory()


class Recordings:
    """Launches on buffers: carried out at the first use, captured at the second, from then on one graph.

    Args:
        recorder: whose memory they work in, and which knows what is refused.
        name: of what they are, for the line in the log that says why it is launched kernel by kernel.
        level: of that line.
    """

    def __init__(self, recorder: Recorder, name: str, level: int = logging.INFO) -> None:
        self._recorder, self._name, self._level = recorder, name, level
        self._graphs: dict[Any, Graph | None] = {}  # None: carried out once

    @property
    def is_refused(self) -> bool:
        """Whether they are launched kernel by kernel."""
        return self._name in self._recorder.refused

    def run(self, key: Any, work: Callable[[], None]) -> None:
        """Carry out `work`, which launches the same whenever it is called, on the buffers of this key."""
        key = key, current_products()
        if self.is_refused:
            work()
        elif key not in self._graphs:
            if len(self._graphs) >= MOST_GRAPHS:
                self._graphs.clear()
            backend.carry_out(work, self._recorder.memory)
            self._graphs[key] = None  # only now: work that raised has not made its memory
        else:
            graph = self._graphs[key] or self._captured(key, work)
            (work if graph is None else graph.launch)()

    def refuse(self, reason: str) -> None:
        """From now on they are launched kernel by kernel."""
        if not self.is_refused:
            logger.log(self._level, "odegrad: %s are launched kernel by kernel: %s", self._name, reason)
        self._recorder.refused[self._name] = reason

    def _captured(self, key: Any, work: Callable[[], None]) -> Graph | None:
        try:
            graph = Graph(work, self._recorder.memory)
        except Exception as error:  # noqa: BLE001 - CuPy raises errors of many kinds
            self.refuse(str(error) or type(error).__name__)
            return None
        self._graphs[key] = graph
        return graph


class RecordedGroup:
    """A group of a program as a function of t.

    Args:
        name, body: the group, and its launches; they read no time but from the table of numbers.
        fill: what fills in the numbers that depend on time, a launch beside the graph;
            None if the group needs none.
    A time that lies on the device means that all of it is being captured for something larger.
    """

    def __init__(
        self, name: str, body: Callable[[Any], None], fill: Callable[[Any], None] | None, recorder: Recorder
    ) -> None:
        self._body, self._fill = body, fill
        self._recordings = Recordings(recorder, name, logging.DEBUG)

    def __call__(self, t: Any) -> None:
        if self._fill is not None:
            self._fill(t)
        if backend.is_array(t):
            self._body(t)
        else:
            self._recordings.run(None, lambda: self._body(t))
