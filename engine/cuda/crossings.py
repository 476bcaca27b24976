"""Numbers that cross between the host and the device without a wait.

To the device they come as arguments of a launch, which keeps a copy of them: the host may change its own at
once, while page-locked memory that a copy is still to read would have to stay as it is. To the host they come
by a copy into page-locked memory, which can be part of a graph; only who reads them waits
(`backend.await_device`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import backend
from ..backend import Array
from .source import module


class Sent:
    """Numbers of the host in device memory.

    Attributes:
        device: float64 (n,), as it was sent last, in the order of the stream.
        each: float64 () each, the numbers of `device` one by one.
    """

    def __init__(self, xp: Any, size: int) -> None:
        self.device: Array = xp.zeros(size, np.float64)
        self.each: list[Array] = [self.device[k:][:1].reshape(()) for k in range(size)]
        self._kernel = module(hand_over_text(size)).get_function("hand_over")

    def send(self, numbers: Sequence[float]) -> None:
        """Write them, n of them. Cost: one launch of one thread."""
        self._kernel((1,), (1,), (self.device, *map(float, numbers)))


class Fetched:
    """Numbers of the device in page-locked memory.

    Attributes:
        device: float64 (n,), CuPy.
        host: float64 (n,), NumPy: what was fetched last, once the device has been waited for.
    """

    def __init__(self, xp: Any, size: int) -> None:
        self.device: Array = xp.zeros(size, np.float64)
        self.host = backend.page_locked(size)

    def fetch(self) -> None:
        """Start to copy from the device to the host."""
        backend.start_download(self.host, self.device)


def hand_over_text(size: int) -> str:
    """The kernel that writes its arguments into an array."""
    parameters = ", ".join(f"double x{k}" for k in range(size))
    lines = "".join(f"  out[{k}] = x{k};\n" for k in range(size))
    return f'extern "C" __global__ void __launch_bounds__(1) hand_over(double* out, {parameters}) {{\n{lines}}}\n'
