"""Capturing launches: what happens in which order, on a stand-in for CuPy; and that CuPy has what is asked of it."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler, on_cpu
from fake_graphs import install
from nvrtc import ARCHITECTURES, compile_or_skip
from odegrad.engine import backend
from odegrad.engine.cuda import graph
from odegrad.engine.cuda.crossings import Fetched, Sent, hand_over_text
from odegrad.engine.cuda.graph import Graph, RecordedGroup, Recorder, Recordings
from odegrad.engine.product_precision import product_precision


@pytest.fixture
def cupy(fake_cupy, monkeypatch):
    """The stand-in for CuPy, with graphs."""
    install(fake_cupy, monkeypatch)
    return fake_cupy


def test_a_graph_does_what_was_captured(cupy):
    x = cupy.asarray(np.arange(3.0))
    adding = Graph(lambda: cupy.add(x, 1.0, out=x), backend.private_memory())
    assert x.get().tolist() == [0.0, 1.0, 2.0]  # nothing was carried out
    adding.launch()
    adding.launch()
    assert x.get().tolist() == [2.0, 3.0, 4.0]


def test_work_that_fails_leaves_nothing_captured(cupy):
    x, memory = cupy.asarray(np.eye(2)), backend.private_memory()
    with pytest.raises(RuntimeError, match="matmul was called while a stream captures"):
        Graph(lambda: cupy.matmul(x, x, out=x), memory)
    cupy.add(x, 1.0, out=x)
    assert x.get()[0].tolist() == [2.0, 1.0]


@needs_compiler
def test_numbers_cross_in_both_directions(cupy, monkeypatch):
    on_cpu(monkeypatch)
    sent, fetched = Sent(cupy, 3), Fetched(cupy, 3)
    sent.send([1.0, 2, 3.5])
    cupy.multiply(sent.device, 2.0, out=fetched.device)
    fetched.fetch()
    assert fetched.host.tolist() == [2.0, 4.0, 7.0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_kernel_that_hands_numbers_over_compiles(architecture):
    assert compile_or_skip(hand_over_text(14), architecture)


def test_streams_are_put_in_order_without_a_wait_of_the_host(cupy):
    """What work reads is there when it starts, and what follows on the current stream finds its results."""
    memory, current = backend.private_memory(), cupy.cuda.get_current_stream()
    before = backend.transfers()
    backend.carry_out(lambda: cupy.calls.append(("work",)), memory)
    assert cupy.calls == [("after", current), ("work",), ("after", memory.stream)]
    assert backend.transfers() == before


def test_what_follows_work_that_fails_waits_for_what_it_has_launched(cupy):
    memory = backend.private_memory()

    def fail():
        raise ValueError("of f")

    with pytest.raises(ValueError, match="of f"):
        backend.carry_out(fail, memory)
    assert cupy.calls[-1] == ("after", memory.stream)


@pytest.fixture
def steps(cupy):
    """Recorded steps, and what adds 1 to the first of two numbers, to the second, or multiplies by cuBLAS."""
    total = cupy.zeros(2, np.float64)

    def adding(k):
        return lambda: cupy.add(total[k : k + 1], 1.0, out=total[k : k + 1])

    return Recordings(Recorder(), "steps of a test"), total, adding


def test_steps_are_carried_out_once_a_call_and_captured_a_buffer(cupy, steps):
    recorded, total, adding = steps
    for n in range(1, 4):
        for k in range(2):
            recorded.run(k, adding(k))
        assert total.get().tolist() == [n, n]
    assert [call[0] for call in cupy.calls].count("capture") == 2


def test_a_first_use_that_fails_is_none(cupy, steps):
    """Its memory is not made: what comes next is carried out, and only the use after that is captured."""
    recorded, total, adding = steps
    with pytest.raises(OSError, match="not yet"):
        recorded.run(0, _refused)
    recorded.run(0, adding(0))
    assert "capture" not in [call[0] for call in cupy.calls]
    recorded.run(0, adding(0))
    assert "capture" in [call[0] for call in cupy.calls]
    assert total.get()[0] == 2.0


def _refused():
    raise OSError("not yet")


def test_steps_that_cannot_be_captured_are_carried_out(cupy, steps, caplog):
    recorded, total, _ = steps
    x = cupy.asarray(np.eye(2))
    with caplog.at_level("INFO", "odegrad"):
        for n in range(1, 4):
            recorded.run("x", lambda: cupy.matmul(x, 2.0 * x, out=x))
            assert x.get()[0, 0] == 2.0 ** (2**n - 1)
    (line,) = caplog.messages
    assert line.startswith("odegrad: steps of a test are launched kernel by kernel: ")
    assert line.endswith("was called while a stream captures")
    assert recorded.is_refused


def test_graphs_are_forgotten_when_there_are_many(cupy, steps, monkeypatch):
    monkeypatch.setattr(graph, "MOST_GRAPHS", 1)
    recorded, total, adding = steps
    for n in range(1, 4):
        for k in range(2):
            recorded.run(k, adding(k))
        assert total.get().tolist() == [n, n]
    assert ("capture",) not in cupy.calls


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
        "Stream.begin_capture", "Stream.end_capture", "Stream.synchronize", "Stream.record", "Stream.wait_event",
        "Graph.launch", "MemoryPool.malloc",
        "MemoryPool.total_bytes", "using_allocator", "PinnedMemory", "PinnedMemoryPointer", "get_current_stream",
        "MemoryPointer.copy_to_host_async",
    ],
)  # fmt: skip
def test_cupy_has_what_is_asked_of_it(name):
    found = pytest.importorskip("cupy", reason="CuPy is not installed").cuda
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
