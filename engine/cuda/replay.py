"""Replay on CuPy arrays: a group is a row of launches with everything prepared,
and no array is made on the way.

Elementwise chains are kernels made for the program (`chains`, `chain_text`), the numbers that depend on time
are computed by one launch at the start of a group (`numbers`), products and convolutions write where their
result is wanted. What has no kernel is computed by its plain forward and copied.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array, device_address
from ..fusion import Run, schedule
from ..jit.expressions import is_elementwise
from ..partition import PROLOGUE, Plan
from ..primitive import Call
from ..program import Step
from ..replay import Binder, Code, Pairs, Runner, Targets, WeakScalars, Workspace
from ..tiled import Piece
from . import hats
from .chain_finish import FINISH, FINISH_THREADS
from .chain_moments import OBSERVE, with_moments
from .chain_sums import FOLD
from .chain_text import chain_of
from .chains import Chain, chain_shape, separated, slot_strides
from .delivery import delivery_calls, fits_delivery
from .graph import RecordedGroup, Recorder
from .numbers import Numbers
from .products import product_calls
from .recompute import reads_of, with_recomputation
from .scalar_functions import FUNCTIONS, KINDS, TYPES
from .source import EXACT, module

# Beside elementwise ones, steps whose launches read nothing of the host: CuPy's copies and reductions. CuPy
# itself refuses to record cuBLAS, for products that are neither a kernel's (`products`) nor cublasLt's
# (`cublaslt`).
RECORDABLE = frozenset("matmul max mean_leading min reshape sum take unbroadcast".split())
COMMON = TYPES + hats.TEXT  # kernels that are the same for all programs


class CudaWorkspace(Workspace):
    """Buffers on a GPU, and the module with the kernels of this program.

    Raises: Unsupported for complex numbers beside arrays and for operations on numbers that are no
        expressions.
    """

    def __init__(self, plan: Plan, xp: Any) -> None:
        self.numbers = Numbers(plan, xp)
        self.recorder = Recorder()
        self._chains: dict[int, tuple[list[str], Chain]] = {}  # names of its kernels
        super().__init__(plan, xp)

    def _schedules(self) -> dict[str, list[Piece]]:
        plan = self.plan
        found: dict[str, list[Piece]] = {PROLOGUE: list(plan.steps[PROLOGUE])}
        for group in plan.order[1:]:
            pieces: list[Piece] = []
            for whole in schedule(plan, group, chain_shape):
                pieces += [whole] if isinstance(whole, Step) else separated(plan, group, whole)
            found[group] = with_moments(plan, group, pieces)
        self.plan, self.schedules = with_recomputation(plan, found)
        self._write_chains()
        reasons = {group: self.unrecordable(group) for group in plan.order[1:]}
        self.recorder.refused.update({group: reason for group, reason in reasons.items() if reason})
        return self.schedules

    def _write_chains(self) -> None:
        """One text with the kernels of all runs; equal ones are one kernel."""
        strides, names = slot_strides(self.plan), {}  # type: ignore[var-annotated]
        for piece in (piece for pieces in self.schedules.values() for piece in pieces):
            if isinstance(piece, Run):
                chain = chain_of(self.plan, piece, strides, self.numbers.in_kernel)
                both = [chain.text, *([] if chain.finish is None else [chain.finish.text])]
                kernels = [names.setdefault(text, f"chain_{len(names)}") for text in both]
                self._chains[id(piece)] = kernels, chain
        texts = [text.replace("@", name) for text, name in names.items()]
        self.text = "\n".join([FUNCTIONS, FOLD, OBSERVE, FINISH, self.numbers.text, *texts])
        self.module = module(self.text, EXACT)
        self.fill_numbers = self.numbers.update(self.module)

    def binder(
        self, arrays: dict[int, Array], accumulate: Mapping[str, Targets], weight: Array | None = None
    ) -> Binder:
        return _CudaBinder(self, arrays, accumulate, weight)

    def _run_prologue(self) -> None:
        self.numbers.load(self._numbers)
        super()._run_prologue()

    def chain(self, run: Run) -> tuple[Any, Chain]:
        """(kernel, what to launch it with) of a run."""
        (name, *_), chain = self._chains[id(run)]
        return self.module.get_function(name), chain

    def finish(self, run: Run) -> Any:
        """The kernel of the second pass of a run's sums."""
        return self.module.get_function(self._chains[id(run)][0][1])

    def reads_time(self, group: str) -> bool:
        """Whether a group needs numbers that depend on time."""
        slots = set(self.plan.outputs[group]).union(*map(reads_of, self.schedules[group]))
        return any(self.numbers.is_timed(slot) for slot in slots)

    def unrecordable(self, group: str) -> str | None:
        """Why the launches of a group would not serve again as they are, at another time and with other
        values; None if they do.
        """
        baked = {slot for slot, _ in self.plan.program.baked}
        for piece in self.schedules[group]:
            if not isinstance(piece, Step) or self.plan.root[piece.output] != piece.output:
                continue
            if _is_hats(self.plan, piece):
                continue
            if any(self.numbers.is_timed(slot) for slot in piece.inputs):
                return f"`{piece.op.name}` reads the time on the host"
            if any(slot in self.plan.weak and slot not in baked for slot in piece.inputs):
                return f"`{piece.op.name}` reads a number on the host"
            is_known = piece.op.cuda is not None or piece.op.name in RECORDABLE or is_elementwise(piece)
            if not is_known:
                return f"`{piece.op.name}` has no kernel that can be recorded"
        return None


class _CudaBinder(Binder):
    """Turns groups into launches over given arrays."""

    workspace: CudaWorkspace

    def bind(self, group: str, targets: Targets = ()) -> Runner:
        workspace, body = self.workspace, super().bind(group, targets)
        if group == PROLOGUE:
            return body
        return RecordedGroup(
            group, body, workspace.fill_numbers if workspace.reads_time(group) else None, workspace.recorder
        )

    def _scalars(self, code: Code) -> WeakScalars:
        return _DeviceNumbers(self.workspace, code)

    def _view(self, step: Step) -> Array:
        """Checked: what CuPy copied instead would stay as it is when its source is written."""
        source, view = self.arrays[step.inputs[0]], super()._view(step)
        (low, high), (first, end) = _span(source), _span(view)
        assert low <= first and end <= high or not view.size, (
            f"`{step.op.name}` made a copy where NumPy makes a view"
        )
        return view

    def _emit_piece(self, code: Code, group: str, segment: Piece, scalars: WeakScalars) -> None:
        if isinstance(segment, Run):
            code.calls(self._launches(segment))
        else:
            super()._emit_piece(code, group, segment, scalars)

    def _launches(self, run: Run) -> list[Call]:
        """The kernel of a chain, and the second pass of those sums that need one."""
        kernel, chain = self.workspace.chain(run)
        arrays = [self.arrays[slot] for slot in chain.slots]
        _check_apart(arrays, len(chain.slots) - len(chain.written))
        last: list[Any] = []
        numbers = iter(() if chain.finish is None else chain.finish.numbers)
        for k, found in enumerate(chain.sums):
            slots = [found.slot] if found.variance is None else [found.slot, found.variance]
            outs = [self.arrays[slot] for slot in slots]
            if chain.is_direct(found):
                arrays += outs
                continue
            assert chain.sharing is not None
            size, scratch = (chain.sharing.partial_size,), self.workspace.scratch
            partials = [scratch.take(("sum", k, place), size, out.dtype) for place, out in enumerate(outs)]
            arrays += partials
            last += [*partials, *outs, *next(numbers)]
        table = (self.workspace.numbers.table,) if chain.reads_numbers else ()
        calls: list[Call] = [(kernel, (chain.grid, (chain.threads,), (*table, *arrays)), {})]
        if chain.finish is not None:
            finish = self.workspace.finish(run)
            calls.append((finish, (chain.finish.grid, (FINISH_THREADS,), tuple(last)), {}))
        return calls

    def _emit(self, code: Code, step: Step, scalars: WeakScalars) -> None:
        out, weak = self.arrays[step.output], self.plan.weak
        if not weak.isdisjoint(step.inputs):
            if _is_hats(self.plan, step):
                code.calls(self._hats(step, out))
                return
            function = code.name(functools.partial(_computed, self.xp, out, step))
            words = [scalars.name_of(s) if s in weak else code.name(self.arrays[s]) for s in step.inputs]
            code.call_line(f"{function}({', '.join(words)})")
            return
        arguments = tuple(self.arrays[slot] for slot in step.inputs)
        if step.op.fits_cuda(arguments, step.static):
            code.calls([(step.op.cuda, arguments, {"out": out, **step.static})])
        else:
            code.calls(_direct_calls(self.xp, step, out, arguments))

    def _deliveries(self, copies: Pairs, sums: Pairs) -> list[Call]:
        """One launch for most, and what is left one by one."""
        fitting = [[pair for pair in pairs if fits_delivery(pair, self.weight)] for pairs in (copies, sums)]
        others = [
            [pair for pair in pairs if not fits_delivery(pair, self.weight)] for pairs in (copies, sums)
        ]
        return [*delivery_calls(fitting[0], fitting[1], self.weight), *super()._deliveries(*others)]

    def _hats(self, step: Step, out: Array) -> list[Call]:
        """The hat functions of a grid at a time from the table."""
        numbers, (time, grid) = self.workspace.numbers, step.inputs
        nodes = self.arrays[grid]
        name = f"{step.op.name}_{KINDS[nodes.dtype.name]}_{KINDS[out.dtype.name]}"
        place = np.int32(numbers.place(time))
        arguments = (numbers.table, place, nodes, out, np.int32(nodes.size))
        blocks = (-(-nodes.size // hats.THREADS),)
        return [(module(COMMON).get_function(name), (blocks, (hats.THREADS,), arguments), {})]


class _DeviceNumbers(WeakScalars):
    """Numbers that leave a group are read from the table on the device; the few steps that want them on the
    host get them as Python numbers.
    """

    _workspace: CudaWorkspace

    def array(self, slot: int, dtype: np.dtype) -> Array:
        return self._workspace.numbers.view(slot)


def _is_hats(plan: Plan, step: Step) -> bool:
    """Whether a step is one of hats' kernels: a number, a grid in one piece, a real result."""
    if step.op.name not in ("hat_weights", "hat_slopes") or step.inputs[0] not in plan.weak:
        return False
    grid, out = (plan.program.metas[slot].dtype for slot in (step.inputs[1], step.output))
    names = [None if dtype is None else dtype.name for dtype in (grid, out)]
    return all(name in KINDS for name in names) and step.inputs[1] not in plan.strided


def _direct_calls(xp: Any, step: Step, out: Array, arguments: tuple[Array, ...]) -> list[Call]:
    """What writes the result of a step into `out`."""
    name, static = step.op.name, step.static
    if name == "matmul":
        return product_calls(out, *arguments) or [(xp.matmul, arguments, {"out": out})]
    if name == "sum":
        return [(xp.sum, arguments, {"axis": static["axes"], "out": out})]
    if name == "reshape":
        return [(xp.copyto, (out.reshape(arguments[0].shape), arguments[0]), {})]
    return [(functools.partial(_computed, xp, out, step), arguments, {})]


def _computed(xp: Any, out: Array, step: Step, *arguments: Any) -> None:
    """The generic kernel: compute and copy. It allocates."""
    out[...] = step.op.forward(xp, *arguments, **step.static)


def _check_apart(arrays: list[Array], n_read: int) -> None:
    """Kernels are told that what they write lies apart from everything else."""
    spans = [_span(array) for array in arrays]
    for k in range(n_read, len(spans)):
        low, high = spans[k]
        assert all(high <= other[0] or other[1] <= low for other in spans[:k]), "results on top of operands"


def _span(array: Array) -> tuple[int, int]:
    """The addresses between which an array lies."""
    reach = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    start = device_address(array)
    return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + array.itemsize
