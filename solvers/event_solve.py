"""A solve with events: plain solves from one stop to the next,
and what a derivative needs to pass through them.

Events are located on plain values, by a solve whose steps a `Monitor` looks at. Where a derivative is taken,
the same steps are walked once more by a solve that is differentiated, with the time t* of each event as an
output time that is held. The condition g at (t*, y(t*)) is then traced,
and with its time derivative g' along the step
    t_event = t* - g / g',    y_event = y(t*) + y' (t_event - t*)
have the values found and, by the implicit function theorem, the right first derivatives. A jump and what
follows go on from these; since a solve is differentiable in ts[0], nothing else is needed. Second derivatives
would be wrong, and are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import device_of, namespace_of, to_number
from ..engine.errors import ArgumentError, GrazingEvent, NeuralODEError, TracedValueError
from ..engine.kernels.precision import accepting
from ..engine.ops.casts import on_device
from ..engine.trace import Trace, Var, base_value
from ..engine.tree import Tree, leaves, tree_map
from .compiled import Purpose
from .dynamics import Dynamics
from .event_jumps import after_jumps
from .events import Event, Occurrences
from .forward import solve_forward
from .kernels_at_work import kernels_at_work
from .monitor import Crossing, Monitor, accumulation
from .options import Options, check_method
from .pieces import Piece, joined, solve_in_pieces
from .solution import Solution
from .stats import Stats
from .times import joined_times, output_times
from .tolerances import flat_tolerances

Solve = Callable[[Tree, Any, Options, Stats], Solution]
# Of what the time derivative of a condition is like in the step.
GRAZING = math.sqrt(np.finfo(np.float64).eps)


def solve_with_events(
    f: Callable[..., Any],
    solve: Solve,
    y0: Tree,
    ts: Any,
    times: np.ndarray,
    params: Tree,
    options: Options,
    *,
    has_aux: bool,
) -> Solution:
    """The solution with its pieces joined. `solve` makes one that can be differentiated;
    `times` are the values of `ts`.

    Whatever ends it early carries the solution from ts[0] on.
    """
    if has_aux:
        raise ArgumentError(
            "`events` and has_aux=True exclude each other: the step that holds an event also evaluates f beyond it"
        )
    walk = _EventSolve(f, solve, ts, times, params, options)
    try:
        walk.run(y0)
    except BaseException as error:
        partial = getattr(error, "solution", None)
        if partial is not None or walk.found:
            error.solution = walk.solution(partial)  # type: ignore[attr-defined]
        raise
    return walk.solution()


@dataclass
class _Happened:
    """A crossing, its time and its state as a tree, traced where a derivative is taken."""

    crossing: Crossing
    t: Any
    y: Tree


class _EventSolve:
    """The pieces of a solve between events that jump, and the events met so far.

    Attributes:
        monitor: what looks for events, in all pieces.
        found, pieces: a solution for each piece, with traced values where a derivative is taken,
            and where it lies.
        happened: the events in the order of integration.
        stats, walked: counts of the plain solves, and of those that are differentiated.
    """

    def __init__(
        self, f: Callable[..., Any], solve: Solve, ts: Any, times: np.ndarray, params: Tree, options: Options
    ) -> None:
        self.f, self.solve, self.ts, self.times = f, solve, ts, times
        self.params, self.options, self.events = params, options, options.events
        self.monitor = Monitor(options.events, tree_map(base_value, params))
        self.found: list[Solution] = []
        self.pieces: list[Piece] = []
        self.happened: list[_Happened] = []
        self.stats, self.walked = Stats(), Stats()
        self.direction = 1.0 if times[-1] > times[0] else -1.0
        self._captured: list[Any] = []  # by f

    def run(self, y: Tree) -> None:
        """All pieces, from the state y at ts[0] to the end or to a terminal event."""
        start, first = self.ts[0], 1
        self.like = tree_map(base_value, y)
        while True:
            happened = self._advance(start, y, first)
            fired = [h for h in happened if h.crossing in self.monitor.fired]
            if not fired or self.monitor.is_over:
                return
            if fired[0].crossing.t == self.times[-1]:
                self.found[-1].status = "finished"
                return
            self._refuse_accumulation(fired[0].crossing)
            start, y = self._after(fired)
            first = self.pieces[-1].last
            self.monitor.restart()

    def _advance(self, start: Any, y: Tree, first: int) -> list[_Happened]:
        """One piece, from the state y at `start`; `first` is the index of its first output time.
        The events in it.
        """
        seen = len(self.monitor.crossings)
        solution = self._watch(y, start, first)
        new = self.monitor.crossings[seen:]
        traces = self._traces(start, y)
        if traces:
            self._refuse(traces)
            solution, happened = self._differentiable(solution, new, start, y, first)
        else:
            happened = self._plainly(new)
        self.found.append(solution)
        self.happened += happened
        return happened

    def solution(self, partial: Solution | None = None) -> Solution:
        """What has been reached, with the piece that an error ended."""
        found = self.found if partial is None else [*self.found, partial]
        whole = joined(found, self.pieces, self.options)
        if self.walked.nfe:
            whole.stats = self.walked
            self.walked.nfe += self.stats.nfe
            self.walked.n_accepted, self.walked.n_rejected = self.stats.n_accepted, self.stats.n_rejected
        happened = [*self.happened, *self._plainly(self.monitor.crossings[len(self.happened) :])]
        whole.events = [self._occurrences(which, event, happened) for which, event in enumerate(self.events)]
        return whole

    def _plainly(self, crossings: Sequence[Crossing]) -> list[_Happened]:
        return [_Happened(crossing, crossing.t, self.monitor.tree(crossing.y)) for crossing in crossings]

    def _occurrences(self, which: int, event: Event, happened: Sequence[_Happened]) -> Occurrences:
        mine = [h for h in happened if h.crossing.which == which]
        if not mine:
            xp = namespace_of(*leaves(self.like))
            nothing = tree_map(lambda leaf: xp.empty((0, *leaf.shape), leaf.dtype), self.like)
            return Occurrences(which, event.name, np.empty(0), nothing)
        ts = joined_times([h.t for h in mine])
        if type(ts) is not Var:
            ts = np.array(ts)
        elif device_of(base_value(leaves(mine[0].y)[0])) == "cuda":  # a loss joins them with the states
            ts = on_device(ts, device="cuda")
        ys = tree_map(lambda *parts: ops.stack(parts), *(h.y for h in mine))
        return Occurrences(which, event.name, ts, ys)

    def _watch(self, y: Tree, start: Any, first: int) -> Solution:
        """The plain solve of a piece, up to where it ends or an event stops it."""
        t = float(to_number(base_value(start)))
        own = self.options
        if self.found:
            grid = own.grid
            if grid is not None:
                grid = np.array([t, *grid[(grid - t) * self.direction > 0.0]])
            own = replace(own, first_step=None, grid=grid)
        own = replace(own, monitor=self.monitor)
        self.pieces.append(
            Piece(t, float(self.times[-1]), first - (not self.found), len(self.times), self.times[-1])
        )
        plain = self._plain(tree_map(base_value, y), np.array([t, *self.times[first:]]), own, self.stats)
        fired = self.monitor.fired
        if fired:
            last = first + int(np.sum((self.times[first:] - fired[0].t) * self.direction <= 0.0))
            assert own.save == "steps" or len(plain.ts) == last - first + 1
            self.pieces[-1] = replace(self.pieces[-1], end=fired[0].t, last=last, knot=fired[0].t)
        return plain

    def _plain(self, y: Tree, ts: np.ndarray, options: Options, stats: Stats) -> Solution:
        if options.jump_ts:
            return solve_in_pieces(self._plain, y, ts, output_times(ts), options, stats)
        times = output_times(ts)
        with accepting(options.accepted_round_off):
            dynamics = Dynamics(self.f, float(times[0]), y, self.params, has_aux=False)
            self._captured = dynamics.hidden
            options = flat_tolerances(options, dynamics.layout)
            check_method(options, y, has_aux=False)
        with kernels_at_work(dynamics, options)():
            done = solve_forward(dynamics, options, times, Purpose("solve"), keeps_states=False, stats=stats)
        return done.solution("event" if self.monitor.fired else "finished")

    def _traces(self, start: Any, y: Tree) -> set[Trace]:
        """The traces that anything in this solve is a value of."""
        values = [
            start,
            self.ts,
            *leaves(y),
            *leaves(self.params),
            *self._captured,
            *self.monitor.captured.values(),
        ]
        found = set()
        for value in values:
            while type(value) is Var:
                found.add(value.trace)
                value = value.value
        return found

    def _refuse(self, traces: set[Trace]) -> None:
        """NeuralODEError for what a derivative cannot pass through."""
        options = self.options
        if any(trace.is_program for trace in traces):
            raise NeuralODEError(
                "a solve with events is made inside a function that is being traced (under `jit`, or the f of another "
                "solve): the trace would freeze the times of the events; make it outside"
            )
        if len(traces) > 1:
            raise NeuralODEError(
                "a solve with events gives first derivatives only, and a second one is taken; for these end the solve at "
                "given times"
            )
        if options.dense or options.save == "steps":
            asked = "dense=True" if options.dense else "save='steps'"
            raise NeuralODEError(
                f"{asked} is not differentiated: only states at output times and at events are. Solve once outside of the "
                "function that is differentiated"
            )
        if not options.method.interpolates:
            raise NeuralODEError(
                f"the derivative of an event needs a method with dense output (dopri5); got method={options.method.name!r}"
            )

    def _differentiable(
        self, plain: Solution, new: Sequence[Crossing], start: Any, y: Tree, first: int
    ) -> tuple[Solution, list[_Happened]]:
        """The piece just solved, on the same steps, as values that can be differentiated, and its events."""
        n_outputs = len(plain.ts) - 1
        rows_of = {float(self.times[i]): self.ts[i] for i in range(first, first + n_outputs)}
        outputs = list(rows_of)
        for crossing in new:
            rows_of.setdefault(crossing.t, crossing.t)
        grid = plain.grid.copy()
        if self.monitor.fired:
            grid[-1] = self.monitor.step_end
            rows_of.setdefault(self.monitor.step_end, self.monitor.step_end)
        order = sorted(rows_of, reverse=self.direction < 0)
        place = {t: i + 1 for i, t in enumerate(order)}
        options = replace(
            self.options, grid=grid, step_size=None, first_step=None, callback=None, events=(), monitor=None
        )
        walked = self.solve(y, joined_times([start, *(rows_of[t] for t in order)]), options, self.walked)
        happened = []
        for crossing in new:
            state = tree_map(lambda leaf, i=place[crossing.t]: leaf[i], walked.ys)
            happened.append(self._moved(crossing, rows_of[crossing.t], state))
        rows = [0, *(place[t] for t in outputs)]
        ys = tree_map(lambda leaf: ops.take(leaf, rows), walked.ys)
        return replace(plain, ys=ys), happened

    def _moved(self, crossing: Crossing, time: Any, state: Tree) -> _Happened:
        """An event at t* = crossing.t, with the derivatives of its time and its state;
        `state` is that at `time`.
        """
        event, t, slope = self.events[crossing.which], crossing.t, self.monitor.tree(crossing.slope)
        if type(time) is Var:  # an output time too, which moves, where t* is held
            state = _along(state, slope, ops.as_number(time) - t)
        try:
            rate = self.monitor.rate(crossing.which, t, crossing.y, crossing.slope)
        except TracedValueError as error:
            error.add_note(
                f"odeint: the derivative of the event {event.name!r} needs a condition that can be traced"
            )
            raise
        condition = event.value(t, state, self.params)
        if type(condition) is not Var:
            return _Happened(crossing, t, state)
        if abs(rate) <= GRAZING * crossing.scale:
            raise GrazingEvent(
                f"odeint: at the event {event.name!r} at t={t:.6g} the condition is zero together with its time "
                f"derivative ({rate:.1e}; it is like {crossing.scale:.1e} in that step), so that the time of the event "
                "has no derivative. Choose a condition that crosses zero at a slope",
                t=t,
                event=event.name,
                rate=rate,
            )
        number = ops.as_number(ops.reshape(condition, ()))
        delay = (base_value(number) - number) / rate
        return _Happened(crossing, t + delay, _along(state, slope, -delay))

    def _refuse_accumulation(self, crossing: Crossing) -> None:
        if abs(crossing.t - self.pieces[-1].start) <= 4.0 * np.spacing(abs(crossing.t)):
            raise accumulation(self.events[crossing.which], crossing.t)

    def _after(self, last: Sequence[_Happened]) -> tuple[Any, Tree]:
        """Time and state after the jumps at one time, in the order of `events`."""
        jumping = [h for h in last if self.events[h.crossing.which].jump is not None]
        t, events = jumping[0].t, [self.events[h.crossing.which] for h in jumping]
        return t, after_jumps(events, t, jumping[0].y, self.params, self.like)


def _along(state: Tree, slope: Tree, delay: Any) -> Tree:
    """state - delay * slope."""
    return tree_map(lambda y, ydot: y - delay * ydot, state, slope)
