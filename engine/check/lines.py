"""Where in the caller's code an operation was called: traces that note the line of what they record."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import is_array, namespace_of, to_host, to_xp
from ..errors import NeuralODEError
from ..trace import Operation, Static, Trace, Var, dtype_of, evaluate, is_weak, new_trace
from ..tree import Tree, leaves, unflatten
from .function import UNKNOWN_LINE, described_error, is_ours

UNNAMED = "the function is not analytic (of complex arrays NumPy's var, std and norm use moduli)"
_STEP = 1e-6
_SEED = 20


class LineTrace(Trace):
    """A trace that keeps (name of the operation, file:line) of the instructions that `is_wanted` picks."""

    def __init__(self, level: int, is_wanted: Callable[..., bool]) -> None:
        super().__init__(level)
        self.is_wanted = is_wanted
        self.found: list[tuple[str, str]] = []

    def record(
        self, op: Operation, inputs: tuple[int, ...], static: Static, raw: tuple[Any, ...], value: Any
    ) -> Var:
        if self.is_wanted(op, static, raw, value):
            self.found.append((op.name, caller_line()))
        return super().record(op, inputs, static, raw, value)


def caller_line() -> str:
    """file:line of the innermost frame that is not the library's."""
    frame = sys._getframe(1)
    while frame is not None:
        if not is_ours(frame.f_globals.get("__name__", "")):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return UNKNOWN_LINE


def operations_found(
    f: Callable[[Tree], Any], x: Tree, is_wanted: Callable[..., bool]
) -> tuple[list[str], str]:
    """`name` at file:line of every operation of f(x) for which is_wanted(op, static, inputs, value),
    each once.

    The second value describes the error that ended f, or is "".
    """
    failure = ""
    with new_trace() as outer:  # opens the level that the trace below lives on
        trace = LineTrace(outer.level, is_wanted)
        inputs = [trace.input(leaf) for leaf in leaves(x)]
        try:
            with np.errstate(all="ignore"):
                f(unflatten(x, inputs))
        except (NeuralODEError, TypeError, ValueError) as error:
            failure = described_error(error)
    return list(dict.fromkeys(f"`{name}` at {line}" for name, line in trace.found)), failure


def without_rule(f: Callable[[Tree], Any], x: Tree) -> list[str]:
    """`name` at file:line of the operations of f(x) that have no VJP rule."""
    return operations_found(f, x, lambda op, *_: op.rule is None and not op.is_flat)[0]


def not_analytic(f: Callable[[Tree], Any], x: Tree) -> str:
    """What in f(x), x complex, does not obey the Cauchy-Riemann equations, as a clause."""
    found, failure = operations_found(f, x, _is_not_analytic)
    if found:
        rest = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return f"{' and '.join(found[:3])}{rest} {'is' if len(found) == 1 else 'are'} not analytic"
    return failure or UNNAMED


def _is_not_analytic(op: Operation, static: Static, inputs: Sequence[Any], value: Any) -> bool:
    """Whether a move of the complex inputs by i h v does not move the result by i times what h v does."""
    if op.is_flat or not any(_is_complex(x) for x in inputs):
        return False
    rng = np.random.default_rng(_SEED)
    directions = [rng.choice([-1.0, 1.0], np.shape(x)) if _is_complex(x) else None for x in inputs]

    def change(unit: complex) -> np.ndarray:
        given = [
            x if v is None else (x + to_xp(namespace_of(x), _STEP * unit * v)).astype(x.dtype)
            for x, v in zip(inputs, directions, strict=True)
        ]
        return to_host(evaluate(op, tuple(given), static)) - to_host(value)

    along, across = change(1.0), change(1j)
    scale = float(np.max(np.abs(along), initial=0.0) + np.max(np.abs(across), initial=0.0))
    return bool(np.max(np.abs(across - 1j * along), initial=0.0) > 1e-3 * scale)


def _is_complex(x: Any) -> bool:
    return not is_weak(x) and is_array(x) and dtype_of(x).kind == "c"
