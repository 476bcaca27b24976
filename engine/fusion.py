"""Fusion: which consecutive elementwise steps on large arrays are run together, and in which order.

A step at a time, every operation of a chain reads and writes whole arrays in main memory. A `Run` takes a
part of the batch through all of its steps instead, and sums over the batch are collected part by part.
`chunks` runs it by NumPy, chunk by chunk while the data is in cache, `fused_kernels` as machine code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .partition import Plan
from .program import Program, Step

LARGE = 1 << 16  # values from which a chain leaves the cache

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """Steps on arrays of one shape (B, ...), to be run chunk by chunk;
    `local` results are read by no other step.
    """

    shape: Shape
    steps: tuple[Step, ...]
    local: frozenset[int]


# the shape of the arrays that a step works on, if it can join a run
Fusible = Callable[[Plan, Step], Shape | None]


def schedule(
    plan: Plan, group: str, fusible: Fusible | None = None, steps: Sequence[Step] | None = None
) -> list[Step | Run]:
    """The steps of a group, those that can be fused gathered into runs; `fusible` says which,
    by default in large arrays.

    `steps` are those of the group that are wanted, by default all.
    A step moves before a run if it does not depend on it, and behind it if it does; a step that needs a sum
    which the run makes has to wait for the next run. What can be computed at once is left until it is needed:
    there its result may be one chunk instead of a whole array.
    """
    fusible = fusible or _fusible_shape
    chosen = plan.steps[group] if steps is None else steps
    pending, ordered = _from_the_start(plan, chosen, fusible), []  # type: list[Step], list[Step | Run]
    while pending:
        first = next((k for k, s in enumerate(pending) if fusible(plan, s) is not None), len(pending))
        ordered += pending[:first]
        if first == len(pending):
            break
        shape = fusible(plan, pending[first])
        assert shape is not None
        run, before, pending = _split(plan, shape, pending[first:], fusible)
        ordered += before
        ordered.append(Run(shape, tuple(run), local_results(plan, group, run)))
    return ordered


def _split(
    plan: Plan, shape: Shape, steps: list[Step], fusible: Fusible
) -> tuple[list[Step], list[Step], list[Step]]:
    """(steps of the run, steps before it, steps after it)."""
    run: list[Step] = []
    before: list[Step] = []
    after: list[Step] = []
    made: set[int] = set()  # whole in chunks only
    late: set[int] = set()  # not there until the run is over
    for step in steps:
        own_shape = fusible(plan, step)
        if own_shape == shape and late.isdisjoint(step.inputs):
            run.append(step)
            (late if is_sum(step) else made).add(step.output)
        elif own_shape is not None or not late.isdisjoint(step.inputs) or not made.isdisjoint(step.inputs):
            after.append(step)
            late.add(step.output)
        else:
            before.append(step)
    later, moved = _leaving(plan, run, after, fusible)
    if len(moved) == len(run):  # there would be no run
        return run, before, after
    return [step for step in run if step.output not in moved], before, later


def _given(steps: Sequence[Step]) -> list[Step]:
    """The steps that need none of the others, or only such ones."""
    made = {step.output for step in steps}
    given: dict[int, Step] = {}
    for step in steps:
        if made.intersection(step.inputs) <= given.keys() and not is_sum(step):
            given[step.output] = step
    return list(given.values())


def _leaving(
    plan: Plan, run: Sequence[Step], after: Sequence[Step], fusible: Fusible
) -> tuple[list[Step], frozenset[int]]:
    """(the steps after a run, with those of the run that only they need; the results of these)."""
    idle = _given(run)
    while True:
        later, moved = _late(plan, after, idle, fusible)
        needed = {slot for step in run if step.output not in moved for slot in step.inputs}
        if moved.isdisjoint(needed):
            return later, moved
        idle = [step for step in idle if step.output in moved - needed]


def _from_the_start(plan: Plan, steps: Sequence[Step], fusible: Fusible) -> list[Step]:
    """The steps, those that are given where they are needed."""
    given = _given(steps)
    while True:
        found = {step.output for step in given}
        others = [step for step in steps if step.output not in found]
        ordered, moved = _late(plan, others, given, fusible)
        if len(moved) == len(given):
            return ordered
        given = [step for step in given if step.output in moved]


def _late(
    plan: Plan, steps: Sequence[Step], given: Sequence[Step], fusible: Fusible
) -> tuple[list[Step], frozenset[int]]:
    """(steps, with each given one just before the first that reads it if the two can be in one run; what was
    put there).

    The others of `given` are left out.
    """
    waiting = {step.output: step for step in given if fusible(plan, step) is not None and not is_sum(step)}
    ordered: list[Step] = []
    moved: set[int] = set()

    def put(step: Step) -> None:
        """A step, and before it what waits for it."""
        for slot in dict.fromkeys(step.inputs):
            given_step = waiting.pop(slot, None)
            if given_step is not None and fusible(plan, step) == plan.program.metas[slot].shape:
                put(given_step)
                moved.add(slot)
        ordered.append(step)

    for step in steps:
        put(step)
    return ordered, frozenset(moved)


def local_results(plan: Plan, group: str, run: Iterable[Step]) -> frozenset[int]:
    """Elementwise results of a run that nothing outside of it reads."""
    inside = {id(step) for step in run}
    made = {step.output for step in run if not is_sum(step)}
    read_outside = {slot for step in plan.steps[group] if id(step) not in inside for slot in step.inputs}
    kept = plan.residuals.union(plan.outputs[group])
    return frozenset(slot for slot in made if slot not in read_outside and slot not in kept)


def _fusible_shape(plan: Plan, step: Step) -> Shape | None:
    """The shape of the large arrays that a step works on if it can be part of a run, else None."""
    metas = plan.program.metas
    if not plan.strided.isdisjoint(step.inputs):
        return None
    if sum_target(plan.program, step) is not None:
        shape = metas[step.inputs[0]].shape
    elif step.op.chunk_calls:
        shape = metas[step.output].shape
    else:
        return None
    if len(shape) < 2 or math.prod(shape) < LARGE:
        return None
    allowed = ((), shape, shape[-1:], shape[1:], each_sample(shape))
    arrays = [metas[slot] for slot in step.inputs if metas[slot].dtype is not None]
    if any(
        meta.shape not in allowed or meta.dtype.kind not in "fb" for meta in arrays if meta.dtype is not None
    ):
        return None
    return shape


def is_sum(step: Step) -> bool:
    """Whether a step that can be part of a run is a sum at its end."""
    return step.op.name in ("mean_leading", "unbroadcast", "sum")


def each_sample(shape: Shape) -> Shape:
    """(B, 1, ..., C): one value a channel for each element of the batch."""
    return (shape[0], *(1 for _ in shape[1:-1]), shape[-1])


def sum_target(program: Program, step: Step) -> Shape | None:
    """What a step sums a large array to: one value a channel, one a position, or one a sample and channel;
    else None.
    """
    if not is_sum(step):
        return None
    source, target = program.metas[step.inputs[0]].shape, program.metas[step.output].shape
    if len(source) < 2:
        return None
    if step.op.name == "sum":
        axes = step.static["axes"]
        if len(source) > 2 and axes == tuple(range(1, len(source) - 1)):
            return each_sample(source)
        if axes != tuple(range(len(source) - len(target))):
            return None
    return target if target in (source[-1:], source[1:], each_sample(source)) else None
