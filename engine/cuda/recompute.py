"""Which results of chains are stored, and which every kernel that wants them computes anew.

A chain on large arrays takes as long as the bytes that it moves, and its arithmetic is free. What a second
kernel wants of a first one, such as x - mean for an affine map, for the gate of its ReLU and for the sums of
the pull-back, need not pass through memory if it follows from an array that has to be there anyway, here the
result of a convolution. Results of few instructions are taken out of memory one by one, in the order of the
program, as long as that saves bytes and lets no residuals grow;
their steps become part of each chain that wants them.

A normalisation with an affine map and ReLU then moves what a kernel written for it would: forward it reads
one tensor and writes one; backward it reads two for the sums, and again for the third, which it writes.

A step gives the same bits in every kernel (`source.EXACT`),
so the gate of a pull-back is the one of the slope.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..fusion import Run, Shape, is_sum
from ..partition import PROLOGUE, Plan
from ..program import Step
from ..tiled import Piece
from . import chains
from .gathers import is_gather

COSTLY = frozenset(
    "arctan cos cosh exp expm1 log log1p power power_of sigmoid sin sinh softplus tan tanh".split()
)  # tens of instructions: as long as a read, where several follow each other

Schedules = Mapping[str, Sequence[Piece]]


def with_recomputation(plan: Plan, schedules: Schedules) -> tuple[Plan, dict[str, list[Piece]]]:
    """(plan with the residuals that are left, schedules in which runs compute anew what they want).

    A run may then have steps of earlier runs, also of other groups: their results are local there.
    """
    choice = _Choice(plan, schedules)
    bodies = iter(choice.bodies(choice.best()))
    found: dict[str, list[Piece]] = {}
    for group, pieces in schedules.items():
        found[group] = []
        for piece in pieces:
            if not is_large(piece):
                found[group].append(piece)
            elif (body := next(bodies)).made:
                found[group].append(body.run(plan))
    return replace(plan, residuals=_residuals(plan, found)), found


def is_large(piece: Piece) -> bool:
    """Whether a piece is a run that takes as long as the bytes that it moves."""
    return isinstance(piece, Run) and math.prod(piece.shape) >= chains.LARGE


def reads_of(piece: Piece) -> set[int]:
    """The slots that a piece reads and does not make, numbers among them."""
    steps = (piece,) if isinstance(piece, Step) else piece.steps
    return {slot for step in steps for slot in step.inputs}.difference(step.output for step in steps)


def _residuals(plan: Plan, schedules: Schedules) -> frozenset[int]:
    """Roots that a group reads and an earlier one makes."""
    found: set[int] = set()
    for group, pieces in schedules.items():
        read = set(plan.outputs[group]).union(*map(reads_of, pieces)) - plan.weak
        found |= {plan.root[slot] for slot in read if plan.home[plan.root[slot]] not in (group, PROLOGUE)}
    return frozenset(found)


@dataclass(frozen=True)
class _Body:
    """What a run does: the slots that its steps make, those of them that are stored or summed,
    and what it reads.
    """

    shape: tuple[int, ...]
    made: frozenset[int]
    stored: frozenset[int]
    read: frozenset[int]

    def run(self, plan: Plan) -> Run:
        steps = tuple(step for step in plan.program.steps if step.output in self.made)
        return Run(self.shape, steps, self.made - self.stored)


class _Cost(NamedTuple):
    """Bytes: moved by all groups, each run once; kept between groups in large arrays."""

    moved: int
    kept: int


class _Choice:
    """The results that could be computed anew, and what it costs to do so with some of them."""

    def __init__(self, plan: Plan, schedules: Schedules) -> None:
        self.plan = plan
        self.runs = [
            (g, p) for g, pieces in schedules.items() for p in pieces if isinstance(p, Run) and is_large(p)
        ]
        self.home = {step.output: k for k, (_, run) in enumerate(self.runs) for step in run.steps}
        self.steps = {step.output: step for _, run in self.runs for step in run.steps}
        small = {g: [piece for piece in pieces if not is_large(piece)] for g, pieces in schedules.items()}
        self.read_besides = {
            group: set(plan.outputs[group]).union(*map(reads_of, pieces)) - plan.weak
            for group, pieces in small.items()
        }
        self.needed = frozenset().union(*self.read_besides.values())
        self.candidates = [
            step.output for step in plan.program.steps if step.output in self.home and self._is_cheap(step)
        ]
        self.passing = self._passing()

    def best(self) -> frozenset[int]:
        """The results to compute anew, found one by one; those that no other run wants are free."""
        local = frozenset[int]().union(*(run.local for _, run in self.runs))
        again = local.intersection(self.candidates)
        cost = self.cost(again)
        assert cost is not None
        is_new = True
        while is_new:
            is_new = False
            for slot in self.candidates:
                more = again | {slot}
                found = self.cost(more) if slot not in again else None
                if found is not None and found.moved < cost.moved and found.kept <= cost.kept:
                    again, cost, is_new = more, found, True
        return again

    def cost(self, again: frozenset[int]) -> _Cost | None:
        """None if a run would read what is not there any more."""
        moved, kept = 0, set[int]()
        for group, slots in self.read_besides.items():
            kept |= self._from_before(group, slots)
        for (group, _), body in zip(self.runs, self.bodies(again), strict=True):
            moved += sum(map(self._nbytes, body.read | body.stored))
            before = self._from_before(group, body.read)
            if not self.passing.isdisjoint(before):
                return None
            kept |= before
        return _Cost(moved, sum(map(self._nbytes, filter(self._is_large, kept))))

    def bodies(self, again: frozenset[int]) -> list[_Body]:
        """Of all runs, in order. A result is stored if something else reads it,
        so the last run comes first.
        """
        read = set(self.needed)
        found = []
        for k in range(len(self.runs) - 1, -1, -1):
            found.append(self._body(k, again, read))
            read |= found[-1].read
        return found[::-1]

    def _body(self, k: int, again: frozenset[int], wanted: set[int]) -> _Body:
        run = self.runs[k][1]
        stored = frozenset(step.output for step in run.steps if step.output in wanted)
        made: set[int] = set()
        read: set[int] = set()
        pending = [(slot, True) for slot in stored]
        while pending:
            slot, is_here = pending.pop()
            if slot in made and is_here or slot in self.plan.weak:
                continue
            if self.home.get(slot) == k or slot in again and is_here:
                made.add(slot)
                step = self.steps[slot]
                pending += [(given, self._reads_here(step, given, run.shape)) for given in step.inputs]
            else:
                read.add(slot)
        if not made.isdisjoint(read):  # wanted from memory all the same
            return self._body(k, again - read, wanted)
        return _Body(run.shape, frozenset(made), stored, frozenset(read))

    def _reads_here(self, step: Step, slot: int, shape: Shape) -> bool:
        """Whether a step of a run reads a slot at the position of the value that it makes."""
        return self.plan.program.metas[slot].shape == shape and not is_gather(self.plan.program, step)

    def _from_before(self, group: str, slots: set[int] | frozenset[int]) -> set[int]:
        """The roots of slots that earlier groups make."""
        plan = self.plan
        return {plan.root[s] for s in slots if plan.home[plan.root[s]] not in (group, PROLOGUE)}

    def _passing(self) -> frozenset[int]:
        """Memory that a later group finds overwritten: what is given to a group. And its results, which would
        be copied to be kept; small ones may be.
        """
        plan, made = self.plan, {step.output for step in self.plan.program.steps}
        results = {
            plan.root[slot] for slots in plan.outputs.values() for slot in slots if slot not in plan.weak
        }
        return (
            frozenset(r for r in plan.home if r not in made or r in results and self._is_large(r))
            - plan.residuals
        )

    def _is_large(self, slot: int) -> bool:
        return math.prod(self.plan.program.metas[slot].shape) >= chains.LARGE

    def _is_cheap(self, step: Step) -> bool:
        return not (is_sum(step) or is_gather(self.plan.program, step) or step.op.name in COSTLY)

    def _nbytes(self, slot: int) -> int:
        """Of a slot, or of what it repeats."""
        found = []
        for one in (slot, self.plan.root[slot]):
            meta = self.plan.program.metas[one]
            assert meta.dtype is not None
            found.append(math.prod(meta.shape) * meta.dtype.itemsize)
        return min(found)
