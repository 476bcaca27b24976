"""The array module in use: the only file that names CuPy, and the only crossings between host and device."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np

from .errors import ArgumentError, ArgumentTypeError
from .forking import free_in_child

Array = Any  # numpy.ndarray or cupy.ndarray


def cupy_module() -> ModuleType:
    """CuPy, imported at first use; ArgumentTypeError says which extra to install if it is missing."""
    try:
        import cupy
    except ImportError as error:
        raise ArgumentTypeError(
            "device 'cuda' needs CuPy, which is not installed; pip install 'odegrad[cuda13]' (or [cuda12])"
        ) from error
    return cupy


def is_device_array(value: Any) -> bool:
    """Whether `value` is a cupy.ndarray."""
    cupy = sys.modules.get("cupy")  # an array of a module that was never imported cannot exist
    return cupy is not None and isinstance(value, getattr(cupy, "ndarray", ()))


def is_array(value: Any) -> bool:
    """Whether `value` is a numpy.ndarray or a cupy.ndarray (a NumPy scalar is neither)."""
    return isinstance(value, np.ndarray) or is_device_array(value)


def namespace_of(*arrays: Any) -> ModuleType:
    """The module (numpy or cupy) that all `arrays` belong to; numbers belong to both.

    Raises ArgumentTypeError that names every array and its module if they differ.
    """
    has_host = has_device = False
    for array in arrays:
        if isinstance(array, np.ndarray):
            has_host = True
        elif is_array(array):
            has_device = True
    if has_host and has_device:
        found = [
            f"#{i}: {type(a).__module__.partition('.')[0]} {a.dtype}{list(a.shape)}"
            for i, a in enumerate(arrays)
            if is_array(a)
        ]
        raise ArgumentTypeError("arrays of different modules meet: " + ", ".join(found))
    return sys.modules["cupy"] if has_device else np


def module_for_device(device: str) -> ModuleType:
    """numpy for "cpu", cupy for "cuda"; ArgumentError where CuPy finds no GPU that it can use."""
    if device == "cpu":
        return np
    if device == "cuda":
        cupy = cupy_module()
        runtime = cupy.cuda.runtime
        try:
            n_devices, reason = runtime.getDeviceCount(), ""
        except runtime.CUDARuntimeError as error:
            n_devices, reason = 0, f": {error}"
        if n_devices < 1:
            raise ArgumentError(
                f"device 'cuda': CuPy {cupy.__version__} finds no GPU that it can use{reason}. "
                "Look at `nvidia-smi`, install the CuPy of the driver's CUDA version, or take device 'cpu'"
            )
        return cupy
    raise ArgumentTypeError(f"`device` must be 'cpu' or 'cuda'; got {device!r}")


def device_versions(device: str) -> dict[str, Any]:
    """What of a device may change the last bits of a result: {} for "cpu"."""
    if device == "cpu":
        return {}
    cupy = module_for_device(device)
    runtime = cupy.cuda.runtime
    return {
        "gpu": runtime.getDeviceProperties(runtime.getDevice())["name"].decode(),
        "driver": runtime.driverGetVersion(),
        "cuda": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


def device_of(array: Array) -> str:
    """The device "cpu" for NumPy arrays and numbers, "cuda" for CuPy arrays."""
    return "cpu" if namespace_of(array) is np else "cuda"


class Transfers(NamedTuple):
    """How often arrays crossed since the process began; a read from the device makes the host wait for it."""

    reads: int = 0
    writes: int = 0


def transfers() -> Transfers:
    """The crossings so far, of all threads: the difference of two says what a piece of code has cost."""
    return _transfers


_transfers = Transfers()
_counting = free_in_child(threading.Lock())


def _count(*, reads: int = 0, writes: int = 0) -> None:
    global _transfers
    with _counting:
        _transfers = Transfers(_transfers.reads + reads, _transfers.writes + writes)


def to_host(array: Array) -> np.ndarray:
    """`array` as a NumPy array; a transfer if it lives on a device, no copy if it does not."""
    if not is_device_array(array):
        return np.asarray(array)
    _count(reads=1)
    return array.get()


def to_number(value: Any) -> Any:
    """An array of one value as a Python number: what `.item()` gives. One read if it lives on a device."""
    if is_device_array(value):
        _count(reads=1)
    return value.item() if hasattr(value, "item") else value


def host_numbers(values: Any) -> np.ndarray:
    """A number, an array or a list of numbers as a NumPy array; a transfer for each part on a device."""
    if isinstance(values, (list, tuple)):
        values = [to_number(value) if is_device_array(value) else value for value in values]
    return to_host(values)


def to_xp(xp: ModuleType, array: Any) -> Array:
    """`array` (host data) as an array of module `xp`."""
    if xp is not np and not is_device_array(array):
        _count(writes=1)
    return xp.asarray(array)


def copy_on_stream(target: Array, source: np.ndarray, stream: Any) -> None:
    """Start to copy `source`, in page-locked memory, into a CuPy array;
    `source` must stay until the stream is done.
    """
    _count(writes=1)
    target.set(source, stream=stream)


def page_locked(size: int) -> np.ndarray:
    """float64 (size,) of zeros on the host, in memory that the device can copy while the host goes on.

    Not from CuPy's pool of such memory, which would give it away while a copy that was started is still to
    come.
    """
    cuda = cupy_module().cuda
    array = np.frombuffer(cuda.PinnedMemoryPointer(cuda.PinnedMemory(8 * size), 0), np.float64, size)
    array[:] = 0.0
    return array


def start_download(target: np.ndarray, source: Array) -> None:
    """Start to copy a CuPy array into page-locked memory of its size; `await_device` before it is read."""
    source.data.copy_to_host_async(target.ctypes.data, target.nbytes)


def await_device() -> None:
    """Wait until all that was launched on the current stream is done: what a read costs."""
    _count(reads=1)
    cupy_module().cuda.get_current_stream().synchronize()


@dataclass(frozen=True, eq=False)
class PrivateMemory:
    """A stream to capture on, and a memory pool for nothing else than what is captured there."""

    stream: Any
    pool: Any

    def __post_init__(self) -> None:
        _private_memories.add(self)


_private_memories: WeakSet[PrivateMemory] = WeakSet()


def private_memory() -> PrivateMemory:
    """For graphs that are never launched at the same time: they use the same memory one after the other."""
    cuda = cupy_module().cuda
    return PrivateMemory(cuda.Stream(non_blocking=True), cuda.MemoryPool())


def carry_out(work: Callable[[], None], memory: PrivateMemory) -> None:
    """Call `work()` so that `memory` has what it takes, in the order of the current stream.

    The host does not wait. Where `work` raises, what it had launched comes before what follows all the same:
    arrays that it reads may be given back and used again then.
    """
    cuda = cupy_module().cuda
    current = cuda.get_current_stream()
    memory.stream.wait_event(current.record())
    try:
        with memory.stream, cuda.using_allocator(memory.pool.malloc):
            work()
    finally:
        current.wait_event(memory.stream.record())


def captured(work: Callable[[], None], memory: PrivateMemory) -> Any:
    """The CUDA graph of what `work()` launches, none of which is carried out here;
    `memory` is to be kept as long as the graph.

    What `work` raises is raised here, and nothing stays captured.
    It must have been carried out in this memory before.
    """
    stream = memory.stream
    with stream, cupy_module().cuda.using_allocator(memory.pool.malloc):
        stream.begin_capture()
        try:
            work()
        except BaseException:
            with suppress(Exception):  # CUDA says again that the capture failed
                stream.end_capture()
            raise
        return stream.end_capture()


def start_memory_phase(xp: ModuleType) -> None:
    """From now on `memory_peak` counts anew: the pool gives back what nothing uses."""
    if xp is not np:
        xp.get_default_memory_pool().free_all_blocks()


def memory_peak(xp: ModuleType) -> int | None:
    """Bytes that CuPy's pool has taken from the device since `start_memory_phase`, at most, and those of
    graphs that are there now; None for NumPy.
    """
    if xp is np:
        return None
    graphs = sum(memory.pool.total_bytes() for memory in list(_private_memories))
    return xp.get_default_memory_pool().total_bytes() + graphs


def raw_module(source: str, options: tuple[str, ...]) -> Any:
    """The CuPy module of a CUDA C text, compiled at its first use; `get_function(name)` gives its kernels."""
    return cupy_module().RawModule(code=source, options=options)


# CuPy 14 takes COMPUTE_TYPE_BF16, and then computes in float32.
_COMPUTE_TYPES = {"fp32": "COMPUTE_TYPE_DEFAULT", "tf32": "COMPUTE_TYPE_TF32", "bf16": "COMPUTE_TYPE_TF32"}


@contextmanager
def matrix_products_in(precision: str) -> Iterator[None]:
    """Inside the block cuBLAS rounds the operands of CuPy's float32 products: not at all,
    or to TF32 in "tf32" and "bf16".

    CuPy has one setting for the whole process.
    """
    core = cupy_module()._core
    before = core.get_compute_type(np.float32)
    core.set_compute_type(np.float32, getattr(core._routines_linalg, _COMPUTE_TYPES[precision]))
    try:
        yield
    finally:
        core.set_compute_type(np.float32, before)


@cache
def cudnn_module() -> ModuleType | None:
    """The Python package of nvidia-cudnn-frontend with a cuDNN that can be loaded, or None."""
    try:
        import cudnn

        cudnn.backend_version()
    except (ImportError, OSError, RuntimeError):  # no package, or one without the library that it loads
        return None
    return cudnn


@cache
def cublaslt_module() -> ModuleType | None:
    """The bindings of cublasLt in nvmath-python with a library that can be loaded, or None."""
    try:
        with warnings.catch_warnings(action="ignore"):  # it loads more of CUDA than what is used here
            from nvmath.bindings import cublasLt

            cublasLt.get_version()
    # No package, no driver, no library for this driver, or a package of CUDA's that does not fit the others.
    except (ImportError, AttributeError, OSError, RuntimeError):
        return None
    return cublasLt


def current_stream() -> int:
    """The address of the CUDA stream that CuPy's calls on this thread go to."""
    return sys.modules["cupy"].cuda.get_current_stream().ptr


def device_number() -> int:
    """The number of the GPU that CuPy's calls on this thread go to."""
    return sys.modules["cupy"].cuda.runtime.getDevice()


def place_of(xp: ModuleType) -> tuple[Any, ...]:
    """The module, and of CuPy the device and the stream of this thread:
    buffers that stay there are used in order.
    """
    return (xp,) if xp is np else (xp, device_number(), current_stream())


def device_address(array: Array) -> int:
    """Where the first element of a CuPy array lies in the GPU's memory."""
    return array.data.ptr
