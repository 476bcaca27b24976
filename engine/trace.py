"""Recording: a `Trace` lists the instructions that `Var`s go through, and `pull` walks the list backwards.

There is one mechanism. On arrays the list is a tape; when the values are themselves `Var`s of an outer trace,
the rules record there, so that walking back emits a program or, once more, a tape:
derivatives of any order are nested traces.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from .backend import is_array, is_device_array, namespace_of, to_host, to_xp
from .errors import ArgumentTypeError, NoRuleError, TracedValueError
from .tree import leaves

Static = dict[str, Any]
# exact types: numpy.float64 is a float, but not a weak scalar
NUMBERS = frozenset((bool, int, float, complex))


class Operation(Protocol):
    """What a trace needs to know of a primitive."""

    name: str
    is_flat: bool
    may_view: bool
    rule: Any
    forward: Any
    into: Any
    chunk_calls: tuple[tuple[Any, tuple[str, ...], str], ...]
    cuda: Any
    is_mixed: bool
    is_shared: bool

    def fits_cuda(self, args: tuple[Any, ...], static: Static) -> bool: ...

    def __call__(self, *args: Any, **static: Any) -> Any: ...

    def forget(self) -> None: ...

    def keep(self, args: tuple[Any, ...], output: Any) -> tuple[Any, ...]: ...

    def pull_back(
        self, ybar: Any, saved: tuple[Any, ...], static: Static, needs: tuple[bool, ...]
    ) -> Iterable[Any]: ...


class Instruction(NamedTuple):
    """slots[output] = op(*slots[inputs], **static); `saved` is what the VJP rule asked to keep."""

    op: Operation
    inputs: tuple[int, ...]
    output: int
    static: Static
    saved: tuple[Any, ...]


class Var:
    """A value inside a trace. `value` is an array, a Python number (a weak scalar)
    or a Var of an outer trace.

    Operators and NumPy's protocols are attached in `protocols.py`, where the operations are known.
    """

    __slots__ = ("trace", "slot", "value", "__weakref__")

    def __init__(self, trace: Trace, slot: int, value: Any) -> None:
        self.trace = trace
        self.slot = slot
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self.value)

    @property
    def dtype(self) -> np.dtype:
        return dtype_of(self.value)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d traced value")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Var({describe(self.value)}, level {self.trace.level})"

    def _refuse(self, what: str, instead: str) -> TracedValueError:
        return TracedValueError(
            f"{what} of a traced value ({describe(self.value)}) at {user_line()}: the trace would freeze its value "
            f"of this moment; {instead}"
        )

    def __bool__(self) -> bool:
        raise self._refuse("a branch (bool)", "use odegrad.where(condition, a, b), or end the interval there")

    def __float__(self) -> float:
        raise self._refuse("float()", "keep it an array expression")

    def __complex__(self) -> complex:
        raise self._refuse("complex()", "keep it an array expression")

    def __int__(self) -> int:
        raise self._refuse("int()", "keep it an array expression")

    def __index__(self) -> int:
        raise self._refuse("an index", "use odegrad.take or where")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self._refuse(
            "a conversion to numpy.ndarray", "join values with np.stack, and call NumPy functions on them"
        )

    def item(self) -> float:
        raise self._refuse("item()", "keep it an array expression")

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TracedValueError(
            f"in-place assignment to a traced value at {user_line()}; build the result with concatenate, stack, "
            "where or pad instead"
        )


class Trace:
    """A growing list of instructions over numbered slots.

    `is_program` traces keep every slot's value (their shapes are needed to compile) and compute on plain
    arrays: a Var of an outer trace that the function captured becomes a constant slot whose stored value is
    that Var.
    `keeps_values`: constants are copies, and an array that was written to since is another constant.
    """

    def __init__(self, level: int, *, is_program: bool = False, keeps_values: bool = False) -> None:
        self.level = level
        self.is_program = is_program
        self.keeps_values = keeps_values
        self.instructions: list[Instruction] = []
        self.values: list[Any] = []
        self.constants: dict[int, Any] = {}
        self._slot_of_constant: dict[int, int] = {}
        self._captured: list[Any] = []  # of which constants are copies: these keep the ids unique
        self._n_slots = 0

    def new_slot(self, value: Any) -> int:
        slot = self._n_slots
        self._n_slots = slot + 1
        if self.is_program:
            self.values.append(value)
        return slot

    def input(self, value: Any) -> Var:
        """A Var for an independent value."""
        return Var(self, self.new_slot(value), value)

    def slot_of(self, argument: Any) -> int:
        """The slot of an operand; what is not a Var of this trace becomes a constant, one slot an object."""
        if type(argument) is Var and argument.trace is self:
            return argument.slot
        if not self.is_program:
            return -1
        is_number = type(argument) in NUMBERS
        slot = None if is_number else self._slot_of_constant.get(id(argument))
        if slot is not None and self.keeps_values and not _is_same(self.constants[slot], argument):
            slot = None
        if slot is None:
            slot = self.new_slot(base_value(argument))
            self.constants[slot] = argument  # the reference keeps the id unique while the trace lives
            if not is_number:
                self._slot_of_constant[id(argument)] = slot
            if self.keeps_values and is_array(argument):
                self.constants[slot] = argument.copy()
                self._captured.append(argument)
        return slot

    def record(
        self, op: Operation, inputs: tuple[int, ...], static: Static, raw: tuple[Any, ...], value: Any
    ) -> Var:
        """The result of an instruction; `raw` are its operands one level further out."""
        output = self.new_slot(value)
        saved = () if self.is_program else op.keep(raw, value)
        self.instructions.append(Instruction(op, inputs, output, static, saved))
        return Var(self, output, value)


class _Levels(threading.local):
    """How many traces are open in this thread."""

    depth = 0


_levels = _Levels()


@contextmanager
def new_trace(*, is_program: bool = False, keeps_values: bool = False) -> Iterator[Trace]:
    """A trace one level inside those that are open; the level is given back even if the function raises."""
    _levels.depth += 1
    try:
        yield Trace(_levels.depth, is_program=is_program, keeps_values=keeps_values)
    finally:
        _levels.depth -= 1


def apply(op: Operation, args: tuple[Any, ...], static: Static) -> Any:
    """op(*args): recorded by the innermost trace that any argument belongs to,
    computed at once without one.
    """
    top: Trace | None = None
    for argument in args:
        if type(argument) is Var and (top is None or argument.trace.level > top.level):
            top = argument.trace
    if top is None:
        return evaluate(op, args, static)
    is_program = top.is_program
    inputs, operands = [], []  # one loop: this is most of what recording costs
    for argument in args:
        if type(argument) is Var and argument.trace is top:
            inputs.append(argument.slot)
            operands.append(argument.value)
        else:
            if type(argument) in (list, tuple):
                argument = np.asarray(argument)
            inputs.append(top.slot_of(argument))
            operands.append(base_value(argument) if is_program else argument)
    raw = tuple(operands)
    if is_program:
        value = evaluate(op, raw, static)
        _refuse_promotion(op, raw, value)
    else:
        value = apply(op, raw, static)
    return top.record(op, tuple(inputs), static, raw, value)


def evaluate(op: Operation, args: tuple[Any, ...], static: Static) -> Any:
    """op on arrays and numbers. Of numbers alone the result is again a Python number: a weak scalar,
    like time.

    Where Python raises (1 / 0, an overflow) or leaves the real numbers (a root of a negative one), a number
    gives what an array would: inf or NaN.
    """
    has_array = False
    for argument in args:
        if type(argument) is np.ndarray:
            has_array = True
        elif type(argument) not in NUMBERS:
            xp = np if op.is_mixed else namespace_of(*args)
            if xp is not np and op.fits_cuda(args, static):
                return op.cuda(*args, **static)
            return op.forward(xp, *args, **static)
    if has_array:
        return op.forward(np, *args, **static)
    try:
        result = op.forward(np, *args, **static)
    except (ZeroDivisionError, OverflowError):
        result = _as_arrays_would(op, args, static)
    else:
        if type(result) is complex and complex not in map(type, args):
            result = _as_arrays_would(op, args, static)
    return result.item() if isinstance(result, np.generic) else result


def _as_arrays_would(op: Operation, args: tuple[Any, ...], static: Static) -> Any:
    """op of numbers in NumPy's arithmetic, silently."""
    with np.errstate(all="ignore"):
        return op.forward(
            np, *(np.complex128(a) if type(a) is complex else np.float64(a) for a in args), **static
        )


def _refuse_promotion(op: Operation, args: tuple[Any, ...], value: Any) -> None:
    """A NumPy float64 scalar (np.sqrt(2.0)) times a float32 array is float64:
    refused with its source line.
    """
    for argument in args:
        if isinstance(argument, np.generic):
            break
    else:
        return
    if not hasattr(value, "dtype"):
        return
    kinds = [a.dtype for a in args if is_array(a) and a.dtype.kind in "fc"]
    if kinds and value.dtype != np.result_type(*kinds) and value.dtype.kind == np.result_type(*kinds).kind:
        raise ArgumentTypeError(
            f"{op.name} of {np.result_type(*kinds)} values and a NumPy scalar of type {value.dtype} at {user_line()} "
            f"would become {value.dtype}; use a Python number (float(...), math.sqrt) for the constant"
        )


def _sum(known: Any, result: Any) -> Any:
    """The sum of two cotangents; those of a number that met arrays of both modules add up on the device."""
    if type(known) is not type(result):
        if is_device_array(known) and isinstance(result, np.ndarray):
            result = to_xp(namespace_of(known), result)
        elif is_device_array(result) and isinstance(known, np.ndarray):
            known = to_xp(namespace_of(result), known)
    return known + result


def pull(
    instructions: Sequence[Instruction],
    cotangents: Mapping[int, Any],
    wanted: Iterable[int],
) -> dict[int, Any]:
    """Cotangents of the slots `wanted`, given those of results:
    rules applied from the last instruction to the first.

    Only instructions that lie between a wanted slot and a result are visited. Raises NoRuleError by name.
    """
    wanted = set(wanted)
    active = set(wanted)
    for instruction in instructions:
        if not active.isdisjoint(instruction.inputs) and not instruction.op.is_flat:
            active.add(instruction.output)
    bars = {slot: bar for slot, bar in cotangents.items() if bar is not None and slot in active}
    for op, inputs, output, static, saved in reversed(instructions):
        bar = bars.get(output) if output in wanted else bars.pop(output, None)
        if bar is None or output not in active:
            continue
        if op.rule is None:
            raise NoRuleError(f"primitive `{op.name}` has no VJP rule, and a derivative passes through it")
        needs = tuple(slot in active for slot in inputs)
        results = op.pull_back(bar, saved, static, needs)
        for slot, need, result in zip(inputs, needs, results, strict=True):
            if need and result is not None:
                known = bars.get(slot)
                bars[slot] = result if known is None else _sum(known, result)
    return {slot: bars[slot] for slot in wanted if slot in bars}


def saved_bytes(instructions: Sequence[Instruction]) -> int:
    """Memory that the instructions hold for their rules: each array once,
    a view as the whole that it keeps alive.
    """
    held = {}
    for instruction in instructions:
        for value in map(base_value, leaves(list(instruction.saved))):
            if is_array(value):
                whole = value if getattr(value, "base", None) is None else value.base
                held[id(whole)] = getattr(whole, "nbytes", value.nbytes)
    return sum(held.values())


def _is_same(copy: Any, argument: Any) -> bool:
    """Whether a captured array still holds what its copy does, bit by bit."""
    return not is_array(argument) or to_host(copy).tobytes() == to_host(argument).tobytes()


def base_value(value: Any) -> Any:
    """The array or number below every trace."""
    while type(value) is Var:
        value = value.value
    return value


def is_inside_program(value: Any) -> bool:
    """Whether a program is being traced with this value in it."""
    while type(value) is Var:
        if value.trace.is_program:
            return True
        value = value.value
    return False


def shape_of(value: Any) -> tuple[int, ...]:
    """Shape of an array, a number or a Var."""
    return getattr(base_value(value), "shape", ())


def dtype_of(value: Any) -> np.dtype:
    """dtype of an array or a Var; for a weak scalar the one it would have as an array."""
    value = base_value(value)
    return value.dtype if hasattr(value, "dtype") else np.dtype(type(value))


def is_weak(value: Any) -> bool:
    """Whether `value` is a Python number (or a Var of one): it takes the dtype of what it meets."""
    return type(base_value(value)) in NUMBERS


_SHORT = {"float32": "f32", "float64": "f64", "complex64": "c64", "complex128": "c128"}


def describe(value: Any) -> str:
    """Type and shape as programs print them: f32[64,2], or a weak scalar's type."""
    value = base_value(value)
    if not hasattr(value, "dtype"):
        return type(value).__name__
    return f"{_SHORT.get(str(value.dtype), str(value.dtype))}[{','.join(map(str, value.shape))}]"


def user_line() -> str:
    """file:line of the innermost frame outside this package and NumPy, for messages about the caller's code;
    the innermost outside the engine where all are the package's own.
    """
    engine, package = __name__.rpartition(".")[0], __name__.partition(".")[0] + "."
    frame, own = sys._getframe(1), "an unknown line"
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        if module.startswith(package):
            own = line if own == "an unknown line" and not module.startswith(engine) else own
        elif not module.startswith("numpy") and module not in ("contextlib", "functools", "runpy"):
            return line
        frame = frame.f_back  # type: ignore[assignment]
    return own
