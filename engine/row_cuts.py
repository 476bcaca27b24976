"""How a step is cut into the rows of the batch: which axis of each input, and of the result.

A step is *row-wise* if rows a..z of its result need rows a..z of some inputs and the whole of the others:
elementwise arithmetic, products with a matrix on the right, sums within a row, changes of shape that keep
rows together. A sum over the rows can be cut too: each part gives a part of the sum. Everything else, and
every operation that is not in the tables below, is left whole.

Rows may be several entries of an axis: of a batch of n, an array whose leading axis has m n entries has m of
them a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .partition import Plan
from .program import Step

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


def is_cut(shape: tuple[int, ...] | None, n: int) -> bool:
    """Whether the leading axis holds the n rows."""
    return bool(shape) and shape[0] > 0 and shape[0] % n == 0  # type: ignore[index]


def _elementwise(plan: Plan, step: Step, n: int) -> Cut | None:
    """Operands of the full leading axis are cut, those that are broadcast along it are not."""
    shapes, result = _shapes(plan, step)
    if not is_cut(result, n):
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
        if turned and is_cut(right, n):
            return Cut((1, 0), None)
        return Cut((0, None), 0) if is_cut(left, n) else None
    if not is_cut(result, n):
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
    if not is_cut(source, n):
        return None
    return Cut((0,), 1) if axes == (1, 0) else Cut((0,), 0) if axes[0] == 0 else None


def _reshape(plan: Plan, step: Step, n: int) -> Cut | None:
    """The values of a row lie behind each other before and after."""
    (source,), result = _shapes(plan, step)
    return Cut((0,), 0) if is_cut(source, n) and is_cut(result, n) else None


def _broadcast(plan: Plan, step: Step, n: int) -> Cut | None:
    """The same values in all rows, or each row's own ones repeated within it."""
    (source,), result = _shapes(plan, step)
    if not is_cut(result, n):
        return None
    assert source is not None
    return Cut((0 if len(source) == len(result) and source[0] == result[0] else None,), 0)


def _unbroadcast(plan: Plan, step: Step, n: int) -> Cut | None:
    """A sum over all rows, or one within each."""
    (source,), result = _shapes(plan, step)
    assert source is not None
    if not is_cut(source, n):
        return None
    if len(result) == len(source) and result[0] == source[0]:
        return Cut((0,), 0)
    return Cut((0,), None)


def _sum(plan: Plan, step: Step, n: int) -> Cut | None:
    """A sum over all rows if the leading axis is among those that are summed, else within each."""
    (source,), _ = _shapes(plan, step)
    if not is_cut(source, n):
        return None
    return Cut((0,), None if 0 in step.static["axes"] else 0)


def _within(plan: Plan, step: Step, n: int) -> Cut | None:
    """Extrema and running sums along other axes than the leading one."""
    (source,), _ = _shapes(plan, step)
    axes = step.static.get("axes") or (step.static.get("axis", -1),)  # argmax has a default
    inner = source is not None and all(axis % len(source) != 0 for axis in axes)
    return Cut((0,), 0) if inner and is_cut(source, n) else None


def _concatenate(plan: Plan, step: Step, n: int) -> Cut | None:
    """Joined along another axis, each part with its rows."""
    shapes, _ = _shapes(plan, step)
    if step.static["axis"] == 0 or not all(is_cut(shape, n) for shape in shapes):
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
    return Cut((0,), 0) if keeps and is_cut(source, n) and source[0] == result[0] else None


def _mean(plan: Plan, step: Step, n: int) -> Cut | None:
    """A mean over all rows: that of the parts' means, weighted by their rows."""
    (source,), _ = _shapes(plan, step)
    return Cut((0,), None) if source is not None and len(source) > 1 and is_cut(source, n) else None


def _images(plan: Plan, step: Step, n: int) -> Cut | None:
    """Images one by one: all arrays of a pooling, those of a convolution but its kernel."""
    shapes, _ = _shapes(plan, step)
    n_images = 1 if step.op.name in ("conv2d", "conv2d_input_grad") else len(shapes)
    if not all(is_cut(shape, n) for shape in shapes[:n_images]):
        return None
    return Cut((0,) * n_images + (None,) * (len(shapes) - n_images), 0)


def _kernel_gradient(plan: Plan, step: Step, n: int) -> Cut | None:
    """A sum over the images."""
    shapes, _ = _shapes(plan, step)
    return Cut((0, 0), None) if all(is_cut(shape, n) for shape in shapes) else None


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
