"""Timing, and what a result must say about where it was measured; shared by the benchmarks."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}  # the latter of all threads together


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    *,
    seconds: float,
    repeats: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Sorted seconds a call of each, measured turn by turn, since absolute times move with the machine.

    Args:
        seconds: how long to go on, at least five turns; two turns before them warm up.
        repeats: calls that are timed together, for calls of microseconds.
        clock: `time.thread_time` leaves out what other programs take of a core that is shared with them.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    turn, end = -2, time.perf_counter() + seconds
    while turn < 5 or time.perf_counter() < end:
        for name, call in calls.items():
            start = clock()
            for _ in range(repeats):
                call()
            if turn >= 0:
                times[name].append((clock() - start) / repeats)
        turn += 1
    return {name: sorted(found) for name, found in times.items()}


def summary(times: list[float]) -> dict[str, Any]:
    """Median, best, number and relative spread (distance of the quartiles over the median) of sorted times."""
    median = statistics.median(times)
    spread = (times[3 * len(times) // 4] - times[len(times) // 4]) / median
    return {"median_s": median, "best_s": times[0], "spread": round(spread, 3), "n": len(times)}


def ratio(times: list[float], others: list[float]) -> float:
    """How many times as long: the quotient of the medians."""
    return round(statistics.median(times) / statistics.median(others), 3)


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, system load, and the versions of Python, NumPy and `packages`."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", *packages)}
    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **versions,
    }


def processor_name() -> str:
    """The processor's name where Linux tells it, its architecture elsewhere."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def report(line: Mapping[str, Any]) -> None:
    """One result as one line of JSON."""
    print(json.dumps(line), flush=True)
