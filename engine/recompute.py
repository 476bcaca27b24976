"""Which residuals a later group computes anew instead of finding them in memory.

A pull-back reads what its slope has made, and `discrete` keeps that for every stage of every step it holds.
Of a normalisation with affine map and ReLU three large arrays would be kept: x - mean, that divided by the
deviation, and the result. The last two follow from the first by a product or by four steps, which cost less
than the memory: inside of a fused run a product is free, and a slope that does not write its residuals moves
fewer bytes.

A residual is computed anew if a cheap elementwise step leads to it from what is there anyway: other
residuals, constants, and small arrays, which are then kept instead. The step is repeated for every step
that reads its result, so that it stays in the run of its reader. Several steps are made once a group, which
takes a few hundredths of the time; that is done where residuals are so large that `discrete` could hold few
steps, and would evaluate the stages of the others again.

The device has a choice of its own (`cuda.recompute`), which repeats steps in kernels.
"""

from __future__ import annotations

import math
from dataclasses import replace

from .fusion import LARGE
from .partition import PROLOGUE, Plan
from .program import Meta, Step

CHEAP = frozenset("abs add div maximum minimum mul neg relu relu_gate square sub".split())
MOST_STEPS = 6  # that lead to a residual
FEW_BYTES = 1 << 25  # of an evaluation's residuals: five steps of dopri5 in the gibibyte that solves keep
SMALL = 16  # an array of a 16th of the values or fewer may be kept for the sake of a residual


def recomputing(plan: Plan) -> Plan:
    """The plan with fewer residuals; groups that read the others make them in steps of their own."""
    recipes = _Recipes(plan)
    if not recipes.found:
        return plan
    writer = _Writer(plan, recipes.found)
    steps = {group: writer.steps_of(group) for group in plan.order}
    program = replace(
        plan.program,
        metas=tuple(writer.metas),
        steps=tuple(step for group in plan.order for step in steps[group]),
    )
    return replace(
        plan,
        program=program,
        steps=steps,
        root=plan.root | {slot: slot for slot in writer.home},
        residuals=(plan.residuals | recipes.kept_instead).difference(recipes.found),
        home=plan.home | writer.home,
    )


class _Recipes:
    """The residuals that are computed anew, and the steps that lead to each.

    Attributes:
        found: for each residual its steps, in order.
        kept_instead: small results of earlier groups that the steps read.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.metas = plan, plan.program.metas
        self.maker = {s.output: s for group in plan.order[1:] for s in plan.steps[group]}
        self.found: dict[int, tuple[Step, ...]] = {}
        self.kept_instead: frozenset[int] = frozenset()
        large = {slot for slot in plan.residuals if self._size(slot) >= LARGE}
        self.most_steps = MOST_STEPS if sum(map(self._nbytes, large)) > FEW_BYTES else 1
        wanted = large and large - self._seen_otherwise()
        for slot in self.maker:  # in the order of the program: what a recipe reads is settled before
            if slot in wanted:
                self._try(slot)

    def _seen_otherwise(self) -> set[int]:
        """Roots that a group returns, or that are read through a view."""
        plan = self.plan
        read = {slot for step in self.maker.values() for slot in step.inputs if slot not in plan.weak}
        results = {slot for slots in plan.outputs.values() for slot in slots if slot not in plan.weak}
        return {plan.root[slot] for slot in read if plan.root[slot] != slot} | {
            plan.root[slot] for slot in results
        }

    def _try(self, slot: int) -> None:
        """Enter the recipe of a residual, if there is one."""
        steps: dict[int, Step] = {}
        kept: set[int] = set()
        if self._collect(slot, self._size(slot) // SMALL, steps, kept):
            self.found[slot] = tuple(steps.values())
            self.kept_instead |= kept

    def _collect(self, slot: int, small: int, steps: dict[int, Step], kept: set[int]) -> bool:
        """Add the steps that lead to a slot, those that it needs first; false if some are not cheap."""
        step = self.maker.get(slot)
        dtype = self.metas[slot].dtype
        if step is None or step.op.name not in CHEAP or dtype is None or dtype.kind != "f":
            return False
        for source in dict.fromkeys(step.inputs):
            if source in steps or self._is_there(source):
                continue
            if self._can_be_kept(source, small):
                kept.add(self.plan.root[source])
            elif not self._collect(source, small, steps, kept):
                return False
        steps[slot] = step
        return len(steps) <= self.most_steps

    def _is_there(self, slot: int) -> bool:
        """Numbers, constants, and the residuals that stay."""
        plan = self.plan
        if slot in plan.weak or plan.home[slot] == PROLOGUE:
            return True
        root = plan.root[slot]
        return root in self.kept_instead or root in plan.residuals and root not in self.found

    def _can_be_kept(self, slot: int, small: int) -> bool:
        return self.plan.root[slot] in self.maker and self._size(slot) <= small

    def _size(self, slot: int) -> int:
        """Values of what a slot looks at."""
        return math.prod(self.metas[self.plan.root[slot]].shape)

    def _nbytes(self, slot: int) -> int:
        dtype = self.metas[slot].dtype
        return 0 if dtype is None else self._size(slot) * dtype.itemsize


class _Writer:
    """Writes the steps of groups, with copies of recipes before the steps that read what they make.

    Attributes:
        metas: of all slots, those of copies behind the others.
        home: the group of each copy.
    """

    def __init__(self, plan: Plan, recipes: dict[int, tuple[Step, ...]]) -> None:
        self.plan, self.recipes = plan, recipes
        self.metas: list[Meta] = list(plan.program.metas)
        self.home: dict[int, str] = {}

    def steps_of(self, group: str) -> tuple[Step, ...]:
        """The steps of a group, which read copies of what earlier groups have made."""
        written: list[Step] = []
        shared: dict[int, int] = {}
        for step in self.plan.steps[group]:
            copies = {
                slot: self._copy(slot, group, shared, written)
                for slot in dict.fromkeys(step.inputs)
                if slot in self.recipes and self.plan.home[slot] != group
            }
            inputs = tuple(copies.get(slot, slot) for slot in step.inputs)
            written.append(step._replace(inputs=inputs) if copies else step)
        return tuple(written)

    def _copy(self, slot: int, group: str, shared: dict[int, int], written: list[Step]) -> int:
        """The slot of a copy of `slot` in this group; `shared` are copies of several steps, made before."""
        if slot in shared:
            return shared[slot]
        own: dict[int, int] = {}
        for step in self.recipes[slot]:
            self.metas.append(self.metas[step.output])
            own[step.output] = len(self.metas) - 1
            self.home[own[step.output]] = group
            inputs = tuple(own.get(read, read) for read in step.inputs)
            written.append(step._replace(inputs=inputs, output=own[step.output]))
        if len(own) > 1:
            shared[slot] = own[slot]
        return own[slot]
