"""Elementwise chains of a program, each to be one generated CUDA kernel:
each value goes through all steps of its `Run` in registers.

Here is which steps can be in a chain, and what is known of its kernel, whose text `chain_text` writes. Sums
over neighbouring axes follow in `chain_sums`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..fusion import Run, Shape, is_sum, local_results
from ..jit.expressions import is_elementwise
from ..partition import Plan
from ..program import Step
from .chain_finish import Finish
from .chain_sums import Axes, Sharing, common_axes, summed_axes
from .gathers import is_gather
from .scalar_functions import KINDS

ITEMS = 4  # values of a thread, in arrays that keep all multiprocessors busy even so
LARGE = 1 << 18  # values of such arrays
C_TYPES = {"float32": "f32", "float64": "f64", "bool": "bool"}


@dataclass(frozen=True)
class Sum:
    """A sum at the end of a chain: its slot, what it removes, what it divides by.

    With a mean may come the variance about it, a slot of its own (`chain_moments`).
    """

    slot: int
    axes: Axes
    divisor: int
    variance: int | None = None


@dataclass(frozen=True)
class Chain:
    """The kernel of one run, and what to launch it with.

    Attributes:
        text: the kernel; its name is @.
        slots: whose arrays are its arguments, in order: read, then written; behind them one array for each of
            `sums`, two where there is a variance.
        reads_numbers: whether the table of numbers is the first argument.
        written: those of `slots` that it writes.
        sums: with `sharing`, the sums that it makes, or prepares.
        finish: the second pass of those that it prepares.
        grid, threads: blocks, and threads of each.
    """

    text: str
    slots: tuple[int, ...]
    reads_numbers: bool
    written: tuple[int, ...]
    sums: tuple[Sum, ...]
    sharing: Sharing | None
    finish: Finish | None
    grid: tuple[int, ...]
    threads: int

    def is_direct(self, found: Sum) -> bool:
        """Whether a sum is done when the kernel is."""
        assert self.sharing is not None
        return self.sharing.terms(found.axes) == 1


def chain_shape(plan: Plan, step: Step) -> Shape | None:
    """The shape of the run that a step can be part of: a step on float32, float64 and truth values;
    None for others.
    """
    metas = plan.program.metas
    out = metas[step.output]
    if out.dtype is None or plan.root[step.output] != step.output:
        return None
    dtypes = [metas[slot].dtype for slot in (*step.inputs, step.output)]
    if any(dtype is not None and dtype.name not in C_TYPES for dtype in dtypes) or 0 in out.shape:
        return None
    if any(metas[slot].number is complex for slot in step.inputs):
        return None
    if is_sum(step):
        source = metas[step.inputs[0]]
        is_plain = source.dtype == out.dtype and out.dtype.name in KINDS and 0 not in source.shape
        return source.shape if is_plain and summed_axes(plan.program, step) is not None else None
    is_fill = step.op.name == "broadcast_to" and step.inputs[0] in plan.weak
    is_known = is_fill or is_elementwise(step)
    if not is_known and is_gather(plan.program, step):
        operands = [metas[slot] for slot in step.inputs]
        is_known = all(meta.dtype == out.dtype and 0 not in meta.shape for meta in operands)
    return out.shape if is_known else None


def separated(plan: Plan, group: str, run: Run) -> list[Run]:
    """The run with the sums that can share its blocks, then runs of those that cannot."""
    together: list[list[Step]] = []
    for step in filter(is_sum, run.steps):
        for sums in together:
            if common_axes([axes_of(plan, other) for other in (*sums, step)]) is not None:
                sums.append(step)
                break
        else:
            together.append([step])
    later = {step.output for sums in together[1:] for step in sums}
    steps = [step for step in run.steps if step.output not in later], *together[1:]
    return [Run(run.shape, tuple(own), local_results(plan, group, own)) for own in steps]


def axes_of(plan: Plan, step: Step) -> Axes:
    """The array that a sum of a chain adds up."""
    axes = summed_axes(plan.program, step)
    assert axes is not None
    return axes


def slot_strides(plan: Plan) -> dict[int, tuple[int, ...]]:
    """For each slot that is a view with gaps, its strides in values.
    Tried on memory laid out like the real one.
    """
    metas, samples = plan.program.metas, {}  # type: ignore[var-annotated]
    for op, inputs, output, static in plan.program.steps:
        if plan.root[output] != output:
            source = samples.get(inputs[0])
            if source is None:
                source = np.empty(metas[inputs[0]].shape, metas[inputs[0]].dtype)
            samples[output] = op.forward(np, source, **static)
    return {
        slot: tuple(stride // array.itemsize for stride in array.strides)
        for slot, array in samples.items()
        if slot in plan.strided
    }
