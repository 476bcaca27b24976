"""The pull-back of a solve as steps of a program:
what `jit` replays pulls back through the steps of its latest solve.

A program holds arrays only, and a pull-back needs what the forward pass left. So the forward step leaves it
with its operation, and the pull-back, a step of the same program that reads the solution,
takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..engine.backend import Array, is_array
from ..engine.errors import TracedValueError
from ..engine.primitive import Primitive
from ..engine.trace import is_inside_program
from ..engine.tree import leaves
from .solution import Solution

Bars = Sequence[Any]


def recorded_pull_back(pull_back: Callable[..., Bars], ybar: Any, ys: Any, args: Sequence[Any]) -> Bars:
    """Steps that call `pull_back(ybar, *args)` after ys is there, and what they give:
    None where that gives None.

    Args:
        ys: the solution as a value of the program; None where it is none, and is there already.
    """
    pulled = _Pull(pull_back)
    done = pulled(ybar, ybar if ys is None else ys, *args, source=pulled)
    reached = [position for position, bar in enumerate(pulled.bars) if bar is not None]
    bars = [None] * len(args)
    for position in reached:
        bars[position] = _cotangent(done, source=pulled, position=position)
    return bars


def with_what_is_recorded(solution: Solution, ts: Any) -> Solution:
    """The solution; where a program records the solve, without what is not a value of the program.

    Args:
        ts: output times as given.
    """
    if not any(is_inside_program(leaf) for leaf in leaves(solution.ys)):
        return solution
    frozen = ("grid", "stats", "aux", "ts") if is_inside_program(ts) else ("grid", "stats", "aux")
    unknown: dict[str, Any] = {name: KnownLater(name) for name in frozen}
    return replace(solution, **unknown)


class KnownLater:
    """What a recorded solve finds out anew each time, and a program cannot hold: its steps, its counts."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"{self._name} of a recorded solve"

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TracedValueError(
            f"`{self._name}` of a solve inside a function that is being traced (under `jit`, or the f of another solve): the "
            "trace would freeze what this solve found; take it from a call without the trace"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._refuse()

    __array__ = __len__ = __iter__ = __getitem__ = __float__ = __int__ = __index__ = __bool__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __hash__ = object.__hash__


class _Pull(Primitive):
    """An empty array, once the cotangents are in `bars`."""

    def __init__(self, pull_back: Callable[..., Bars]) -> None:
        super().__init__("odeint_pull_back", _Pull.forward, is_flat=False, may_view=False)
        del self.forward  # the method is found, as that of a solve
        self.is_mixed = True  # the times may be on the host, whatever the state is
        self._pull_back = pull_back
        self.bars: Bars = ()

    def forget(self) -> None:
        self.bars = ()

    def forward(self, xp: Any, ybar: Array, ys: Array, *args: Any, source: _Pull) -> Array:
        """`source` is this one: of two equal steps a program keeps one, and the other's `bars` would stay."""
        self.bars = self._pull_back(ybar, *args)
        return xp.empty(0)


def _bar(xp: Any, done: Array, *, source: _Pull, position: int) -> Array:
    bar = source.bars[position]
    return bar if is_array(bar) else xp.asarray(bar)


_cotangent = Primitive("odeint_cotangent", _bar, is_flat=False, may_view=False)
