"""The state from which a solve goes on after events that jump."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..engine.errors import ArgumentError
from ..engine.trace import Var, base_value, describe
from ..engine.tree import Tree, leaves, same_structure, tree_map
from .events import Event
from .initial_state import initial_state


def after_jumps(events: Sequence[Event], t: Any, y: Tree, params: Tree, like: Tree) -> Tree:
    """The state after the jumps of these events at time t, one after the other; traced where t,
    y or params are.

    Args:
        like: a state on plain arrays.
    Raises: ArgumentError for what a jump returned that is no state.
    """
    for event in events:
        y = _checked_state(event, base_value(t), event.state_after(t, tree_map(_own, y), params), like)
    return y


def _checked_state(event: Event, t: float, y: Tree, like: Tree) -> Tree:
    if same_structure(y, like) and all(map(_are_alike, leaves(y), leaves(like))):
        try:
            return initial_state(y)
        except ArgumentError as error:
            raise ArgumentError(
                f"the jump of the event {event.name!r} at t={t:.6g} returned no state to go on from: {error}"
            ) from error
    got, expected = (", ".join(map(describe, leaves(tree))) or "nothing" for tree in (y, like))
    raise ArgumentError(
        f"the jump of the event {event.name!r} must return a state like y0, {expected}; at t={t:.6g} it "
        f"returned {got}. Build it with np.stack, np.concatenate or np.where"
    )


def _own(leaf: Any) -> Any:
    return leaf if type(leaf) is Var else leaf.copy()


def _are_alike(value: Any, like: Any) -> bool:
    found = base_value(value)
    return getattr(found, "shape", None) == like.shape and getattr(found, "dtype", None) == like.dtype
