"""How long does one training iteration of a small neural ODE take, beside torchdiffeq where it is installed?

    python -m benchmarks.spiral [--toy] [--threads N]

The spiral of torchdiffeq's demonstration: y' = tanh(y**3 w1 + b1) w2 + b2 with 50 hidden units, 20 trajectories, the
first 10 of 1,000 times in [0, 25], dopri5 with rtol 1e-7 and atol 1e-9, float32, mean absolute error, gradient with
respect to the parameters. Every method starts from the same weights, and must give the same loss and gradient, before
anything is timed. Prints one JSON line a method; all are measured turn by turn with as many threads. On a machine that
is not idle use one thread: PyTorch's threads wait for each other, and a busy core makes it many times slower.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from odegrad import odeint, value_and_grad
from threadpoolctl import threadpool_limits

from .measure import interleaved, machine, ratio, report, summary

TIMES = np.linspace(0.0, 25.0, 1000)[:10]
TOLERANCES = {"rtol": 1e-7, "atol": 1e-9}
SPIRAL = np.array([[-0.1, 2.0], [-2.0, -0.1]])
Iteration = Callable[[], tuple[float, list[np.ndarray], dict[str, int]]]  # loss, gradient, evaluations of f


@dataclass
class Data:
    """Weights, initial states (20, 2) and target states (10, 20, 2), float32."""

    params: list[np.ndarray]
    y0: np.ndarray
    target: np.ndarray


def data(rng: np.random.Generator) -> Data:
    """Trajectories of the true spiral from points on it, and small random weights."""
    long = odeint(lambda t, y: y**3 @ SPIRAL, np.array([[2.0, 0.0]]), np.linspace(0.0, 25.0, 1000), rtol=1e-9)
    y0 = long.ys[rng.choice(990, 20, replace=False), 0]
    target = odeint(lambda t, y: y**3 @ SPIRAL, y0, TIMES, rtol=1e-9).ys
    shapes = [(2, 50), (50,), (50, 2), (2,)]
    params = [rng.normal(0.0, 0.1, shape).astype(np.float32) for shape in shapes]
    return Data(params, y0.astype(np.float32), target.astype(np.float32))


def network(t: Any, y: Any, params: Any) -> Any:
    w1, b1, w2, b2 = params
    return np.tanh(y**3 @ w1 + b1) @ w2 + b2


def our_iteration(given: Data, gradient: str) -> Iteration:
    def loss(params: Any) -> tuple[Any, Any]:
        sol = odeint(network, given.y0, TIMES, params, gradient=gradient, **TOLERANCES)
        return np.mean(np.abs(sol.ys - given.target)), sol.stats

    differentiated = value_and_grad(loss, has_aux=True)

    def iteration() -> tuple[float, list[np.ndarray], dict[str, int]]:
        (value, stats), gradients = differentiated(given.params)
        return float(value), gradients, {"nfe": stats.nfe, "nfe_backward": stats.nfe_backward}

    return iteration


def torch_iterations(given: Data, n_threads: int) -> dict[str, Iteration]:
    """torchdiffeq's adjoint, and backpropagation through its steps; empty if it is not installed."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchdiffeq") is None:
        return {}
    import torch
    import torchdiffeq

    torch.set_num_threads(n_threads)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all = torch.nn.ParameterList(
                [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in given.params]
            )
            self.nfe = 0

        def forward(self, t: Any, y: Any) -> Any:
            self.nfe += 1
            w1, b1, w2, b2 = self.all
            return torch.addmm(b2, torch.tanh(torch.addmm(b1, y**3, w1)), w2)

    y0, target = torch.from_numpy(given.y0), torch.from_numpy(given.target)
    times = torch.from_numpy(TIMES.astype(np.float32))

    def iteration_of(solve: Any) -> Iteration:
        model = Network()

        def iteration() -> tuple[float, list[np.ndarray], dict[str, int]]:
            model.zero_grad()
            model.nfe = 0
            loss = (solve(model, y0, times, method="dopri5", **TOLERANCES) - target).abs().mean()
            nfe = model.nfe
            loss.backward()
            gradients = [p.grad.numpy() for p in model.all]
            return float(loss.detach()), gradients, {"nfe": nfe, "nfe_backward": model.nfe - nfe}

        return iteration

    return {
        "torchdiffeq adjoint": iteration_of(torchdiffeq.odeint_adjoint),
        "torchdiffeq backprop": iteration_of(torchdiffeq.odeint),
    }


def check(iterations: dict[str, Iteration]) -> dict[str, dict[str, int]]:
    """Every method gives the loss and the gradient of the first one; returns their evaluations of f."""
    results = {name: iteration() for name, iteration in iterations.items()}
    loss, gradients, _ = next(iter(results.values()))
    scale = max(float(np.abs(g).max()) for g in gradients)
    for name, (other_loss, others, _) in results.items():
        assert abs(other_loss - loss) <= 1e-5 * loss, f"{name}: loss {other_loss}, expected {loss}"
        worst = max(float(np.abs(a - b).max()) for a, b in zip(others, gradients, strict=True))
        assert worst <= 1e-4 * scale, f"{name}: the gradient is off by {worst:.2e} (largest {scale:.2e})"
    return {name: counts for name, (_, _, counts) in results.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="a few iterations without peers, for the tests")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of BLAS and of PyTorch")
    arguments = parser.parse_args()
    with threadpool_limits(arguments.threads):
        measure(arguments.toy, arguments.threads)


def measure(toy: bool, n_threads: int) -> None:
    """Check that all methods agree, time them and print a line for each."""
    given = data(np.random.default_rng(0))
    iterations = {
        f"odegrad {gradient}": our_iteration(given, gradient)
        for gradient in ("tape", "discrete", "backsolve")
    }
    peers = {} if toy else torch_iterations(given, n_threads)
    iterations |= peers
    counts = check(iterations)
    times = interleaved(iterations, seconds=0.05 if toy else 30.0)
    packages = ("torch", "torchdiffeq") if peers else ()
    for name, found in times.items():
        line = {
            "benchmark": "spiral", "method": name, "sizes": [20, 2, 50, 2], "times": len(TIMES), "dtype": "float32",
            "module": "torch" if name in peers else "numpy", "device": "cpu", "threads": n_threads, **TOLERANCES,
            **summary(found), **counts[name],
        }  # fmt: skip
        for peer in peers:
            line[f"{peer} takes times as long".replace(" ", "_")] = ratio(times[peer], found)
        report(line | {"machine": machine(*packages)})


if __name__ == "__main__":
    main()
