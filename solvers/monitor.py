"""Watches the steps of a plain solve for events: where conditions change sign, and which change comes first.

Each accepted step is read at a few points of its polynomial. Between two of them where a condition has
opposite signs its root is found by Brent's method to machine precision. What counts is the side that a
condition was last seen on: a zero is a change only once the other side is seen, or the solve ends there.

A condition that fired where the solve goes on is zero there up to round-off, whose sign means nothing. Its
side is that to which the flow takes it, by its time derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.backend import Array, to_number
from ..engine.errors import EventAccumulation, NeuralODEError
from ..engine.trace import Var, base_value
from ..engine.transforms import jvp
from ..engine.tree import Tree
from .dynamics import StateLayout
from .events import Event, number_of
from .loop import Integrator
from .step_polynomial import read_polynomial

POINTS = np.array([0.25, 0.5, 0.75])  # of each step, beside its ends
EPS = float(np.finfo(np.float64).eps)
NOISE = 16.0  # relative changes of t and y by so many EPS are round-off
COINCIDE = 16.0  # events that lie within so many spacings of numbers happen at once


@dataclass(frozen=True, eq=False)
class Crossing:
    """One occurrence of the event `which`, at t.

    Attributes:
        y, slope: the state (n,) there and its time derivative, both of the step's polynomial.
        scale: largest absolute value of the condition over that step, times 1/|h|:
            what its time derivative is like.
        residual: absolute value of the condition at (t, y).
    """

    which: int
    t: float
    y: Array
    slope: Array
    scale: float
    residual: float


class Monitor:
    """The events of one solve on plain values, whatever the number of times that it is restarted.

    Attributes:
        crossings: the occurrences so far, in the order of integration.
        fired: those at the time at which the steps stopped, by a jump or a terminal event;
            empty while there is none.
        is_over: whether a terminal one is among these.
        step_end: the end of the accepted step in which they lie.
        captured: values of traces that conditions gave, because their functions captured some.
    """

    def __init__(self, events: Sequence[Event], params: Tree) -> None:
        self.events, self.params = events, params
        self.crossings: list[Crossing] = []
        self.fired: list[Crossing] = []
        self.is_over = False
        self.step_end = math.nan
        self.captured: dict[int, Var] = {}
        self._counts = [0] * len(events)
        self._sides: list[float] = []
        self._is_fresh: list[bool] = []  # whether its value there is round-off, and its side that of the flow
        self._after: Mapping[int, float] = {}

    def tree(self, flat: Array) -> Tree:
        """A flat state (n,) as the user sees it, on an array of its own."""
        return self._layout.unflatten(flat.copy())

    def restart(self) -> None:
        """The solve goes on, from another state perhaps, where the crossings in `fired` stopped it."""
        self._after = {crossing.which: crossing.residual for crossing in self.fired}
        self.fired, self._sides = [], []

    def begin(self, integrator: Integrator, layout: StateLayout) -> None:
        """Before the first step; after a mere jump of f the conditions are where they were."""
        self._layout = layout
        if self._sides:
            return
        rows, t = integrator.stages.rows, integrator.t
        y, slope = rows[0].copy(), rows[1].copy()
        forward = math.copysign(1.0, integrator.t1 - t)
        values = [self._value(i, t, y) for i in range(len(self.events))]
        self._is_fresh = [self._is_round_off(i, t, y, value) for i, value in enumerate(values)]
        self._sides = [
            float(np.sign(forward * self._rate(i, t, y, slope) if is_fresh else value))
            for i, (value, is_fresh) in enumerate(zip(values, self._is_fresh, strict=True))
        ]

    def look(self, integrator: Integrator, block: Array) -> bool:
        """Record what happened in the step just made, whose polynomial is `block` (p + 1, n);
        whether to stop there.
        """
        step = _Step(integrator, block)
        found: list[Crossing] = []
        sides = []
        for which in range(len(self.events)):
            crossings, side = self._scan(which, step)
            found += crossings
            sides.append(side)
        found.sort(key=lambda crossing: (crossing.t * step.direction, crossing.which))
        stop = self._first_stop(found)
        for crossing in found:
            if stop is None or (crossing.t - stop) * step.direction <= step.resolution:
                self._record(crossing, step, stop)
        if stop is None:
            self._sides = sides
            self._is_fresh = [False] * len(self.events)
            return False
        self.step_end = stop if stop == step.t else step.t_next
        return True

    def _first_stop(self, found: list[Crossing]) -> float | None:
        counts = self._counts.copy()
        for crossing in found:
            which = crossing.which
            counts[which] += 1
            if self.events[which].jump is not None or self._is_terminal(which, counts[which]):
                return crossing.t
        return None

    def _is_terminal(self, which: int, count: int) -> bool:
        """Whether the occurrence of this number ends the solve."""
        event = self.events[which]
        return event.jump is None and count == int(event.terminal)

    def _record(self, crossing: Crossing, step: _Step, stop: float | None) -> None:
        self._counts[crossing.which] += 1
        is_here = stop is not None and abs(crossing.t - stop) <= step.resolution
        if is_here and stop is not None and crossing.t != stop:
            crossing = self._crossing(crossing.which, step, stop, crossing.scale)
        self.crossings.append(crossing)
        if is_here:
            self.fired.append(crossing)
            self.is_over = self.is_over or self._is_terminal(crossing.which, self._counts[crossing.which])

    def _scan(self, which: int, step: _Step) -> tuple[list[Crossing], float]:
        """The occurrences in a step, in order, and the side that the condition was last seen on."""
        event = self.events[which]
        side, left = self._sides[which], 0.0
        zero = None  # the first point of the zeros just seen
        values = [self._value(which, t, y) for t, y in zip(step.times, step.states, strict=True)]
        scale = max(map(abs, values)) / abs(step.h)
        roots = []
        for theta, value in zip(step.thetas, values, strict=True):
            if value == 0.0:
                is_end = zero is None and step.is_last and theta == 1.0
                zero = theta if zero is None else zero
                if not is_end or not side:
                    continue
            sign = math.copysign(1.0, value) if value else -side
            if side and sign != side and event.is_counted(sign):
                root = self._root(which, step, side, left, theta) if zero is None else zero
                roots.append(self._crossing(which, step, step.time(root), scale))
            side, left, zero = sign, theta, None
        return roots, side

    def _root(self, which: int, step: _Step, side: float, left: float, right: float) -> float:
        """Where in the step the condition leaves `side`, on which it is at theta = `left`, not at `right`."""
        from scipy.optimize import brentq  # takes 0.3 s, so only where there is a root

        def condition(theta: float) -> float:
            return self._value(which, step.time(theta), step.state(theta))

        if left == 0.0 and self._is_fresh[which]:
            left = self._left_of(which, step, side, right, condition)
        if condition(left) * side <= 0.0:  # zero at the end of the step before, or beyond by round-off
            return left
        return float(brentq(condition, left, right, xtol=2.0 * EPS, rtol=4.0 * EPS, maxiter=1000, disp=False))

    def _left_of(
        self, which: int, step: _Step, side: float, right: float, condition: Callable[[float], float]
    ) -> float:
        """A point before `right` on the side that the flow takes the condition to, from where it is zero."""
        theta = 0.5 * right
        while abs(theta * step.h) > step.resolution:
            if condition(theta) * side > 0.0:
                return theta
            theta *= 0.5
        raise accumulation(self.events[which], step.t)

    def _crossing(self, which: int, step: _Step, t: float, scale: float) -> Crossing:
        theta = step.theta(t)
        y = step.state(theta)
        slope = step.slope(theta)
        return Crossing(which, t, y, slope, scale, abs(self._value(which, t, y)))

    def _value(self, which: int, t: float, y: Array) -> float:
        """The condition at a time and a flat state (n,)."""
        event = self.events[which]
        try:
            result = event.value(t, self._layout.unflatten(y), self.params)
        except Exception as error:
            error.add_note(f"odeint: raised by the condition of the event {event.name!r} at t={t:.6g}")
            raise
        if type(result) is Var:
            self.captured[which] = result
        return number_of(result, event, t)

    def _is_round_off(self, which: int, t: float, y: Array, value: float) -> bool:
        """Whether a condition is zero at a start, as far as it can be known after it has fired there."""
        if value == 0.0 or which not in self._after:
            return value == 0.0
        change = NOISE * EPS
        moved = [
            (t * (1.0 + a * change), y * y.dtype.type(1.0 + b * change)) for a in (-1, 1) for b in (-1, 1)
        ]
        noise = max(abs(self._value(which, *place) - value) for place in moved)
        return abs(value) <= 4.0 * self._after[which] + noise

    def _rate(self, which: int, t: float, y: Array, slope: Array) -> float:
        """The total time derivative of a condition; by a difference where it cannot be traced."""
        try:
            return self.rate(which, t, y, slope)
        except (NeuralODEError, TypeError):
            h = math.sqrt(EPS) * max(abs(t), 1.0)
            ahead = self._value(which, t + h, y + y.dtype.type(h) * slope)
            return (ahead - self._value(which, t, y)) / h

    def rate(self, which: int, t: float, y: Array, slope: Array) -> float:
        """d/dt condition(t, y(t)) where dy/dt = slope.
        Raises TracedValueError for a condition that cannot be traced.
        """
        event, unflatten = self.events[which], self._layout.unflatten

        def condition(t: Any, y: Tree) -> Any:
            return event.value(t, y, self.params)

        _, rate = jvp(condition, (t, unflatten(y)), (1.0, unflatten(slope)))
        found = base_value(rate)
        return float(to_number(found).real)


class _Step:
    """An accepted step as the monitor reads it: by theta in [0, 1], from its polynomial."""

    def __init__(self, integrator: Integrator, block: Array) -> None:
        self.t, self.t_next = integrator.t_start, integrator.t
        self.h = self.t_next - self.t
        self.direction = math.copysign(1.0, self.h)
        self.resolution = COINCIDE * float(np.spacing(max(abs(self.t), abs(self.t_next))))
        self.is_last = integrator.is_done
        self._block, self._xp, self._end = block, integrator.stages.xp, integrator.y.copy()
        self.thetas = [*POINTS.tolist(), 1.0]
        self.times = [self.time(theta) for theta in self.thetas]
        self.states = [*read_polynomial(self._xp, block, POINTS, self.h), self._end]

    def time(self, theta: float) -> float:
        return self.t_next if theta == 1.0 else self.t + theta * self.h

    def theta(self, t: float) -> float:
        return 1.0 if t == self.t_next else (t - self.t) / self.h

    def state(self, theta: float) -> Array:
        """(n,), an array of its own."""
        if theta == 1.0:
            return self._end
        return read_polynomial(self._xp, self._block, np.array([theta]), self.h)[0]

    def slope(self, theta: float) -> Array:
        return read_polynomial(self._xp, self._block, np.array([theta]), self.h, derivative=True)[0]


def accumulation(event: Event, t: float) -> EventAccumulation:
    """The event follows itself closer than numbers can tell."""
    return EventAccumulation(
        f"odeint: the event {event.name!r} happens again right after t={t:.6g}, where it has just happened: its "
        "occurrences accumulate, closer than numbers there can tell, as when a bouncing ball comes to rest. End the solve "
        "before, for example by a terminal event where the speed is small, or let the jump lead to a state of rest",
        t=t,
        event=event.name,
    )
