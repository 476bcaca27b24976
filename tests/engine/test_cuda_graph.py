"""Capturing launches: what happens in which order, on a stand-in for CuPy; and that CuPy has what is asked of it."""

from __future__ import annotations

import numpy as np
import pytest
from fake_graphs import install
from odegrad.engine import backend
from odegrad.engine.cuda.graph import Graph, Mailbox, RecordedGroup, Recorder
from odegrad.engine.product_precision import product_precision


@pytest.fixture
def cupy(fake_cupy, monkeypatch):
    """The stand-in for CuPy, with graphs."""
    install(fake_cupy, monkeypatch)
    return fake_cupy


def test_a_graph_does_what_was_captured(cupy):
    x = cupy.asarray(np.arange(3.0))
    graph = Graph(lambda: cupy.add(x, 1.0, out=x), backend.private_memory())
    assert x.get().tolist() == [0.0, 1.0, 2.0]  # nothing was carried out
    graph.launch()
    graph.launch()
    assert x.get().tolist() == [2.0, 3.0, 4.0]


def test_work_that_fails_leaves_nothing_captured(cupy):
    x, memory = cupy.asarray(np.eye(2)), backend.private_memory()
    with pytest.raises(RuntimeError, match="matmul was called while a stream captures"):
        Graph(lambda: cupy.matmul(x, x, out=x), memory)
    cupy.add(x, 1.0, out=x)
    assert x.get()[0].tolist() == [2.0, 1.0]


def test_numbers_cross_in_both_directions(cupy):
    mailbox = Mailbox(cupy, 3)
    mailbox.host[:] = [1.0, 2.0, 3.0]
    mailbox.send()
    cupy.multiply(mailbox.device, 2.0, out=mailbox.device)
    mailbox.fetch()
    assert mailbox.host.tolist() == [2.0, 4.0, 6.0]


def test_a_group_adds_to_its_results_once_a_call(cupy):
    """It is not carried out a second time to be captured."""
    total = cupy.zeros(1, np.float64)
    run = RecordedGroup("g", lambda t: cupy.add(total, 1.0, out=total), None, Recorder())
    for n in range(1, 5):
        run(0.0)
        assert total.get().tolist() == [n]


def test_each_way_to_compute_products_has_its_graph(cupy):
    total = cupy.zeros(1, np.float64)
    run = RecordedGroup("g", lambda t: cupy.add(total, 1.0, out=total), None, Recorder())
    for _ in range(3):
        run(0.0)
        with product_precision("fp32", deterministic=True):
            run(0.0)
    assert [call[0] for call in cupy.calls].count("capture") == 2
    assert total.get().tolist() == [6.0]


def test_what_graphs_hold_counts_as_memory(cupy):
    before, memory = backend.memory_peak(cupy), backend.private_memory()
    memory.pool.total_bytes = lambda: 512
    assert backend.memory_peak(cupy) == before + 512
    del memory
    assert backend.memory_peak(cupy) == before


def test_a_refused_group_is_carried_out(cupy):
    x, recorder = cupy.asarray(np.eye(2)), Recorder()
    run = RecordedGroup("g", lambda t: cupy.matmul(x, 2.0 * x, out=x), None, recorder)
    for n in range(1, 4):
        run(0.0)
        assert x.get()[0, 0] == 2.0 ** (2**n - 1)
    assert "while a stream captures" in recorder.refused["g"]


@pytest.mark.parametrize(
    "name",
    [
        "Stream.begin_capture", "Stream.end_capture", "Stream.synchronize", "Graph.launch", "MemoryPool.malloc",
        "MemoryPool.total_bytes", "using_allocator", "PinnedMemory", "PinnedMemoryPointer", "get_current_stream",
        "MemoryPointer.copy_from_host_async", "MemoryPointer.copy_to_host_async",
    ],
)  # fmt: skip
def test_cupy_has_what_is_asked_of_it(name):
    found = pytest.importorskip("cupy", reason="CuPy is not installed").cuda
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
