"""Which steps of a program treat the rows of the batch one by one, so that they can be run over parts of it.

Consecutive ones make a *segment*, which has a program of its own for the rows of a part. `row_cuts` says how
each step is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from .partition import Plan
from .program import Meta, Program, Step
from .row_cuts import Axis, Cut, cut_of, is_cut


@dataclass(frozen=True)
class Segment:
    """Steps that are run over parts of the n rows.

    Attributes:
        cuts: how each step is cut.
        axes: the axis along which each array that they touch is cut; sums over the rows have none.
        results: what is needed outside: roots of cut results, and sums.
    """

    n: int
    steps: tuple[Step, ...]
    cuts: tuple[Cut, ...]
    axes: dict[int, Axis]
    results: tuple[int, ...]

    @property
    def sums(self) -> tuple[int, ...]:
        return tuple(step.output for step, cut in zip(self.steps, self.cuts, strict=True) if cut.is_sum)

    @property
    def locals(self) -> frozenset[int]:
        """What exists for one part at a time only."""
        return frozenset(step.output for step in self.steps).difference(self.results)


def batch_size(plan: Plan) -> int:
    """The rows of the batch: the leading axis of the first input that is given anew to every run;
    0 without one.
    """
    metas, program = plan.program.metas, plan.program
    given = [s for s in program.inputs if s in plan.home and s not in plan.constant_slots]
    shapes = [metas[slot].shape for slot in given if metas[slot].dtype is not None]
    return next((shape[0] for shape in shapes if len(shape) > 1), 0)


def rows_in(plan: Plan, n: int) -> frozenset[int]:
    """Arrays whose leading axis is the batch of n: those given anew to every run,
    and what is made of their rows.

    A shape does not tell: a matrix of parameters may have as many rows as the batch.
    """
    if n < 2:
        return frozenset()
    metas, program = plan.program.metas, plan.program
    rows = {s for s in program.inputs if s in plan.home and s not in plan.constant_slots}
    rows = {slot for slot in rows if is_cut(metas[slot].shape, n)}
    for step in program.steps:
        if rows.isdisjoint(step.inputs):
            continue
        cut = cut_of(plan, step, n)
        if cut is None:
            is_of_rows = is_cut(metas[step.output].shape, n)
        else:
            is_of_rows = not cut.is_sum and _is_of_rows(step, cut, rows)
        if is_of_rows:
            rows.add(step.output)
    return frozenset(rows)


def _is_of_rows(step: Step, cut: Cut, rows: Collection[int]) -> bool:
    """Whether something that is cut holds rows of the batch."""
    return any(a is not None and s in rows for s, a in zip(step.inputs, cut.inputs, strict=True))


def split_off(
    plan: Plan,
    group: str,
    steps: Sequence[Step],
    n: int,
    rows: Collection[int],
    wants: Callable[[Step, Cut], bool],
) -> tuple[Segment | None, list[Step], list[Step]]:
    """(the first segment of `steps`, the steps before it, the steps after it).

    A step that does not depend on the segment moves before it, one that needs a sum or the whole of what the
    segment makes row by row has to wait. `rows` are the arrays of `rows_in`;
    `wants` may refuse a step that could be cut.
    """
    joined: list[Step] = []
    cuts: list[Cut] = []
    axes: dict[int, Axis] = {}
    before: list[Step] = []
    after: list[Step] = []
    made: set[int] = set()  # row by row, in the segment
    late: set[int] = set()  # not there until the segment is over
    for step in steps:
        cut = cut_of(plan, step, n)
        can_join = cut is not None and _is_of_rows(step, cut, rows) and wants(step, cut)
        if cut is not None and can_join and _fits(step, cut, axes, late):
            joined.append(step)
            cuts.append(cut)
            axes.update(_axes_of(step, cut))
            (late if cut.is_sum else made).add(step.output)
        elif made.isdisjoint(step.inputs) and late.isdisjoint(step.inputs):
            before.append(step)
        else:
            after.append(step)
            late.add(step.output)
    if not joined:
        return None, before, after
    results = _results(plan, group, joined)
    return Segment(n, tuple(joined), tuple(cuts), axes, results), before, after


def _fits(step: Step, cut: Cut, axes: dict[int, Axis], late: set[int]) -> bool:
    """Whether a step can join: sums that it needs are there, and every array is cut in one way only,
    or whole.
    """
    own = _axes_of(step, cut)
    return (
        late.isdisjoint(step.inputs)
        and len(own) == len(set(zip((*step.inputs, step.output), (*cut.inputs, cut.output), strict=True)))
        and all(axes.get(slot, axis) == axis for slot, axis in own.items())
    )


def _axes_of(step: Step, cut: Cut) -> dict[int, Axis]:
    return dict(zip((*step.inputs, step.output), (*cut.inputs, cut.output), strict=True))


def _results(plan: Plan, group: str, joined: Iterable[Step]) -> tuple[int, ...]:
    """Roots of what is read outside of the segment, in later groups, or by the caller."""
    inside = {id(step) for step in joined}
    read = {slot for step in plan.steps[group] if id(step) not in inside for slot in step.inputs}
    needed = {plan.root[slot] for slot in read.union(plan.outputs[group]) if slot not in plan.weak}
    needed |= plan.residuals
    return tuple(s.output for s in joined if plan.root[s.output] == s.output and s.output in needed)


def part_of(program: Program, segment: Segment, rows: int) -> Program:
    """The program whose arrays have `rows` of the rows of a segment: its shapes, and its steps alone."""
    metas = list(program.metas)
    for slot, axis in segment.axes.items():
        if axis is not None:
            metas[slot] = Meta(_with_rows(metas[slot].shape, axis, segment.n, rows), metas[slot].dtype)
    steps = tuple(
        _step_of_part(step, cut, segment.n, rows)
        for step, cut in zip(segment.steps, segment.cuts, strict=True)
    )
    return Program(tuple(metas), (), (), (), (), steps, ())


def _step_of_part(step: Step, cut: Cut, n: int, rows: int) -> Step:
    """The step with the shape among its settings, if there is one, that of fewer rows."""
    if cut.output is None or "shape" not in step.static:
        return step
    shape = _with_rows(step.static["shape"], cut.output, n, rows)
    return step._replace(static={**step.static, "shape": shape})


def _with_rows(shape: tuple[int, ...], axis: int, n: int, rows: int) -> tuple[int, ...]:
    return (*shape[:axis], shape[axis] // n * rows, *shape[axis + 1 :])
