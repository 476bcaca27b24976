"""Checkpoints: a few states of a long solve, from which the others are computed again when its derivative
needs them.

The sweep back needs the states at the starts of steps N - 1, ..., 0, in this order. With s stored states,
that of the start among them, and the one in hand, no way of storing and walking makes fewer than
    t(N, s) = r N - binomial(s + r, r - 1),   r the least integer with binomial(s + r, s) >= N
steps, the first N - 1 of which are the forward solve: N = 1000 steps and s = 10 states cost 2.6 further steps
a step, s = 50 less than one. Between two checkpoints that is attained by storing where `first_advance` says.
The forward solve attains it where the number of steps is known, on a given grid. Where steps are chosen on
the way, each new state enters and another one leaves, such that no state is recomputed more often than
necessary; beyond the least, the tests find fewer than N steps more.

Source: Griewank & Walther (2000), Algorithm 799: revolve, ACM TOMS 26, 19-45;
    for an unknown number of steps Wang, Moin &
Iaccarino (2009), Minimal repetition dynamic checkpointing algorithm for unsteady adjoint calculation, SIAM J.
Sci. Comput. 31, 2549-2567.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from ..engine.backend import Array

# walk(n, y, stops) -> the states at the accepted times `stops`, ascending, computed from y at the accepted
# time n
Walk = Callable[[int, Array, Sequence[int]], Iterable[Array]]


def first_advance(n_steps: int, n_states: int) -> int:
    """How far to walk before the next state is stored, when n_steps >= 2 are reversed with n_states >= 2 (the
    one at the start is the first of them)."""
    r = 1
    while math.comb(n_states + r, r) < n_steps:
        r += 1
    return min(math.comb(n_states + r - 1, r - 1), n_steps - math.comb(n_states + r - 2, r - 1))


class Checkpoints:
    """At most `capacity` states of one trajectory, that of its start included, and the latest one.

    The forward solve gives each state it reaches to `append` (that after the last step is not needed); the
    sweep back asks `restore` for them, the last one first.

    Attributes:
        states: the stored ones by index of their accepted time, ascending.
    """

    def __init__(self, capacity: int, y0: Array, n_steps: int | None) -> None:
        self.capacity = capacity
        self.states: dict[int, Array] = {0: y0}
        self._latest: tuple[int, Array] | None = None
        self._n_steps = n_steps
        self._levels = {0: math.inf}  # of the states, while the number of steps is not known
        self._state_nbytes = y0.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of all states in store."""
        return (len(self.states) + (self._latest is not None)) * self._state_nbytes

    def append(self, y: Array) -> None:
        """Take in a copy of the next state of the forward solve."""
        n = 1
        if self._latest is not None:
            n, state = self._latest[0] + 1, self._latest[1]
            self._admit(n - 1, state)
        self._latest = n, y.copy()

    def restore(self, n: int, walk: Walk) -> Array:
        """The state at the accepted time n; those behind it are forgotten,
        some before it are stored on the way.
        """
        if self._latest is not None and self._latest[0] == n:
            return self._latest[1]
        self._latest = None
        while (start := next(reversed(self.states))) > n:
            del self.states[start]
        state, stops = self.states[start], self._stops(start, n)
        for stop, reached in zip(stops, walk(start, state, stops), strict=True):
            state = reached
            if stop < n:
                self.states[stop] = reached.copy()
        return state

    def _stops(self, start: int, n: int) -> list[int]:
        """Where to store between the last stored state and n, and n itself (nothing if it is stored)."""
        stops: list[int] = []
        while start < n:
            n_states = self.capacity - len(self.states) - len(stops) + 1
            start = n if n_states == 1 else start + first_advance(n - start + 1, n_states)
            stops.append(start)
        return stops

    def _admit(self, n: int, state: Array) -> None:
        """Store the state n of the forward solve, or not."""
        if self._n_steps is not None:
            last = next(reversed(self.states))
            n_states = self.capacity - len(self.states) + 1
            if n_states > 1 and n == last + first_advance(self._n_steps - last, n_states):
                self.states[n] = state
        elif self.capacity > 1:
            level = self._make_room() if len(self.states) == self.capacity else 0
            self.states[n], self._levels[n] = state, level

    def _make_room(self) -> float:
        """Forget one state and return the level of the new one.

        A state goes if a later one has a higher level: it was stored to serve what is stored there by now. If
        there is none the latest goes, and the new one takes over its duties, a level higher.
        """
        last = next(reversed(self._levels))
        leaving, highest = None, -1.0
        for n in reversed(self._levels):
            if self._levels[n] < highest:
                leaving = n
                break
            highest = max(highest, self._levels[n])
        level = self._levels[last] + 1 if leaving is None else 0
        leaving = last if leaving is None else leaving
        del self.states[leaving], self._levels[leaving]
        return level
