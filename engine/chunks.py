"""Runs by NumPy, chunk by chunk: calls with `out=` on parts of the batch that stay in cache.

Results that no other step reads exist only as one chunk a thread, and sums over the batch are collected chunk
by chunk. Chunks are shared between threads. They depend on the shapes alone, so that the bits of a sum do not
depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .backend import Array
from .fusion import Run, Shape, each_sample, sum_target
from .kernels.threads import one_blas_thread, run_shares
from .ops.wide import repeats
from .primitive import Call
from .program import Program, Step

CHUNK = 1 << 15  # values of a chunk: a few arrays of it fit into the L2 cache


class RunBinder:
    """Binds a run to arrays: makes the calls that execute it."""

    def __init__(
        self, run: Run, arrays: Mapping[int, np.ndarray], program: Program, scratch: Scratch
    ) -> None:
        self.run, self.arrays, self.program, self.scratch = run, arrays, program, scratch
        batch, *rest = run.shape
        self.channels = run.shape[-1]
        self.values = math.prod(rest)  # of one element of the batch
        self.repeats = repeats(self.values // self.channels, self.channels)
        self.width = self.repeats * self.channels
        self.rows = self.values // self.width
        self.size = max(1, CHUNK // self.values)
        self.n_chunks = -(-batch // self.size)
        self.names: dict[str, Any] = {}
        self.prelude: list[Call] = []
        self.epilogue: list[Call] = []
        self.n_sums = 0

    def calls(self, scalar: Callable[[int, Step], np.ndarray], compiled: Callable[[str], Any]) -> list[Call]:
        """What to call in order: copies of channel values, the loop over chunks, the ends of the sums.

        Args:
            scalar: the 0-d buffer of a number that a step reads.
            compiled: turns source text into code.
        """
        body = [line for step in self.run.steps for line in self._lines(step, scalar)]
        head = [line for slot in self._chunked() for line in self._chunk_of(slot)]
        own = self._workers_own()
        source = "\n".join(
            [
                f"def make({', '.join(self.names)}):",
                "  def work(first, last, worker):",
                *(f"    {line}" for line in own),
                "    for i in range(first, last):",
                f"      a = i * {self.size}",
                f"      z = min(a + {self.size}, {self.run.shape[0]})",
                *(f"      {line}" for line in [*head, *body]),
                "  return work",
            ]
        )
        scope: dict[str, Any] = {}
        exec(compiled(source), scope)  # noqa: S102 - the text is made above, of names and numbers only
        loop = ChunkLoop(scope["make"](**self.names), self.n_chunks)
        return [*self.prelude, (loop, (), {}), *self.epilogue]

    def _chunked(self) -> list[int]:
        """Slots with an array of the run's shape."""
        slots = [slot for step in self.run.steps for slot in (*step.inputs, step.output)]
        metas = self.program.metas
        return [
            s for s in dict.fromkeys(slots) if metas[s].dtype is not None and metas[s].shape == self.run.shape
        ]

    def _chunk_of(self, slot: int) -> list[str]:
        if slot in self.run.local:
            return [f"x{slot} = own{slot}[:z - a]"] if self.run.shape[0] % self.size else []
        self.names[f"X{slot}"] = self.arrays[slot].reshape(-1, self.rows, self.width)
        return [f"x{slot} = X{slot}[a:z]"]

    def _workers_own(self) -> list[str]:
        """Each thread's chunks of local results and masks."""
        lines = []
        ragged = self.run.shape[0] % self.size
        for slot in sorted(self.run.local):
            self.names[f"T{slot}"] = self._own(slot, self.program.metas[slot].dtype)
            lines.append(f"{'own' if ragged else 'x'}{slot} = T{slot}(worker)")
        if "T_mask" in self.names:
            lines.append("own_mask = T_mask(worker)")
        return lines

    def _own(self, name: int | str, dtype: Any) -> Callable[[int], np.ndarray]:
        """worker -> its chunk."""
        shape = (self.size, self.rows, self.width)
        role = name if isinstance(name, str) else sorted(self.run.local).index(name)
        return lambda worker: self.scratch.take((role, worker), shape, dtype)

    def _lines(self, step: Step, scalar: Callable[[int, Step], np.ndarray]) -> list[str]:
        target = sum_target(self.program, step)
        if target is not None:
            return [self._sum_line(step, target)]
        operands = {f"x{k}": self._operand(slot, step, scalar) for k, slot in enumerate(step.inputs)}
        operands["out"] = f"x{step.output}"
        lines = []
        for function, reads, write in step.op.chunk_calls:
            if "zero" in reads and "zero" not in operands:
                self.names["zero"] = np.zeros(self.width, self.program.metas[step.inputs[-1]].dtype)
                operands["zero"] = "zero"
            if write == "mask":
                self.names["T_mask"] = self._own("mask", np.bool_)
                operands["mask"] = "own_mask[:z - a]"
            self.names[function.__name__] = function
            lines.append(
                f"{function.__name__}({', '.join(operands[r] for r in reads)}, out={operands[write]})"
            )
        return lines

    def _operand(self, slot: int, step: Step, scalar: Callable[[int, Step], np.ndarray]) -> str:
        meta = self.program.metas[slot]
        if meta.dtype is None:
            buffer = scalar(slot, step)
            name = f"s{slot}_{buffer.dtype.name}"
            self.names[name] = buffer
        elif meta.shape == self.run.shape:
            return f"x{slot}"
        elif meta.shape == ():
            name = f"r{slot}"
            self.names[name] = self.arrays[slot]
        elif meta.shape == each_sample(self.run.shape):
            name = f"r{slot}"
            if name not in self.names:
                shape = (self.run.shape[0], 1, self.width)
                self.names[name] = self.scratch.take(("sample", len(self.names)), shape, meta.dtype)
                repeated = self.names[name].reshape(-1, self.repeats, self.channels)
                values = self.arrays[slot].reshape(-1, 1, self.channels)
                self.prelude.append((np.copyto, (repeated, values), {}))
            return f"{name}[a:z]"
        elif meta.shape == self.run.shape[1:] and len(meta.shape) > 1:
            name = f"r{slot}"
            self.names[name] = self.arrays[slot].reshape(self.rows, self.width)
        else:
            name = f"r{slot}"
            if name not in self.names:
                self.names[name] = self.scratch.take(("row", len(self.names)), (self.width,), meta.dtype)
                repeated = self.names[name].reshape(self.repeats, self.channels)
                self.prelude.append((np.copyto, (repeated, self.arrays[slot]), {}))
        return name

    def _sum_line(self, step: Step, target: Shape) -> str:
        partial, axes, where = self._collected(step, target)
        self.names["total"] = np.add.reduce
        self.names[f"P{step.output}"] = partial
        return f"total(x{step.inputs[0]}, axis={axes}, out=P{step.output}[{where}])"

    def _collected(self, step: Step, target: Shape) -> tuple[np.ndarray, str, str]:
        """Where chunks' sums are collected, the axes to sum and the index; the epilogue adds them,
        always in one order.
        """
        out = self.arrays[step.output]
        collect = {self.run.shape[-1:]: self._by_channel, each_sample(self.run.shape): self._by_sample}
        collected = collect.get(target, self._by_position)(out)
        if step.op.name == "mean_leading":
            n = np.asarray(math.prod(self.run.shape[:-1]), out.dtype)
            self.epilogue.append((np.divide, (out, n), {"out": out}))
        return collected

    def _partial(self, shape: Shape, dtype: Any) -> np.ndarray:
        self.n_sums += 1
        return self.scratch.take(("sum", self.n_sums), shape, dtype)

    def _by_channel(self, out: np.ndarray) -> tuple[np.ndarray, str, str]:
        """One row a chunk: (where it is collected, axes of the chunk, index)."""
        partial = self._partial((self.n_chunks, self.width), out.dtype)
        row = self.scratch.take("sum row", (self.width,), out.dtype)
        folded = row.reshape(self.repeats, self.channels)
        self.epilogue.append((np.add.reduce, (partial,), {"axis": 0, "out": row}))
        self.epilogue.append((np.add.reduce, (folded,), {"axis": 0, "out": out}))
        return partial, "(0, 1)", "i"

    def _by_sample(self, out: np.ndarray) -> tuple[np.ndarray, str, str]:
        """One row an element of the batch."""
        partial = self._partial((self.run.shape[0], self.width), out.dtype)
        folded, target = partial.reshape(-1, self.repeats, self.channels), out.reshape(-1, self.channels)
        self.epilogue.append((np.add.reduce, (folded,), {"axis": 1, "out": target}))
        return partial, "1", "a:z"

    def _by_position(self, out: np.ndarray) -> tuple[np.ndarray, str, str]:
        """One value a position, for each chunk."""
        partial = self._partial((self.n_chunks, self.rows, self.width), out.dtype)
        target = out.reshape(self.rows, self.width)
        self.epilogue.append((np.add.reduce, (partial,), {"axis": 0, "out": target}))
        return partial, "0", "i"


class Scratch:
    """Buffers that all runs of a workspace share: no two of them are at work at once."""

    def __init__(self, xp: Any = np) -> None:
        self._xp = xp
        self._buffers: dict[tuple[Any, ...], Array] = {}

    def take(self, role: Any, shape: Shape, dtype: Any) -> Array:
        """The buffer of this role, shape and dtype; the same one whenever it is asked for."""
        key = (role, shape, np.dtype(dtype))
        if key not in self._buffers:
            self._buffers[key] = self._xp.empty(shape, dtype)
        return self._buffers[key]

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self._buffers.values())


class ChunkLoop:
    """The loop of a run, its chunks divided among as many threads as BLAS has."""

    __name__ = "chunk_loop"

    def __init__(self, work: Callable[[int, int, int], None], n_chunks: int) -> None:
        self._work, self._n_chunks = work, n_chunks

    def __call__(self) -> None:
        n_chunks = self._n_chunks
        with one_blas_thread() as n_threads:
            n = max(1, min(n_threads, n_chunks // 2))

            def share(k: int) -> None:
                self._work(k * n_chunks // n, (k + 1) * n_chunks // n, k)

            run_shares(share, n)
