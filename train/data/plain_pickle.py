"""A reader of pickles that only ever makes plain data: it has no way to run code from a file.

`pickle.Unpickler` calls what a file names, and allocates what a file claims, before anyone can look. Here a
file is a list of opcodes (`pickletools.genops`, which only parses), and a table of the few harmless ones
builds numbers, strings, bytes, tuples, lists, dicts and integer arrays. A class or function is a name that
is compared with three known ones and never imported.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

_DTYPES = ("u1", "i4", "i8")
_RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_GLOBALS = {*_RECONSTRUCT, "numpy ndarray", "numpy dtype"}
_MARK = object()
# the largest published file has 0.3 million; an object an opcode must fit into memory
_MAX_OPCODES = 2_000_000


class PickleRefused(ValueError):
    """The pickle is damaged, or asks for something that is not plain data."""


class _Name(str):
    """A class or function that the file names; nothing is looked up."""


class _ArrayInMaking:
    """An array between its construction (empty) and the BUILD that brings its shape and bytes."""

    array: np.ndarray | None = None


class _DtypeInMaking:
    """A dtype code between its construction and the BUILD that brings its byte order."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "|"


def load_plain_dict(content: bytes) -> dict[str, Any]:
    """The dict that a pickle holds, with its keys as str and each array that is a value as numpy.ndarray.

    Args:
        content: a pickle as Python 2 writes it (its strings come back as bytes), or Python 3 with protocol 3
            or 4.
    Raises: PickleRefused for anything but plain data; ValueError or another built-in for damaged bytes.
    Cost: about 2 us an opcode; a copy or two of each array.
    """
    machine = _Machine()
    for count, (opcode, argument, position) in enumerate(pickletools.genops(content)):
        if count == _MAX_OPCODES:
            raise PickleRefused(f"more than {_MAX_OPCODES} opcodes")
        step = _STEPS.get(opcode.name)
        if step is None:
            raise PickleRefused(f"opcode {opcode.name} at byte {position} makes more than plain data")
        step(machine, argument)
    result = machine.pop()
    if not isinstance(result, dict):
        raise PickleRefused(f"a {type(result).__name__} where a dict was expected")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else key: _finished(value)
        for key, value in result.items()
    }


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleRefused("an opcode takes a value from an empty stack")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while self.stack and self.stack[-1] is not _MARK:
            values.append(self.stack.pop())
        if not self.stack:
            raise PickleRefused("an opcode looks for a mark that is not there")
        self.stack.pop()
        return values[::-1]

    def top(self, kind: type) -> Any:
        if not self.stack or self.stack[-1] is _MARK or not isinstance(self.stack[-1], kind):
            raise PickleRefused(f"an opcode expects a {kind.__name__} on the stack")
        return self.stack[-1]

    def put(self, index: int) -> None:
        self.memo[index] = self.top(object)

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise PickleRefused(f"memo {index} is read before it is written")
        self.push(self.memo[index])

    def set_items(self, flat: list[Any]) -> None:
        target = self.top(dict)
        if len(flat) % 2:
            raise PickleRefused("a dict gets a key without a value")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if not isinstance(key, (str, bytes)):
                raise PickleRefused(f"a dict key is a {type(key).__name__}, not a string")
            target[key] = value

    def make_dict(self, flat: list[Any]) -> None:
        self.push({})
        self.set_items(flat)

    def name(self, full_name: str) -> None:
        if full_name not in _GLOBALS:
            raise PickleRefused(f"it asks for {full_name.replace(' ', '.')!r}, which is not plain data")
        self.push(_Name(full_name))

    def reduce(self) -> None:
        callee, arguments = self.pop_many(2)
        if not isinstance(callee, _Name) or not isinstance(arguments, tuple):
            raise PickleRefused("it calls something that is not an array's constructor")
        if callee in _RECONSTRUCT:
            self.push(_ArrayInMaking())
        elif callee == "numpy dtype" and arguments and _text(arguments[0]) in _DTYPES:
            self.push(_DtypeInMaking(_text(arguments[0])))
        else:
            raise PickleRefused(f"it calls {callee} with {len(arguments)} arguments; dtypes may be {_DTYPES}")

    def build(self) -> None:
        state = self.pop()
        target = self.top(object)
        if isinstance(target, _DtypeInMaking) and isinstance(state, tuple) and len(state) >= 2:
            target.order = _text(state[1])
        elif isinstance(target, _ArrayInMaking):
            target.array = _array_from_state(state)
        else:
            raise PickleRefused(f"it sets the state of a {type(target).__name__}")


def _array_from_state(state: Any) -> np.ndarray:
    """The array of NumPy's pickled state (version, shape, dtype, is Fortran-ordered, bytes)."""
    match state:
        case (int(), tuple() as shape, _DtypeInMaking() as dtype, int() as is_fortran, bytes() as content):
            pass
        case _:
            raise PickleRefused("the state of an array is not (version, shape, dtype, order, bytes)")
    if dtype.order not in ("|", "<", "="):
        raise PickleRefused(f"an array has the byte order {dtype.order!r}")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise PickleRefused("the shape of an array is not made of counts")
    flat = np.frombuffer(content, np.dtype(dtype.code).newbyteorder("<"))
    if flat.size != math.prod(shape):
        raise PickleRefused(f"an array of shape {shape} has {flat.size} values")
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _finished(value: Any) -> Any:
    """`value`, or the array in its place."""
    if not isinstance(value, _ArrayInMaking):
        return value
    if value.array is None:
        raise PickleRefused("an array has no content")
    return value.array


def _text(value: Any) -> str:
    if not isinstance(value, (str, bytes)):
        raise PickleRefused(f"a {type(value).__name__} where a string was expected")
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _extend(machine: _Machine, values: list[Any]) -> None:
    machine.top(list).extend(values)


_Step = Callable[[_Machine, Any], None]
_STEPS: dict[str, _Step] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "STOP": lambda m, a: None,
    "MARK": lambda m, a: m.push(_MARK),
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    # Python 2 strings arrive from genops decoded as latin-1, byte for byte
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), lambda m, a: m.push(a.encode("latin-1"))),
    **dict.fromkeys(
        ("INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE")
        + ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        lambda m, a: m.push(a),
    ),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "TUPLE": lambda m, a: m.push(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, a: m.push(tuple(m.pop_many(1))),
    "TUPLE2": lambda m, a: m.push(tuple(m.pop_many(2))),
    "TUPLE3": lambda m, a: m.push(tuple(m.pop_many(3))),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "LIST": lambda m, a: m.push(m.pop_to_mark()),
    "APPEND": lambda m, a: _extend(m, m.pop_many(1)),
    "APPENDS": lambda m, a: _extend(m, m.pop_to_mark()),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "DICT": lambda m, a: m.make_dict(m.pop_to_mark()),
    "SETITEM": lambda m, a: m.set_items(m.pop_many(2)),
    "SETITEMS": lambda m, a: m.set_items(m.pop_to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, a: m.put(a)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.get(a)),
    "MEMOIZE": lambda m, a: m.put(len(m.memo)),
    "GLOBAL": lambda m, a: m.name(a),
    "STACK_GLOBAL": lambda m, a: m.name(" ".join(_text(part) for part in m.pop_many(2))),
    "REDUCE": lambda m, a: m.reduce(),
    "BUILD": lambda m, a: m.build(),
}
