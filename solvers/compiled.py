"""Compiled dynamics: the joint program of f and its pull-back,
partitioned once a structure and shared by all solves.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..engine.errors import NeuralODEError
from ..engine.forking import free_in_child
from ..engine.kernels.threads import blas_threads
from ..engine.partition import Plan, partition
from ..engine.program import Program, optimise
from ..engine.tiled import may_have_tiles
from .buffer_pool import BufferPool
from .dynamics import Dynamics

MAX_STRUCTURES = 32  # programs that are remembered


@dataclass(frozen=True)
class Purpose:
    """What the program of a solve must be able to do.

    Attributes:
        kind: "solve" (slopes only), "discrete" (the whole pull-back at once), "backsolve" or "interpolated"
            (the cotangents of state and parameters at different moments),
            or "linearize" (slopes, then their tangents).
        wanted: which parameters and captured values get cotangents: positions among parameters,
            then captured.
        time: whether the cotangent of t is wanted.
    """

    kind: str
    wanted: tuple[int, ...] = ()
    time: bool = False


@dataclass(eq=False)
class Compiled:
    """A partitioned program and the names of its slots.

    Groups: "slope" (f), then for "discrete" "pullback" (cotangents of state and parameters), for the
    continuous adjoints "state" and "params"; "time" where asked for. For "linearize" the second group is
    "push": `tangents` of the state give `slope_tangents`.
    """

    plan: Plan
    constants: tuple[int, ...]  # slots of parameters, then of hidden values
    state: tuple[int, ...]
    slopes: tuple[int, ...]
    aux: tuple[int, ...]
    seeds: tuple[int, ...] = ()
    state_bars: tuple[int, ...] = ()
    param_bars: tuple[int, ...] = ()
    time_bar: int | None = None
    tangents: tuple[int, ...] = ()
    slope_tangents: tuple[int, ...] = ()
    is_trusted: bool = False

    @cached_property
    def may_have_tiles(self) -> bool:
        """Whether its buffers depend on the number of threads."""
        return may_have_tiles(self.plan)

    def is_saved(self, slots: Sequence[int]) -> bool:
        """Whether the pull-back reads any of these slots after the slope is done."""
        return any(slot in self.plan.residuals for slot in slots)


pool = BufferPool()
_known: OrderedDict[Any, Compiled] = OrderedDict()
_lock = free_in_child(threading.Lock())


def compiled_for(dynamics: Dynamics, purpose: Purpose) -> Compiled:
    """The compiled program of this structure and purpose; made at first use, the least recently used one is
    dropped.

    One that calls another solve is not remembered: the operation holds that solve's arrays,
    which would live on.
    """
    key = (dynamics.program.key, dynamics.n_slopes, purpose)
    with _lock:
        compiled = _known.get(key)
        if compiled is not None:
            _known.move_to_end(key)
            return compiled
    compiled = _compile(dynamics, purpose)
    if not all(step.op.is_shared for step in dynamics.program.steps):
        return compiled
    with _lock:
        _known[key] = compiled
        dropped = {_known.popitem(last=False)[1] for _ in range(len(_known) - MAX_STRUCTURES)}
    if dropped:
        pool.drop(lambda key: key[0] in dropped)
    return compiled


def checkout(compiled: Compiled, method: Any, build: Callable[[], Any]) -> Any:
    """Buffers for one solve with a method: idle ones of this program, or what `build()` makes.

    Tiles are cut for a number of threads, and the bits of their sums belong to it.
    """
    key = compiled, method, blas_threads() if compiled.may_have_tiles else 0
    buffers = pool.take(key, build)
    buffers.pool_key = key
    return buffers


def give_back(buffers: Any) -> None:
    """Buffers that `checkout` gave are free for the next solve, if their program is still known."""
    with _lock:
        if buffers.pool_key[0] in _known.values():
            pool.give_back(buffers.pool_key, buffers)


def _compile(dynamics: Dynamics, purpose: Purpose) -> Compiled:
    program = dynamics.program
    n_states, n_slopes = len(dynamics.layout.shapes), dynamics.n_slopes
    time, state, params = program.inputs[0], program.inputs[1 : 1 + n_states], program.inputs[1 + n_states :]
    if purpose.kind == "solve":
        joint = optimise(program)
        plan = partition(joint, {"slope": joint.outputs}, {"slope": state}, time)
        return Compiled(
            plan, (*params, *joint.hidden), state, joint.outputs[:n_slopes], joint.outputs[n_slopes:]
        )
    if any(step.op.name == "odeint" for step in program.steps):
        raise NeuralODEError(
            "f calls odeint itself, and the derivative of that call cannot be replayed; pass gradient='tape' or "
            "execution='eager' to the outer solve"
        )
    if purpose.kind == "linearize":
        return _compile_linearized(program, state, n_slopes)
    chosen = [(*params, *program.hidden)[position] for position in purpose.wanted]
    joint = program.vjp((*state, *chosen, *([time] if purpose.time else [])), n_slopes)
    time, given, seeds = (
        joint.inputs[0],
        joint.inputs[1 : len(program.inputs)],
        joint.inputs[len(program.inputs) :],
    )
    n_forward = len(program.outputs)
    forward, bars = joint.outputs[:n_forward], joint.outputs[n_forward:]
    state_bars, param_bars = bars[:n_states], bars[n_states : n_states + len(chosen)]
    groups: dict[str, Sequence[int]] = {"slope": forward}
    if purpose.kind == "discrete":
        groups["pullback"] = (*state_bars, *param_bars)
    else:
        groups["state"], groups["params"] = state_bars, param_bars
    if purpose.time:
        groups["time"] = bars[-1:]
    inputs = {"slope": given[:n_states], list(groups)[1]: seeds}
    return Compiled(
        plan=partition(joint, groups, inputs, time),
        constants=(*given[n_states:], *joint.hidden),
        state=given[:n_states],
        slopes=forward[:n_slopes],
        aux=forward[n_slopes:],
        seeds=seeds,
        state_bars=state_bars,
        param_bars=param_bars,
        time_bar=bars[-1] if purpose.time else None,
    )


def _compile_linearized(program: Program, state: Sequence[int], n_slopes: int) -> Compiled:
    """f and its JVP: the pull-back is linear in its cotangent, and the pull-back of that is the JVP."""
    n_inputs, n_forward, n_states = len(program.inputs), len(program.outputs), len(state)
    joint = program.vjp(state, n_slopes)
    seeds, bars = joint.inputs[n_inputs:], joint.outputs[n_forward:]
    pulled = replace(joint, outputs=(*bars, *joint.outputs[:n_forward]))
    twice = pulled.vjp(seeds, n_states)
    time, given = twice.inputs[0], twice.inputs[1:n_inputs]
    unused, tangents = twice.inputs[n_inputs:-n_states], twice.inputs[-n_states:]
    forward, pushed = twice.outputs[n_states:-n_slopes], twice.outputs[-n_slopes:]
    inputs = {"slope": given[:n_states], "push": (*tangents, *unused)}
    return Compiled(
        plan=partition(twice, {"slope": forward, "push": pushed}, inputs, time),
        constants=(*given[n_states:], *twice.hidden),
        state=given[:n_states],
        slopes=forward[:n_slopes],
        aux=forward[n_slopes:],
        seeds=unused,
        tangents=tangents,
        slope_tangents=pushed,
    )
