"""One training iteration of W1 and W5, forward and gradient, beside torchdiffeq and diffrax on the same card.

    python -m benchmarks.gpu.solves [--toy] [--seconds S] [--only NAME]

Losses and gradients are compared before anything is timed. W1 (the spiral) is computed in float32 throughout, since its
tolerances are below what TF32 resolves; W5 (256 images of 32x32x64, 4 convolutions, dopri5 at 1e-3) in TF32 by all.
torchdiffeq is measured as it is and with the network through `torch.compile`, diffrax jitted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from odegrad import product_precision
from odegrad.engine.backend import to_host, to_xp

from ..iterations import Iteration, check, diffrax_iterations, our_iteration, torch_iterations
from ..measure import ratio, summary
from ..workloads import Workload, conv_net, spiral, toy
from .device import Device, parsed, tell

WORKLOADS: dict[str, tuple[Callable[[], Workload], str]] = {  # and the precision of products
    "spiral": (lambda: spiral("float32"), "fp32"),
    "conv-w5": (lambda: conv_net("conv-w5", (256, 32, 32, 64), 4, 1e-3, "float32"), "tf32"),
}
BARS = {
    "spiral": {"spiral torchdiffeq": ["torchdiffeq adjoint"], "spiral diffrax": ["diffrax"]},
    "conv-w5": {
        "conv-w5 adjoint": ["torchdiffeq adjoint"],
        "conv-w5 compiled": ["torchdiffeq adjoint, compiled"],
        "conv-w5 diffrax": ["diffrax"],
    },
}


def ours(given: Workload, device: Device, gradient: str) -> Iteration:
    """Our iteration with the arrays on the device; the gradient comes to the host, as that of the peers does."""

    def moved(array: np.ndarray) -> Any:
        return to_xp(device.xp, array)

    there = replace(
        given, params=[moved(p) for p in given.params], y0=moved(given.y0), target=moved(given.target)
    )
    iteration = our_iteration(there, gradient)

    def run() -> tuple[float, list[np.ndarray], dict[str, int]]:
        loss, gradients, counts = iteration()
        return loss, [to_host(g) for g in gradients], counts

    return run


def peers(given: Workload, device: Device) -> list[Callable[[], dict[str, Iteration]]]:
    """What makes them, the quickest to make first; {} where one is not installed."""
    on_torch = partial(torch_iterations, given, 1, device=device.name)
    makers = [on_torch, partial(on_torch, compiles=True), partial(diffrax_iterations, given)]
    return makers if device.name == "cuda" else makers[:1]


def working(given: Workload, make: Callable[[], dict[str, Iteration]]) -> dict[str, Iteration]:
    """The peers that `make` makes; one that fails is left out, with a line that says why."""
    found: dict[str, Iteration] = {}
    try:
        made = make()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a peer is its result
        tell(benchmark="solves", workload=given.name, peer_failed=repr(error))
        return found
    for name, iteration in made.items():
        if name == "torchdiffeq backprop, compiled":
            continue  # no bar is about it, and compiling takes half a minute
        try:
            iteration()
        except Exception as error:  # noqa: BLE001
            tell(benchmark="solves", workload=given.name, method=name, peer_failed=repr(error))
        else:
            found[name] = iteration
    return found


def _set_precision(precision: str) -> None:
    """PyTorch and JAX round the operands of products as we do."""
    try:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    except ImportError:
        pass
    try:
        import jax

        jax.config.update(
            "jax_default_matmul_precision", "tensorfloat32" if precision == "tf32" else "float32"
        )
    except ImportError:
        pass


def measure(given: Workload, device: Device, precision: str, seconds: float) -> None:
    """A line a method, and the ratios that the bars are about, after each kind of peer: compiling takes long."""
    methods = {f"odegrad {g}": ours(given, device, g) for g in ("discrete", "backsolve")}
    _set_precision(precision)
    makers = peers(given, device)
    with product_precision(precision):
        for make in makers:
            found = working(given, make)
            if found or make is makers[0]:
                compare(given, device, precision, methods | found, seconds / len(makers))
            methods.pop("odegrad backsolve", None)


def compare(
    given: Workload, device: Device, precision: str, methods: dict[str, Iteration], seconds: float
) -> None:
    """Check, time and tell."""
    counts = check(given, methods)
    times = device.timed(methods, seconds=seconds)
    for name, found in times.items():
        tell(
            benchmark="solves", workload=given.name, method=name, sizes=list(given.y0.shape), precision=precision,
            device=device.name, rtol=given.rtol, atol=given.atol, **summary(found), **counts[name],
        )  # fmt: skip
    for bar, (prefix,) in BARS.get(given.name, {}).items():
        others = [t for name, t in times.items() if name == prefix or prefix == "diffrax" and prefix in name]
        if others:
            best = min(others, key=lambda t: float(np.median(t)))
            tell(benchmark="solves", bar=bar, value=ratio(times["odegrad discrete"], best))


def main() -> None:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))

    given = parsed(__doc__, add)
    if given.toy:
        measure(toy()["mlp-4"](), given.device, "fp32", given.seconds)
        return
    for name in given.only:
        make, precision = WORKLOADS[name]
        measure(make(), given.device, precision, given.seconds)


if __name__ == "__main__":
    main()
