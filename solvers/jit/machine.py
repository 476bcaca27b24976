"""The kernels of one compiled program and the buffers of one solve with it."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.jit import Layout, Unsupported, kernel_source
from ...engine.jit.machine_code import kernel
from ...engine.jit.source import captured_numbers
from ...engine.partition import PROLOGUE
from ...engine.trace import evaluate
from ..compiled import Compiled
from ..dynamics import Dynamics
from ..tableau import Tableau
from . import job

FIRST_ROOM = 128  # accepted steps that there is room for at first
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_double, *[ctypes.c_void_p] * 7)


@dataclass(eq=False)
class Kernels:
    """The machine code of a program's groups, and how much memory it works on; shared by all solves."""

    layout: Layout
    functions: dict[str, Any]
    n_work: int
    n_params: int

    @classmethod
    def of(cls, compiled: Compiled) -> Kernels:
        """Compile the groups of a program; Unsupported names what cannot be."""
        plan = compiled.plan
        if compiled.aux:
            raise Unsupported("has_aux=True")
        layout = Layout(plan, compiled.state, compiled.seeds)
        metas, texts, n_work = plan.program.metas, {}, 0

        def in_order(slots: tuple[int, ...]) -> list[tuple[int, int]]:
            """(slot, offset): one behind the other."""
            ends = np.cumsum([math.prod(metas[slot].shape) for slot in slots]).tolist()
            return [*zip(slots, [0, *ends], strict=False)]

        for group in plan.order:
            if group == PROLOGUE and not plan.steps[group]:
                continue
            results = {"slope": compiled.slopes, "pullback": compiled.state_bars}.get(group, ())
            sums = compiled.param_bars if group == "pullback" else ()
            texts[group] = kernel_source(layout, group, in_order(results), in_order(sums))
            n_work = max(n_work, layout.sizes["work"])
        functions = {group: kernel(text, layout.dtype) for group, text in texts.items()}
        return cls(
            layout, functions, n_work, sum(math.prod(metas[slot].shape) for slot in compiled.param_bars)
        )

    def address(self, group: str) -> int:
        """The address of a group's kernel, 0 if it has none."""
        return self.functions[group].address if group in self.functions else 0


class Machine:
    """Buffers of one solve at a time; `job.py` says what they are."""

    def __init__(self, kernels: Kernels, compiled: Compiled, tableau: Tableau, size: int) -> None:
        self.kernels, self.compiled, self.size = kernels, compiled, size
        self.pool_key: object = None
        dtype, width, s = kernels.layout.dtype, kernels.layout.sizes["stage"], tableau.stages
        self.addresses = np.zeros(job.N_ADDRESSES, np.int64)
        self.counts, self.reals = np.zeros(job.N_COUNTS, np.int64), np.zeros(job.N_REALS)
        self.number_slots = captured_numbers(compiled.plan)
        numbers = tableau.as_floats()
        interpolant = np.zeros((s, 1)) if numbers.interpolant is None else numbers.interpolant.copy()
        self.nbytes = 0  # of all arrays that are held
        self._held: dict[int, np.ndarray] = {}  # keeps the arrays alive whose addresses are noted
        self.const = self.hold(job.CONST, np.zeros(max(1, kernels.layout.sizes["const"]), dtype))
        self.numbers = self.hold(job.NUMBERS, np.zeros(max(1, len(self.number_slots))))
        self.stages = self.hold(job.STAGES, np.zeros((s, width), dtype))
        self.rows = self.hold(job.ROWS, np.zeros((s + 1, size), dtype))
        self.params = self.hold(job.PARAMS, np.zeros(max(1, kernels.n_params), dtype))
        self.bars = self.hold(job.BARS, np.zeros((s + 1, size), dtype))
        self.kept = self.hold(job.KEPT, np.empty((0, s, width), dtype))
        self.slope0 = self.hold(job.SLOPE0, np.zeros(size, dtype))
        self.grid = self.hold(job.GRID, np.empty(FIRST_ROOM))
        self.states = self.hold(job.STATES, np.empty((FIRST_ROOM, size), dtype))
        self.ts = self.hold(job.TS, np.empty(0))
        self.ys_bar = self.hold(job.YS_BAR, np.empty((0, size), dtype))
        for place, shape in (
            (job.WORK, (max(1, kernels.n_work),)),
            (job.SCRATCH, (2, size)),
            (job.SEEDS, (s, size)),
            (job.DENSE, (s + 1, size)),
        ):
            self.hold(place, np.zeros(shape, dtype))
        self.hold(job.WEIGHTS, _weights_of(tableau))
        self.hold(job.NODES, numbers.c.copy())
        self.hold(job.INTERPOLANT, interpolant)
        self.addresses[job.KERNEL] = kernels.address("slope")
        self.addresses[job.PULL_BACK] = kernels.address("pullback")
        sizes = {job.SIZE: size, job.WIDTH: width, job.N_STAGES: s, job.DEGREE: interpolant.shape[1]}
        for place, value in (sizes | {job.IS_FSAL: tableau.fsal}).items():
            self.counts[place] = value
        self.places = [address_of(array) for array in (self.addresses, self.counts, self.reals)]
        self._constants = self._views_of_constants()
        self._param_bars = self._views_of_param_bars()
        self._slope = _KERNEL(kernels.address("slope"))
        self.control: object = None  # the options whose tolerances and limits are in `reals`
        self._prologue = _KERNEL(kernels.address(PROLOGUE)) if PROLOGUE in kernels.functions else None

    def hold(self, place: int, array: np.ndarray) -> np.ndarray:
        """Note the address of an array, and keep it alive while it is noted."""
        before = self._held.get(place)
        self.nbytes += array.nbytes - (0 if before is None else before.nbytes)
        self._held[place] = array
        self.addresses[place] = address_of(array)
        return array

    def release(self, *places: int) -> None:
        """Forget arrays that belong to one solve."""
        for place in places:
            if place in self._held:
                self.nbytes -= self._held.pop(place).nbytes

    def make_room(self, n: int, *, with_states: bool) -> None:
        """Room for at least n accepted times, and states there; what is written stays."""
        while len(self.grid) < n:
            self.grid = self.hold(job.GRID, np.concatenate([self.grid, np.empty_like(self.grid)]))
        while with_states and len(self.states) < n:
            self.states = self.hold(job.STATES, np.concatenate([self.states, np.empty_like(self.states)]))
        self.counts[job.ROOM] = min(len(self.grid), len(self.states)) if with_states else len(self.grid)

    def make_room_for_stages(self) -> None:
        """Room for the stages of twice as many kept steps."""
        kept = np.empty((2 * len(self.kept) + 2, *self.kept.shape[1:]), self.kept.dtype)
        kept[: len(self.kept)] = self.kept
        self.kept = self.hold(job.KEPT, kept)
        self.counts[job.KEPT_ROOM] = len(kept)

    def load(self, dynamics: Dynamics) -> None:
        """Take in the parameters and captured values of a solve."""
        values = dynamics.constants()
        for position, view in self._constants:
            view[...] = values[position]
        if self.number_slots:
            self._load_numbers(dict(zip(self.compiled.constants, values, strict=True)))
        if self._prologue is not None:
            places = [self.addresses[k] for k in (job.CONST, job.NUMBERS, job.STAGES, job.WORK)]
            self._prologue(0.0, *map(int, places), 0, 0, 0)

    def slope_at_start(self, t: float) -> np.ndarray:
        """f(t, y) of the state in row 0, (n,), on an array of its own."""
        slope, stage = np.empty(self.size, self.rows.dtype), int(self.addresses[job.STAGES])
        self.stages[0, : self.size] = self.rows[0]
        const, numbers, work = (int(self.addresses[k]) for k in (job.CONST, job.NUMBERS, job.WORK))
        result = address_of(slope)
        self._slope(t, const, numbers, stage, work, stage, result, result)
        return slope

    def _load_numbers(self, values: dict[int, Any]) -> None:
        plan = self.compiled.plan
        known = {**dict(plan.program.baked), **{slot: v for slot, v in values.items() if slot in plan.weak}}
        for op, inputs, output, static in plan.constant_numbers:
            known[output] = evaluate(op, tuple(known[slot] for slot in inputs), static)
        self.numbers[:] = [known[slot] for slot in self.number_slots]

    def _views_of_constants(self) -> list[tuple[int, np.ndarray]]:
        """(position among the constants, where it is copied to); baked arrays are there once for all."""
        places = self.kernels.layout.places

        def view(slot: int) -> np.ndarray:
            start, shape = places[slot].offset, places[slot].shape
            return self.const[start : start + math.prod(shape)].reshape(shape)

        for slot, value in self.compiled.plan.program.baked:
            if slot in places:
                view(slot)[...] = value
        return [(k, view(slot)) for k, slot in enumerate(self.compiled.constants) if slot in places]

    def write_times(self, ts: np.ndarray) -> None:
        """The output times, which the way forth and the way back read."""
        if len(ts) != len(self.ts):
            self.ts = self.hold(job.TS, np.empty(len(ts)))
        self.ts[...] = ts
        self.counts[job.N_TIMES] = len(ts)

    def write_cotangents(self, ys_bar: np.ndarray) -> None:
        """The cotangents (T, n) of the outputs."""
        if ys_bar.shape != self.ys_bar.shape:
            self.ys_bar = self.hold(job.YS_BAR, np.empty(ys_bar.shape, self.ys_bar.dtype))
        self.ys_bar[...] = ys_bar

    def param_bars(self) -> list[np.ndarray]:
        """The cotangents that have been added up, each shaped like its parameter, on arrays of their own."""
        return [view.copy() for view in self._param_bars]

    def _views_of_param_bars(self) -> list[np.ndarray]:
        metas = self.compiled.plan.program.metas
        shapes = [metas[slot].shape for slot in self.compiled.param_bars]
        ends = np.cumsum([0, *map(math.prod, shapes)]).tolist()
        return [self.params[a:b].reshape(s) for a, b, s in zip(ends, ends[1:], shapes, strict=False)]


def address_of(array: np.ndarray) -> int:
    """Where the array begins; `array.ctypes` would take three times as long."""
    return array.__array_interface__["data"][0]


def _weights_of(tableau: Tableau) -> np.ndarray:
    """(s + 2, s): a, then b and b - b_embedded."""
    numbers, s = tableau.as_floats(), tableau.stages
    weights = np.zeros((s + 2, s))
    for i, row in enumerate(numbers.a):
        weights[i, :i] = row
    weights[s] = numbers.b
    if numbers.b_error is not None:
        weights[s + 1] = numbers.b_error
    return weights
