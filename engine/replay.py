"""Replay: a partitioned program bound to buffers,
as straight-line Python that calls NumPy with `out=` and nothing else.

What differs for arrays on a GPU is in `cuda.replay`: which steps are kernels, and where numbers lie.

A `Workspace` belongs to one solve at a time. It owns the constants, the scratch memory that all groups share,
and any number of `StageSet`s: the inputs and residuals of one evaluation. Running a group creates no array.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from .backend import Array, to_xp
from .chunks import Scratch
from .errors import TracedValueError
from .fused_kernels import run_calls
from .fusion import Run
from .joins import parts_in_place
from .partition import PROLOGUE, Plan
from .primitive import Call
from .program import Step
from .recompute import recomputing
from .tiled import Piece, Tiled, TileLoop, sum_of_parts, tiled_schedule
from .trace import evaluate

Runner = Callable[[Any], None]
Targets = Sequence[tuple[int, Array]]  # (slot of a result, the array it is wanted in)
Pairs = Sequence[tuple[Array, Array]]  # (the array it is wanted in, the result)


class Arena:
    """Scratch buffers that are handed out and taken back while a group is bound;
    the same ones for every group.
    """

    def __init__(self, xp: Any = np) -> None:
        self._xp = xp
        self._all: dict[int, list[Array]] = {}
        self._free: dict[int, list[Array]] = {}
        self.nbytes = 0

    def begin(self) -> None:
        """Everything is free again: groups never run at the same time."""
        self._free = {size: list(chunks) for size, chunks in self._all.items()}

    def take(self, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
        """(array, chunk to give back)."""
        size = max(64, -(-int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize // 64) * 64)
        free = self._free.setdefault(size, [])
        if free:
            chunk = free.pop()
        else:
            chunk = self._xp.empty(size, np.uint8)
            self._all.setdefault(size, []).append(chunk)
            self.nbytes += size
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return chunk[:count].view(dtype).reshape(shape), chunk

    def give(self, chunk: Array) -> None:
        self._free[chunk.nbytes].append(chunk)


class Workspace:
    """Buffers of one solve: constants of the prologue, scratch memory,
    and the numbers that the function captured.
    """

    def __init__(self, plan: Plan, xp: Any = np) -> None:
        self.plan = plan
        self.xp = xp
        self.arena = Arena(xp)
        self.scratch = Scratch(xp)
        self.lanes: list[_Lane] = []
        self.schedules = self._schedules()
        self._scalars: dict[tuple[int, Any], np.ndarray] = {}
        self._numbers: dict[int, Any] = {}
        self.constants: dict[int, Array] = {}
        for slot, home in plan.home.items():
            if home == PROLOGUE and plan.root[slot] == slot:
                meta = plan.program.metas[slot]
                self.constants[slot] = xp.empty(meta.shape, meta.dtype)
        for slot, value in plan.program.baked:
            if slot in plan.weak:
                self._numbers[slot] = value
            else:
                self.constants[slot][...] = to_xp(xp, value)
        self._prologue = self.binder(self.constants, {}).bind(PROLOGUE)

    def _schedules(self) -> dict[str, list[Piece]]:
        """The steps of each group, in the order and the company in which they run."""
        plan = self.plan = recomputing(self.plan)
        return {
            name: list(plan.steps[name]) if name == PROLOGUE else tiled_schedule(plan, name)
            for name in plan.order
        }

    def binder(
        self,
        arrays: dict[int, Array],
        accumulate: Mapping[str, Targets],
        weight: Array | None = None,
    ) -> Binder:
        """What binds groups to these arrays."""
        return Binder(self, arrays, accumulate, weight)

    def load(self, values: Mapping[int, Any]) -> None:
        """Copy the constants of a solve in (parameters, captured arrays and numbers) and run the prologue."""
        plan = self.plan
        for slot, value in values.items():
            if slot in plan.weak:
                self._numbers[slot] = value
            elif slot in self.constants:
                self.xp.copyto(self.constants[slot], to_xp(self.xp, value))
        for op, inputs, output, static in plan.constant_numbers:
            number = evaluate(op, tuple(self._numbers[slot] for slot in inputs), static)
            self._numbers[output] = number
            if type(number) is float and plan.program.metas[output].number is int:
                raise TracedValueError(
                    f"`{op.name}` of whole numbers was a whole number where the function was recorded, and is {number!r} now: "
                    "arrays would have another dtype. Give a float to begin with (2.0**n)"
                )
        for (slot, _), buffer in self._scalars.items():
            buffer[()] = self._numbers[slot]
        self._run_prologue()

    def _run_prologue(self) -> None:
        self._prologue(None)

    def constant_scalar(self, slot: int, dtype: np.dtype) -> np.ndarray:
        """A 0-d array that holds a number which stays the same during a solve."""
        if (slot, dtype) not in self._scalars:
            self._scalars[slot, dtype] = np.array(self._numbers.get(slot, 0), dtype)
        return self._scalars[slot, dtype]

    @property
    def nbytes(self) -> int:
        own = [self.arena, self.scratch, *self.constants.values()]
        return sum(buffers.nbytes for buffers in own) + sum(lane.nbytes for lane in self.lanes)

    def lane(self, index: int) -> _Lane:
        """The buffers of a lane of tiles; all tiled segments share them."""
        while len(self.lanes) <= index:
            self.lanes.append(_Lane(Arena(), Scratch()))
        return self.lanes[index]


@dataclass(frozen=True)
class _Lane:
    """Scratch memory of the tiles that are worked on one after the other."""

    arena: Arena
    scratch: Scratch

    @property
    def nbytes(self) -> int:
        return self.arena.nbytes + self.scratch.nbytes


@dataclass(frozen=True)
class _TileWorkspace:
    """What a `Workspace` is to a group, for one tile."""

    plan: Plan
    xp: Any
    schedules: Mapping[str, Sequence[Piece]]
    arena: Arena
    scratch: Scratch
    constant_scalar: Callable[[int, np.dtype], np.ndarray]


class StageSet:
    """One evaluation's buffers, with a runner for each group: `run[name](t)`.

    Args:
        inputs: the arrays that array inputs are read from, by slot;
            the owner writes them before a group runs.
        targets: where the results of each group go: written without a copy where the program allows it.
        accumulate: results that are added to their target instead,
            times the number `weight[()]` if there is one.
    """

    def __init__(
        self,
        workspace: Workspace,
        inputs: Mapping[int, Array],
        targets: Mapping[str, Targets],
        accumulate: Mapping[str, Targets] | None = None,
        weight: Array | None = None,
    ) -> None:
        plan = workspace.plan
        assert all(array.flags.c_contiguous for array in inputs.values()), (
            "views are planned for whole arrays"
        )
        arrays = {**workspace.constants, **inputs}
        self.nbytes = 0
        for slot in plan.residuals:
            if slot not in arrays:
                meta = plan.program.metas[slot]
                arrays[slot] = workspace.xp.empty(meta.shape, meta.dtype)
                self.nbytes += arrays[slot].nbytes
        binder = workspace.binder(arrays, accumulate or {}, weight)
        self.run: dict[str, Runner] = {
            name: binder.bind(name, targets.get(name, ())) for name in plan.order if name != PROLOGUE
        }


class Binder:
    """Turns the groups of a plan into functions over given arrays."""

    def __init__(
        self,
        workspace: Workspace | _TileWorkspace,
        arrays: dict[int, Array],
        accumulate: Mapping[str, Targets],
        weight: Array | None = None,
    ) -> None:
        self.workspace = workspace
        self.plan, self.xp = workspace.plan, workspace.xp
        self.arrays = arrays
        self.accumulate = accumulate
        self.weight = weight
        self.added: dict[int, Array] = {}

    def bind(self, group: str, targets: Targets = ()) -> Runner:
        """A function of t that runs one group."""
        plan = self.plan
        code = Code()
        arena = self.workspace.arena
        arena.begin()
        scalars = self._scalars(code)
        last_use = self._last_uses(group)
        direct = self._direct_targets(group, targets)
        self.added = self._added_by_tiles(group, targets)
        chunks: dict[int, Array] = {}
        for position, segment in enumerate(self.workspace.schedules[group]):
            for step in _steps_of(segment):
                root = plan.root[step.output]
                if _is_local(segment, root) or root in self.added:
                    continue
                if root != step.output:
                    self.arrays[step.output] = self._view(step)
                elif step.output in direct:
                    self.arrays[step.output] = direct[step.output]
                elif group != PROLOGUE and root not in plan.residuals:
                    meta = plan.program.metas[step.output]
                    self.arrays[step.output], chunks[root] = arena.take(meta.shape, meta.dtype)
            self._emit_piece(code, group, segment, scalars)
            for finished in last_use.get(position, ()):
                if finished in chunks:
                    arena.give(chunks.pop(finished))
        self._emit_results(code, group, targets, direct, scalars)
        return code.compile()

    def _scalars(self, code: Code) -> WeakScalars:
        """Where the numbers of a group are found."""
        return WeakScalars(self.workspace, code)

    def _view(self, step: Step) -> Array:
        """The result of a step that only looks at its input's memory."""
        return step.op.forward(self.xp, self.arrays[step.inputs[0]], **step.static)

    def _last_uses(self, group: str) -> dict[int, list[int]]:
        """Roots whose memory is free after a position; results of the group stay to its end."""
        plan = self.plan
        last: dict[int, int] = {}
        for position, segment in enumerate(self.workspace.schedules[group]):
            for step in _steps_of(segment):
                for slot in (*step.inputs, step.output):
                    if slot not in plan.weak:
                        last[plan.root[slot]] = position
        for slot in plan.outputs[group]:
            last.pop(plan.root[slot], None)
        by_position: dict[int, list[int]] = {}
        for root, position in last.items():
            by_position.setdefault(position, []).append(root)
        return by_position

    def _direct_targets(self, group: str, targets: Targets) -> dict[int, Array]:
        """Results that their step can write where they are wanted: made in this group, no residual,
        and named once.

        So can parts of those that are joins.
        """
        plan = self.plan
        made_here = {step.output for step in plan.steps[group]}
        results = [plan.root[slot] for slot in plan.outputs[group] if slot not in plan.weak]
        direct = {
            slot: target
            for slot, target in targets
            if slot in made_here
            and plan.root[slot] == slot
            and slot not in plan.residuals
            and results.count(slot) == 1
            and target.flags.c_contiguous
        }
        return direct | parts_in_place(plan, group, direct) if self.xp is np else direct

    def _added_by_tiles(self, group: str, targets: Targets) -> dict[int, Array]:
        """Results that are accumulated and nothing else, made row by row: each tile adds its own ones,
        still in cache.
        """
        plan, pieces = self.plan, self.workspace.schedules[group]
        tiled = [piece for piece in pieces if isinstance(piece, Tiled)]
        made = {slot for piece in tiled for slot in piece.segment.results if slot not in piece.segment.sums}
        used = [
            plan.root[slot] for step in plan.steps[group] for slot in step.inputs if slot not in plan.weak
        ]
        used += [plan.root[slot] for slot, _ in targets if slot not in plan.weak]
        given = self.accumulate.get(group, ())
        used += [plan.root[slot] for slot, _ in given if slot not in plan.weak and plan.root[slot] != slot]
        once = {slot for slot, _ in given if [other for other, _ in given].count(slot) == 1}
        wanted = once.intersection(made).difference(used, plan.residuals)
        return {slot: target for slot, target in given if slot in wanted}

    def _emit_piece(self, code: Code, group: str, segment: Piece, scalars: WeakScalars) -> None:
        plan = self.plan
        if isinstance(segment, Tiled):
            self._emit_tiles(code, group, segment)
        elif isinstance(segment, Run):

            def scalar(slot: int, step: Step) -> np.ndarray:
                return scalars.array(slot, self._scalar_dtype(step))

            scratch = self.workspace.scratch
            code.calls(run_calls(segment, self.arrays, plan.program, scratch, scalar, _compiled))
        elif plan.root[segment.output] == segment.output:
            self._emit(code, segment, scalars)

    def _emit_tiles(self, code: Code, group: str, tiled: Tiled) -> None:
        """The loop over the tiles, each bound to its part of the arrays, and the ends of the sums."""
        assert isinstance(self.workspace, Workspace)
        sums = [step for step in tiled.steps if step.output in tiled.segment.sums]
        parts: dict[int, Array] = {}
        for k, step in enumerate(sums):
            out = self.arrays[step.output]
            shape = (len(tiled.bounds), *out.shape)
            parts[step.output] = self.workspace.scratch.take(("tile sum", k), shape, out.dtype)
        lanes: list[list[Runner]] = [[] for _ in range(tiled.n_lanes)]
        for k in range(len(tiled.bounds)):
            place = k * tiled.n_lanes // len(tiled.bounds)
            lanes[place].append(self._tile(group, tiled, k, self.workspace.lane(place), parts))
        code.timed_call(TileLoop(lanes))
        code.calls(sum_of_parts(tiled, s, parts[s.output], self.arrays[s.output]) for s in sums)

    def _tile(self, group: str, tiled: Tiled, k: int, lane: _Lane, parts: Mapping[int, np.ndarray]) -> Runner:
        """A function of t that takes tile k through its segment."""
        assert isinstance(self.workspace, Workspace)
        bounds = tiled.bounds[k]
        plan, pieces = tiled.parts[bounds[1] - bounds[0]]
        arrays = {
            slot: tiled.rows_of(self.arrays[slot], slot, bounds)
            for step in tiled.steps
            for slot in (*step.inputs, step.output)
            if slot in self.arrays and slot not in parts
        }
        whole = [slot for slot in tiled.segment.results if slot not in self.added]
        results = [(s, parts[s][k, ...] if s in parts else arrays[s]) for s in whole]
        added = {s: a for s, a in self.added.items() if s in tiled.segment.results}
        accumulate = {group: [(s, tiled.rows_of(a, s, bounds)) for s, a in added.items()]}
        constant_scalar = self.workspace.constant_scalar
        workspace = _TileWorkspace(plan, self.xp, {group: pieces}, lane.arena, lane.scratch, constant_scalar)
        return Binder(workspace, arrays, accumulate, self.weight).bind(group, results)

    def _scalar_dtype(self, step: Step) -> np.dtype:
        """What a number becomes beside the arrays of a step."""
        metas = [self.plan.program.metas[slot] for slot in step.inputs]
        return np.result_type(*(meta.number(1) if meta.dtype is None else meta.dtype for meta in metas))

    def _emit(self, code: Code, step: Step, scalars: WeakScalars) -> None:
        plan, scalar_dtype = self.plan, self._scalar_dtype(step)
        arguments = [
            scalars.array(slot, scalar_dtype) if slot in plan.weak else self.arrays[slot]
            for slot in step.inputs
        ]
        out = self.arrays[step.output]
        calls = step.op.into(out, *arguments, **step.static) if step.op.into else None
        code.calls(calls if calls is not None else [(_assign, (out, step, tuple(arguments)), {})])

    def _emit_results(
        self,
        code: Code,
        group: str,
        targets: Targets,
        direct: Mapping[int, np.ndarray],
        scalars: WeakScalars,
    ) -> None:
        """Copies of results that could not be written in place, and accumulated ones."""
        weak = self.plan.weak

        def array_of(slot: int) -> Array:
            if slot in weak:
                return scalars.array(slot, np.dtype(self.plan.program.metas[slot].number))
            return self.arrays[slot]

        for slot, target in targets:
            if slot in weak:  # a GPU has all numbers as float64
                code.calls([(self.xp.copyto, (target, array_of(slot)), {"casting": "unsafe"})])
        copies = [(target, array_of(s)) for s, target in targets if s not in direct and s not in weak]
        given = self.accumulate.get(group, ())
        sums = [(target, array_of(slot)) for slot, target in given if slot not in self.added]
        code.calls(self._deliveries(copies, sums))

    def _deliveries(self, copies: Pairs, sums: Pairs) -> list[Call]:
        """Calls that copy values into their targets, and add others, times the weight, to theirs."""
        xp = self.xp
        calls: list[Call] = [(xp.copyto, pair, {}) for pair in copies]
        for target, value in sums:
            if self.weight is not None:
                scaled, _ = self.workspace.arena.take(target.shape, target.dtype)
                calls.append((xp.multiply, (value, self.weight), {"out": scaled}))
                value = scaled
            calls.append((xp.add, (target, value), {"out": target}))
        return calls


def _steps_of(piece: Piece) -> tuple[Step, ...]:
    return (piece,) if isinstance(piece, Step) else piece.steps


def _is_local(piece: Piece, root: int) -> bool:
    """Whether a result exists only chunk by chunk, or tile by tile."""
    return not isinstance(piece, Step) and root in piece.local


def _assign(out: np.ndarray, step: Step, arguments: tuple[np.ndarray, ...]) -> None:
    """The generic kernel: compute and copy. It allocates, so hot operations register `writes_into`."""
    out[...] = step.op.forward(np, *arguments, **step.static)


class WeakScalars:
    """Numbers inside a group: computed in Python from t, and handed to array steps as 0-d buffers."""

    def __init__(self, workspace: Workspace | _TileWorkspace, code: Code) -> None:
        self._workspace = workspace
        self._code = code
        self._steps = {step.output: step for step in workspace.plan.timed_numbers}
        self._named: dict[int, str] = {}
        self._buffers: dict[tuple[int, Any], np.ndarray] = {}

    def array(self, slot: int, dtype: np.dtype) -> Array:
        """A 0-d array that holds the number `slot` when the steps of the group run."""
        if slot in self._workspace.plan.constant_slots:
            return self._workspace.constant_scalar(slot, dtype)
        if (slot, dtype) not in self._buffers:
            buffer = np.zeros((), dtype)
            self._buffers[slot, dtype] = buffer
            self._code.scalar_line(f"{self._code.name(buffer)}[()] = {self.name_of(slot)}")
        return self._buffers[slot, dtype]

    def name_of(self, slot: int) -> str:
        """The variable that holds the number; its line is written at the first use."""
        if slot in self._workspace.plan.constant_slots:
            number = self._workspace.plan.program.metas[slot].number
            return f"{self._code.name(self._workspace.constant_scalar(slot, np.dtype(number)))}.item()"
        if slot not in self._steps:
            return "t"
        if slot not in self._named:
            op, inputs, _, static = self._steps[slot]
            function = self._code.name(functools.partial(_evaluate_numbers, op, static))
            self._code.scalar_line(
                f"x{slot} = {function}({', '.join(self.name_of(read) for read in inputs)})"
            )
            self._named[slot] = f"x{slot}"
        return self._named[slot]


def _evaluate_numbers(op: Any, static: dict[str, Any], *numbers: Any) -> Any:
    return evaluate(op, numbers, static)


class Code:
    """Source text of one group: lines that compute numbers, then calls;
    every object is a variable of the closure.
    """

    def __init__(self) -> None:
        self._bound: dict[int, tuple[str, Any]] = {}
        self._scalar_lines: list[str] = []
        self._call_lines: list[str] = []

    def name(self, value: Any) -> str:
        if id(value) not in self._bound:
            self._bound[id(value)] = (f"v{len(self._bound)}", value)
        return self._bound[id(value)][0]

    def scalar_line(self, line: str) -> None:
        self._scalar_lines.append(line)

    def call_line(self, line: str) -> None:
        self._call_lines.append(line)

    def calls(self, calls: Iterable[Call]) -> None:
        for function, args, kwargs in calls:
            words = [self.name(a) for a in args] + [
                f"{key}={self.name(value)}" for key, value in kwargs.items()
            ]
            self._call_lines.append(f"{self.name(function)}({', '.join(words)})")

    def timed_call(self, function: Runner) -> None:
        """A call of a function of t."""
        self._call_lines.append(f"{self.name(function)}(t)")

    def compile(self) -> Runner:
        names = [name for name, _ in self._bound.values()]
        body = [*self._scalar_lines, *self._call_lines] or ["pass"]
        source = "\n".join(
            [f"def make({', '.join(names)}):", "  def run(t):", *(f"    {b}" for b in body)]
            + ["  return run"]
        )
        scope: dict[str, Any] = {}
        exec(_compiled(source), scope)  # noqa: S102 - the text is made above, of names and operators only
        return scope["make"](*(value for _, value in self._bound.values()))


_sources: OrderedDict[str, CodeType] = OrderedDict()


def _compiled(source: str) -> CodeType:
    """Compiled once a text: sets that differ in their arrays only share the code."""
    code = _sources.pop(source, None)  # a thread that comes meanwhile compiles the text too
    if code is None:
        code = compile(source, "<odegrad replay>", "exec")
    _sources[source] = code  # at the end: the least recently used text goes first
    while len(_sources) > 256:
        _sources.popitem(last=False)
    return code
