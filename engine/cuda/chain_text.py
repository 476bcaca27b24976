"""The CUDA C text of a chain's kernel.

A kernel names its sizes: what divides an index is a constant, which the compiler turns into a product. It
reads operands of any strides that broadcast to the shape of the run, numbers as literals or from a table in
device memory, and computes in float32 and float64 side by side, as the program says. Values are read and
written once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ..fusion import Run, Shape, is_sum
from ..jit.expressions import CPP, expression
from ..partition import Plan
from ..program import Step
from . import chains
from .chain_finish import Finish, Part, finish_of
from .chain_moments import variance_of
from .chain_sums import THREADS, Sharing, common_axes
from .chains import C_TYPES, ITEMS, Chain, Sum, axes_of
from .gathers import gather_text, is_gather, pieces_of
from .scalar_functions import KINDS

NumberText = Callable[[int], str]


def chain_of(plan: Plan, run: Run, strides: Mapping[int, tuple[int, ...]], number: NumberText) -> Chain:
    """The kernel of a run.

    Args:
        strides: of the slots that are views with gaps.
        number: the text of a Python number inside a kernel: a literal, or an entry of the table `numbers`.
    """
    return _Writer(plan, run, strides, number).chain()


class _Writer:
    def __init__(
        self, plan: Plan, run: Run, strides: Mapping[int, tuple[int, ...]], number: NumberText
    ) -> None:
        self.plan, self.run, self.strides, self.number = plan, run, strides, number
        self.metas = plan.program.metas
        made = {step.output for step in run.steps}
        used = dict.fromkeys(slot for step in run.steps for slot in step.inputs)
        self.read = [slot for slot in used if slot not in made and slot not in plan.weak]
        self.written = [s.output for s in run.steps if not is_sum(s) and s.output not in run.local]
        slots = dict.fromkeys(s for step in run.steps for s in (*step.inputs, step.output))
        self.name = {slot: str(k) for k, slot in enumerate(slots)}  # names that do not depend on the program
        elementwise = [step for step in run.steps if not is_gather(plan.program, step)]
        direct = {slot for step in elementwise for slot in step.inputs}
        self.loaded = [slot for slot in self.read if slot in direct]  # the others are read by gathers
        self.constants: dict[str, str] = {}  # numbers from the table, and what they are called
        own = {step.output: step for step in run.steps}
        self.squares = {s.output: found for s in run.steps if (found := variance_of(own, s)) is not None}
        self.unwritten = {slot for v, squares in self.squares.items() for slot in (v, squares.output)}
        self.sums = [self._sum(s) for s in run.steps if is_sum(s) and s.output not in self.squares]
        self.observed = [(self.name[s.slot], self._type(s.slot)) for s in self.sums if s.variance is not None]
        axes = common_axes([found.axes for found in self.sums]) if self.sums else None
        self.sharing = None if axes is None else Sharing.of(axes)
        assert (axes is None) == (not self.sums)
        self.size = math.prod(run.shape)

    def _sum(self, step: Step) -> Sum:
        axes, variances = axes_of(self.plan, step), {sq.inputs[1]: v for v, sq in self.squares.items()}
        divisor = axes.rows if step.op.name == "mean_leading" else 1
        return Sum(step.output, axes, divisor, variances.get(step.output))

    def chain(self) -> Chain:
        body = self._elementwise() if self.sharing is None else self._summing(self.sharing)
        reads_numbers = any("numbers[" in line for line in body)
        arguments = ["const double* __restrict__ numbers"] if reads_numbers else []
        arguments += [f"const {self._type(slot)}* __restrict__ a{self.name[slot]}" for slot in self.read]
        arguments += [f"{self._type(slot)}* __restrict__ a{self.name[slot]}" for slot in self.written]
        for found in self.sums:
            names = "p" if found.variance is None else "pq"
            arguments += [f"{self._type(found.slot)}* __restrict__ {n}{self.name[found.slot]}" for n in names]
        threads = THREADS if self.sharing is None else self.sharing.threads
        text = [
            f'extern "C" __global__ void __launch_bounds__({threads}) @({", ".join(arguments)}) {{',
            f"  typedef {self._index_type()} index;",
            f"  typedef unsigned {self._index_type()} place;",
            *(f"  {line}" for line in body),
            "}",
        ]
        blocks = -(-self.size // (THREADS * self._items()))
        return Chain(
            text="\n".join(text),
            slots=(*self.read, *self.written),
            reads_numbers=reads_numbers,
            written=tuple(self.written),
            sums=tuple(self.sums),
            sharing=self.sharing,
            finish=self._finish(),
            grid=(blocks,) if self.sharing is None else (self.sharing.tiles, self.sharing.pieces),
            threads=threads,
        )

    def _finish(self) -> Finish | None:
        sharing = self.sharing
        if sharing is None:
            return None
        parts = [
            Part(self._type(found.slot), found.axes, found.divisor, found.variance is not None)
            for found in self.sums
            if sharing.terms(found.axes) > 1
        ]
        return finish_of(sharing, parts)

    def _items(self) -> int:
        return ITEMS if self.size >= chains.LARGE else 1

    def _index_type(self) -> str:
        """Wide where positions, also those in what an operand is a view of, need it."""
        roots = [self.plan.root[slot] for slot in self.read]
        largest = max([self.size + THREADS * ITEMS, *(math.prod(self.metas[slot].shape) for slot in roots)])
        return "int" if largest < 1 << 31 else "long long"

    def _type(self, slot: int) -> str:
        dtype = self.metas[slot].dtype
        assert dtype is not None
        return C_TYPES[dtype.name]

    def _elementwise(self) -> list[str]:
        """One value a thread, or ITEMS of them a block apart."""
        items, size = self._items(), self.size
        element = self._element()
        start = f"const index start = index(blockIdx.x) * {THREADS * items} + threadIdx.x;"
        if items == 1:
            return [*element, start, f"if (start < {size}) {self._one('start')}"]
        place = f"start + k * {THREADS}"
        return [
            *element,
            start,
            f"if (index(blockIdx.x + 1) * {THREADS * items} <= {size}) {{",
            *self._several(items, place),
            "} else {",
            f"  for (int k = 0; k < {items}; ++k) if ({place} < {size}) {self._one(place)}",
            "}",
        ]

    def _summing(self, sharing: Sharing) -> list[str]:
        axes, kinds = sharing.axes, sorted({self._type(found.slot) for found in self.sums})
        depth = "[3]" if self.observed else ""
        rows, columns = f"outer * {axes.rows} + row", f"{axes.columns} + column"
        body = [
            f"const index result = index(blockIdx.x) * {sharing.width} + threadIdx.x % {sharing.width};",
            f"const index outer = result / {axes.columns}, column = result % {axes.columns};",
            f"const index first = index(blockIdx.y) * {sharing.piece};",
            f"const index end = first + {sharing.piece} < {axes.rows} ? first + {sharing.piece} : {axes.rows};",
            *(f"{self._type(s.slot)} s{self.name[s.slot]} = 0;" for s in self.sums),
            *(["int count = 0;"] if self.observed else []),
            *(f"{kind} o{name}, t{name} = 0;" for name, kind in self.observed),
            *self._element(),
            f"if (result < {axes.results}) {{",
            f"  index row = first + threadIdx.x / {sharing.width};",
            f"  for (; row + {(ITEMS - 1) * sharing.lanes} < end; row += {ITEMS * sharing.lanes}) {{",
            *(f"  {line}" for line in self._several(ITEMS, f"({rows} + k * {sharing.lanes}) * {columns}")),
            "  }",
            f"  for (; row < end; row += {sharing.lanes}) {self._one(f'({rows}) * {columns}')}",
            "}",
            *(f"__shared__ {kind} shared_{kind}[{sharing.threads}]{depth};" for kind in kinds),
        ]
        is_writer = f"threadIdx.x < {sharing.width} && result < {axes.results}"
        for found in self.sums:
            body += self._folding(found, sharing)
            place = "result"
            if sharing.terms(found.axes) > 1:
                place = f"(outer * {sharing.pieces} + blockIdx.y) * {axes.columns} + column"
            body += [f"if ({is_writer}) {line}" for line in self._sum_writes(found, sharing, place)]
        return body

    def _folding(self, found: Sum, sharing: Sharing) -> list[str]:
        """What the threads of a block have found becomes one."""
        name, kind = self.name[found.slot], self._type(found.slot)
        sizes = f"<{kind}, {sharing.lanes}, {sharing.width}>"
        if found.variance is not None:
            return [f"fold_moments{sizes}(shared_{kind}, {kind}(count), s{name}, t{name});"]
        shared = f"&shared_{kind}[0][0]" if self.observed else f"shared_{kind}"
        return [f"s{name} = folded{sizes}({shared}, s{name});"]

    def _sum_writes(self, found: Sum, sharing: Sharing, place: str) -> list[str]:
        name, kind = self.name[found.slot], self._type(found.slot)
        is_whole = sharing.terms(found.axes) == 1
        share = f" / {kind}({found.divisor})" if is_whole and found.divisor != 1 else ""
        if found.variance is None:
            return [f"p{name}[{place}] = s{name}{share};"]
        return [f"p{name}[{place}] = s{name};", f"q{name}[{place}] = t{name}{share};"]

    def _element(self) -> list[str]:
        """One value through all steps, as a function of its position and of what was read there."""
        lines = []
        for step in self.run.steps:
            name = self.name[step.output]
            if step.output in self.unwritten:
                continue
            if is_sum(step):
                verb = "o{} = {};" if (name, self._type(step.output)) in self.observed else "s{} += {};"
                lines.append(verb.format(name, f"x{self.name[step.inputs[0]]}"))
                continue
            lines.append(f"const {self._type(step.output)} x{name} = {self._expression(step)};")
            if step.output in self.written:
                lines.append(f"a{name}[e] = x{name};")
        given = "".join(f", const {self._type(slot)} x{self.name[slot]}" for slot in self.loaded)
        numbers = [
            f"const {text.partition('(')[0]} {name} = {text};" for text, name in self.constants.items()
        ]
        return [
            *numbers,
            f"auto element = [&](const index e{given}) {{",
            *(f"  {line}" for line in lines),
            "};",
        ]

    def _one(self, position: str) -> str:
        """A statement that takes the value at a position through all steps."""
        reads = "".join(f", a{self.name[slot]}[{self._place(slot)}]" for slot in self.loaded)
        kept = "".join(f" const {kind} v{name}[1] = {{o{name}}};" for name, kind in self.observed)
        return f"{{ const index e = {position}; element(e{reads});{kept} {' '.join(self._observations(1))} }}"

    def _several(self, items: int, position: str) -> list[str]:
        """Statements that do so at a position for each k:
        all reads go out before the first value is needed.
        """
        loop = f"  for (int k = 0; k < {items}; ++k)"
        names = [(self._type(slot), self.name[slot], self._place(slot)) for slot in self.loaded]
        reads = " ".join(f"r{name}[k] = a{name}[{place}];" for _, name, place in names)
        given = "".join(f", r{name}[k]" for _, name, _ in names)
        kept = " ".join(f"v{name}[k] = o{name};" for name, _ in self.observed)
        return [
            *(f"  {kind} r{name}[{items}];" for kind, name, _ in names),
            *(f"  {kind} v{name}[{items}];" for name, kind in self.observed),
            "  #pragma unroll",
            f"{loop} {{ const index e = {position}; {reads} }}",
            "  #pragma unroll",
            f"{loop} {{ element({position}{given}); {kept} }}",
            *(f"  {line}" for line in self._observations(items)),
        ]

    def _observations(self, items: int) -> list[str]:
        """Statements that take the values v into their means and spreads."""
        lines = [f"observe({kind}(count), s{name}, t{name}, v{name});" for name, kind in self.observed]
        return [*lines, f"count += {items};"] if lines else []

    def _constant(self, kind: str, number: str) -> str:
        """A number in the type of a computation; one from the table is read once, before all values."""
        text = f"{kind}({number})"
        if not number.startswith("numbers["):
            return text
        return self.constants.setdefault(text, f"n{len(self.constants)}")

    def _place(self, slot: int) -> str:
        """Where the value of an operand stands that belongs to position e."""
        shape, wanted = self.metas[slot].shape, self.run.shape
        own = self.strides.get(slot) or _contiguous(shape)
        extra = len(wanted) - len(shape)
        spread = [0 if n == 1 else stride for n, stride in zip(shape, own, strict=True)]
        axes = _merged(zip(wanted, [0] * extra + spread, strict=True))
        if self.sharing is not None:
            a = self.sharing.axes
            if axes == [(self.size // a.columns, 0), (a.columns, 1)]:
                return "column"
            if axes == [(a.outer, a.columns), (a.rows, 0), (a.columns, 1)]:
                return f"outer * {a.columns} + column"
        return _position(axes)

    def _expression(self, step: Step) -> str:
        if is_gather(self.plan.program, step):
            own = {s: self.strides.get(s) or _contiguous(self.metas[s].shape) for s in step.inputs}
            zero = f"{self._type(step.output)}(0)"
            return gather_text(pieces_of(self.plan.program, step, own), self.name, zero)
        kind = self._kind(step)

        def operand(position: int, as_truth: bool) -> str:
            slot = step.inputs[position]
            if slot in self.plan.weak:
                return self._constant("bool" if as_truth else kind, self.number(slot))
            name, own = f"x{self.name[slot]}", self._type(slot)
            if own == "bool":
                return name if as_truth else f"{kind}({name})"
            return f"({name} != {own}(0))" if as_truth else name if own == kind else f"{kind}({name})"

        if step.op.name == "broadcast_to":
            return operand(0, self._type(step.output) == "bool")
        return expression(step, operand, kind, gives_truth=self._type(step.output) == "bool", dialect=CPP)

    def _kind(self, step: Step) -> str:
        """The type that a step computes in; comparisons in that of their operands."""
        out = self.metas[step.output].dtype
        assert out is not None
        if out.name in KINDS:
            return KINDS[out.name]
        operands = [self.metas[slot] for slot in step.inputs]
        common = np.result_type(*(m.number(1) if m.dtype is None else m.dtype for m in operands))
        return KINDS.get(common.name, "f64")


def _contiguous(shape: Shape) -> tuple[int, ...]:
    return tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))


def _merged(axes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """(length, stride) of each axis, axes that lie behind each other as one; axes of length one are none."""
    merged: list[tuple[int, int]] = []
    for n, stride in axes:
        if n == 1:
            continue
        if merged and merged[-1][1] == n * stride:
            merged[-1] = (merged[-1][0] * n, stride)
        else:
            merged.append((n, stride))
    return merged


def _position(axes: list[tuple[int, int]]) -> str:
    """The text of sum_k i_k stride_k for the indices i of position e.

    Without signs, the compiler knows that positions a multiple of n apart are equal modulo n, and reads the
    value of a channel once for several.
    """
    terms, inner = [], 1
    for k, (n, stride) in reversed(list(enumerate(axes))):
        if stride:
            index = "place(e)" if inner == 1 else f"place(e) / {inner}"
            index = "e" if k == 0 and inner == 1 else f"index({index})" if k == 0 else f"index({index} % {n})"
            terms.append(index if stride == 1 else f"{index} * {stride}")
        inner *= n
    return " + ".join(reversed(terms)) or "0"
