"""Which steps of a program treat the rows of the batch one by one, so that they can be run over parts of it.

A step is *row-wise* if rows a..z of its result need rows a..z of some inputs and the whole of the others:
elementwise arithmetic, products with a matrix on the right, sums within a row, changes of shape that keep
rows together. A sum over the rows can be cut too: each part gives a part of the sum. Everything else, and
every operation that is not in the tables below, is left whole.

Rows may be several entries of an axis: of a batch of n,
an array whose leading axis has m n entries has m of them a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .partition import Plan
from .program import Meta, Program, Step

Axis = int | None  # along which an array is cut into rows; None: not at all


class Cut(NamedTuple):
    """How a step is cut: the axis of each input, and of the result.
    A result that is not cut is a sum over the rows.
    """

    inputs: tuple[Axis, ...]
    output: Axis

    @property
    def is_sum(self) -> bool:
        return self.output is None


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
    rows = {slot for slot in rows if _is_cut(metas[slot].shape, n)}
    for step in program.steps:
        if rows.isdisjoint(step.inputs):
            continue
        cut = cut_of(plan, step, n)
        if cut is None:
            is_of_rows = _is_cut(metas[step.output].shape, n)
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


def cut_of(plan: Plan, step: Step, n: int) -> Cut | None:
    """How a step can be cut into n rows; None where it cannot, or is not known to."""
    rule = _RULES.get(step.op.name) or (_elementwise if step.op.chunk_calls else None)
    if rule is None or n < 2:
        return None
    return rule(plan, step, n)


def _shapes(plan: Plan, step: Step) -> tuple[list[tuple[int, ...] | None], tuple[int, ...]]:
    """Shapes of the inputs (None: a number) and of the result."""
    metas = plan.program.metas
    return [None if metas[s].dtype is None else metas[s].shape for s in step.inputs], metas[step.output].shape


def _is_cut(shape: tuple[int, ...] | None, n: int) -> bool:
    """Whether the leading axis holds the n rows."""
    return bool(shape) and shape[0] > 0 and shape[0] % n == 0  # type: ignore[index]


def _elementwise(plan: Plan, step: Step, n: int) -> Cut | None:
    """Operands of the full leading axis are cut, those that are broadcast along it are not."""
    shapes, result = _shapes(plan, step)
    if not _is_cut(result, n):
        return None
    full = [shape is not None and len(shape) == len(result) and shape[0] == result[0] for shape in shapes]
    return Cut(tuple(0 if is_full else None for is_full in full), 0)


def _matmul(plan: Plan, step: Step, n: int) -> Cut | None:
    """Rows times a matrix; matrices of rows, one a row; or a transposed array times one of the same rows,
    a sum.
    """
    (left, right), result = _shapes(plan, step)
    assert left is not None and right is not None
    if len(left) == len(right) == 2:
        turned = plan.strided.isdisjoint(step.inputs[1:]) and _is_turned(plan, step.inputs[0])
        if turned and _is_cut(right, n):
            return Cut((1, 0), None)
        return Cut((0, None), 0) if _is_cut(left, n) else None
    if not _is_cut(result, n):
        return None
    full = [len(shape) == len(result) and shape[0] == result[0] for shape in (left, right)]
    return Cut(tuple(0 if is_full else None for is_full in full), 0) if len(result) > 2 else None


def _is_turned(plan: Plan, slot: int) -> bool:
    """Whether a matrix is a transposed view."""
    return slot in plan.strided and any(
        step.output == slot and step.op.name == "transpose" for step in plan.program.steps
    )


def _transpose(plan: Plan, step: Step, n: int) -> Cut | None:
    """A matrix is turned, and its rows with it; of other arrays the leading axis stays in its place."""
    (source,), _ = _shapes(plan, step)
    axes = step.static["axes"]
    if not _is_cut(source, n):
        return None
    return Cut((0,), 1) if axes == (1, 0) else Cut((0,), 0) if axes[0] == 0 else None


def _reshape(plan: Plan, step: Step, n: int) -> Cut | None:
    """The values of a row lie behind each other before and after."""
    (source,), result = _shapes(plan, step)
    return Cut((0,), 0) if _is_cut(source, n) and _is_cut(result, n) else None


def _broadcast(plan: Plan, step: Step, n: int) -> Cut | None:
    """The same values in all rows, or each row's own ones repeated within it."""
    (source,), result = _shapes(plan, step)
    if not _is_cut(result, n):
        return None
    assert source is not None
    return Cut((0 if len(source) == len(result) and source[0] == result[0] else None,), 0)


def _unbroadcast(plan: Plan, step: Step, n: int) -> Cut | None:
    """A sum over all rows, or one within each."""
    (source,), result = _shapes(plan, step)
    assert source is not None
    if not _is_cut(source, n):
        return None
    if len(result) == len(source) and result[0] == source[0]:
        return Cut((0,), 0)
    return Cut((0,), None)


def _sum(plan: Plan, step: Step, n: int) -> Cut | None:
    """A sum over all rows if the leading axis is among those that are summed, else within each."""
    (source,), _ = _shapes(plan, step)
    if not _is_cut(source, n):
        return None
    return Cut((0,), None if 0 in step.static["axes"] else 0)


def _within(plan: Plan, step: Step, n: int) -> Cut | None:
    """Extrema and running sums along other axes than the leading one."""
    (source,), _ = _shapes(plan, step)
    axes = step.static.get("axes") or (step.static.get("axis", -1),)  # argmax has a default
    inner = source is not None and all(axis % len(source) != 0 for axis in axes)
    return Cut((0,), 0) if inner and _is_cut(source, n) else None


def _concatenate(plan: Plan, step: Step, n: int) -> Cut | None:
    """Joined along another axis, each part with its rows."""
    shapes, _ = _shapes(plan, step)
    if step.static["axis"] == 0 or not all(_is_cut(shape, n) for shape in shapes):
        return None
    return Cut((0,) * len(shapes), 0)


def _window(plan: Plan, step: Step, n: int) -> Cut | None:
    """A basic index that leaves the leading axis as it is, and its transpose."""
    (source,), result = _shapes(plan, step)
    assert source is not None
    inner = len(source if step.op.name == "getitem" else result)
    first, *others = step.static["index"] or (None,)
    counted = sum(part is not None and part is not Ellipsis for part in others)
    keeps = first == ("slice", None, None, None) or (first is Ellipsis and counted < inner)
    return Cut((0,), 0) if keeps and _is_cut(source, n) and source[0] == result[0] else None


def _mean(plan: Plan, step: Step, n: int) -> Cut | None:
    """A mean over all rows: that of the parts' means, weighted by their rows."""
    (source,), _ = _shapes(plan, step)
    return Cut((0,), None) if source is not None and len(source) > 1 and _is_cut(source, n) else None


def _images(plan: Plan, step: Step, n: int) -> Cut | None:
    """Images one by one: all arrays of a pooling, those of a convolution but its kernel."""
    shapes, _ = _shapes(plan, step)
    n_images = 1 if step.op.name in ("conv2d", "conv2d_input_grad") else len(shapes)
    if not all(_is_cut(shape, n) for shape in shapes[:n_images]):
        return None
    return Cut((0,) * n_images + (None,) * (len(shapes) - n_images), 0)


def _kernel_gradient(plan: Plan, step: Step, n: int) -> Cut | None:
    """A sum over the images."""
    shapes, _ = _shapes(plan, step)
    return Cut((0, 0), None) if all(_is_cut(shape, n) for shape in shapes) else None


_ELEMENTWISE = (  # beside those with `chunk_calls`
    "power", "power_of", "sigmoid", "softplus", "where", "zeros_like", "ones_like", "astype", "astype_discrete", "copy",
    "real", "stop_gradient",
)  # fmt: skip

_OF_IMAGES = (
    "conv2d", "conv2d_input_grad", "max_pool", "max_pool_grad", "max_pool_pick", "avg_pool", "avg_pool_grad",
)  # fmt: skip

_RULES: dict[str, Callable[[Plan, Step, int], Cut | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_OF_IMAGES, _images),
    "conv2d_weight_grad": _kernel_gradient,
    **dict.fromkeys(("max", "min", "argmax", "cumsum", "reverse_cumsum"), _within),
    "concatenate": _concatenate,
    "getitem": _window,
    "place": _window,
    "matmul": _matmul,
    "transpose": _transpose,
    "reshape": _reshape,
    "broadcast_to": _broadcast,
    "unbroadcast": _unbroadcast,
    "sum": _sum,
    "mean_leading": _mean,
}
