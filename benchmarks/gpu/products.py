"""Matrix products of CuPy arrays by cublasLt, by CuPy (cuBLAS) and, of small matrices, by a kernel of the package.

A part of `benchmarks.gpu.kernels`. "near the border" and "few, of many terms" are about the largest that go to the
kernel: where cublasLt takes less time, `MOST_PRODUCTS` of `engine/cuda/products.py` and `MOST_TERMS` of `engine/cuda/cublaslt.py`
are too large.
The first rows of each result are compared with the product in float64 before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from odegrad import product_precision
from odegrad.engine import backend
from odegrad.engine.backend import Array, to_host, to_xp
from odegrad.engine.cuda.cublaslt import matmul_cublaslt
from odegrad.engine.cuda.products import product_calls
from odegrad.engine.product_precision import OPERAND_ERRORS

from ..measure import summary
from .device import Device, tell

REPEATS = 20  # calls between two waits for the GPU
COMPARED = 64  # rows
WITHOUT = (
    "nvmath-python cannot be loaded: products beyond the small kernel's are cuBLAS's by CuPy, and steps and "
    "pull-backs with them are launched kernel by kernel"
)


class Case(NamedTuple):
    """a (*stack, m, k) times b (*stack, k, n); a is the transpose of an array (k, m) if it is turned."""

    name: str
    m: int
    k: int
    n: int
    stack: tuple[int, ...] = ()
    is_turned: bool = False


CASES = (
    Case("a layer", 16384, 512, 512),
    Case("its weight gradient", 512, 16384, 512, is_turned=True),
    Case("a wide layer", 4096, 4096, 4096),
    Case("a stack", 64, 128, 64, stack=(256,)),
    Case("near the border", 256, 64, 256),
    Case("few, of many terms", 50, 256, 2, is_turned=True),
    Case("few, of very many terms", 50, 1024, 2, is_turned=True),
)
TOY = (Case("a layer", 6, 4, 3), Case("a stack", 3, 4, 2, stack=(2,)))


def operands(device: Device, case: Case) -> tuple[Array, Array, Array, np.ndarray]:
    """a, b and room for the result, float32, and the first rows of the product in float64."""
    rng = np.random.default_rng(0)
    a, b = (
        rng.standard_normal((*case.stack, *size)).astype(np.float32)
        for size in ((case.k, case.m) if case.is_turned else (case.m, case.k), (case.k, case.n))
    )
    on_device = [to_xp(device.xp, x) for x in (a, b)]
    if case.is_turned:
        a, on_device[0] = a.swapaxes(-1, -2), on_device[0].swapaxes(-1, -2)
    out = device.xp.empty((*case.stack, case.m, case.n), np.float32)
    exact = a[..., :COMPARED, :].astype(np.float64) @ b.astype(np.float64)
    return on_device[0], on_device[1], out, exact


def ways(device: Device, a: Array, b: Array, out: Array) -> dict[str, Callable[[], Any]]:
    """Who can compute it, by name."""
    found: dict[str, Callable[[], Any]] = {device.xp.__name__: lambda: device.xp.matmul(a, b, out=out)}
    if device.name == "cuda":
        if backend.cublaslt_module() is not None:
            found["cublasLt"] = lambda: matmul_cublaslt(a, b, out)
        for kernel, arguments, _ in product_calls(out, a, b) or ():
            found["small kernel"] = lambda kernel=kernel, arguments=arguments: kernel(*arguments)
    return found


def measure_products(device: Device, cases: tuple[Case, ...], precision: str, seconds: float) -> None:
    """A line a case and way; `seconds` for all."""
    for case in cases:
        a, b, out, exact = operands(device, case)
        flops = 2.0 * out.size * case.k
        with product_precision(precision):
            calls = ways(device, a, b, out)
            for name, call in calls.items():
                out.fill(np.nan)
                call()
                off = float(np.abs(to_host(out[..., :COMPARED, :]) - exact).max()) / case.k**0.5
                assert off <= 40 * OPERAND_ERRORS[precision] + 1e-5, f"{case}, {name}: off by {off:.1e}"
            times = device.timed(calls, seconds=seconds / len(cases), repeats=REPEATS)
        for name, found in times.items():
            numbers = summary(found)
            tell(
                benchmark="kernels", op=f"product, {case.name}", method=name, precision=precision,
                sizes=[*case.stack, case.m, case.k, case.n], device=device.name,
                flops=flops / numbers["median_s"], **numbers,
            )  # fmt: skip
    if device.name == "cuda" and backend.cublaslt_module() is None:
        tell(benchmark="kernels", note=WITHOUT)
