"""Copies from the host to a GPU beside what it computes: page-locked memory, a stream of its own.

A copy from ordinary memory makes the host wait, and on the stream of the computation it would take its turn
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from .backend import Array, copy_on_stream

N_SLOTS = 2  # one set of arrays is on its way while the one before may still be copied


class Upload(NamedTuple):
    """Arrays on the device that are being filled; the event `done` comes behind the last copy."""

    arrays: list[Array]
    done: Any


class Uploader:
    """Starts copies of a few arrays at a time.

    `start` may be called on another thread than `finish`, but on one at a time. The arrays belong to the
    device and the stream that were current when the uploader was made: the copies wait for what is in that
    stream, since the memory pool hands out again what work in there may still read.
    """

    def __init__(self, xp: ModuleType) -> None:
        cuda: Any = xp.cuda
        self._xp, self._device, self._compute = xp, cuda.Device(), cuda.get_current_stream()
        self._copies = cuda.Stream(non_blocking=True)
        self._slots = [_Slot(cuda) for _ in range(N_SLOTS)]
        self._n_started = 0

    def start(self, arrays: Sequence[np.ndarray]) -> Upload:
        """Begin to copy the arrays, which may be written to again when this returns."""
        with self._device:  # each thread has a current one
            return self._started(arrays)

    def _started(self, arrays: Sequence[np.ndarray]) -> Upload:
        slot = self._slots[self._n_started % N_SLOTS]
        self._n_started += 1
        slot.wait()
        with self._compute:
            targets = [self._xp.empty(array.shape, array.dtype) for array in arrays]
            is_free = self._compute.record()
        self._copies.wait_event(is_free)
        for k, (array, target) in enumerate(zip(arrays, targets, strict=True)):
            copy_on_stream(target, slot.holding(k, array), self._copies)
        slot.done = self._copies.record()
        return Upload(targets, slot.done)

    def finish(self, upload: Upload) -> list[Array]:
        """The arrays on the device. The host goes on at once;
        what is computed with them comes behind the copies.
        """
        self._compute.wait_event(upload.done)
        return upload.arrays


class _Slot:
    """Page-locked memory for one set of arrays."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._buffers: list[np.ndarray] = []
        self.done: Any = None

    def wait(self) -> None:
        """Until the last copies from here are made."""
        if self.done is not None:
            self.done.synchronize()

    def holding(self, k: int, array: np.ndarray) -> np.ndarray:
        """A copy of array k of a set."""
        if k == len(self._buffers):
            self._buffers.append(np.empty(0, np.uint8))
        if self._buffers[k].size < array.nbytes:
            memory = self._cuda.alloc_pinned_memory(array.nbytes)
            self._buffers[k] = np.frombuffer(memory, np.uint8, array.nbytes)
        held = self._buffers[k][: array.nbytes].view(array.dtype).reshape(array.shape)
        held[...] = array
        return held
