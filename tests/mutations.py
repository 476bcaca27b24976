"""Flaws of layers and solvers, each a context in which the library has it, to see that the tests notice.

Each is a mistake that is easy to make: a term forgotten, two weights exchanged, something counted twice. The rules of
single operations are broken in op_mutations.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
from odegrad.engine import ops
from odegrad.engine.backend import is_array
from odegrad.engine.ops.reductions import stop_gradient
from odegrad.engine.trace import base_value
from odegrad.engine.tree import leaves
from odegrad.layers import Moments, ta_batch_norm
from odegrad.solvers.gradients import continuous, discrete, reversible, tape
from odegrad.solvers.loop import Integrator
from odegrad.solvers.stages import ForwardStages
from odegrad.solvers.tableau import Tableau
from odegrad.solvers.trajectory import Trajectory

entrance = import_module("odegrad.solvers.odeint")  # the function of this name hides its module
solve = import_module("odegrad.solvers.solve")

Flaw = AbstractContextManager[Any]


def wrapped(owner: Any, name: str, make: Callable[[Any], Any]) -> Flaw:
    """Within it the function `name` of a module or class is make(function)."""
    return patch.object(owner, name, make(getattr(owner, name)))


# --- TA-BN ----------------------------------------------------------------------------------------------------------


def constant_moments(*, mean: bool = False, var: bool = False) -> Flaw:
    """Batch moments of the right value that count as constants in the derivative."""

    def make(batch_moments: Any) -> Any:
        def broken(x: Any) -> Any:
            found_mean, found_var, seen = batch_moments(x)
            found_mean = stop_gradient(found_mean) if mean else found_mean
            return found_mean, stop_gradient(found_var) if var else found_var, seen

        return broken

    return wrapped(ta_batch_norm, "batch_moments", make)


def exchanged_hat_weights() -> Flaw:
    """The two nodes of a cell change places: the value is that of the mirrored time."""

    def make(hat_weights: Any) -> Any:
        def broken(t: Any, grid: Any, **options: Any) -> Any:
            nodes, time = base_value(grid), float(base_value(t))
            cell = int(np.clip(np.searchsorted(nodes, time, "right") - 1, 0, len(nodes) - 2))
            return hat_weights(float(nodes[cell] + nodes[cell + 1]) - t, grid, **options)

        return broken

    return wrapped(ops, "hat_weights", make)


def constant_time() -> Flaw:
    """Interpolation over the grid has no derivative in time."""
    return wrapped(
        ops, "hat_weights", lambda right: lambda t, *args, **kw: right(stop_gradient(t), *args, **kw)
    )


def exchanged_update_weights() -> Flaw:
    """An observation moves the two nodes of its cell by each other's share."""

    def make(hats: Any) -> Any:
        def broken(ts: np.ndarray, nodes: tuple[float, ...]) -> np.ndarray:
            cell = np.clip(np.searchsorted(nodes, ts, "right") - 1, 0, len(nodes) - 2)
            return hats(np.take(nodes, cell) + np.take(nodes, cell + 1) - ts, nodes)

        return broken

    return wrapped(ta_batch_norm, "hats", make)


def observations_reversed() -> Flaw:
    """The latest observation is taken in first."""
    return wrapped(
        ta_batch_norm,
        "observations",
        lambda right: (
            lambda seen: tuple(
                Moments(*(v[::-1] for v in part)) if isinstance(part, tuple) else part[::-1]
                for part in right(seen)
            )
        ),
    )


def biased_variance_recorded() -> Flaw:
    """The running average follows the variance that normalises instead of the unbiased one."""

    def make(batch_moments: Any) -> Any:
        def broken(x: Any) -> Any:
            mean, var, seen = batch_moments(x)
            return mean, var, Moments(seen.mean, var)

        return broken

    return wrapped(ta_batch_norm, "batch_moments", make)


# --- statistics: which evaluations count ----------------------------------------------------------------------------


@contextmanager
def rejected_steps_counted() -> Iterator[None]:
    """What f returned is written down once for every attempt of a step."""

    def counting(attempt: Any) -> Any:
        def broken(self: Integrator, *args: Any) -> None:
            self.tries = getattr(self, "tries", 0) + 1  # type: ignore[attr-defined]
            attempt(self, *args)

        return broken

    def repeating(write: Any) -> Any:
        def broken(self: Trajectory, stages: Any, c: Any, integrator: Any, first: int) -> None:
            for _ in range(integrator.tries):
                write(self, stages, c, integrator, first)
            integrator.tries = 0

        return broken

    with wrapped(Integrator, "_attempt", counting), wrapped(Trajectory, "write_aux", repeating):
        yield


@contextmanager
def backward_pass_counted() -> Iterator[None]:
    """Stages that the backward pass evaluates again move the statistics that the solve returned."""
    returned: list[np.ndarray] = []

    def remembering(aux_of: Any) -> Any:
        def broken(done: Any) -> Any:
            ts, tree = aux_of(done)
            returned[:] = [leaf for leaf in leaves(tree) if is_array(leaf)]
            return ts, tree

        return broken

    def updating(load: Any) -> Any:
        def broken(self: Any, *args: Any, **options: Any) -> None:
            load(self, *args, **options)
            for values in returned:
                values *= 0.9

        return broken

    with (
        wrapped(entrance, "aux_of", remembering),
        wrapped(discrete.DiscreteAdjoint, "_load", updating),
    ):
        yield


def shared_stage_counted_twice() -> Flaw:
    """The slope at the end of a step is written down again as the first of the next."""

    def make(write: Any) -> Any:
        return lambda self, stages, c, integrator, first: write(self, stages, c, integrator, 0)

    return wrapped(Trajectory, "write_aux", make)


# --- the hand-written adjoints --------------------------------------------------------------------------------------


def wrong_adjoint_weight(module: Any, row: int, column: int) -> Flaw:
    """One entry of b or a, as the adjoint of the step in `module` reads them, is a thousandth too large."""

    def make(adjoint_weights: Any) -> Any:
        def broken(tableau: Tableau) -> np.ndarray:
            weights = adjoint_weights(tableau)
            weights[row, column] *= 1.001
            return weights

        return broken

    return wrapped(module, "adjoint_weights", make)


def wrong_stage_pull(stages: type[ForwardStages], stage: int) -> Flaw:
    """The state cotangent of one stage is a thousandth too large."""

    def make(pull: Any) -> Any:
        def broken(self: Any, index: int, t: float) -> None:
            pull(self, index, t)
            if index == stage:
                self.bars[self.bar_row(index)] *= 1.001

        return broken

    return wrapped(stages, "pull", make)


def lost_parameter_cotangent(stages: type[ForwardStages], stage: int) -> Flaw:
    """What one stage gives to the parameters is lost."""

    def make(pull: Any) -> Any:
        def broken(self: Any, index: int, t: float) -> None:
            before = [bar.copy() for bar in self.param_bars]
            pull(self, index, t)
            if index == stage:
                for bar, value in zip(self.param_bars, before, strict=True):
                    bar[...] = value

        return broken

    return wrapped(stages, "pull", make)


def forgotten(owner: Any, name: str, result: Any = None) -> Flaw:
    """The method `name` does nothing and returns `result`."""
    return patch.object(owner, name, lambda *args, **kwargs: result)


def step_size_held_fixed() -> Flaw:
    """The first and the last step do not stretch with the output times."""
    return forgotten(discrete._Ends, "_along", 0.0)


def outputs_in_tape_do_not_move() -> Flaw:
    """An output time that is an accepted time as well has no derivative in `tape`."""
    return forgotten(tape, "_move_along")


# --- the continuous adjoints ----------------------------------------------------------------------------------------


def wrong_quadrature(change: Callable[[list[float]], list[float]]) -> Flaw:
    """The weights of the quadrature for the parameters pass through `change`."""

    def make(add: Any) -> Any:
        def broken(self: continuous.AdjointStages, integrator: Integrator) -> int:
            with patch.object(self, "_weights", change(self._weights)):
                return add(self, integrator)

        return broken

    return wrapped(continuous.AdjointStages, "add_quadrature", make)


def without_weight(stage: int) -> Flaw:
    """One stage is missing from the quadrature."""
    return wrong_quadrature(lambda b: [0.0 if i == stage else weight for i, weight in enumerate(b)])


def equal_weights() -> Flaw:
    """All stages of the quadrature weigh the same."""
    return wrong_quadrature(lambda b: [1.0 / len(b)] * len(b))


def inner_outputs_forgotten() -> Flaw:
    """The adjoint does not jump at the output times between the first and the last."""

    def make(solve_adjoint: Any) -> Any:
        def broken(*args: Any) -> Any:
            *others, ys_bar = args
            ys_bar = ys_bar.copy()
            ys_bar[1:-1] = 0.0
            return solve_adjoint(*others, ys_bar)

        return broken

    return wrapped(solve, "solve_adjoint", make)


# --- the forward step -----------------------------------------------------------------------------------------------


def wrong_step_weights() -> Flaw:
    """The step leans from one stage to another by a thousandth, which keeps it consistent and costs it its order."""

    def make(as_floats: Any) -> Any:
        def broken(self: Tableau) -> Any:
            numbers = as_floats(self)
            last = numbers.a[-1].copy()
            last[-1] += 1e-3
            last[0] -= 1e-3
            return numbers._replace(a=(*numbers.a[:-1], last))

        return broken

    return wrapped(Tableau, "as_floats", make)


def wrong_interpolant() -> Flaw:
    """Dense output that meets both ends of the step and bends in between."""

    def make(as_floats: Any) -> Any:
        def broken(self: Tableau) -> Any:
            numbers = as_floats(self)
            interpolant = numbers.interpolant.copy()
            interpolant[0, 1] += 1e-2
            interpolant[0, 2] -= 1e-2
            return numbers._replace(interpolant=interpolant)

        return broken

    return wrapped(Tableau, "as_floats", make)


REVERSIBLE = reversible.ReversibleAdjoint
DISCRETE = discrete.DiscreteAdjoint
ENDS = discrete._Ends
