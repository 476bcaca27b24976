"""Runs as machine code where numba is installed: every value goes through all steps of its chain in
registers.

As NumPy calls, each step of a `Run` makes a pass over a chunk in cache. A kernel makes one in all; it has the
chunks, the threads and the order of every sum in common with `RunBinder`, so that arithmetic gives the same
bits either way. What a kernel does not know (functions of the C library, mixed dtypes)
is left to `RunBinder`.

`ODEGRAD_FUSION` does without kernels or asks for them (`jit/choice.py`).
Kernels are compiled once for each kind of chain, whatever the sizes (about half a second), and kept on disk.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from .chunks import ChunkLoop, RunBinder, Scratch
from .fusion import Run, each_sample, sum_target
from .jit.choice import imported, maker_if_chosen
from .jit.layout import Unsupported
from .jit.runs import SIZES, run_text
from .primitive import Call
from .program import Program, Step

logger = logging.getLogger("odegrad")

WIDTH = 512  # values of the innermost loop: some ten operands a channel of this length stay in the L1 cache
NARROW = 32  # below this one neither vector instructions nor sums in separate lanes come about
# It releases the interpreter's lock.
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

Scalar = Callable[[int, Step], np.ndarray]


def run_calls(
    run: Run,
    arrays: Mapping[int, np.ndarray],
    program: Program,
    scratch: Scratch,
    scalar: Scalar,
    compiled: Callable[[str], Any],
) -> list[Call]:
    """The calls that execute a run: one kernel, or NumPy's ufuncs chunk by chunk.
    Arguments as those of `RunBinder`.
    """
    kernel = _compiler()
    if kernel is not None:
        try:
            return KernelBinder(run, arrays, program, scratch).kernel_calls(scalar, kernel)
        except Unsupported as error:
            logger.debug("odegrad: a chain without a kernel: %s", error)
    return RunBinder(run, arrays, program, scratch).calls(scalar, compiled)


def _compiler() -> Callable[[str, Any], Any] | None:
    """What compiles the text of a run for a dtype; None where runs are left to NumPy."""
    return maker_if_chosen(_numba)


@cache
def _numba() -> Callable[[str, Any], Any] | None:
    def import_it() -> Callable[[str, Any], Any]:
        from .jit.streams import run_kernel

        return run_kernel

    return imported("elementwise chains", import_it)


class KernelBinder(RunBinder):
    """Binds a run to arrays as one call of a compiled kernel."""

    def kernel_calls(self, scalar: Scalar, kernel: Callable[[str, Any], Any]) -> list[Call]:
        """Copies of channel values, the kernel over all chunks, the ends of the sums.

        Raises: Unsupported, before anything is bound.
        """
        dtype, kinds, sums = self._checked_dtype(), self._kinds(), self._sums()
        steps = self.run.steps
        kept = [s.output for s in steps if s.output not in sums and s.output not in self.run.local]
        self._check_apart(kept)
        text = run_text(self.program, steps, kinds, sums, kept)
        parts = self._parts()
        sizes = {
            "batch": self.run.shape[0], "size": self.size, "rows": self.rows, "parts": parts,
            "width": self.width // parts,
        }  # fmt: skip
        arrays = [self._array(slot, kinds, sizes["width"], scalar) for slot in text.slots]
        work = _Work(kernel(text.source, dtype), [sizes[name] for name in SIZES], arrays)
        return [*self.prelude, (ChunkLoop(work, self.n_chunks), (), {}), *self.epilogue]

    def _checked_dtype(self) -> Any:
        """The one dtype of the run, beside truth values."""
        steps, metas = self.run.steps, self.program.metas
        if self.width < NARROW:
            raise Unsupported(f"rows of {self.width} values")
        dtypes = [{metas[slot].dtype for slot in (*step.inputs, step.output)} - {None} for step in steps]
        found = set().union(*dtypes) - {np.dtype(np.bool_)}
        if found not in ({np.dtype(np.float32)}, {np.dtype(np.float64)}):
            raise Unsupported(f"values of {' and '.join(sorted(map(str, found))) or 'bool'}")
        for step in steps:
            if any(metas[slot].dtype is None for slot in step.inputs) and not any(
                metas[slot].dtype in found for slot in step.inputs
            ):
                raise Unsupported(f"`{step.op.name}` of truth values and numbers")
        (dtype,) = found
        return dtype

    def _kinds(self) -> dict[int, str]:
        """How each operand and elementwise result lies: a word of `jit.runs`."""
        whole = self.run.shape
        kinds = {whole[1:]: "position", each_sample(whole): "sample", whole[-1:]: "channel", (): "number"}
        kinds[whole] = "whole"  # an array (B, 1, C) is that as well as one value a sample and channel
        sums = self._sums()
        slots = dict.fromkeys(s for step in self.run.steps for s in (*step.inputs, step.output))
        return {slot: kinds[self.program.metas[slot].shape] for slot in slots if slot not in sums}

    def _sums(self) -> dict[int, str]:
        """What is summed to, for each step that is a sum."""
        whole = self.run.shape
        kinds = {whole[1:]: "position", each_sample(whole): "sample", whole[-1:]: "channel"}
        targets = {step.output: sum_target(self.program, step) for step in self.run.steps}
        return {slot: kinds[target] for slot, target in targets.items() if target is not None}

    def _check_apart(self, kept: list[int]) -> None:
        """A kernel is told that what it writes lies apart from everything else."""
        made = {step.output for step in self.run.steps}
        read = [
            self.arrays[s]
            for step in self.run.steps
            for s in step.inputs
            if s in self.arrays and s not in made
        ]
        for k, slot in enumerate(kept):
            others = [*read, *(self.arrays[other] for other in kept[:k])]
            if any(np.may_share_memory(self.arrays[slot], other) for other in others):
                raise Unsupported("results on top of operands")

    def _parts(self) -> int:
        """Into how many parts a row is cut, each a multiple of the channels."""
        groups = [n for n in range(1, self.repeats + 1) if self.repeats % n == 0]
        fitting = [n for n in groups if self.width // n <= WIDTH and self.width // n >= NARROW]
        return min(fitting, default=1)

    def _array(self, slot: int, kinds: dict[int, str], width: int, scalar: Scalar) -> np.ndarray:
        """The memory that a kernel reads or writes for a slot."""
        steps = [step for step in self.run.steps if slot in (*step.inputs, step.output)]
        if slot not in kinds:
            target = sum_target(self.program, steps[0])
            assert target is not None
            partial, _, _ = self._collected(steps[0], target)
            return partial
        meta = self.program.metas[slot]
        if meta.dtype is None:
            return scalar(slot, steps[0])
        if kinds[slot] == "channel":
            return self._repeated("channel", slot, (width // self.channels, self.channels))
        if kinds[slot] == "sample":
            return self._repeated("sample", slot, (self.run.shape[0], width // self.channels, self.channels))
        return self.arrays[slot]

    def _repeated(self, kind: str, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """The values of each channel again and again, as far as the innermost loop walks;
        copied before the kernel runs.
        """
        values = self.arrays[slot]
        target = self.scratch.take((kind, len(self.prelude)), shape, values.dtype)
        source = values if kind == "channel" else values.reshape(-1, 1, self.channels)
        self.prelude.append((np.copyto, (target, source), {}))
        return target


class _Work:
    """A kernel and what it works on, as a function of the chunks: (first, end, number of the thread)."""

    def __init__(self, code: Any, sizes: list[int], arrays: list[np.ndarray]) -> None:
        self._job = np.array([*sizes, *(array.ctypes.data for array in arrays)], np.int64)
        self._address = self._job.ctypes.data
        self._entry = _ENTRY(code.address)
        self._held = (code, arrays)  # the addresses are good as long as these live

    def __call__(self, first: int, end: int, worker: int) -> None:
        self._entry(first, end, self._address)
