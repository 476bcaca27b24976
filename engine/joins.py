"""Parts of a join (np.stack, np.concatenate) that are computed where the join wants them,
instead of copied there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .ops.joins import parts_of
from .partition import Plan
from .program import Step


def parts_in_place(plan: Plan, group: str, targets: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The slots that can be computed in their part of a join whose array is known,
    with that part of the array.

    Args:
        targets: arrays, contiguous, in which results of the group are wanted.
    """
    made = {step.output: step for step in plan.steps[group]}
    found: dict[int, np.ndarray] = {}
    for step in plan.steps[group]:
        if step.op.name != "concatenate" or step.output not in targets:
            continue
        lengths = [plan.program.metas[slot].shape[step.static["axis"]] for slot in step.inputs]
        parts = parts_of(targets[step.output], lengths, step.static["axis"])
        for slot, part in zip(step.inputs, parts, strict=True):
            root = _whole(plan, made, slot)
            if root is None or root in plan.residuals or root in targets or root in found:
                continue
            meta = plan.program.metas[root]
            if part.flags.c_contiguous and meta.dtype == part.dtype:
                found[root] = part.reshape(meta.shape)
    return found


def _whole(plan: Plan, made: Mapping[int, Step], slot: int) -> int | None:
    """The slot made in this group that `slot` is, perhaps in another shape; None where it is a part of one,
    or reordered.
    """
    while slot in made and plan.root[slot] != slot:
        if made[slot].op.name != "reshape":
            return None
        slot = made[slot].inputs[0]
    return slot if slot in made else None
