"""Where the slots of a partitioned program live in the few blocks of memory that a compiled kernel is given.

All values are stored in the dtype of the state, truth values as 0 and 1.
A block is known by its name in the kernels:
    const    what depends on parameters and captured arrays only
    stage    one evaluation: its input, then what later groups read (residuals)
    work     the other intermediate results of the group that runs
    given    cotangents that a pull-back starts from
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..partition import PROLOGUE, Plan
from ..program import Step


class Unsupported(Exception):
    """A program that the compiled path does not know; the message names what is in the way."""


@dataclass(frozen=True)
class Place:
    """Values in a block: their offset, shape and strides, counted in values."""

    block: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def broadcast_strides(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Strides that walk along `shape`: 0 where the values are repeated."""
        extra = len(shape) - len(self.shape)
        own = (
            0 if n == 1 and wanted != 1 else stride
            for n, stride, wanted in zip(self.shape, self.strides, shape[extra:], strict=True)
        )
        return (0,) * extra + tuple(own)

    def at(self, position: str) -> str:
        """The text that reads the value at a position."""
        return f"load({self.block}, {_sum(self.offset, position)})"

    def to(self, position: str, value: str) -> str:
        """The text that writes it."""
        return f"store({self.block}, {_sum(self.offset, position)}, {value})"

    def viewed(self, view: Callable[[np.ndarray], np.ndarray]) -> Place:
        """The place of what a function that makes a view gives; NumPy says how it lies in memory."""
        room = np.empty(
            1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True) if s > 0), np.int8
        )
        array = np.lib.stride_tricks.as_strided(room, self.shape, self.strides, writeable=False)
        seen = view(array)
        offset = seen.__array_interface__["data"][0] - array.__array_interface__["data"][0]
        return replace(self, offset=self.offset + offset, shape=seen.shape, strides=seen.strides)


def _sum(offset: int, position: str) -> str:
    if position == "0":
        return str(offset)
    return f"{offset} + {position}" if offset else position


def contiguous(block: str, offset: int, shape: tuple[int, ...]) -> Place:
    """The values of an array in C order."""
    strides, size = [], 1
    for n in reversed(shape):
        strides.append(size)
        size *= n
    return Place(block, offset, shape, tuple(reversed(strides)))


class Layout:
    """The places of all slots that are in memory before a group runs,
    and those that its steps get on the way.

    Args:
        plan: the partitioned program; every array real, none empty, all of one dtype (or truth values).
        state: slots of the input of an evaluation, in their order in memory.
        given: slots of the cotangents, likewise.
    Attributes:
        sizes: values in each block.
    Raises: Unsupported.
    """

    def __init__(self, plan: Plan, state: Sequence[int], given: Sequence[int]) -> None:
        self.plan = plan
        self.dtype = plan.program.metas[state[0]].dtype
        self.places: dict[int, Place] = {}
        self.sizes = {"const": 0, "stage": 0, "work": 0, "given": 0}
        self._check()
        for slot in state:
            self.add(slot, "stage")
        for slot in given:
            self.add(slot, "given")
        for slot, home in plan.home.items():
            if home == PROLOGUE and plan.root[slot] == slot:
                self.add(slot, "const")
        for slot in sorted(plan.residuals):
            if slot not in self.places:
                self.add(slot, "stage")

    def add(self, slot: int, block: str) -> Place:
        """Room for a slot at the end of a block."""
        shape = self.plan.program.metas[slot].shape
        self.places[slot] = contiguous(block, self.sizes[block], shape)
        self.sizes[block] += math.prod(shape)
        return self.places[slot]

    def is_truth(self, slot: int) -> bool:
        """Whether a slot holds truth values."""
        return self.plan.program.metas[slot].dtype == np.bool_

    def is_view(self, step: Step) -> bool:
        """Whether a step only looks at the memory of its input in another way."""
        return self.plan.root[step.output] != step.output

    def view(self, step: Step) -> Place:
        """Enter the place of a view."""
        source = self.places[step.inputs[0]]
        self.places[step.output] = source.viewed(lambda array: step.op.forward(np, array, **step.static))
        return self.places[step.output]

    def _check(self) -> None:
        plan = self.plan
        for slot in plan.home:
            meta = plan.program.metas[slot]
            if meta.dtype not in (self.dtype, np.bool_):
                raise Unsupported(f"values of {meta.dtype} beside a state of {self.dtype}")
            if 0 in meta.shape:
                raise Unsupported("empty arrays")
        for slot in plan.weak:
            if plan.program.metas[slot].number is complex:
                raise Unsupported("complex numbers")
