"""The training workloads on which odegrad is compared with its peers: one network each, written once for every library.

A network is a function of a *namespace* `ns` (`ours`, `torch_peers` and `diffrax_peers` give theirs), which has
    ns.tanh(x), ns.relu(x)
    ns.conv(t, x, w, b)          3x3 convolution of x with t as one more, constant channel, the first one
    ns.group_norm(x, scale, shift)
and otherwise of operators. Images are (B, H, W, C), kernels (3, 3, C + 1, N) here; a namespace may keep them otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from odegrad import odeint

GROUPS = 32


@dataclass(frozen=True)
class Workload:
    """dy/dt = network(ns, t, y, params) from y0 over ts; the loss is the mean of |ys - target|.

    Attributes:
        network: see above.
        params, y0, target: float32 or float64 arrays; target (T, *y0.shape).
        slow_peers: peers that need minutes for one iteration, left out unless asked for.
        seconds: how long the methods are measured, in turn.
    """

    name: str
    network: Callable[..., Any]
    params: list[np.ndarray]
    y0: np.ndarray
    ts: np.ndarray
    target: np.ndarray
    rtol: float
    atol: float
    slow_peers: tuple[str, ...] = ()
    seconds: float = 20.0


def tanh_network(ns: Any, t: Any, y: Any, params: Any) -> Any:
    """d-h-d with one tanh."""
    w1, b1, w2, b2 = params
    return ns.tanh(y @ w1 + b1) @ w2 + b2


def cubed_tanh_network(ns: Any, t: Any, y: Any, params: Any) -> Any:
    """The same of the cubed state: torchdiffeq's demonstration."""
    return tanh_network(ns, t, y**3, params)


def conv_network(ns: Any, t: Any, x: Any, params: Any) -> Any:
    """(norm, ReLU, convolution with time) as often as there are parameters, and a norm."""
    for k in range(0, len(params) - 2, 4):
        scale, shift, w, b = params[k : k + 4]
        x = ns.conv(t, ns.relu(ns.group_norm(x, scale, shift)), w, b)
    return ns.group_norm(x, *params[-2:])


def spiral(dtype: str) -> Workload:
    """W1: 20 trajectories at 10 times, 2-50-2, dopri5 at 1e-7 and 1e-9."""
    rng = np.random.default_rng(0)
    matrix = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    times = np.linspace(0.0, 25.0, 1000)
    long = odeint(lambda t, y: y**3 @ matrix, np.array([[2.0, 0.0]]), times, rtol=1e-9)
    y0 = long.ys[rng.choice(990, 20, replace=False), 0]
    target = odeint(lambda t, y: y**3 @ matrix, y0, times[:10], rtol=1e-9).ys
    params = [rng.normal(0.0, 0.1, shape) for shape in ((2, 50), (50,), (50, 2), (2,))]
    return _in(dtype, Workload("spiral", cubed_tanh_network, params, y0, times[:10], target, 1e-7, 1e-9))


def mlp_name(width: int, tolerance: float) -> str:
    """The width, and the tolerance where it is not 1e-3."""
    return f"mlp-{width}" + ("" if tolerance == 1e-3 else f"-{tolerance:.0e}")


def mlp(width: int, tolerance: float, dtype: str, batch: int = 256) -> Workload:
    """W3: one tanh layer of this width, batch 256, over [0, 1]."""
    rng = np.random.default_rng(1)
    scale = 1.0 / np.sqrt(width)
    params = [rng.normal(0.0, scale, shape) for shape in ((width, width), (width,), (width, width), (width,))]
    y0 = rng.standard_normal((batch, width))
    target = np.zeros((2, batch, width))
    name = mlp_name(width, tolerance)
    ts = np.array([0.0, 1.0])
    return _in(dtype, Workload(name, tanh_network, params, y0, ts, target, tolerance, tolerance))


def conv_net(
    name: str, shape: tuple[int, int, int, int], n_convs: int, tolerance: float, dtype: str, **more: Any
) -> Workload:
    """W4 and W5: convolutions with group norm and ReLU on images of this shape, over [0, 1]."""
    rng = np.random.default_rng(2)
    channels = shape[3]
    bound = 1.0 / np.sqrt(9 * (channels + 1))
    params = []
    for _ in range(n_convs):
        w = rng.uniform(-bound, bound, (3, 3, channels + 1, channels))
        params += [np.ones(channels), np.zeros(channels), w, rng.uniform(-bound, bound, channels)]
    params += [np.ones(channels), np.zeros(channels)]
    y0, ts = rng.standard_normal(shape), np.array([0.0, 1.0])
    target = np.zeros((2, *shape))
    return _in(dtype, Workload(name, conv_network, params, y0, ts, target, tolerance, tolerance, **more))


def workloads(dtype: str = "float32") -> dict[str, Callable[[], Workload]]:
    """All of them by name, made when they are called for."""
    slow = ("diffrax backsolve", "diffrax checkpointed")
    makers: list[tuple[str, Callable[[], Workload]]] = [("spiral", lambda: spiral(dtype))]
    for width, tolerance in ((64, 1e-3), (256, 1e-3), (1024, 1e-3), (64, 1e-5), (256, 1e-5), (1024, 1e-5)):
        name = mlp_name(width, tolerance)
        makers.append((name, lambda d=width, tol=tolerance: mlp(d, tol, dtype)))
    makers.append(
        ("conv-7", lambda: conv_net("conv-7", (128, 7, 7, 64), 2, 1e-3, dtype, slow_peers=slow, seconds=40.0))
    )
    makers.append(
        (
            "conv-32",
            lambda: conv_net("conv-32", (32, 32, 32, 64), 4, 1e-2, dtype, slow_peers=slow, seconds=120.0),
        )
    )
    return dict(makers)


def toy() -> dict[str, Callable[[], Workload]]:
    """Two that take milliseconds."""
    return {
        "mlp-4": lambda: mlp(4, 1e-3, "float64", batch=3),
        "conv-4": lambda: conv_net("conv-4", (2, 4, 4, GROUPS), 1, 1e-2, "float64"),
    }


def _in(dtype: str, given: Workload) -> Workload:
    """The workload with all its arrays in a precision."""
    params = [p.astype(dtype) for p in given.params]
    y0, target = given.y0.astype(dtype), given.target.astype(dtype)
    return Workload(**{**vars(given), "params": params, "y0": y0, "target": target})
