"""The loop by hand: one accepted step at a time, for people who decide between the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ..engine.backend import Array, host_numbers, namespace_of, to_xp
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.kernels.precision import accepting
from ..engine.product_precision import product_precision
from ..engine.trace import Var
from ..engine.tree import Tree, leaves
from .compiled import Purpose, give_back
from .controller import Controller
from .dynamics import Dynamics, StateLayout
from .forward import begin_rows, control_of, stages_for, step_of, trust
from .initial_state import initial_state, refuse_subclasses
from .kernels_at_work import kernels_at_work
from .loop import Integrator
from .method import Method
from .options import check_method, checked_options
from .stats import Stats
from .stepping import extra_slopes, polynomial_of
from .tableau import Tableau
from .times import output_times, walking_grid
from .tolerances import flat_tolerances


@dataclass(frozen=True)
class Step:
    """One accepted step, on arrays of its own.

    Attributes:
        t0, t1: its ends; t1 < t0 when time runs backwards.
        y0, y1: states there, trees like the initial one.
        k: slopes of its stages, a list of such trees;
            for a method that is first same as last k[-1] is f(t1, y1).
        error_norm: scaled error estimate, at most 1; 0 for steps of a given size.
    """

    t0: float
    t1: float
    y0: Tree
    y1: Tree
    k: list[Tree]
    error_norm: float
    _polynomial: Callable[[], Array] | None = field(
        repr=False
    )  # (p + 1, n), where the method has dense output
    _layout: StateLayout = field(repr=False)
    _method: str = field(repr=False)

    def interpolate(self, t: Any) -> Tree:
        """The state at a time (or at times (m,), then with a leading axis m) within the step.

        Raises ArgumentError outside of the step, or where the method has no dense output. Where that takes
        stages of its own (dop853, vern6, vern7) they are evaluated at the first call, whenever that is.
        """
        if self._polynomial is None:
            raise ArgumentError(f"{self._method} has no dense output; make the step end at the time you need")
        times = host_numbers(t).astype(np.float64)
        thetas = (times.reshape(-1) - self.t0) / (self.t1 - self.t0)
        if times.ndim > 1 or not np.all((thetas >= 0.0) & (thetas <= 1.0)):
            raise ArgumentError(f"`t` must lie in the step from {self.t0:g} to {self.t1:g}; got {t!r}")
        block = self._polynomial()
        powers = thetas[:, None] ** np.arange(len(block))
        with product_precision("fp32"):
            rows = to_xp(namespace_of(block), powers.astype(block.dtype)) @ block
        return self._layout.unflatten(rows if times.ndim else rows[0], times.shape)


class Stepper:
    """Solve y' = f(t, y, params), y(t0) = y0, towards t1, an accepted step with each call of `step()`.

        stepper = Stepper(f, y0, 0.0, 1.0)
        while not stepper.is_done:
            step = stepper.step()
            print(step.t1, step.y1, step.interpolate(0.5 * (step.t0 + step.t1)))

    The steps are those of `odeint` with the same arguments, which are explained there.
    Nothing here is differentiated.

    Attributes:
        t, y: where the solve stands (y is an array of its own, or a tree of them).
        h: signed size of the step that will be tried next; 0 with a given grid.
        is_done: whether t is t1.
        stats: counts so far.
    Raises: what `odeint` raises, for arguments at once and for a failing step from `step()`.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        y0: Tree,
        t0: float,
        t1: float,
        params: Tree = None,
        *,
        method: str | Tableau | Method = "dopri5",
        rtol: float = 1e-5,
        atol: float = 1e-7,
        execution: str = "replay",
        max_steps: int = 100_000,
        max_step: float | None = None,
        first_step: float | None = None,
        step_size: float | None = None,
        grid: Any = None,
        controller: str | Controller | None = None,
        min_step: float | None = None,
        norm: str | Callable[[Tree], Any] = "rms",
        breakpoints: Any = None,
    ) -> None:
        options = checked_options(
            method, rtol=rtol, atol=atol, execution=execution, max_steps=max_steps, max_step=max_step,
            first_step=first_step, step_size=step_size, grid=grid, controller=controller, gradient="discrete",
            keep="none", keep_bytes=0, backward_rtol=None, backward_atol=None, callback=None, min_step=min_step,
            norm=norm, breakpoints=breakpoints,
        )  # fmt: skip
        times = output_times([t0, t1])
        y0 = initial_state(y0)
        refuse_subclasses("params", params)
        with accepting(options.accepted_round_off):
            dynamics = Dynamics(f, times[0], y0, params, has_aux=False)
        options = flat_tolerances(options, dynamics.layout)
        check_method(options, y0, has_aux=False)
        if any(type(value) is Var for value in (*leaves(y0), *dynamics.params_leaves, *dynamics.hidden)):
            raise ArgumentTypeError(
                "a Stepper works on arrays; inside a function that is differentiated use odeint"
            )
        self.stats = Stats()
        self._layout = dynamics.layout
        self._slope = lambda t, y: dynamics.call(t, y)[0]
        self._kernels = kernels_at_work(dynamics, options)
        with self._kernels(), np.errstate(all="ignore"):
            self._stages, self._compiled = stages_for(dynamics, options, Purpose("solve"))
            trust(self._stages, self._compiled, dynamics, times, self.stats)
            begin_rows(self._stages, dynamics, self.stats)
            self._integrator = Integrator(
                self._stages, options.method, control_of(options, dynamics.layout), float(times[0]), float(times[1]),
                self.stats, grid=walking_grid(options, times), name="Stepper",
                step=step_of(options, self._stages, dynamics, self.stats),
            )  # fmt: skip
            self._integrator.start()
        self._y = self._layout.unflatten(self._integrator.y.copy())

    @property
    def t(self) -> float:
        return self._integrator.t

    @property
    def y(self) -> Tree:
        return self._y

    @property
    def h(self) -> float:
        return self._integrator.h

    @property
    def is_done(self) -> bool:
        return self._integrator.is_done

    def step(self) -> Step:
        """Make one accepted step; ArgumentError when there is none left."""
        integrator, layout = self._integrator, self._layout
        if integrator.is_done:
            raise ArgumentError(
                f"the solve is done: it has reached t1 = {integrator.t1:g}; ask `is_done` first"
            )
        y0 = self._y
        with self._kernels(), np.errstate(all="ignore"):
            integrator.advance()
        polynomial = self._polynomial() if integrator.method.interpolates else None
        self._y = layout.unflatten(integrator.y.copy())
        rows = self._stages.rows[1 : integrator.method.stages + 1]
        slopes = [layout.unflatten(row) for row in rows.copy()]
        step = Step(
            integrator.t_start, integrator.t, y0, self._y, slopes, integrator.error_norm,
            polynomial, layout, integrator.method.name,
        )  # fmt: skip
        if integrator.is_done and self._compiled is not None:
            give_back(self._stages)
        return step

    def _polynomial(self) -> Callable[[], Array]:
        """The polynomial of the step just made, at once where it costs no evaluation of f,
        otherwise when asked for.
        """
        integrator, tableau = self._integrator, self._integrator.method
        h = integrator.t - integrator.t_start
        if not isinstance(tableau, Tableau) or not tableau.extra_c:
            block = integrator.step.polynomial(h)
            return lambda: block
        t, rows = integrator.t_start, self._stages.rows[: tableau.stages + 1].copy()

        @cache
        def evaluated() -> Array:
            with self._kernels(), np.errstate(all="ignore"):
                slopes = extra_slopes(self._slope, t, rows[0], h, tableau, list(rows[1:]))
            self.stats.nfe += len(tableau.extra_c)
            return polynomial_of(tableau, rows[0], self._stages.xp.stack(slopes), h)

        return evaluated
