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
from odegrad.engine.cuda.normalize import (
    Normalization,
    normalize,
    normalize_cotangents,
    normalize_input_grad,
)
from odegrad.engine.ops.convolution import conv2d_input_grad, conv2d_weight_grad
from odegrad.engine.product_precision import OPERAND_ERRORS, Products

from ..measure import ratio, summary
from .card import copy_speed
from .device import Device, parsed, tell
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
            note="nvidia-cudnn-frontend cannot be loaded: convolutions are products by cuBLAS",
        )


def normalization_calls(device: Device, shape: tuple[int, ...]) -> tuple[Calls, dict[str, int]]:
    """Forward and backward, and the tensors that each must move at least."""
    x, _, ybar = arrays(device, shape)
    xp, channels = device.xp, shape[3]
    nodes = [
        to_xp(xp, np.random.default_rng(k).uniform(0.5, 1.5, (101, channels)).astype("f4")) for k in range(2)
    ]
    hats = np.zeros(101, np.float32)
    hats[40:42] = 0.25, 0.75
    mean, var, given = x.mean((0, 1, 2)), x.var((0, 1, 2)), to_xp(xp, hats)
    moved = {"forward": 2, "backward": 5}
    if device.name == "cpu":
        gamma, alpha = (given @ values for values in nodes)
        return {"forward": lambda: ops.relu(ops.normalize(x, mean, var, 1e-5, gamma, alpha))}, moved
    how = Normalization(mean, var, 1e-5, *nodes, given, True)
    out = xp.empty_like(x)

    def backward() -> None:
        bars = normalize_cotangents(ybar, x, how)
        normalize_input_grad(ybar, x, how, mean_bar=bars.mean, var_bar=bars.var, out=out)

    return {"forward": lambda: normalize(x, how, out=out), "backward": backward}, moved


def measure_normalization(device: Device, shape: tuple[int, ...], seconds: float) -> None:
    """A line each way, and the bars: bytes a second over those of a copy, measured just before."""
    calls, moved = normalization_calls(device, shape)
    n_bytes = 4 * int(np.prod(shape))
    copied = copy_speed(device, n_bytes, seconds)["bytes_per_s"]
    for name, found in device.timed(calls, seconds=seconds, repeats=REPEATS).items():
        numbers = summary(found)
        speed = moved[name] * n_bytes / numbers["median_s"]
        tell(
            benchmark="kernels", op=f"normalize {name}", method="odegrad", sizes=list(shape), device=device.name,
            bytes_per_s=speed, **numbers,
        )  # fmt: skip
        tell(benchmark="kernels", bar=f"normalize {name}", value=round(speed / copied, 3))


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
