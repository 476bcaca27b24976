"""One solve as an operation: its forward walks the steps, its rule is one of the gradient methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine.backend import Array, is_array, namespace_of, place_of, to_xp
from ..engine.errors import NeuralODEError, SolveError
from ..engine.jit.layout import Unsupported
from ..engine.primitive import Primitive
from ..engine.trace import Var, is_inside_program, saved_bytes
from ..engine.transforms import vjp
from .compiled import Purpose, checkout, compiled_for, give_back
from .dense_output import DenseOutput
from .dynamics import Dynamics
from .forward import Forward, control_of, solve_forward, stages_for
from .gradients import (
    AdjointStages,
    BacksolveStages,
    Cotangents,
    DiscreteAdjoint,
    DriftGuard,
    EagerEvaluations,
    InterpolatedStages,
    ReplayEvaluations,
    ReversibleAdjoint,
    solve_adjoint,
    walk,
)
from .jit import solve_compiled
from .kernels_at_work import kernels_at_work
from .options import Options
from .recorded import recorded_pull_back
from .stages import ReplayStages
from .stats import Stats
from .times import output_times
from .trajectory import n_read_inside


class Solve(Primitive):
    """ys (T, n) = solve(y0 (n,), ts (T,), *constants): the states at the output times.

    The constants are the leaves of the parameters, then what f captured. The operation is a function of its
    arguments: inside other dynamics it is replayed with new ones, and then f is what was recorded at the
    entrance.
    `stats`: where the call at the entrance counts; later ones have their own.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: Options,
        times: np.ndarray,
        args: Sequence[Any],
        stats: Stats | None = None,
    ) -> None:
        super().__init__("odeint", Solve.forward, is_flat=False, may_view=False)
        # the method is found; an object that holds it is a cycle, and its states wait for the collector
        del self.forward
        self.is_mixed = True  # the times may be on the host, whatever the state is
        self.rule = Solve.pull_back  # there is one
        self.dynamics, self.options = dynamics, options
        self._entrance: Forward | None = None
        self._times: np.ndarray | None = times
        self._stats = stats
        is_differentiated = [_is_differentiated(value) for value in args]
        self.is_differentiated = any(is_differentiated)
        self.is_in_program = any(is_inside_program(value) for value in args)
        self.is_recorded = self.is_differentiated and self.is_in_program
        if self.is_differentiated and not options.is_tableau:
            raise NeuralODEError(
                f"a solve with method={options.method.name!r} has no derivative; differentiate through an explicit "
                "Runge-Kutta method (dopri5)"
            )
        self._refuse_outputs(args)
        self.keeps_states = self.is_differentiated and options.gradient == "discrete"
        self.keeps_path = self.is_differentiated and options.gradient == "interpolated"
        self.purpose = self._purpose(is_differentiated) if self.keeps_states else Purpose("solve")
        self.done: Forward | None = None
        self._kernels = kernels_at_work(dynamics, options)

    def _refuse_outputs(self, args: Sequence[Any]) -> None:
        """NeuralODEError where a derivative would silently pass by what is returned beside the output
        times.
        """
        asked = "save='steps'" if self.options.save == "steps" else "dense=True"
        if (self.options.save == "steps" or self.options.dense) and any(type(value) is Var for value in args):
            raise NeuralODEError(
                f"{asked} is not differentiated and not traced: only the states at given output times are. Solve once "
                "outside of the function that is differentiated, then pass ts=sol.grid and grid=sol.grid inside of it"
            )

    def structure(self) -> tuple[Any, ...]:
        """Equal for solves that do the same with equal arguments,
        and leave nothing behind for a pull-back in a program.
        """
        alike = (self.dynamics.program.key, self.options.key)
        return (*alike, id(self)) if self.is_recorded else alike

    def _purpose(self, needs: Sequence[bool]) -> Purpose:
        """The program that the derivative with respect to these arguments needs."""
        reaching = self.dynamics.reaching
        wanted = tuple([position for position, need in enumerate(needs[2:]) if need and position in reaching])
        kind = "discrete" if self.options.gradient == "reversible" else self.options.gradient
        return Purpose(kind, wanted, needs[1])

    def forward(self, xp: Any, y0: Array, ts: Any, *constants: Any, structure: Any = None) -> Array:
        dynamics, times = self.dynamics, self._times
        is_entrance = times is not None
        if times is None:  # not the call at the entrance, whose values the dynamics were recorded with
            times = output_times(ts)
            dynamics = dynamics.at(float(times[0]), y0, constants)
        stats, self._stats, self._times = self._stats, None, None
        with self._kernels():
            done = self._walked(dynamics, times, stats)
        self.done = done
        # The trace keeps this operation: if that kept traced values, they would keep the trace, and all of it
        # would wait for the collector of cycles, or as long as a program that is replayed.
        if self.is_differentiated or is_entrance and self.is_in_program:
            done.dynamics = self.dynamics = dynamics.frozen()
        if not self.is_differentiated:
            return done.trajectory.ys
        return done.trajectory.ys.copy()  # the caller may write to it; `backsolve` starts from these states

    def _walked(self, dynamics: Dynamics, times: np.ndarray, stats: Stats | None) -> Forward:
        """The forward pass, in machine code where that is asked for and possible."""
        options, purpose, keeps_path = self.options, self.purpose, self.keeps_path
        if options.execution == "compiled":
            done = solve_compiled(dynamics, options, times, purpose, keeps_path=keeps_path, stats=stats)
            if done is not None:
                return done
        return solve_forward(
            dynamics,
            options,
            times,
            purpose,
            keeps_states=self.keeps_states,
            keeps_path=keeps_path,
            stats=stats,
        )

    def forget(self) -> None:
        self.done = None

    def keep(self, args: tuple[Any, ...], output: Any) -> tuple[Any, ...]:
        """The arguments and the forward pass; of arrays the copies that the forward pass owns."""
        done = self.done
        assert done is not None
        ys = output if self.is_recorded else None
        if not self.is_differentiated:
            return (*args, ys, done)
        first = [arg.copy() if is_array(arg) else arg for arg in args[:2]]
        pairs = zip(args[2:], done.dynamics.constants(), strict=True)
        return (*first, *(own if is_array(arg) else arg for arg, own in pairs), ys, done)

    def pull_back(
        self, ybar: Any, saved: tuple[Any, ...], static: Any, needs: tuple[bool, ...]
    ) -> Sequence[Any]:
        """Cotangents of (y0, ts, *constants). Where anything is traced the derivative is itself
        differentiated.
        """
        with saved[-1].lock, self._kernels():
            return self._pull_back(ybar, saved, needs)

    def _pull_back(self, ybar: Any, saved: tuple[Any, ...], needs: tuple[bool, ...]) -> Sequence[Any]:
        *args, ys, done = saved
        gradient = self.options.gradient
        given = [value for value in (ybar, *args) if type(value) is Var]
        if given and all(value.trace.is_program for value in given):

            def pull_back(ybar: Array, *args: Any) -> Sequence[Any]:
                return self.pull_back(ybar, (*args, None, self.done), {}, needs)

            return recorded_pull_back(pull_back, ybar, ys, args)
        if given:
            self._refuse_higher(given)
            return self._pull_by_walking(done, ybar, args, needs)
        if gradient == "tape" or (gradient == "discrete" and done.trajectory.states is None):
            return self._pull_by_walking(done, ybar, args, needs)
        purpose = self.purpose if self.keeps_states else self._purpose(needs)
        with np.errstate(all="ignore"):
            pulls = {"discrete": self._discrete, "reversible": self._reversible}
            try:
                found = pulls.get(gradient, self._continuous)(done, purpose, ybar)
            except SolveError as error:
                error.solution = done.solution()
                raise
        bars: list[Any] = [None] * len(args)
        bars[0], bars[1] = found.y0, to_xp(namespace_of(args[1]), found.ts)
        for position, bar in zip(purpose.wanted, found.params, strict=True):
            bars[2 + position] = bar
        return bars

    def _refuse_higher(self, values: Sequence[Any]) -> None:
        if any(is_inside_program(value) for value in values):
            raise NeuralODEError(
                "a second derivative of a solve, or a `jvp`, is taken inside a function that is being traced (the f of "
                "another solve, or what `jit` records): the trace would freeze the steps of this moment; take it outside"
            )
        if self.options.gradient not in ("tape", "discrete"):
            raise NeuralODEError(
                f"gradient={self.options.gradient!r} gives first derivatives only; use 'tape' or 'discrete' for higher "
                "ones"
            )

    def _pull_by_walking(
        self, done: Forward, ybar: Any, args: Sequence[Any], needs: tuple[bool, ...]
    ) -> Sequence[Any]:
        dynamics, tableau, grid = done.dynamics, self.options.tableau, np.array(done.trajectory.grid)
        n_params = len(dynamics.params_leaves)
        chosen = [
            position
            for position, need in enumerate(needs)
            if need and (position < 2 or position - 2 in dynamics.reaching)
        ]
        bars: list[Any] = [None] * len(args)
        if not chosen:
            return bars

        def walked(*values: Any) -> Any:
            full = list(args)
            for position, value in zip(chosen, values, strict=True):
                full[position] = value
            y0, ts, *constants = full
            ys = walk(dynamics, tableau, grid, y0, ts, constants[:n_params], constants[n_params:])
            done.stats.peak_saved_bytes = saved_bytes(values[0].trace.instructions)
            return ys

        with np.errstate(all="ignore"):
            _, pull_back = vjp(walked, *(args[position] for position in chosen))
            found = pull_back(ybar)
        evaluations = (len(grid) - 1) * (tableau.stages - tableau.fsal) + tableau.fsal
        evaluations += len(tableau.extra_c) * n_read_inside(done.times, grid)
        done.stats.nfe_backward += evaluations
        done.stats.n_vjp_state += evaluations
        if any(position >= 2 for position in chosen):
            done.stats.n_vjp_params += evaluations
        for position, bar in zip(chosen, found, strict=True):
            bars[position] = bar
        return bars

    def _discrete(self, done: Forward, purpose: Purpose, ys_bar: Array) -> Cotangents:
        if done.run is not None:
            return done.run.pull_back(done, self.options, purpose, ys_bar)
        stages, compiled = done.stages, None
        if stages is None:
            stages, compiled = stages_for(done.dynamics, self.options, purpose)
        elif isinstance(stages, ReplayStages):
            stages.clear_bars()
            compiled = stages.compiled
        sweep = DiscreteAdjoint(
            stages, self.options.tableau, done.trajectory, done.dynamics.slope0, done.stats, time=purpose.time
        )
        found = sweep.run(ys_bar)
        done.stages = None
        if compiled is not None:
            give_back(stages)
        return found

    def _reversible(self, done: Forward, purpose: Purpose, ys_bar: Array) -> Cotangents:
        stages, compiled = stages_for(done.dynamics, self.options, purpose)
        adjoint = ReversibleAdjoint(stages, self.options, done.trajectory, done.stats, time=purpose.time)
        found = adjoint.run(ys_bar)
        if compiled is not None:
            give_back(stages)
        return found

    def _continuous(self, done: Forward, purpose: Purpose, ys_bar: Array) -> Cotangents:
        """`backsolve` and `interpolated`."""
        dynamics, options, trajectory = done.dynamics, self.options, done.trajectory
        evaluations = _evaluations(dynamics, options, purpose)
        stages: AdjointStages
        if options.gradient == "backsolve":
            guard = DriftGuard.of_backward_solve("backsolve", options, trajectory.ys, done.stats)
            stages = BacksolveStages(evaluations, options.tableau, guard)
        else:
            stages = InterpolatedStages(evaluations, options.tableau, self._path(done))
        control = control_of(options.backward())
        found = solve_adjoint(stages, dynamics, options.tableau, control, trajectory, done.stats, ys_bar)
        if isinstance(evaluations, ReplayEvaluations):
            found.params = [bar.copy() for bar in found.params]
            give_back(evaluations)
        return found

    def _path(self, done: Forward) -> DenseOutput:
        """The dense output of the forward pass; one that kept none is made again on its accepted times."""
        if done.trajectory.path is None:
            options = replace(
                self.options, grid=np.array(done.trajectory.grid), step_size=None, callback=None
            )
            again = solve_forward(
                done.dynamics, options, done.times, Purpose("solve"), keeps_states=False, keeps_path=True
            )
            done.trajectory.path = again.trajectory.path
            done.stats.nfe_backward += again.stats.nfe
        path = done.trajectory.path
        assert path is not None
        return path


def _evaluations(
    dynamics: Dynamics, options: Options, purpose: Purpose
) -> ReplayEvaluations | EagerEvaluations:
    """What a continuous adjoint evaluates, with the parameters of this solve."""
    n_stages = options.tableau.stages
    if options.execution == "eager":
        return EagerEvaluations(dynamics, purpose, n_stages)
    compiled, xp = compiled_for(dynamics, purpose), dynamics.xp

    def build() -> ReplayEvaluations:
        return ReplayEvaluations(compiled, dynamics.layout, n_stages, xp)

    try:
        evaluations = checkout(compiled, (place_of(xp), n_stages), build)
    except Unsupported:
        return EagerEvaluations(dynamics, purpose, n_stages)
    evaluations.load(dynamics)
    return evaluations


def _is_differentiated(value: Any) -> bool:
    """Whether a derivative is being taken with respect to this value (and not only a program traced)."""
    while type(value) is Var:
        if not value.trace.is_program:
            return True
        value = value.value
    return False
