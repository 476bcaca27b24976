"""Convolutions beside PyTorch's, products beside CuPy's, and normalise + affine + ReLU beside the card's copy.

    python -m benchmarks.gpu.kernels [--toy] [--seconds S]

Convolutions of (256, 32, 32, 64) by 3x3x64 in TF32 and bfloat16, channels last for both. In bfloat16 the bar is about
cuDNN's plan from bfloat16 to bfloat16, which is what PyTorch computes; lines beside it have the plan that writes float32,
and the time from float32 to float32. Each result is compared with float32 before it is timed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from odegrad import ops, product_precision
from odegrad.engine import backend
from odegrad.engine.backend import Array, to_host, to_xp
from odegrad.engine.cuda import cudnn_plans
from odegrad.engine.cuda.bfloat16 import narrowed
from odegrad.engine.ops.convolution import conv2d_input_grad, conv2d_weight_grad
from odegrad.engine.product_precision import OPERAND_ERRORS, Products

from ..measure import ratio, summary
from .device import Device, parsed, tell
from .normalization import measure_normalization
from .products import CASES, TOY, measure_products

REPEATS = 20  # calls between two waits for the GPU
Calls = dict[str, Callable[[], Any]]


def arrays(device: Device, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Images, a kernel and a cotangent (all channels equal in number), float32."""
    rng, channels = np.random.default_rng(0), shape[3]
    sizes = (shape, (3, 3, channels, channels), shape)
    x, w, y = (to_xp(device.xp, rng.standard_normal(s, dtype=np.float32)) for s in sizes)
    return x, w / np.float32(3 * channels**0.5), y


def our_convolutions(x: Array, w: Array, y: Array) -> Calls:
    """From float32 to float32, in the precision of the moment."""
    at: dict[str, Any] = {"stride": 1, "padding": 1}
    return {
        "fprop": lambda: ops.conv2d(x, w, **at),
        "dgrad": lambda: conv2d_input_grad(y, w, size=x.shape[1:3], **at),
        "wgrad": lambda: conv2d_weight_grad(x, y, kernel=w.shape[:2], **at),
    }


def narrow_plans(kind: str, x: Array, w: Array, y: Array) -> Calls:
    """cuDNN's plans of a kind on operands that are bfloat16 already, by the form of their result; those that it has."""
    xp, cudnn = backend.namespace_of(x), backend.cudnn_module()
    if cudnn is None:
        return {}
    packed = xp.ascontiguousarray(w.transpose(3, 0, 1, 2))
    operands = {"fprop": (x, packed), "dgrad": (y, packed), "wgrad": (x, y)}[kind]
    first, second = (narrowed(operand) for operand in operands)
    shape = {"fprop": y.shape, "dgrad": x.shape, "wgrad": packed.shape}[kind]
    problem = cudnn_plans.Problem(kind, x.shape, w.shape, y.shape, (1, 1), (1, 1), Products("bf16"))
    handle, found = cudnn_plans.library().handle, {}
    for form in (cudnn_plans.NARROW, cudnn_plans.DIRECT, cudnn_plans.EPILOGUE):
        try:
            plan = cudnn_plans.build(cudnn, handle, problem, form)
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
            tell(benchmark="kernels", op=kind, note=f"no plan of bfloat16, {form}: {error}"[:300])
            continue
        result = xp.empty(shape, "uint16" if plan.result_is_narrow else "float32")
        found[f"cudnn plan, {form}"] = partial(cudnn_plans.run, plan, first, second, result)
    return found


def torch_convolutions(shape: tuple[int, ...], precision: str, device: Device) -> Calls:
    """The same three in PyTorch; empty if it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    n, height, width, channels = shape
    options: dict[str, Any] = {
        "dtype": torch.bfloat16 if precision == "bf16" else torch.float32,
        "device": device.name,
    }

    def channels_last(*sizes: int) -> Any:
        return torch.randn(*sizes, **options).contiguous(memory_format=torch.channels_last)

    x, y = (channels_last(n, channels, height, width) for _ in range(2))
    w = channels_last(channels, channels, 3, 3)

    def backward(*mask: bool) -> Any:
        geometry = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        with torch.no_grad():
            return torch.ops.aten.convolution_backward(y, x, w, None, *geometry, mask)

    return {
        "fprop": lambda: torch.nn.functional.conv2d(x, w, padding=1),
        "dgrad": lambda: backward(True, False, False),
        "wgrad": lambda: backward(False, True, False),
    }


def measure_convolutions(device: Device, shape: tuple[int, ...], precision: str, seconds: float) -> None:
    """A line a kind and library, and the bars of this precision."""
    operands = arrays(device, shape)
    flops = 2 * 9 * shape[3] * float(np.prod(shape))
    calls = our_convolutions(*operands)
    exact = {kind: to_host(call()) for kind, call in calls.items()}
    peers = torch_convolutions(shape, precision, device)
    with product_precision(precision):
        for kind, call in calls.items():
            off = float(np.abs(to_host(call()) - exact[kind]).max() / np.abs(exact[kind]).max())
            assert off <= 4 * OPERAND_ERRORS[precision] + 1e-5, f"{kind}, {precision}: off by {off:.1e}"
        for kind, call in calls.items():
            plans = narrow_plans(kind, *operands) if precision == "bf16" else {}
            others = {"torch": peers[kind]} if peers else {}
            times = device.timed({"odegrad": call, **plans, **others}, seconds=seconds, repeats=REPEATS)
            for name, found in times.items():
                numbers = summary(found)
                tell(
                    benchmark="kernels", op=kind, method=name, precision=precision, sizes=list(shape),
                    device=device.name, flops=flops / numbers["median_s"], **numbers,
                )  # fmt: skip
            judged = times.get("cudnn plan, narrow", times["odegrad"])
            if "torch" in times:
                tell(benchmark="kernels", bar=f"conv {kind} {precision}", value=ratio(times["torch"], judged))
    if device.name == "cuda" and backend.cudnn_module() is None:
        tell(
            benchmark="kernels",
            note="nvidia-cudnn-frontend cannot be loaded: convolutions are products of matrices",
        )


def main() -> None:
    given = parsed(__doc__)
    shape = (2, 6, 6, 4) if given.toy else (256, 32, 32, 64)
    for precision in ("fp32",) if given.toy else ("tf32", "bf16"):
        measure_convolutions(given.device, shape, precision, given.seconds / 6)
    for precision in ("fp32",) if given.toy else tuple(OPERAND_ERRORS):
        measure_products(given.device, TOY if given.toy else CASES, precision, given.seconds / 3)
    measure_normalization(given.device, (4, 6, 6, 4) if given.toy else (256, 64, 64, 64), given.seconds / 2)


if __name__ == "__main__":
    main()
