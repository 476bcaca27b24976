"""The text of a fused run: one loop nest that takes each value of a chunk through all steps, in registers.

The text names no shapes and no addresses, so that equal chains of different layers and batches share one
kernel: it reads both from a `job`, an array of whole numbers. Arrays are seen as (batch, rows, parts, width),
as `chunks` sees them as (batch, rows, parts * width): width is a multiple of the channels and long enough for
vector instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..program import Program, Step
from .expressions import expression, is_elementwise
from .layout import Unsupported
from .text import Text

SIZES = (
    "batch",
    "size",
    "rows",
    "parts",
    "width",
)  # what a job begins with; `size` elements of the batch are a chunk
N_WRITTEN = 31  # arrays that a kernel may write

# where the value of an operand stands that belongs to the element `c` of part `q` of row `r` of element `b`
STARTS = {
    "whole": "((b * rows + r) * parts + q) * width",
    "position": "(r * parts + q) * width",
    "sample": "b * width",
    "channel": "0",
}
SUM_STARTS = {
    "channel": "(i * parts + q) * width",
    "position": "((i * rows + r) * parts + q) * width",
    "sample": "(b * parts + q) * width",
}
# functions of the C library: a call a value, where NumPy has vector loops
SLOW = frozenset("arctan cos cosh expm1 log log1p power power_of sin sinh softplus tan".split())


@dataclass(frozen=True)
class RunText:
    """The source of a kernel, and whose addresses its job holds behind the sizes, in order."""

    source: str
    slots: tuple[int, ...]


def run_text(
    program: Program, steps: Sequence[Step], kinds: dict[int, str], sums: dict[int, str], kept: Sequence[int]
) -> RunText:
    """The kernel of a run.

    Args:
        kinds: how each operand lies: a key of STARTS, or "number" for what is the same everywhere.
        sums: for each slot that is a sum, what is summed to: a key of SUM_STARTS.
        kept: results that are written to memory.
    Raises: Unsupported, with the name of the operation.
    """
    return _Writer(program, steps, kinds, sums, kept).text()


class _Writer:
    def __init__(
        self,
        program: Program,
        steps: Sequence[Step],
        kinds: dict[int, str],
        sums: dict[int, str],
        kept: Sequence[int],
    ) -> None:
        self.program, self.steps, self.kinds, self.sums, self.kept = program, steps, kinds, sums, kept
        made = {step.output for step in steps}
        self.read = list(dict.fromkeys(s for step in steps for s in step.inputs if s not in made))
        self.written = {slot: k for k, slot in enumerate((*kept, *sums), start=1)}  # 0: what is only read
        slots = dict.fromkeys(s for step in steps for s in (*step.inputs, step.output))
        self.number = {slot: k for k, slot in enumerate(slots)}  # names that do not depend on the program
        if len(self.written) > N_WRITTEN:
            raise Unsupported(f"{len(self.written)} results of one run")

    def text(self) -> RunText:
        text = Text()
        for k, size in enumerate(SIZES):
            text.line(f"{size} = load(job, {k})")
        slots = (*self.read, *self.written)
        for k, slot in enumerate(slots, start=len(SIZES)):
            self._open(text, slot, k)
        with text.loop_over("i", "first, last"):
            self._clear(text)
            with (
                text.loop_over("b", "i * size, min((i + 1) * size, batch)"),
                text.loop_over("r", "rows"),
                text.loop_over("q", "parts"),
            ):
                self._parts(text)
                with text.loop_over("c", "width"):
                    self._element(text)
        lines = ["def kernel(first, last, job):", *(f"    {line}" for line in text.lines)]
        return RunText("\n".join([*lines, "    return"]), slots)

    def _open(self, text: Text, slot: int, position: int) -> None:
        """The pointer to an array, or the value of a number."""
        number = self.number[slot]
        text.line(f"a{number} = pointer(load(job, {position}), {'u' if self._is_truth(slot) else 'd'}(0))")
        if self.kinds.get(slot) == "number":
            test = " != u(0)" if self._is_truth(slot) else ""
            text.line(f"x{number} = load(a{number}, 0){test}")

    def _clear(self, text: Text) -> None:
        """Sums of a chunk start at zero."""
        extent = {
            "channel": ("i * parts * width", "parts * width"),
            "position": ("i * rows * parts * width", "rows * parts * width"),
            "sample": ("i * size * parts * width", "(min((i + 1) * size, batch) - i * size) * parts * width"),
        }
        for slot, kind in self.sums.items():
            start, count = extent[kind]
            text.line(f"p{self.number[slot]} = shifted(a{self.number[slot]}, {start})")
            with text.loop_over("c", count):
                text.line(f"write(p{self.number[slot]}, c, d(0.0), {self.written[slot]})")

    def _parts(self, text: Text) -> None:
        """Pointers to the part of each array that the innermost loop walks along."""
        for slot in (*self.read, *self.written):
            if self.kinds.get(slot) != "number":
                start = SUM_STARTS[self.sums[slot]] if slot in self.sums else STARTS[self.kinds[slot]]
                text.line(f"p{self.number[slot]} = shifted(a{self.number[slot]}, {start})")

    def _element(self, text: Text) -> None:
        """One value through all steps."""
        for slot in self.read:
            number = self.number[slot]
            if self.kinds[slot] != "number":
                test = " != u(0)" if self._is_truth(slot) else ""
                text.line(f"x{number} = read(p{number}, c, 0){test}")
        for step in self.steps:
            number = self.number[step.output]
            if step.output in self.sums:
                array = self.written[step.output]
                total = f"read(p{number}, c, {array}) + x{self.number[step.inputs[0]]}"
                text.line(f"write(p{number}, c, {total}, {array})")
                continue
            text.line(f"x{number} = {self._expression(step)}")
            if step.output in self.written:
                value = f"(u(1) if x{number} else u(0))" if self._is_truth(step.output) else f"x{number}"
                text.line(f"write(p{number}, c, {value}, {self.written[step.output]})")

    def _expression(self, step: Step) -> str:
        if not is_elementwise(step) or step.op.name in SLOW:
            raise Unsupported(f"operation `{step.op.name}`")

        def operand(position: int, as_truth: bool) -> str:
            name = f"x{self.number[step.inputs[position]]}"
            if self._is_truth(step.inputs[position]):
                return name if as_truth else f"d({name})"
            return f"({name} != d(0.0))" if as_truth else name

        return expression(step, operand, "d", gives_truth=self._is_truth(step.output))

    def _is_truth(self, slot: int) -> bool:
        return self.program.metas[slot].dtype == np.bool_
