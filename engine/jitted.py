"""`jit`: a function of arrays recorded at its first call, and replayed in buffers of its own at later ones.

What a training step does besides its solve (the loss, the derivative by the tape, checks of arguments,
recording f) is Python that does the same every time. Recorded once, solves and their pull-backs included, it
is a row of NumPy calls.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from .backend import is_array, is_device_array, namespace_of, to_number
from .cuda.replay import CudaWorkspace
from .errors import ArgumentTypeError
from .forking import free_in_child
from .jit.layout import Unsupported
from .jitted_arguments import is_traced, kind_of, refuse_unhashable, refuse_what_would_freeze, without_static
from .partition import partition
from .primitive import Primitive
from .program import Program, optimise, record
from .replay import StageSet, Workspace
from .trace import Var
from .tree import Tree, leaves, leaves_with_paths, path_name, unflatten

logger = logging.getLogger("odegrad")

MAX_KINDS = 32  # of arguments, that one function remembers
_GROUP = "run"


class _Here(threading.local):
    """What this thread is doing."""

    is_replaying = False


_here = _Here()
_lock = free_in_child(threading.Lock())  # around what functions know: the replays they have


def jit(f: Callable[..., Tree], *, static_argnums: int | tuple[int, ...] = ()) -> Callable[..., Tree]:
    """A function that does what f did in its first call, with new values, and without calling f again.

        step = odegrad.jit(odegrad.value_and_grad(loss))

    f is called once for each kind of arguments (structure, shapes, dtypes); what it did to arrays is
    recorded, with every solve and every derivative inside of it, and replayed by later calls.
    A solve still chooses its steps anew.

    Args:
        f: function of trees of arrays and Python numbers that returns a tree of these. It must be pure:
            everything else it reads (global and captured arrays and numbers) stays as it was in the first
            call, and what it does besides (printing, counting) happens in that call only; callbacks of its
            solves are called in each.
            It may not branch on values.
        static_argnums: positions of arguments that are not traced, hashable: f is recorded for each value and
            type of them. What decides a shape, an option of a solve or how often something is done belongs
            here. Strings, truth values, functions and other objects compared by value are never traced.
    Returns: the function. Its results are new arrays, of no dimension where f returns a NumPy scalar.
        Called inside a derivative or another trace it is f itself, and so it is in a callback of a replay.
        Threads that call it with arguments of one kind take turns.
    Raises: TracedValueError for what a trace cannot see; ArgumentTypeError for results that are no arrays
        (statistics of a solve, what TA-BN layers saw), for masked arrays and matrices, and for arguments that
        cannot be told apart; what f raises in its first call; in later ones what its solves raise.
    Cost: the buffers of a replay, kept as long as the function, for the latest 32 kinds of arguments. Each
        call copies the arrays that it is given and those that it returns: a function that passes over
        large arrays a few times gains nothing.
    """
    if not callable(f):
        raise ArgumentTypeError(f"`jit` takes a function; got {type(f).__name__}")
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums or ())
    if not all(type(n) is int for n in numbers):
        raise ArgumentTypeError(
            f"`static_argnums` must be an int or a tuple of ints, positions of arguments; got {static_argnums!r}"
        )
    known = _Known(getattr(f, "__name__", type(f).__name__))

    @functools.wraps(f)
    def jitted(*args: Tree, **kwargs: Tree) -> Tree:
        args, of_traced, fixed = without_static(f, args, numbers)
        values = leaves((args, kwargs))
        if any(type(value) is Var for value in values):
            return of_traced(*args, **kwargs)
        key = (fixed, kind_of((args, kwargs)))
        try:
            replay = known.find(key)
        except TypeError as error:
            refuse_unhashable((args, kwargs), error)
            raise
        if replay is not None:
            # A callback inside of a replay does not wait for one: that may be this one, or wait for this one.
            return of_traced(*args, **kwargs) if _here.is_replaying else replay(values)
        replay, result = _recorded(of_traced, args, kwargs)
        if replay is not None:
            known.remember(key, replay)
        return result

    return jitted


class _Known:
    """The replays of a function by the kind of its arguments: those that were called last."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._replays: OrderedDict[Hashable, _Replay] = OrderedDict()

    def find(self, key: Hashable) -> _Replay | None:
        """The replay of this kind, if there is one; TypeError for a key without a hash."""
        with _lock:
            replay = self._replays.get(key)
            if replay is not None:
                self._replays.move_to_end(key)
        return replay

    def remember(self, key: Hashable, replay: _Replay) -> None:
        """Keep a replay, and drop the one that was not called for longest where there are too many."""
        with _lock:
            self._replays[key] = replay
            is_full = len(self._replays) > MAX_KINDS
            if is_full:
                self._replays.popitem(last=False)
        if is_full:
            logger.info(
                "odegrad: `jit` has met more than %d kinds of arguments of %s, and records the earliest anew if it "
                "comes again",
                MAX_KINDS,
                self._name,
            )


def _recorded(
    f: Callable[..., Tree], args: tuple[Tree, ...], kwargs: dict[str, Tree]
) -> tuple[_Replay | None, Tree]:
    """The replay of f and the result of this call; None where f depends on the values of a derivative outside
    of it.
    """
    given = (args, kwargs)
    flat = leaves(given)
    places = [k for k, leaf in enumerate(flat) if is_traced(leaf)]
    names = [path_name(path) for path, _ in leaves_with_paths(given)]
    refuse_what_would_freeze(given)

    def of_leaves(*values: Any) -> Tree:
        full = list(flat)
        for place, value in zip(places, values, strict=True):
            full[place] = value
        new_args, new_kwargs = unflatten(given, full)
        return f(*new_args, **new_kwargs)

    traced = [np.asarray(flat[k]) if isinstance(flat[k], np.generic) else flat[k] for k in places]
    try:
        recording = record(of_leaves, traced, [names[k] for k in places], keeps_values=True)
    except TypeError as error:
        error.add_note(
            "raised while `jit` recorded the function: there all arrays and numbers among the arguments are traced. Name "
            "in `static_argnums` those that decide shapes, options of a solve or how often something is done"
        )
        raise
    if any(type(value) is Var for value in recording.hidden):
        return None, f(*args, **kwargs)
    for path, leaf in leaves_with_paths(recording.result):
        if type(leaf) is not Var and not is_traced(leaf):
            raise ArgumentTypeError(
                f"a function under `jit` must return arrays and numbers; got {type(leaf).__name__} at "
                f"{path_name(path)!r}. Leave it out, or take it from a call without `jit`"
            )
    like = unflatten(recording.result, (0 for _ in recording.values))
    replay = _Replay(optimise(recording.program), recording.hidden, traced, places, like)
    return replay, unflatten(like, _own(recording.values))


def _own(values: Sequence[Any]) -> list[Any]:
    """Results as arrays that nobody else has; numbers as they are."""
    return [value.copy() if is_array(value) else _as_array(value) for value in values]


def _as_array(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.generic) else value


def _module_of(traced: Sequence[Any], constants: Sequence[Any]) -> Any:
    """The array module that a replay computes in.

    Unsupported where arrays on the host are given anew beside arrays on a device (the output times of a solve
    there): what meets what is found out by the operations.
    """
    given = [value for value in traced if is_array(value)]
    captured = [value for value in constants if is_device_array(value)]
    if len({is_device_array(value) for value in (*given, *captured)}) > 1:
        raise Unsupported("arguments on the host beside arrays on a device")
    return namespace_of(*given, *captured)


class _Replay:
    """A recorded function with its buffers: called with the leaves of its arguments, it returns new results.

    A thread at a time: others wait.
    """

    def __init__(
        self, program: Program, constants: list[Any], traced: Sequence[Any], places: list[int], like: Tree
    ) -> None:
        self._like, self._places = like, places
        self._program, self._constants = program, constants
        self._lock = free_in_child(threading.Lock())
        self._numbers = [k for k, value in enumerate(traced) if not is_array(value)]
        self._run: Callable[[Any], None] | None = None
        self._leaving = [step.op for step in program.steps if type(step.op) is not Primitive]
        try:
            self._bind(_module_of(traced, constants), traced)
        except Unsupported as error:
            logger.info(
                "odegrad: a function under `jit` is interpreted, since there is no replay of %s", error
            )
        self._forget()

    def _bind(self, xp: Any, traced: Sequence[Any]) -> None:
        program, metas = self._program, self._program.metas
        arrays = [slot for slot in program.inputs if metas[slot].dtype is not None]
        plan = partition(program, {_GROUP: program.outputs}, {_GROUP: arrays})
        self._workspace = Workspace(plan) if xp is np else CudaWorkspace(plan, xp)
        buffers = {slot: xp.empty(metas[slot].shape, metas[slot].dtype) for slot in arrays}
        self._buffers = [(program.inputs.index(slot), buffer) for slot, buffer in buffers.items()]
        self._results = [xp.empty(metas[s].shape, metas[s].dtype or metas[s].number) for s in program.outputs]
        self._workspace.load(dict(zip(program.hidden, self._constants, strict=True)) | self._given(traced))
        targets = list(zip(program.outputs, self._results, strict=True))
        self._run = StageSet(self._workspace, buffers, {_GROUP: targets}).run[_GROUP]

    def _given(self, traced: Sequence[Any]) -> dict[int, Any]:
        """The numbers among the arguments, by their slots."""
        return {self._program.inputs[k]: traced[k] for k in self._numbers}

    def __call__(self, values: Sequence[Any]) -> Tree:
        """The result of f; `values` are the leaves of all arguments."""
        traced = [values[place] for place in self._places]
        with self._lock:
            _here.is_replaying = True
            try:
                return unflatten(self._like, self._outputs(traced))
            finally:
                _here.is_replaying = False
                self._forget()
                self._lock.acquire(blocking=False)  # it is free in a child that a callback forked

    def _outputs(self, traced: Sequence[Any]) -> list[Any]:
        if self._run is None:
            return _own(self._program.run(traced, self._constants))
        for k, buffer in self._buffers:
            buffer[...] = traced[k]
        if self._numbers:
            self._workspace.load(self._given(traced))
        self._run(None)
        metas = self._program.metas
        return [
            result.copy() if metas[slot].dtype is not None else to_number(result)
            for slot, result in zip(self._program.outputs, self._results, strict=True)
        ]

    def _forget(self) -> None:
        """What the steps of a call left with their operations would outlive it: the states of a solve."""
        for operation in self._leaving:
            operation.forget()
