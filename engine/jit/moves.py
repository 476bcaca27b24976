"""Operations that move values: copies through strided windows, with zeros around them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ..program import Step
from .layout import Place, contiguous
from .text import Text, nest

MOVES = frozenset(("reshape", "transpose", "broadcast_to", "getitem", "concatenate", "place", "pad"))


def emit_move(text: Text, step: Step, places: Sequence[Place], out: Place) -> None:
    """Write the loops of one step."""
    name, source = step.op.name, places[0]
    if name == "concatenate":
        start, axis = 0, step.static["axis"]
        for place in places:
            window = [slice(None)] * len(out.shape)
            window[axis] = slice(start, start + place.shape[axis])
            start += place.shape[axis]
            copy(text, place, out.viewed(operator.itemgetter(tuple(window))))
    elif name in ("place", "pad"):
        fill(text, out)
        copy(text, source, out.viewed(operator.itemgetter(_window(step, source))))
    else:  # a reshape of what has gaps
        copy(text, source, contiguous(out.block, out.offset, source.shape))


def copy(text: Text, source: Place, target: Place) -> None:
    """target[...] = source, equal shapes."""
    with nest(text, source.shape, [source.strides, target.strides]) as (i, o):
        text.line(target.to(o, source.at(i)))


def fill(text: Text, target: Place, value: str = "d(0.0)") -> None:
    """target[...] = value."""
    with nest(text, target.shape, [target.strides]) as (o,):
        text.line(target.to(o, value))


def _window(step: Step, source: Place) -> Any:
    if step.op.name == "pad":
        widths = step.static["widths"]
        return tuple(slice(w[0], w[0] + n) for w, n in zip(widths, source.shape, strict=True))
    parts = step.static["index"]
    index = tuple(slice(*part[1:]) if isinstance(part, tuple) else part for part in parts)
    return index if Ellipsis in index else (*index, Ellipsis)
