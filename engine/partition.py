"""Splitting a joint program into groups that run at different moments,
and finding what must survive between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import TracedValueError
from .program import Program, Step, steps_for

PROLOGUE = "prologue"


@dataclass(frozen=True)
class Plan:
    """A program cut into groups.

    Attributes:
        program: the joint program.
        order: names of the groups, in the order in which they run; the prologue is first.
        steps: steps of each group on arrays. A step runs in the first group that needs it; what depends on
            constants only (parameters, captured values) runs in the prologue.
        outputs: result slots of each group.
        weak: slots that are Python numbers.
        constant_slots: slots that depend on parameters and captured values only.
        constant_numbers, timed_numbers: steps between numbers; those that depend on t are computed by every
            group that needs them.
        root: the slot whose memory a slot lives in: itself, or for a view what it views.
        strided: slots that are views with gaps or repetitions (transposed, broadcast),
            not one piece of memory.
        residuals: roots written in one group and read in a later one: one buffer each a set.
        home: the group that a slot on arrays belongs to: where it is computed, or given (an input); constants
            belong to the prologue. Slots of numbers and slots that nothing needs have none.
    """

    program: Program
    order: tuple[str, ...]
    steps: dict[str, tuple[Step, ...]]
    outputs: dict[str, tuple[int, ...]]
    weak: frozenset[int]
    constant_slots: frozenset[int]
    constant_numbers: tuple[Step, ...]
    timed_numbers: tuple[Step, ...]
    root: dict[int, int]
    strided: frozenset[int]
    residuals: frozenset[int]
    home: dict[int, str]


def partition(
    program: Program,
    outputs: Mapping[str, Sequence[int]],
    inputs: Mapping[str, Sequence[int]],
    time: int | None = None,
) -> Plan:
    """Cut `program` into the groups named by `outputs` (in order of running).

    Args:
        outputs: result slots of each group.
        inputs: array inputs that are given when a group runs; all other inputs are constants of the prologue.
        time: the input that is a number and given anew to every run of a group.
    """
    order = (PROLOGUE, *outputs)
    weak = frozenset(slot for slot, meta in enumerate(program.metas) if meta.dtype is None)
    for step in program.steps:
        if step.output in weak and not weak.issuperset(step.inputs):
            raise TracedValueError(
                f"`{step.op.name}` makes a Python number of an array inside a program, which replay cannot follow; keep "
                "it an array"
            )
    home: dict[int, str] = {slot: name for name, slots in inputs.items() for slot in slots}
    constant = {slot for slot in (*program.inputs, *program.hidden) if slot not in home and slot != time}
    constant.update(slot for slot, _ in program.baked)
    for step in program.steps:
        if constant.issuperset(step.inputs):
            constant.add(step.output)
    home.update((slot, PROLOGUE) for slot in constant if slot not in weak)
    steps: dict[str, list[Step]] = {name: [] for name in order}
    for name, slots in outputs.items():
        for step in steps_for(program.steps, slots):
            if step.output not in weak:
                home.setdefault(step.output, name)
    for step in program.steps:
        if step.output not in weak and step.output in home:
            steps[home[step.output]].append(step)
    in_order = {name: tuple(found) for name, found in steps.items()}
    root, strided = _roots(program)
    return Plan(
        program=program,
        order=order,
        steps=in_order,
        outputs={PROLOGUE: (), **{name: tuple(slots) for name, slots in outputs.items()}},
        weak=weak,
        constant_slots=frozenset(constant),
        constant_numbers=tuple(s for s in program.steps if s.output in weak and s.output in constant),
        timed_numbers=tuple(s for s in program.steps if s.output in weak and s.output not in constant),
        root=root,
        strided=strided,
        residuals=_residuals(in_order, outputs, weak, root, home),
        home=home,
    )


def _roots(program: Program) -> tuple[dict[int, int], frozenset[int]]:
    """Which slots are views of which, and which of them are strided.

    Decided by trying each possible view on memory laid out like the real one.
    """
    strided = set()
    root = {slot: slot for slot in range(len(program.metas))}
    samples: dict[int, np.ndarray] = {}

    def sample(slot: int) -> np.ndarray:
        if slot not in samples:
            meta = program.metas[slot]
            samples[slot] = np.empty(meta.shape, meta.dtype)  # untouched pages cost nothing
        return samples[slot]

    for op, inputs, output, static in program.steps:
        if not op.may_view or program.metas[inputs[0]].dtype is None:
            continue
        source = sample(inputs[0])
        result = op.forward(np, source, **static)
        if result.size and np.shares_memory(source, result):
            root[output] = root[inputs[0]]
            samples[output] = result
            if not result.flags.c_contiguous:
                strided.add(output)
    return root, frozenset(strided)


def _residuals(
    steps: Mapping[str, Sequence[Step]],
    outputs: Mapping[str, Sequence[int]],
    weak: frozenset[int],
    root: Mapping[int, int],
    home: Mapping[int, str],
) -> frozenset[int]:
    crossing: set[int] = set()
    for name, group in steps.items():
        read = {slot for step in group for slot in step.inputs}.union(outputs.get(name, ()))
        crossing.update(
            root[slot] for slot in read if slot not in weak and home[root[slot]] not in (name, PROLOGUE)
        )
    return frozenset(crossing)
