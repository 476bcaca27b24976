"""A solve across jumps of f: one solve for each piece between them, chained.

At a jump c the steps of the piece before end at the float next to c on its side, where every stage still sees
f as it was, and the piece after begins at the float next to c on the other side, with f evaluated and the
first step chosen anew. The state is handed on as it is: a solution is continuous where f jumps. Since each
piece is a solve of its own, every gradient method is as exact across jumps as it is without them;
the times of the jumps are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.errors import ArgumentError, NeuralODEError
from ..engine.trace import Var, is_inside_program
from ..engine.tree import Tree, tree_map
from .dense import Dense
from .options import Options
from .solution import Aux, Solution
from .stats import Stats
from .times import joined_times


@dataclass(frozen=True)
class Piece:
    """Steps go from `start` to `end`; the output times are those of index `first` up to `last`, not included.

    `knot` is the jump at which the piece ends, or the end of the solve.
    """

    start: float
    end: float
    first: int
    last: int
    knot: float


def pieces_of(ts: np.ndarray, jumps: Sequence[float]) -> list[Piece]:
    """The pieces of [ts[0], ts[-1]] between the jumps that lie in it, in the direction of time."""
    t0, t1 = float(ts[0]), float(ts[-1])
    direction = 1.0 if t1 > t0 else -1.0
    inside = sorted((c for c in jumps if min(t0, t1) < c < max(t0, t1)), reverse=t1 < t0)
    starts = [_next_to(t0, direction) if t0 in jumps else t0, *(_next_to(c, direction) for c in inside)]
    ends = [*(_next_to(c, -direction) for c in inside), _next_to(t1, -direction) if t1 in jumps else t1]
    for start, end in zip(starts, ends, strict=True):
        if (end - start) * direction <= 0:
            raise ArgumentError(
                f"`jump_ts` must lie further apart, and from the ends of `ts`, than neighbouring floats; got a piece "
                f"from {start!r} to {end!r}"
            )
    cuts = [np.searchsorted(direction * ts, direction * start, side="right") for start in starts[1:]]
    bounds = [0, *map(int, cuts), len(ts)]
    knots = [*inside, t1]
    return [Piece(*parts) for parts in zip(starts, ends, bounds, bounds[1:], knots, strict=False)]


def solve_in_pieces(
    solve: Callable[[Tree, Any, Options, Stats], Solution],
    y0: Tree,
    ts: Any,
    times: np.ndarray,
    options: Options,
    stats: Stats,
) -> Solution:
    """The solution with its pieces joined. `solve` makes one of them; `times` are the values of `ts`.

    A piece that ends at an event is the last. Whatever ends a piece early carries the solution from ts[0] on.
    """
    if is_inside_program(ts):
        raise NeuralODEError(
            "with `jump_ts` output times cannot be traced (under `jit`, or in the f of another solve): the trace would freeze "
            "which of them lie before a jump; make `ts` a constant"
        )
    pieces = pieces_of(times, options.jump_ts)
    found: list[Solution] = []
    for k, piece in enumerate(pieces):
        is_last = k == len(pieces) - 1
        own = replace(
            options,
            jump_ts=(),
            grid=None if options.grid is None else _grid_of(options.grid, pieces, k),
            first_step=options.first_step if k == 0 else None,
        )
        try:
            solution = solve(y0, _times_of(piece, ts, times, is_first=k == 0, is_last=is_last), own, stats)
        except BaseException as error:
            partial = getattr(error, "solution", None)
            if isinstance(partial, Solution):
                error.solution = joined([*found, partial], pieces, options)  # type: ignore[attr-defined]
            raise
        y0 = tree_map(lambda leaf: leaf[-1], solution.ys)
        found.append(solution)
        if solution.status != "finished":
            break
    return joined(found, pieces, options)


def _next_to(t: float, direction: float) -> float:
    return float(np.nextafter(t, direction * np.inf))


def _times_of(piece: Piece, ts: Any, times: np.ndarray, *, is_first: bool, is_last: bool) -> Any:
    """Start, output times inside, and end of a piece; traced where `ts` is, and constant at jumps."""
    inside = [ts[i] for i in range(piece.first, piece.last)]
    if is_first:
        inside[0] = _moved(inside[0], float(times[0]), piece.start)
    else:
        inside.insert(0, piece.start)
    if is_last:
        inside[-1] = _moved(inside[-1], float(times[-1]), piece.end)
        return joined_times(inside)
    values = times[piece.first : piece.last]
    beyond = np.abs(values - piece.start) >= abs(piece.end - piece.start)
    if beyond.any():  # an output at the jump itself: there is one at most
        if type(ts) is not Var:
            inside[-1] = piece.end
            return inside
        inside[-1] = _moved(inside[-1], float(values[-1]), float(np.nextafter(piece.end, piece.start)))
    return joined_times([*inside, piece.end])


def _moved(t: Any, value: float, target: float) -> Any:
    """`t`, whose value is given, moved to `target`."""
    if type(t) is not Var:
        return target
    return t if value == target else ops.add(t, target - value)


def _grid_of(grid: np.ndarray, pieces: list[Piece], k: int) -> np.ndarray:
    """The part of a given grid, which must hold every jump, that belongs to piece k."""
    knots = [float(grid[0]), *(piece.knot for piece in pieces)]
    missing = [knot for knot in knots[1:-1] if knot not in grid]
    if missing:
        raise ArgumentError(
            f"`grid` must hold every time in `jump_ts`; {missing[0]:g} is not in it. Give the `grid` of a solve with "
            "these jumps"
        )
    first, last = (int(np.flatnonzero(grid == knot)[0]) for knot in (knots[k], knots[k + 1]))
    own = grid[first : last + 1].copy()
    own[0], own[-1] = pieces[k].start, pieces[k].end
    return own


def joined(found: list[Solution], pieces: list[Piece], options: Options) -> Solution:
    """One solution of several, the last of which may be partial; a jump is one accepted time."""
    ts, grid, columns = [], [], []
    for k, (solution, piece) in enumerate(zip(found, pieces, strict=False)):
        is_whole = solution.status == "finished"
        own = solution.grid.copy()
        if is_whole:
            own[-1] = piece.knot
        own[0] = solution.ts[0] if k == 0 else pieces[k - 1].knot
        grid.append(own if k == 0 else own[1:])
        n_outputs = len(solution.ts)
        if options.save == "ts":
            n_outputs = min(n_outputs, piece.last - piece.first + (k > 0))
        ts.append(solution.ts[bool(k) : n_outputs])
        columns.append(tree_map(lambda leaf, a=int(k > 0), b=n_outputs: leaf[a:b], solution.ys))
    whole = np.concatenate(grid)
    last = found[-1]
    return Solution(
        whole.copy() if options.save == "steps" else np.concatenate(ts),
        tree_map(lambda *leaves: ops.concatenate(leaves) if len(leaves) > 1 else leaves[0], *columns),
        whole,
        last.stats,
        _joined_aux([solution.aux for solution in found if solution.aux is not None]),
        last.status,
        _joined_dense([solution.dense for solution in found if solution.dense is not None], pieces),
    )


def _joined_aux(found: list[Aux]) -> Aux | None:
    if not found:
        return None
    times = np.concatenate([aux.ts for aux in found])
    return Aux(times, tree_map(lambda *leaves: ops.concatenate(leaves), *(aux.values for aux in found)))


def _joined_dense(found: list[Dense], pieces: list[Piece]) -> Dense | None:
    if not found:
        return None
    knots = [knot for dense, piece in zip(found, pieces, strict=False) for knot in (*dense.knots, piece.knot)]
    return Dense([path for dense in found for path in dense.paths], found[0].layout, knots[:-1])
