"""Scratch memory of the kernels: a few buffers a thread, kept between calls,
so that a repeated call allocates nothing.

A fresh large array costs more in page faults than the arithmetic done in it (a third of the copy bandwidth).
"""

from __future__ import annotations

import math
import threading
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import Array

_KEPT_BYTES = 1 << 24  # a buffer above this size is not kept
_BUFFER = "buffer"  # key of a role's bytes, beside its views
_MOST_VIEWS = 256  # a view costs as much to make as a small product; a network has a few dozen shapes
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register

_local = threading.local()


def scratch(xp: ModuleType, role: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """An uninitialised C-contiguous array, valid until this thread asks for the same `role` again.

    On NumPy each thread keeps one buffer a role, as large as the largest request so far, at most 16 MiB;
    larger requests are plain allocations. CuPy's own memory pool serves the same purpose on the device.
    """
    if xp is not np:
        return xp.empty(shape, dtype=dtype)
    views: dict[Any, np.ndarray] = _local.__dict__.setdefault(role, {})
    view = views.get((shape, dtype))
    if view is None:
        view = _new_view(views, shape, np.dtype(dtype))
        if view.nbytes <= _KEPT_BYTES:
            views[shape, dtype] = view
    return view


def _new_view(views: dict[Any, np.ndarray], shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """A view of the role's buffer, which is made anew, and its views dropped, when it is too small."""
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > _KEPT_BYTES:
        return np.empty(shape, dtype=dtype)
    buffer = views.get(_BUFFER)
    if buffer is None or buffer.size < n_bytes or len(views) > _MOST_VIEWS:
        views.clear()
        if buffer is None or buffer.size < n_bytes:
            buffer = _aligned(n_bytes)
        views[_BUFFER] = buffer
    return buffer[:n_bytes].view(dtype).reshape(shape)


def _aligned(n_bytes: int) -> np.ndarray:
    """Bytes (n_bytes,) that begin at a multiple of the alignment."""
    raw = np.empty(n_bytes + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + n_bytes]
