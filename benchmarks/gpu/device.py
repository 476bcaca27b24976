"""The device that a part measures: a GPU by CuPy, or NumPy at toy size, so that every part runs anywhere."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from odegrad.engine import backend
from odegrad.engine.errors import ArgumentTypeError

Calls = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Device:
    """`xp` is CuPy or NumPy, `name` as `module_for_device` and PyTorch know it."""

    xp: ModuleType
    name: str

    def synchronise(self) -> None:
        """Wait for all work of the GPU, whoever gave it; nothing to do on the CPU."""
        if self.name == "cuda":
            self.xp.cuda.runtime.deviceSynchronize()

    def timed(self, calls: Calls, *, seconds: float, repeats: int = 1) -> dict[str, list[float]]:
        """Sorted seconds a call of each, turn by turn: three turns at least, behind one that warms up.

        `repeats` calls are given to the GPU before it is waited for.
        """
        times: dict[str, list[float]] = {name: [] for name in calls}
        turn, end = -1, time.perf_counter() + seconds
        while turn < 3 or time.perf_counter() < end:
            for name, call in calls.items():
                start = time.perf_counter()
                for _ in range(repeats):
                    call()
                self.synchronise()
                if turn >= 0:
                    times[name].append((time.perf_counter() - start) / repeats)
            turn += 1
        return {name: sorted(found) for name, found in times.items()}


def why_no_gpu() -> str | None:
    """What keeps CuPy from a GPU; None where it has one."""
    try:
        cupy = backend.cupy_module()
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except (ArgumentTypeError, RuntimeError) as error:
        return str(error)
    return None if n_devices else "CuPy sees no CUDA device"


def parsed(
    doc: str | None, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The arguments of a part; `device` is NumPy's with `--toy`, CuPy's otherwise."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="tiny sizes on NumPy, for the tests")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each comparison is measured")
    if add is not None:
        add(parser)
    given = parser.parse_args()
    given.device = Device(np, "cpu") if given.toy else Device(backend.cupy_module(), "cuda")
    given.seconds = 0.02 if given.toy else given.seconds
    return given


def tell(**line: Any) -> None:
    """One result as one line of JSON, the moment it is known: a part that is cut off loses only what was to come."""
    print(json.dumps(line), flush=True)
