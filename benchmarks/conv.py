"""How many GFLOP/s do the convolution kernels reach, beside PyTorch where it is installed?

    python -m benchmarks.conv [--toy] [--threads N ...]

Prints one JSON line for each size and derivative: of the kernels as a solve at rtol 1e-3 calls them, where some of the
round-off below its tolerance is accepted and machine code transforms where numba is installed, with `plain_` before
the numbers of plain sums. PyTorch (channels last, as many threads) and a matrix product of 512 x 512 by one thread
(`product_`) are measured in the same process, turn by turn with ours, since absolute times move with the machine. On
one thread its processor time is measured, which other programs on the same cores disturb less. The forward of a
transposed convolution is the input gradient of the size that it mirrors.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from odegrad.engine import kernels
from odegrad.engine.kernels.precision import accepting
from odegrad.engine.kernels.threads import one_blas_thread
from threadpoolctl import threadpool_limits

from .measure import interleaved, machine, report, summary

# images, height and width, channels in, channels out, stride; kernel 3x3, padding 1
SIZES = [
    (128, 32, 64, 64, 1),
    (128, 7, 64, 64, 1),
    (128, 32, 32, 64, 2),
    (128, 16, 64, 128, 2),
    (128, 8, 128, 256, 2),
    (128, 28, 16, 32, 2),
    (128, 14, 32, 64, 2),
    (128, 7, 64, 128, 2),
    (256, 28, 1, 16, 1),
    (256, 28, 16, 1, 1),
    (256, 28, 1, 16, 2),
]
TOY = [(4, 8, 3, 4, 2)]
PRODUCT = 512
SPINNING = 0.01  # seconds that PyTorch's threads are left to stop spinning before ours are timed
ACCEPTED = 1e-3 / 25  # the part of rtol 1e-3 that a solve leaves to round-off
Calls = dict[str, Callable[[], Any]]


def our_calls(size: tuple[int, ...], rng: np.random.Generator) -> Calls:
    """The three kernels on float32 arrays, each writing into a buffer of its own."""
    n, extent, n_in, n_out, stride = size
    x = rng.standard_normal((n, extent, extent, n_in), dtype=np.float32)
    w = rng.standard_normal((3, 3, n_in, n_out), dtype=np.float32)
    options = {"stride": stride, "padding": 1}
    y = kernels.conv2d(np, x, w, **options)
    ybar, xbar, wbar = np.ones_like(y), np.empty_like(x), np.empty_like(w)
    at = {"input_shape": (extent, extent), **options}
    return {
        "forward": lambda: kernels.conv2d(np, x, w, **options, out=y),
        "input_grad": lambda: kernels.conv2d_input_grad(np, ybar, w, **at, out=xbar),
        "weight_grad": lambda: kernels.conv2d_weight_grad(
            np, x, ybar, kernel_shape=(3, 3), **options, out=wbar
        ),
    }


def accepted(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a solve makes it."""

    def run() -> Any:
        with accepting(ACCEPTED):
            return call()

    return run


def torch_calls(size: tuple[int, ...], n_threads: int) -> Calls:
    """The same three in PyTorch, channels last; empty if it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    torch.set_num_threads(n_threads)
    torch.set_grad_enabled(False)
    n, extent, n_in, n_out, stride = size
    last = torch.channels_last
    x = torch.randn(n, n_in, extent, extent).contiguous(memory_format=last)
    w = torch.randn(n_out, n_in, 3, 3).contiguous(memory_format=last)
    ybar = torch.nn.functional.conv2d(x, w, stride=stride, padding=1)

    def backward(*mask: bool) -> Any:
        geometry = ([stride] * 2, [1, 1], [1, 1], False, [0, 0], 1)
        return torch.ops.aten.convolution_backward(ybar, x, w, None, *geometry, mask)

    return {
        "forward": lambda: torch.nn.functional.conv2d(x, w, stride=stride, padding=1),
        "input_grad": lambda: backward(True, False, False),
        "weight_grad": lambda: backward(False, True, False),
    }


def product_call(rng: np.random.Generator) -> Callable[[], Any]:
    """A matrix product of `PRODUCT` rows and columns by one thread: those of BLAS would go on spinning beside ours."""
    a = rng.standard_normal((PRODUCT, PRODUCT), dtype=np.float32)
    out = np.empty_like(a)

    def run() -> Any:
        with one_blas_thread():
            return np.matmul(a, a, out=out)

    return run


def speeds(prefix: str, times: list[float], gflop: float) -> dict[str, Any]:
    """Nominal GFLOP/s beside the times."""
    found = summary(times)
    rates = {"gflops": round(gflop / found["median_s"], 2), "best_gflops": round(gflop / found["best_s"], 2)}
    return {prefix + key: value for key, value in (rates | found).items()}


def measure(size: tuple[int, ...], n_threads: int, seconds: float) -> None:
    """One line for each of the three kernels of a size, by this many threads."""
    rng = np.random.default_rng(0)
    n, extent, n_in, n_out, stride = size
    shape = kernels.conv2d_output_shape((n, extent, extent, n_in), (3, 3, n_in, n_out), stride, 1)
    gflop = {"": 2e-9 * np.prod(shape) * 9 * n_in, "product_": 2e-9 * PRODUCT**3}
    peers = torch_calls(size, n_threads)
    clock = time.thread_time if n_threads == 1 else time.perf_counter
    for name, call in our_calls(size, rng).items():
        line = {
            "benchmark": "conv",
            "op": name,
            "x": [n, extent, extent, n_in],
            "w": [3, 3, n_in, n_out],
            "stride": stride,
            "dtype": "float32",
            "module": "numpy",
            "device": "cpu",
            "threads": n_threads,
        }
        calls = {"product_": product_call(rng), "": accepted(call), "plain_": call}
        if peers:
            calls |= {"torch_": peers[name], "pause": lambda: time.sleep(SPINNING)}
        for prefix, times in interleaved(calls, seconds=seconds, clock=clock).items():
            if prefix != "pause":
                line |= speeds(prefix, times, gflop.get(prefix, gflop[""]))
        packages = [name for name in ("torch", "numba") if importlib.util.find_spec(name) is not None]
        report(line | {"machine": machine(*packages)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="one tiny size, a fraction of a second")
    parser.add_argument("--threads", type=int, nargs="+", metavar="N", help="by default as many as BLAS has")
    given = parser.parse_args()
    with one_blas_thread() as n_blas:
        pass
    for n_threads in given.threads or [n_blas]:
        with threadpool_limits(n_threads):
            for size in TOY if given.toy else SIZES:
                measure(size, n_threads, 0.01 if given.toy else 3.0)


if __name__ == "__main__":
    main()
