"""CUDA graphs for the stand-in for CuPy: a captured stream writes launches down, a graph carries them out.

`calls` of the stand-in tells what happened, in order: ("capture",), ("captured", launches), ("launch",), ("wait",), and
("after", stream) where a stream waits for another one, with the host going on. While a stream captures, products are
refused, as CuPy refuses cuBLAS, and so is waiting and whatever reads on the host.
"""

from __future__ import annotations

import ctypes
import types
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import CpuKernel
from fake_cupy import FakeCupy, ndarray

OPERATORS = [f"__{name}__" for name in "add sub mul truediv pow radd rsub rmul rtruediv neg pos abs".split()]
METHODS = ("astype", "conjugate", "copy", "max", "mean", "min", "sum", "fill")
PRODUCTS = ("matmul", "dot", "vdot", "einsum")


class CaptureError(RuntimeError):
    """What cannot be part of a graph."""


def install(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Give the stand-in streams that capture, graphs, memory pools and copies that do not wait."""
    recorder = Recorder(cupy)
    monkeypatch.setattr(cupy, "cuda", recorder.cuda())
    launch = CpuKernel.__call__
    monkeypatch.setattr(CpuKernel, "__call__", recorder.noting(lambda kernel, *_: kernel.name, launch))
    monkeypatch.setattr(ndarray, "data", property(recorder.pointer))
    computed, assign = FakeCupy._computed, ndarray.__setitem__

    def compute(self: FakeCupy, function: Any, args: Any, kwargs: Any) -> Any:
        if recorder.nodes is None:
            return computed(self, function, args, kwargs)
        if function.__name__ in PRODUCTS:
            raise CaptureError(f"{function.__name__} was called while a stream captures")
        is_written = kwargs.get("out") is not None or function is np.copyto
        found = kwargs.get("out") if is_written else computed(self, function, args, kwargs)

        def again() -> None:
            result = computed(self, function, args, kwargs)
            if not is_written:
                assign(found, ..., result)

        recorder.nodes.append((function.__name__, again))
        return found

    monkeypatch.setattr(ndarray, "__setitem__", recorder.noting(lambda *_: "assign", assign))
    for name in [*OPERATORS, *METHODS]:
        monkeypatch.setattr(ndarray, name, recorder.refusing(name, getattr(ndarray, name)))
    monkeypatch.setattr(FakeCupy, "_computed", compute)
    return recorder


class Recorder:
    """What happens on streams; `nodes` are names and works of what a stream captures, None while none does."""

    def __init__(self, cupy: FakeCupy) -> None:
        self.cupy = cupy
        self.nodes: list[tuple[str, Any]] | None = None  # while a stream captures

    def noting(self, name: Any, work: Any) -> Any:
        """`work`, or a node for it while a stream captures."""

        def call(*args: Any) -> None:
            if self.nodes is None:
                work(*args)
            else:
                self.nodes.append((name(*args), lambda: work(*args)))

        return call

    def refusing(self, name: str, work: Any) -> Any:
        """`work`, which the stand-in cannot write down."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.nodes is not None:
                raise CaptureError(f"{name} was called while a stream captures")
            return work(*args, **kwargs)

        return call

    def pointer(self, array: ndarray) -> Any:
        address, nbytes = array._host.ctypes.data, array.nbytes

        def to_host(target: int, size: int) -> None:
            assert size == nbytes
            ctypes.memmove(target, address, size)

        return types.SimpleNamespace(
            ptr=address,
            copy_to_host_async=self.noting(lambda *_: "download", to_host),
        )

    def cuda(self) -> Any:
        recorder = self

        class Stream:
            def __init__(self, non_blocking: bool = False) -> None:
                self.non_blocking = non_blocking

            ptr = property(id)

            def __enter__(self) -> Stream:
                return self

            def __exit__(self, *_: Any) -> None:
                pass

            def synchronize(self) -> None:
                if recorder.nodes is not None:
                    raise CaptureError("the host waits while a stream captures")
                recorder.cupy.calls.append(("wait",))

            def record(self) -> Any:
                return self

            def wait_event(self, event: Any) -> None:
                recorder.cupy.calls.append(("after", event))

            def begin_capture(self, mode: Any = None) -> None:
                assert self.non_blocking, "the default stream cannot capture"
                recorder.nodes = []
                recorder.cupy.calls.append(("capture",))

            def end_capture(self) -> Any:
                nodes, recorder.nodes = recorder.nodes, None
                assert nodes is not None
                recorder.cupy.calls.append(("captured", tuple(name for name, _ in nodes)))

                def launch() -> None:
                    recorder.cupy.calls.append(("launch",))
                    for _, work in nodes:
                        work()

                return types.SimpleNamespace(launch=launch)

        class using_allocator:  # noqa: N801 - CuPy's name
            def __init__(self, allocator: Any) -> None:
                assert callable(allocator)

            def __enter__(self) -> None:
                pass

            def __exit__(self, *_: Any) -> None:
                pass

        current = Stream()
        return types.SimpleNamespace(
            Stream=Stream,
            get_current_stream=lambda: current,
            MemoryPool=lambda: types.SimpleNamespace(malloc=lambda size: None, total_bytes=lambda: 0),
            using_allocator=using_allocator,
            PinnedMemory=bytearray,
            PinnedMemoryPointer=lambda memory, offset: memory,
            runtime=self.cupy.cuda.runtime,
        )
