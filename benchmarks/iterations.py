"""One training iteration of a workload - forward, loss, full gradient - by odegrad and by the peers installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from odegrad import jit, odeint, ops, value_and_grad
from odegrad.engine.backend import namespace_of
from odegrad.engine.trace import base_value

from .workloads import GROUPS, Workload

# loss, gradient in the layout of the workload's parameters, evaluations of f
Iteration = Callable[[], tuple[float, list[np.ndarray], dict[str, int]]]


def _conv(t: Any, x: Any, w: Any, b: Any) -> Any:
    """The constant channel apart: its response depends on the weights alone."""
    ones = namespace_of(base_value(x)).ones((1, *x.shape[1:3], 1), x.dtype)
    response = ops.conv2d(ones, w[:, :, :1], padding=1)[0]
    return ops.conv2d(x, w[:, :, 1:], padding=1) + (t * response + b)


ours = SimpleNamespace(
    tanh=ops.tanh,
    relu=ops.relu,
    conv=_conv,
    group_norm=lambda x, scale, shift: ops.group_normalize(x, GROUPS, 1e-5) * scale + shift,
)


def our_iteration(given: Workload, gradient: str, *, is_jitted: bool = False, **options: Any) -> Iteration:
    """By one gradient method of odegrad; under `jit`, as JAX makes it, the counts are those of a call without."""

    def loss(params: Any) -> tuple[Any, Any]:
        sol = odeint(
            lambda t, y, p: given.network(ours, t, y, p), given.y0, given.ts, params,
            gradient=gradient, rtol=given.rtol, atol=given.atol, **options,
        )  # fmt: skip
        return np.mean(np.abs(sol.ys - given.target)), sol.stats

    differentiated = value_and_grad(loss, has_aux=True)

    def iteration() -> tuple[float, list[np.ndarray], dict[str, int]]:
        (value, stats), gradients = differentiated(given.params)
        counts = {"nfe": stats.nfe, "nfe_backward": stats.nfe_backward, "n_vjp": stats.n_vjp_state}
        return float(value), gradients, counts

    if not is_jitted:
        return iteration
    replayed = jit(value_and_grad(lambda params: loss(params)[0]))
    known: dict[str, int] = {}

    def jitted() -> tuple[float, list[np.ndarray], dict[str, int]]:
        if not known:
            known.update(iteration()[2])
            replayed(given.params)  # what is compared is a replay, not the recording
        value, gradients = replayed(given.params)
        return float(value), gradients, known

    return jitted


def torch_iterations(
    given: Workload, n_threads: int, *, device: str = "cpu", compiles: bool = False
) -> dict[str, Iteration]:
    """torchdiffeq's adjoint, and backpropagation through its steps; empty if it is not installed.

    Args:
        given: with NumPy arrays.
        device: where PyTorch computes; on "cuda" images lie channels last, which is faster there.
        compiles: whether the network goes through `torch.compile`.
    """
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchdiffeq") is None:
        return {}
    import torch
    import torchdiffeq

    torch.set_num_threads(n_threads)
    functional = torch.nn.functional

    def conv(t: Any, x: Any, w: Any, b: Any) -> Any:
        with_time = torch.cat([torch.ones_like(x[:, :1]) * t, x], 1)
        return functional.conv2d(with_time, w, b, padding=1)

    ns = SimpleNamespace(
        tanh=torch.tanh,
        relu=torch.relu,
        conv=conv,
        group_norm=lambda x, scale, shift: functional.group_norm(x, GROUPS, scale, shift),
    )

    def images(array: np.ndarray, axes: tuple[int, ...]) -> Any:
        if array.ndim < 4:
            return torch.from_numpy(array.copy()).to(device)
        leading = tuple(range(array.ndim - 4))
        moved = array.transpose(*leading, *(a + len(leading) for a in axes))
        tensor = torch.from_numpy(np.ascontiguousarray(moved)).to(device)
        is_last = device == "cuda" and tensor.ndim == 4
        return tensor.contiguous(memory_format=torch.channels_last) if is_last else tensor

    def network(t: Any, y: Any, params: Any) -> Any:
        return given.network(ns, t, y, params)

    slope = torch.compile(network) if compiles else network

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            converted = [images(p, (3, 2, 0, 1)) for p in given.params]
            self.all = torch.nn.ParameterList([torch.nn.Parameter(p) for p in converted])
            self.nfe = 0

        def forward(self, t: Any, y: Any) -> Any:
            self.nfe += 1
            return slope(t, y, list(self.all))

    y0, target = images(given.y0, (0, 3, 1, 2)), images(given.target, (0, 3, 1, 2))
    times = torch.from_numpy(given.ts.astype(given.y0.dtype)).to(device)

    def iteration_of(solve: Any) -> Iteration:
        model = Network()

        def iteration() -> tuple[float, list[np.ndarray], dict[str, int]]:
            model.zero_grad()
            model.nfe = 0
            ys = solve(model, y0, times, method="dopri5", rtol=given.rtol, atol=given.atol)
            loss = (ys - target).abs().mean()
            nfe = model.nfe
            loss.backward()
            found = [p.grad.cpu().numpy() for p in model.all]
            gradients = [g.transpose(2, 3, 1, 0) if g.ndim == 4 else g for g in found]
            return float(loss.detach()), gradients, {"nfe": nfe, "nfe_backward": model.nfe - nfe}

        return iteration

    suffix = ", compiled" if compiles else ""
    return {
        f"torchdiffeq adjoint{suffix}": iteration_of(torchdiffeq.odeint_adjoint),
        f"torchdiffeq backprop{suffix}": iteration_of(torchdiffeq.odeint),
    }


def diffrax_iterations(given: Workload) -> dict[str, Iteration]:
    """diffrax's continuous and checkpointed adjoints, compiled; empty if it is not installed."""
    if importlib.util.find_spec("diffrax") is None:
        return {}
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", given.y0.dtype == np.float64)

    def conv(t: Any, x: Any, w: Any, b: Any) -> Any:
        channel = jnp.ones_like(x[..., :1]) * jnp.asarray(t, x.dtype)
        layout = ("NHWC", "HWIO", "NHWC")
        with_time = jnp.concatenate([channel, x], -1)
        return jax.lax.conv_general_dilated(with_time, w, (1, 1), "SAME", dimension_numbers=layout) + b

    def group_norm(x: Any, scale: Any, shift: Any) -> Any:
        grouped = x.reshape(x.shape[0], -1, GROUPS, x.shape[-1] // GROUPS)
        mean, var = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
        return ((grouped - mean) / jnp.sqrt(var + 1e-5)).reshape(x.shape) * scale + shift

    ns = SimpleNamespace(tanh=jnp.tanh, relu=jax.nn.relu, conv=conv, group_norm=group_norm)
    y0, target, params = (
        jnp.asarray(given.y0),
        jnp.asarray(given.target),
        [jnp.asarray(p) for p in given.params],
    )
    term = diffrax.ODETerm(lambda t, y, p: given.network(ns, t, y, p))
    control = diffrax.PIDController(rtol=given.rtol, atol=given.atol)
    times = jnp.asarray(given.ts.astype(given.y0.dtype))

    def iteration_of(adjoint: Any) -> Iteration:
        def loss(p: Any) -> tuple[Any, Any]:
            sol = diffrax.diffeqsolve(
                term, diffrax.Dopri5(), times[0], times[-1], None, y0, p, adjoint=adjoint,
                saveat=diffrax.SaveAt(ts=times), stepsize_controller=control, max_steps=4096,
            )  # fmt: skip
            return jnp.mean(jnp.abs(sol.ys - target)), sol.stats["num_steps"]

        differentiated = jax.jit(jax.value_and_grad(loss, has_aux=True))

        def iteration() -> tuple[float, list[np.ndarray], dict[str, int]]:
            (value, n_steps), gradients = jax.block_until_ready(differentiated(params))
            return float(value), [np.asarray(g) for g in gradients], {"nfe": 6 * int(n_steps) + 2}

        return iteration

    return {
        "diffrax backsolve": iteration_of(diffrax.BacksolveAdjoint()),
        "diffrax checkpointed": iteration_of(diffrax.RecursiveCheckpointAdjoint()),
    }


def all_iterations(given: Workload, n_threads: int, *, peers: bool, slow: bool) -> dict[str, Iteration]:
    """Every method by name, ours first."""
    found = {  # `backsolve` last: its buffers may push those of `discrete` out of the pool
        "odegrad discrete": our_iteration(given, "discrete"),
        "odegrad discrete, jit": our_iteration(given, "discrete", is_jitted=True),
        "odegrad backsolve": our_iteration(given, "backsolve"),
    }
    if peers:
        others = torch_iterations(given, n_threads) | diffrax_iterations(given)
        found |= {name: others[name] for name in others if slow or name not in given.slow_peers}
    return found


def check(given: Workload, iterations: dict[str, Iteration]) -> dict[str, dict[str, int]]:
    """Every method must give the loss and the gradient of the first; returns their evaluations of f.

    Solutions at a tolerance differ by a multiple of it, as do continuous and discrete gradients.
    Raises: AssertionError with the method and the distance.
    """
    results = {name: iteration() for name, iteration in iterations.items()}
    loss, gradients, _ = next(iter(results.values()))
    allowed = 100 * given.rtol + 1e3 * float(np.finfo(given.y0.dtype).eps)
    norm = np.sqrt(sum(float((g.astype(float) ** 2).sum()) for g in gradients))
    for name, (other_loss, others, _) in results.items():
        off = abs(other_loss - loss) / abs(loss)
        assert off <= allowed, f"{given.name}, {name}: loss {other_loss}, that of ours {loss}"
        pairs = zip(others, gradients, strict=True)
        distance = np.sqrt(sum(float(((a.astype(float) - b) ** 2).sum()) for a, b in pairs)) / norm
        assert distance <= allowed, f"{given.name}, {name}: the gradient is off by {distance:.2e} of its norm"
    return {name: counts for name, (_, _, counts) in results.items()}
