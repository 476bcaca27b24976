"""Batch normalisation with an affine map interpolated in time and ReLU, as a program launches it, beside the card's copy.

Forward and backward are the kernels that a traced program consists of (`engine/cuda/recompute.py`): forward reads the
tensor for its moments, reads it again and writes the result; backward reads tensor and cotangent for the sums, both again,
and writes the cotangent of the tensor. Results are compared with the plain operations before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from odegrad import ops
from odegrad.engine.backend import Array, namespace_of, to_host, to_xp
from odegrad.engine.partition import Plan, partition
from odegrad.engine.program import Recording, record
from odegrad.engine.replay import StageSet
from odegrad.engine.trace import base_value
from odegrad.engine.transforms import vjp
from odegrad.solvers.stages import workspace_for

from ..measure import summary
from .card import copy_speed
from .device import Device, tell

MOVED = {"forward": 3, "backward": 5}  # tensors
NODES, TIME = np.linspace(0.0, 1.0, 101), 0.404
REPEATS = 20  # calls between two waits for the GPU


def normalized(t: Any, x: Any, gamma: Any, alpha: Any) -> Any:
    """relu(gamma(t) (z - mean) / sqrt(var + eps) + alpha(t)) for z = x**2, gamma and alpha (K, C).

    Squares, since a pull-back may read the state itself only where it depends on it; in a network z is the result of a
    convolution, which is kept as the state is here.
    """
    grid = to_xp(namespace_of(base_value(x)), NODES)
    at_t = ops.hat_weights(t, grid, dtype="float32")
    z = ops.square(x)
    mean, var = ops.moments(z)
    return ops.relu(ops.normalize(z, mean, var, 1e-5, at_t @ gamma, at_t @ alpha))


def drawn(device: Device, shape: tuple[int, ...]) -> tuple[list[Array], Array]:
    """([x, gamma, alpha], ybar), float32."""
    rng, nodes = np.random.default_rng(0), (len(NODES), shape[-1])
    host = [3 + rng.standard_normal(shape), *rng.uniform(0.5, 1.5, (2, *nodes)), rng.standard_normal(shape)]
    *given, ybar = (to_xp(device.xp, array.astype(np.float32)) for array in host)
    return given, ybar


def planned(given: list[Array]) -> tuple[Recording, Plan]:
    """The program of `normalized` and its pull-back, with x in the place of a state."""
    recording = record(normalized, [TIME, *given], ["t", "x", "gamma", "alpha"])
    joint = recording.program.vjp(recording.program.inputs[1:])
    groups = {"forward": joint.outputs[:1], "backward": joint.outputs[1:]}
    inputs = {"forward": joint.inputs[1:2], "backward": joint.inputs[-1:]}
    return recording, partition(joint, groups, inputs, joint.inputs[0])


def replayed(given: list[Array], ybar: Array) -> tuple[dict[str, Callable[[], Any]], list[Array]]:
    """What runs forward and backward, and where they write: y, then the cotangents of what is given."""
    recording, plan = planned(given)
    xp, program = namespace_of(ybar), plan.program
    workspace = workspace_for(plan, xp)
    constants = zip((*program.inputs[2:-1], *program.hidden), [*given[1:], *recording.hidden], strict=True)
    workspace.load(dict(constants))
    results = {
        slot: xp.empty(program.metas[slot].shape, program.metas[slot].dtype) for slot in program.outputs
    }
    targets = {
        name: [(slot, results[slot]) for slot in plan.outputs[name]] for name in ("forward", "backward")
    }
    stage = StageSet(workspace, {program.inputs[1]: given[0], program.inputs[-1]: ybar}, targets)
    return {name: partial(stage.run[name], TIME) for name in targets}, list(results.values())


def measure_normalization(device: Device, shape: tuple[int, ...], seconds: float) -> None:
    """A line each way, and the bars: bytes a second over those of a copy, measured just before."""
    given, ybar = drawn(device, shape)
    calls, results = replayed(given, ybar)
    _check(calls, results, given, ybar)
    n_bytes = 4 * int(np.prod(shape))
    copied = copy_speed(device, n_bytes, seconds)["bytes_per_s"]
    for name, found in device.timed(calls, seconds=seconds, repeats=REPEATS).items():
        numbers = summary(found)
        speed = MOVED[name] * n_bytes / numbers["median_s"]
        tell(
            benchmark="kernels", op=f"normalize {name}", method="odegrad", sizes=list(shape), device=device.name,
            bytes_per_s=speed, **numbers,
        )  # fmt: skip
        tell(benchmark="kernels", bar=f"normalize {name}", value=round(speed / copied, 3))


def _check(
    calls: dict[str, Callable[[], Any]], results: list[Array], given: list[Array], ybar: Array
) -> None:
    """Of one run each way, that it gives what the operations give: on average, since round-off may put values on the other
    side of ReLU's kink.
    """
    for call in calls.values():
        call()
    y, pull_back = vjp(partial(normalized, TIME), *given)
    for found, plain in zip(results, (y, *pull_back(ybar)), strict=True):
        right = to_host(plain)
        off = float(np.abs(to_host(found) - right).mean() / np.abs(right).mean())
        assert off <= 1e-5, f"a normalisation is off by {off:.1e}"
