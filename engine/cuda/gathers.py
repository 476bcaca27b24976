"""Steps that only bring values elsewhere, as expressions: joins, padding, and the transpose of a basic index.

A result is made of pieces. A piece fills a window of the result, along each axis `count` places from `start`
on, `step` apart, with the values of an operand; what no window covers is 0. A chain can read pieces as it
reads its operands, so that no copy is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..program import Program, Step

GATHERS = ("concatenate", "pad", "place")
Strides = tuple[int, ...]


@dataclass(frozen=True)
class Along:
    """A window along one axis of the result: its places,
    and how far apart their values lie in the operand.
    """

    length: int  # of the axis
    start: int
    step: int
    count: int
    stride: int

    @property
    def is_whole(self) -> bool:
        return self.count == self.length and self.step == 1


@dataclass(frozen=True)
class Piece:
    """The window that an operand fills; `offset` is added to the positions of its values."""

    slot: int
    offset: int
    axes: tuple[Along, ...]


def is_gather(program: Program, step: Step) -> bool:
    """Whether a step is one, of operands that are all smaller than its result."""
    shape = program.metas[step.output].shape
    return step.op.name in GATHERS and all(
        program.metas[slot].dtype is not None and program.metas[slot].shape != shape for slot in step.inputs
    )


def pieces_of(program: Program, step: Step, strides: Mapping[int, Strides]) -> list[Piece]:
    """The pieces of a gather; `strides` of its operands, in values."""
    shape, (first, *_) = program.metas[step.output].shape, step.inputs
    if step.op.name == "place":
        return [_placed(shape, step.static["index"], first, strides[first])]
    if step.op.name == "pad":
        lengths, widths = program.metas[first].shape, step.static["widths"]
        parts = zip(shape, widths, lengths, strides[first], strict=True)
        return [Piece(first, 0, tuple(Along(n, before, 1, own, s) for n, (before, _), own, s in parts))]
    axis, start, found = step.static["axis"], 0, []
    for slot in step.inputs:
        whole = [Along(n, 0, 1, n, s) for n, s in zip(shape, strides[slot], strict=True)]
        count = program.metas[slot].shape[axis]
        whole[axis] = Along(shape[axis], start, 1, count, strides[slot][axis])
        found.append(Piece(slot, 0, tuple(whole)))
        start += count
    return found


def _placed(shape: Sequence[int], index: Sequence[object], slot: int, strides: Strides) -> Piece:
    """The window of a basic index, described as `ops.indexing` freezes it."""
    parts = list(index)
    n_named = sum(part is not None and part is not Ellipsis for part in parts)
    whole = [("slice", None, None, None)] * (len(shape) - n_named)
    at = parts.index(Ellipsis) if Ellipsis in parts else len(parts)
    parts[at : at + 1] = whole
    axes: list[Along] = []
    offset, own = 0, iter(strides)
    for part in parts:
        if part is None:
            next(own)  # an axis of length one
            continue
        length = shape[len(axes)]
        if not isinstance(part, tuple):
            assert isinstance(part, int)
            axes.append(Along(length, part % length, 1, 1, 0))
            continue
        places, stride = range(length)[slice(*part[1:])], next(own)
        if places.step < 0:  # the same places, the other way round
            offset += (len(places) - 1) * stride
            places, stride = places[::-1], -stride
        axes.append(Along(length, places.start, places.step, len(places), stride))
    return Piece(slot, offset, tuple(axes))


def gather_text(pieces: Sequence[Piece], names: Mapping[int, str], zero: str) -> str:
    """The value at position e of the result; `names` of the operands' arrays."""
    text = zero
    for piece in reversed(pieces):
        axes = _merged(piece.axes)
        tests, terms, inner = [], [str(piece.offset)] if piece.offset else [], 1
        for k, axis in reversed(list(enumerate(axes))):
            place = f"e / {inner}" if inner > 1 else "e"
            place = f"({place})" if k == 0 else f"({place}) % {axis.length}"
            inner *= axis.length
            tests += _tests(axis, place)
            if axis.stride and axis.count > 1:
                shifted = f"({place} - {axis.start})" if axis.start else f"({place})"
                shifted = f"({shifted} / {axis.step})" if axis.step > 1 else shifted
                terms.append(f"{shifted} * {axis.stride}")
        value = f"a{names[piece.slot]}[{' + '.join(terms) or '0'}]"
        text = f"({' and '.join(tests)} ? {value} : {text})" if tests else value
    return text


def _tests(axis: Along, place: str) -> list[str]:
    """What holds inside of the window."""
    last = axis.start + (axis.count - 1) * axis.step
    tests = [f"{place} >= {axis.start}"] if axis.start > 0 else []
    tests += [f"{place} <= {last}"] if last < axis.length - 1 else []
    return tests + ([f"({place} - {axis.start}) % {axis.step} == 0"] if axis.step > 1 else [])


def _merged(axes: Sequence[Along]) -> list[Along]:
    """Whole axes that lie behind each other as one; axes of length one are none."""
    merged: list[Along] = []
    for axis in axes:
        if axis.length == 1 and axis.is_whole:
            continue
        before = merged[-1] if merged else None
        if before and before.is_whole and axis.is_whole and before.stride == axis.length * axis.stride:
            length = before.length * axis.length
            merged[-1] = Along(length, 0, 1, length, axis.stride)
        else:
            merged.append(axis)
    return merged
