"""What do chains as machine code gain over chains as NumPy calls, and what does TA-BN cost with either?

    python -m benchmarks.fusion [--toy] [--threads N] [--seconds S]

One evaluation of the dynamics, forward and pulled back, of the paper's networks without a norm and with TA-BN, and of the
convolution workloads. Prints one JSON line a network and way to run chains; all of a network are measured turn by turn.
`over_numpy` and `over_none` are ratios of both passes together. With one thread it is processor time that is measured,
which other programs on the machine disturb little. Without numba there are the lines of NumPy only.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from odegrad.engine.jit.choice import CHOICE
from odegrad.solvers.dynamics import Dynamics
from threadpoolctl import threadpool_limits

from .iterations import ours
from .measure import interleaved, machine, ratio, report, summary
from .norm_cost import passes, passes_of
from .workloads import Workload, toy, workloads

Passes = dict[str, Callable[[], None]]
Variants = dict[str, Callable[[], Passes]]
READINGS = ("none", "tabn")


def paper_network(name: str, shape: tuple[int, int, int], batch: int) -> Variants:
    """A network of the paper without a norm and with TA-BN."""
    return {reading: partial(passes, reading, name, shape, batch) for reading in READINGS}


def of_workload(make: Callable[[], Workload]) -> Variants:
    """The network of a workload."""

    def made() -> Passes:
        given = make()
        network = partial(given.network, ours)
        return passes_of(Dynamics(network, 0.0, given.y0, given.params, has_aux=False))

    return {"group norm": made}


def networks(*, small: bool) -> dict[str, tuple[list[int], str, Variants]]:
    """What is measured together: name -> (sizes of the state, dtype, variants)."""
    if small:
        return {
            "4-layer": ([4, 8, 8, 1], "float32", paper_network("4-layer", (8, 8, 1), 4)),
            "conv-4": ([2, 4, 4, 32], "float64", of_workload(toy()["conv-4"])),
        }
    image, makers = (28, 28, 1), workloads()
    return {
        "4-layer": ([256, *image], "float32", paper_network("4-layer", image, 256)),
        "6-layer": ([128, *image], "float32", paper_network("6-layer", image, 128)),
        "conv-7": ([128, 7, 7, 64], "float32", of_workload(makers["conv-7"])),
        "conv-32": ([32, 32, 32, 64], "float32", of_workload(makers["conv-32"])),
    }


def bound(make: Callable[[], Passes], way: str) -> Passes:
    """The passes with their chains run in one way, which is chosen when they are bound to buffers."""
    before = os.environ.get(CHOICE)
    os.environ[CHOICE] = way
    try:
        return make()
    finally:
        os.environ.pop(CHOICE)
        if before is not None:
            os.environ[CHOICE] = before


def measure(
    network: str, sizes: list[int], dtype: str, variants: Variants, given: argparse.Namespace
) -> None:
    """Time all variants in all ways and print a line for each."""
    ways = ("numpy", "numba") if importlib.util.find_spec("numba") else ("numpy",)
    calls = {
        (way, variant, name): call
        for way in ways
        for variant, make in variants.items()
        for name, call in bound(make, way).items()
    }
    clock = time.thread_time if given.threads == 1 else time.perf_counter
    found = interleaved(calls, seconds=0.05 if given.toy else given.seconds, clock=clock)
    both = {
        key: [a + b for a, b in zip(found[*key, "forward"], found[*key, "backward"], strict=True)]
        for key in [(way, variant) for way in ways for variant in variants]
    }
    for (way, variant), times in both.items():
        line: dict[str, Any] = {
            "benchmark": "fusion", "what": f"{way}, {variant}", "network": network, "sizes": sizes, "dtype": dtype,
            "module": "numpy", "device": "cpu", "threads": given.threads, "clock": clock.__name__, **summary(times),
            "forward_s": summary(found[way, variant, "forward"])["median_s"],
            "backward_s": summary(found[way, variant, "backward"])["median_s"],
            "over_numpy": ratio(times, both["numpy", variant]),
        }  # fmt: skip
        if "none" in variants:
            line["over_none"] = ratio(times, both[way, "none"])
        report(line | {"machine": machine(*(["numba"] if "numba" in ways else []))})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="tiny images, a fraction of a second")
    parser.add_argument("--threads", type=int, default=1, help="of BLAS")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each network is measured")
    given = parser.parse_args()
    with threadpool_limits(given.threads):
        for network, (sizes, dtype, variants) in networks(small=given.toy).items():
            measure(network, sizes, dtype, variants, given)


if __name__ == "__main__":
    main()
