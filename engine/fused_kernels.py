"""Runs as machine code where numba is installed: every value goes through all steps of its chain in registers.

As NumPy calls, each step of a `Run` makes a pass over a chunk in cache. A kernel makes one in all; it has the chunks,
the threads and the order of every sum in common with `RunBinder`, so that arithmetic gives the same bits either way.
What a kernel does not know (functions of the C library, mixed dtypes) is left to `RunBinder`.

`ODEGRAD_FUSION=numpy` does without kernels, `ODEGRAD_FUSION=numba` asks for them: it is an error if numba is missing.
Kernels are compiled once for each kind of chain, whatever the sizes (about half a second), and kept on disk.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from .errors import ArgumentError
from .fusion import ChunkLoop, Run, RunBinder, Scratch, each_sample, sum_target
from .jit.layout import Unsupported
from .jit.runs import SIZES, RunText, run_text
from .primitive import Call
from .program import Program, Step

logger = logging.getLogger("odegrad")

CHOICE = "ODEGRAD_FUSION"  # the environment variable: numpy, numba, or empty for numba where it is installed
WIDTH = 512  # values of the innermost loop: some ten operands a channel of this length stay in the L1 cache
NARROW = 32  # below this one neither vector instructions nor sums in separate lanes come about
_ENTRY = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)  # releases the interpreter's lock

Scalar = Callable[[int, Step], np.ndarray]


def run_calls(
    run: Run,
    arrays: Mapping[int, np.ndarray],
    program: Program,
    scratch: Scratch,
    scalar: Scalar,
    compiled: Callable[[str], Any],
) -> list[Call]:
    """The calls that execute a run: one kernel, or NumPy's ufuncs chunk by chunk. Arguments as those of `RunBinder`."""
    kernel = _compiler()
    if kernel is not None:
        try:
            return KernelBinder(run, arrays, program, scratch).kernel_calls(scalar, kernel)
        except Unsupported as error:
            logger.debug("odegrad: a chain without a kernel: %s", error)
    return RunBinder(run, arrays, program, scratch).calls(scalar, compiled)


def _compiler() -> Callable[[str, Any], Any] | None:
    """What compiles the text of a run for a dtype; None where runs are left to NumPy."""
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "numpy", "numba"):
        raise ArgumentError(f"{CHOICE} must be numpy, numba or empty; got {choice!r}")
    found = None if choice == "numpy" else _numba()
    if choice == "numba" and found is None:
        raise ArgumentError(f"{CHOICE}=numba, but numba cannot be imported: pip install 'odegrad[jit]'")
    return found


@cache
def _numba() -> Callable[[str, Any], Any] | None:
    try:
        from .jit.streams import run_kernel
    except ImportError as error:
        if error.name != "numba":  # installed, but not for this Python or NumPy
            logger.warning("odegrad: elementwise chains are left to NumPy: %s", error)
        return None
    return run_kernel


class KernelBinder(RunBinder):
    """Binds a run to arrays as one call of a compiled kernel."""

    def kernel_calls(self, scalar: Scalar, kernel: Callable[[str, Any], Any]) -> list[Call]:
        """Copies of channel values, the kernel over all chunks, the ends of the sums.

        Raises: Unsupported, before anything is bound.
        """
        text, kinds = self._text()
        code = kernel(text.source, self.dtype)
        parts = self._parts()
        sizes = {
            "batch": self.run.shape[0], "size": self.size, "rows": self.rows, "parts": parts,
            "width": self.width // parts,
        }  # fmt: skip
        held = [self._array(slot, kinds, sizes["width"], scalar) for slot in text.slots]
        job = np.array([*(sizes[name] for name in SIZES), *(array.ctypes.data for array in held)], np.int64)
        entry, address = _ENTRY(code.address), job.ctypes.data

        def work(first: int, last: int, worker: int, _held: Any = (code, job, held)) -> None:
            entry(first, last, address)

        return [*self.prelude, (ChunkLoop(work, self.n_chunks), (), {}), *self.epilogue]

    def _text(self) -> tuple[RunText, dict[int, str]]:
        """The text of the kernel, and how each operand lies."""
        steps, metas = self.run.steps, self.program.metas
        if self.width < NARROW:
            raise Unsupported(f"rows of {self.width} values")
        slots = dict.fromkeys(slot for step in steps for slot in (*step.inputs, step.output))
        for slot in slots:
            dtype = metas[slot].dtype
            if dtype is not None and dtype not in (self.dtype, np.bool_) or dtype == np.complex128:
                raise Unsupported(f"values of {dtype} beside {self.dtype}")
        for step in steps:
            dtypes = {metas[slot].dtype for slot in step.inputs}
            if None in dtypes and self.dtype not in dtypes:
                raise Unsupported(f"`{step.op.name}` of truth values and numbers")
        targets = {step.output: sum_target(self.program, step) for step in steps}
        sums = {slot: self._kind(target) for slot, target in targets.items() if target is not None}
        kinds = {slot: self._kind(metas[slot].shape) for slot in slots if slot not in sums}
        if any(metas[slot].dtype != self.dtype for slot in sums):
            raise Unsupported("sums of truth values")
        kept = [
            step.output for step in steps if step.output not in sums and step.output not in self.run.local
        ]
        self._check_apart(kept)
        return run_text(self.program, steps, kinds, sums, kept), kinds

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

    def _kind(self, shape: tuple[int, ...]) -> str:
        whole = self.run.shape
        kinds = {whole[-1:]: "channel", whole[1:]: "position", each_sample(whole): "sample", (): "number"}
        return "whole" if shape == whole else "channel" if shape == whole[-1:] else kinds[shape]

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
        """The values of each channel again and again, as far as the innermost loop walks; copied before the kernel runs."""
        values = self.arrays[slot]
        target = self.scratch.take((kind, len(self.prelude)), shape, values.dtype)
        source = values if kind == "channel" else values.reshape(-1, 1, self.channels)
        self.prelude.append((np.copyto, (target, source), {}))
        return target
