"""Programs: a function traced once into a flat instruction list, which can be printed,
differentiated and replayed.

A program is structure only. The arrays and numbers that the function captured are *hidden inputs*: they are
given anew with every run, so a program never holds on to data and is shared by every call of the same
structure.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from . import ops
from .errors import NotReachedError
from .forking import free_in_child
from .primitive import PRIMITIVES
from .trace import Operation, Static, Trace, Var, apply, base_value, describe, evaluate, new_trace
from .transforms import vjp
from .tree import Tree, leaves, leaves_with_paths, path_name, unflatten

DUMMY = 0.7390851332151607  # stands for numbers while a derivative program is traced: nothing special happens there
MAX_RECORDED = 64  # programs that `record` remembers


class Meta(NamedTuple):
    """Shape and dtype of a slot; dtype None is a weak scalar, a Python number of type `number`."""

    shape: tuple[int, ...]
    dtype: np.dtype | None
    number: type = float

    def __str__(self) -> str:
        return "number" if self.dtype is None else describe(np.empty(self.shape, self.dtype))


class Step(NamedTuple):
    """slots[output] = op(*slots[inputs], **static)."""

    op: Operation
    inputs: tuple[int, ...]
    output: int
    static: Static

    @property
    def key(self) -> tuple[Any, ...]:
        return self.op.name, self.inputs, tuple(self.static.items())


class Key:
    """What programs of equal structure have in common, hashed once:
    each solve looks its program up several times.
    """

    __slots__ = ("parts", "_hash")

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts, self._hash = parts, hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or isinstance(other, Key) and self.parts == other.parts


@dataclass(frozen=True, eq=False)
class Program:
    """A flat list of steps over numbered slots.

    Attributes:
        metas: shape and dtype of every slot.
        inputs, names: slots of the arguments, in order, and what to call them.
        hidden: slots of what the function captured, in order of appearance.
        baked: numbers that belong to the program itself (they come from rules, not from the user).
        steps, outputs: the instructions, and the slots of the results.
    """

    metas: tuple[Meta, ...]
    inputs: tuple[int, ...]
    names: tuple[str, ...]
    hidden: tuple[int, ...]
    baked: tuple[tuple[int, Any], ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    @cached_property
    def key(self) -> Key:
        """Equal for programs of equal structure."""
        given = tuple(self.metas[slot] for slot in (*self.inputs, *self.hidden))
        steps = tuple(step.key for step in self.steps)
        return Key((given, self.inputs, self.hidden, self.baked, steps, self.outputs))

    @cached_property
    def operations(self) -> frozenset[str]:
        """Names of the operations that it consists of."""
        return frozenset(step.op.name for step in self.steps)

    @cached_property
    def _known_reaching(self) -> dict[tuple[int, int], frozenset[int]]:
        return {}

    def reaching(self, n_results: int, n_skipped: int) -> frozenset[int]:
        """Which of the inputs (the first `n_skipped` left out)
        and then hidden ones the first `n_results` depend on.
        """
        known = self._known_reaching.get((n_results, n_skipped))
        if known is None:
            needed = set(self.outputs[:n_results])
            for op, inputs, output, _ in reversed(self.steps):
                if output in needed and not op.is_flat:
                    needed.update(inputs)
            slots = (*self.inputs[n_skipped:], *self.hidden)
            known = frozenset(position for position, slot in enumerate(slots) if slot in needed)
            self._known_reaching[n_results, n_skipped] = known
        return known

    def run(self, arguments: Sequence[Any], hidden: Sequence[Any] = ()) -> list[Any]:
        """Interpret the program on arrays, numbers or traced values; returns the outputs."""
        slots: dict[int, Any] = dict(self.baked)
        slots.update(zip(self.inputs, arguments, strict=True))
        slots.update(zip(self.hidden, hidden, strict=True))
        # a trace costs as much as a small operation: only values of one are offered to it
        call = apply if any(type(value) is Var for value in slots.values()) else evaluate
        for op, inputs, output, static in self.steps:
            slots[output] = call(op, tuple([slots[slot] for slot in inputs]), static)
        return [slots[slot] for slot in self.outputs]

    def vjp(self, wanted: Sequence[int], n_results: int | None = None) -> Program:
        """The joint program of this one and its pull-back.

        Its inputs are those of this program followed by one cotangent for each of the first `n_results`
        outputs (default: all); its outputs are those of this program followed by the cotangents of the slots
        `wanted` (inputs or hidden ones). A slot that no result depends on gets zeros. Dead code is removed
        and common subexpressions are shared.
        """
        n, m = len(self.inputs), len(self.hidden)
        results = self.outputs[:n_results]
        positions = [(*self.inputs, *self.hidden).index(slot) for slot in wanted]

        def joint(*values: Any) -> list[Any]:
            given, seeds = values[: n + m], values[n + m :]

            def split(*chosen: Any) -> tuple[list[Any], list[Any]]:
                full = list(given)
                for position, value in zip(positions, chosen, strict=True):
                    full[position] = value
                found = self.run(full[:n], full[n:])
                return found[: len(results)], found[len(results) :]

            chosen = [given[p] for p in positions]
            outputs, pull_back, aux = vjp(split, *chosen, has_aux=True)
            try:
                bars = pull_back(list(seeds))
            except NotReachedError:
                bars = tuple(ops.zeros_like(value) for value in chosen)
            return [*outputs, *aux, *bars]

        slots = (*self.inputs, *self.hidden, *results)
        names = (
            *self.names,
            *(f"hidden {k}" for k in range(m)),
            *(f"cotangent {k}" for k in range(len(results))),
        )
        with np.errstate(all="ignore"):  # the dummy values mean nothing, only their shapes do
            recording = record(joint, [_dummy(self.metas[slot]) for slot in slots], names)
        found = recording.program
        return optimise(
            Program(
                metas=found.metas,
                inputs=found.inputs[:n] + found.inputs[n + m :],
                names=self.names + names[n + m :],
                hidden=found.inputs[n : n + m],
                baked=tuple(zip(found.hidden, recording.hidden, strict=True)),
                steps=found.steps,
                outputs=found.outputs,
            )
        )

    def __str__(self) -> str:
        given = "   ".join(f"{s}:{n} {self.metas[s]}" for s, n in zip(self.inputs, self.names, strict=True))
        lines = [f"in  {given}"]
        if self.hidden:
            lines.append("hidden  " + "   ".join(f"{slot}: {self.metas[slot]}" for slot in self.hidden))
        if self.baked:
            lines.append("const   " + "   ".join(f"{slot}: {value!r}" for slot, value in self.baked))
        width = max((len(step.op.name) for step in self.steps), default=0)
        for step in self.steps:
            read = " ".join(map(str, step.inputs))
            static = "".join(f"  {name}={_shown(value)}" for name, value in step.static.items())
            lines.append(
                f"{step.output:5d} = {step.op.name:{width}} {read:12} {self.metas[step.output]}{static}"
            )
        lines.append("out " + " ".join(map(str, self.outputs)))
        return "\n".join(lines)


class Recording(NamedTuple):
    """What one traced call of a function gave."""

    program: Program
    hidden: list[Any]  # the captured arrays, numbers and outer Vars, in the order of program.hidden
    values: list[Any]  # the results of this very call, on plain arrays
    result: Tree  # their structure


def record(
    f: Callable[..., Tree],
    arguments: Sequence[Any],
    names: Sequence[str] | Callable[[], Sequence[str]],
    *,
    keeps_values: bool = False,
) -> Recording:
    """Call f(*arguments) once, on plain arrays and numbers, and write down what it does.

    A program that was recorded before keeps the names it had; they may be given as a function that is only
    called for a new one. With `keeps_values` what f captured is copied where it is used: f may write to it
    in between, as it fills a buffer of its own again.
    """
    with new_trace(is_program=True, keeps_values=keeps_values) as trace:
        inputs = [trace.input(base_value(argument)) for argument in arguments]
        result = f(*inputs)
    slots = tuple(trace.slot_of(output) for output in leaves(result))
    program = _program_of(trace, tuple([v.slot for v in inputs]), names, slots)
    return Recording(program, list(trace.constants.values()), [trace.values[slot] for slot in slots], result)


_recorded: OrderedDict[Key, Program] = OrderedDict()
_lock = free_in_child(threading.Lock())


def _program_of(
    trace: Trace,
    inputs: tuple[int, ...],
    names: Sequence[str] | Callable[[], Sequence[str]],
    outputs: tuple[int, ...],
) -> Program:
    """The program of a finished trace: the one made before, with all that is known about it,
    where there is an equal one.

    The call of an operation that is none of the library's (a solve inside of f) is not remembered:
    it holds data.
    """
    hidden, values = tuple(trace.constants), trace.values
    given = tuple([_kind(values[slot]) for slot in (*inputs, *hidden)])
    taken = tuple(
        [
            (op.name, reads, output, tuple(static.items()))
            for op, reads, output, static, _ in trace.instructions
        ]
    )
    key = Key((given, inputs, hidden, taken, outputs))
    with _lock:
        program = _recorded.get(key)
        if program is not None:
            _recorded.move_to_end(key)
            return program
    program = Program(
        metas=tuple(_meta(value) for value in trace.values),
        inputs=inputs,
        names=tuple(names() if callable(names) else names),
        hidden=hidden,
        baked=(),
        steps=tuple(Step(op, reads, output, static) for op, reads, output, static, _ in trace.instructions),
        outputs=outputs,
    )
    if all(step.op.is_shared for step in program.steps):
        with _lock:
            _recorded[key] = program
            while len(_recorded) > MAX_RECORDED:
                _recorded.popitem(last=False)
    return program


def trace(f: Callable[..., Tree], *arguments: Tree) -> Program:
    """The program of f at arguments of these shapes and dtypes; print it to read it.

    Args:
        f: function of trees of arrays and Python numbers.
        arguments: example values; a Python number stays a weak scalar, like the time of an ODE.
    Raises: TracedValueError for what a trace cannot see: a branch on a value, float() of one,
        writes in place.
    """
    names = [path_name(path) for path, _ in leaves_with_paths(arguments)]

    def flat(*values: Any) -> Tree:
        return f(*unflatten(arguments, values))

    program = record(flat, leaves(arguments), names).program
    return program if program.names == tuple(names) else _replace(program, names=tuple(names))


def optimise(program: Program) -> Program:
    """The same results from fewer steps: powers as products, equal steps once, unused steps dropped."""
    return _without_dead_steps(_broadcasting_late(_sharing_equal_steps(_lowering_powers(program))))


def _lowering_powers(program: Program) -> Program:
    """x**3 as square(x) * x, x**4 as square(square(x)): what the derivative needs is then already there."""
    metas, steps = list(program.metas), []
    square, mul = PRIMITIVES["square"], PRIMITIVES["mul"]
    for step in program.steps:
        exponent = step.static.get("exponent")
        if step.op.name == "power" and exponent in (3, 4):
            metas.append(metas[step.output])
            squared = len(metas) - 1
            steps.append(Step(square, step.inputs, squared, {}))
            rest = (mul, (squared, step.inputs[0])) if exponent == 3 else (square, (squared,))
            steps.append(Step(rest[0], rest[1], step.output, {}))
        else:
            steps.append(step)
    return _replace(program, metas=tuple(metas), steps=tuple(steps))


def _sharing_equal_steps(program: Program) -> Program:
    """Of steps with the same operation, inputs and settings only the first stays;
    so with equal baked numbers.
    """
    same: dict[int, int] = {}
    first_baked: dict[Any, int] = {}
    for slot, value in program.baked:
        if not hasattr(value, "dtype"):
            same[slot] = first_baked.setdefault((type(value), value), slot)
    known: dict[Any, int] = {}
    steps = []
    for op, inputs, output, static in program.steps:
        step = Step(op, tuple(same.get(slot, slot) for slot in inputs), output, static)
        same[output] = known.setdefault(step.key, output)
        if same[output] == output:
            steps.append(step)
    baked = tuple((slot, value) for slot, value in program.baked if same.get(slot, slot) == slot)
    outputs = tuple(same.get(slot, slot) for slot in program.outputs)
    return _replace(program, steps=tuple(steps), outputs=outputs, baked=baked)


def _broadcasting_late(program: Program) -> Program:
    """An elementwise step reads the small source of a broadcast operand where the other operand has the full
    shape.
    """
    metas = program.metas
    source = {step.output: step.inputs[0] for step in program.steps if step.op.name == "broadcast_to"}
    steps = []
    for step in program.steps:
        shape = metas[step.output].shape
        if len(step.inputs) == 2 and step.op.chunk_calls and any(slot in source for slot in step.inputs):
            for k, slot in enumerate(step.inputs):
                if slot in source and metas[step.inputs[1 - k]].shape == shape:
                    inputs = [source[slot], step.inputs[1]] if k == 0 else [step.inputs[0], source[slot]]
                    step = step._replace(inputs=tuple(inputs))
        steps.append(step)
    return _replace(program, steps=tuple(steps))


def _without_dead_steps(program: Program) -> Program:
    """Only steps that an output depends on."""
    steps = steps_for(program.steps, program.outputs)
    read = {slot for step in steps for slot in step.inputs}.union(program.outputs)
    return _replace(program, steps=tuple(steps), baked=tuple(b for b in program.baked if b[0] in read))


def steps_for(steps: Iterable[Step], outputs: Iterable[int]) -> list[Step]:
    """The steps that the slots `outputs` depend on, in order."""
    needed, kept = set(outputs), []
    for step in reversed(list(steps)):
        if step.output in needed:
            needed.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def _replace(program: Program, **changes: Any) -> Program:
    fields = {name: getattr(program, name) for name in program.__dataclass_fields__}
    return Program(**{**fields, **changes})


def _shown(value: Any) -> str:
    """A setting as it is printed: what fills more than a line (the structure of a solve)
    says nothing there.
    """
    text = str(value)
    return text if len(text) <= 60 else "..."


def _kind(value: Any) -> Any:
    """What `_meta` says of a value, as a key."""
    return (value.shape, value.dtype) if hasattr(value, "dtype") else type(value)


def _meta(value: Any) -> Meta:
    dtype = getattr(value, "dtype", None)
    return Meta((), None, type(value)) if dtype is None else Meta(value.shape, dtype)


def _dummy(meta: Meta) -> Any:
    """Integers are indices or labels: 0 is always a valid one."""
    if meta.dtype is None:
        return DUMMY if meta.number is float else meta.number(1)
    return np.full(meta.shape, np.dtype(meta.dtype).kind in "fc", meta.dtype)
