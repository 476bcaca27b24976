"""The U-Net with TA-BN on images of CIFAR-10: seconds an epoch, memory and idle time, beside torch + torchdiffeq.

    python -m benchmarks.gpu.unet [--toy] [--seconds S]

Batch 256, the paper's tolerances (dopri5, 1e-3), TF32 for both. The peer is the same network with the same weights
(`torch_network`), solved by torchdiffeq: by its adjoint and by backpropagation through the solver. Losses are compared
first, in float32 at tolerances of 1e-5: at 1e-3 each solver has an error of its own. An epoch is 50,000 images: iterations
of forward, loss and gradient, without the optimiser, data or evaluation. Memory is what each library's pool took at most.
The share of busy time is what `nvidia-smi` reports while ours runs.
"""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from odegrad import ops, product_precision, random, value_and_grad
from odegrad.engine.backend import memory_peak, start_memory_phase, to_xp
from odegrad.layers import ODEBlock
from odegrad.train.config import defaults_for
from odegrad.train.experiments import classifier

from ..measure import ratio, summary
from .device import Device, parsed, tell

IMAGES = 50_000
TIGHT = 1e-5
Call = Callable[[], float]  # -> the loss


class Problem:
    """Images, classes, the network and its first weights."""

    def __init__(self, device: Device, *, toy: bool) -> None:
        self.device, self.batch = device, 4 if toy else 256
        size, name = (8, "4-layer") if toy else (32, "unet")
        config = replace(defaults_for("cifar10"), network=name, dropout=0.0)
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((self.batch, size, size, 3), dtype=np.float32)
        self.labels = rng.integers(0, 10, self.batch)
        self.network = classifier(config, (size, size, 3), 10)
        self.weights = self.network.init(random.key(0), np.float32, device.xp)
        self.stats = self.network.init_stats(np.float32, device.xp)

    @property
    def block(self) -> ODEBlock:
        """The neural ODE; batch norm and the linear layer follow it."""
        block = self.network.layers[0]
        assert isinstance(block, ODEBlock)
        return block


def ours(problem: Problem, block: ODEBlock) -> Call:
    """Mean squared final state as loss: the part of the network that a solve is."""
    x, stats = to_xp(problem.device.xp, problem.x), problem.stats[0]

    def loss(weights: Any) -> Any:
        y, _ = block.apply(weights, stats, None, x, mode="train")
        return ops.mean(y * y)

    differentiated = value_and_grad(loss)
    return lambda: float(differentiated(problem.weights[0])[0])


def torch_calls(problem: Problem, block: ODEBlock) -> dict[str, Call]:
    """The peer's two ways; empty if torch or torchdiffeq is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "torchdiffeq")):
        return {}
    import torch
    import torchdiffeq

    from . import torch_network

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = block.rtol > TIGHT
    device = problem.device.name
    images = torch.from_numpy(problem.x.transpose(0, 3, 1, 2).copy()).to(device)
    x = images.contiguous(memory_format=torch.channels_last)
    times = torch.tensor([block.t0, block.t1], device=device)

    class Dynamics(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch_network.tensors(block.net, problem.weights[0], device)
            self.all = torch_network.trained(self.weights)

        def forward(self, t: Any, y: Any) -> Any:
            return torch_network.apply(block.net, self.weights, t, y)

    def call_of(solve: Callable[..., Any], **options: Any) -> Call:
        dynamics = Dynamics()
        if options.pop("names_parameters"):
            options["adjoint_params"] = tuple(dynamics.all)

        def run() -> float:
            for tensor in dynamics.all:
                tensor.grad = None
            ys = solve(dynamics, x, times, method=block.method, rtol=block.rtol, atol=block.atol, **options)
            loss = (ys[-1] ** 2).mean()
            loss.backward()
            return float(loss.detach())

        return run

    return {
        "torchdiffeq adjoint": call_of(torchdiffeq.odeint_adjoint, names_parameters=True),
        "torchdiffeq backprop": call_of(torchdiffeq.odeint, names_parameters=False),
    }


def peak(problem: Problem, name: str, call: Call) -> int | None:
    """Bytes of device memory that two iterations take at most."""
    if problem.device.name == "cpu":
        return None
    if name == "odegrad":
        start_memory_phase(problem.device.xp)
        call()
        call()
        return memory_peak(problem.device.xp)
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    call()
    return torch.cuda.max_memory_reserved()


def busy(call: Call, seconds: float) -> float | None:
    """The share of time in which the GPU works, by nvidia-smi every 0.2 s; None without it."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as meter:
        lines: list[str] = []
        assert meter.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(meter.stdout or ()), daemon=True)
        reader.start()
        stop = threading.Timer(seconds, meter.terminate)
        stop.start()
        while meter.poll() is None:
            call()
        stop.cancel()
        reader.join(timeout=5.0)
    shares = [float(line) for line in lines[2:] if line.strip().isdigit()]
    return statistics.median(shares) / 100 if shares else None


def working_peers(problem: Problem) -> list[str]:
    """Their names, without those that fail; AssertionError unless the others find our loss at tight tolerances."""
    block, working = replace(problem.block, rtol=TIGHT, atol=TIGHT), []
    loss = ours(problem, block)()
    for name, call in torch_calls(problem, block).items():
        try:
            other = call()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a peer is its result
            tell(benchmark="unet", peer=name, peer_failed=repr(error))
            continue
        assert abs(other - loss) <= 100 * TIGHT * loss, f"{name}: loss {other}, that of ours {loss}"
        working.append(name)
    return working


def main() -> None:
    given = parsed(__doc__)
    device: Device = given.device
    problem = Problem(device, toy=given.toy)
    precision = "fp32" if given.toy else "tf32"
    calls = {"odegrad": ours(problem, problem.block)}
    with product_precision(precision):
        # At first: later there are buffers of longer solves.
        memory = {"odegrad": peak(problem, "odegrad", calls["odegrad"])}
        share = None if given.toy else busy(calls["odegrad"], min(5.0, given.seconds))
    if share is not None:
        tell(benchmark="unet", bar="unet busy", value=share)
    working = working_peers(problem)
    peers = torch_calls(problem, problem.block)
    calls |= {name: peers[name] for name in working}
    with product_precision(precision):
        losses = {name: call() for name, call in calls.items()}
        memory |= {name: peak(problem, name, calls[name]) for name in working}
        times = device.timed(calls, seconds=given.seconds)
    for name, found in times.items():
        numbers = summary(found)
        tell(
            benchmark="unet", method=name, sizes=list(problem.x.shape), device=device.name, loss=losses[name],
            seconds_per_epoch=numbers["median_s"] * IMAGES / problem.batch, memory_bytes=memory[name], **numbers,
        )  # fmt: skip
    if "torchdiffeq adjoint" in times:
        tell(benchmark="unet", bar="unet epoch", value=ratio(times["odegrad"], times["torchdiffeq adjoint"]))
        if memory["odegrad"] and (most := memory.get("torchdiffeq backprop")):
            tell(benchmark="unet", bar="unet memory", value=round(memory["odegrad"] / most, 3))


if __name__ == "__main__":
    main()
