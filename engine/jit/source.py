"""The source text of one group of a partitioned program:
a function of scalar loops over a few blocks of memory.

    def kernel(t, const, numbers, stage, work, given, result, params): ...

t is the time, `numbers` holds the captured Python numbers, `result` and `params` are where the results go;
the other blocks are those of `layout.py`. Elementwise steps of one shape share one loop, in which a result
that nothing else reads is a local variable; views cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..partition import Plan
from ..program import Step
from .expressions import expression, is_elementwise
from .layout import Layout, Place, Unsupported, contiguous
from .moves import MOVES, emit_move, fill
from .products import PRODUCTS, emit_product
from .reductions import REDUCTIONS, emit_reduction
from .text import Text, nest

ARGUMENTS = "t, const, numbers, stage, work, given, result, params"


def kernel_source(
    layout: Layout,
    group: str,
    results: Sequence[tuple[int, int]] = (),
    sums: Sequence[tuple[int, int]] = (),
) -> str:
    """The text of the function `kernel` that runs one group.

    Args:
        results: (slot, offset in `result`) of what is written there.
        sums: (slot, offset in `params`) of what is added to the values there.
    Raises: Unsupported, with the name of the operation.
    """
    return _Group(layout, group, results, sums).source()


class _Group:
    """What is known while one group is written."""

    def __init__(
        self,
        layout: Layout,
        group: str,
        results: Sequence[tuple[int, int]],
        sums: Sequence[tuple[int, int]],
    ) -> None:
        self.layout, self.plan, self.name = layout, layout.plan, group
        self.results, self.sums = results, sums
        self.steps = self.plan.steps[group]
        self.text = Text()
        self.numbers = _Numbers(self.plan, self.text)
        self.layout.sizes["work"] = 0
        self.placed_sums: set[int] = set()

    def source(self) -> str:
        self._place_results()
        for unit in _units(self.layout, self.steps):
            if isinstance(unit, list):
                self._emit_loop(unit)
            elif self.layout.is_view(unit):
                self.layout.view(unit)
            else:
                self._emit_step(unit)
        self._finish()
        return "\n".join([f"def kernel({ARGUMENTS}):", *(f"    {x}" for x in self.text.lines), "    return"])

    def _place_results(self) -> None:
        """Results that their step can write, or add, where they are wanted: made here, no residual,
        and named once.
        """
        metas, made = self.plan.program.metas, {step.output: step for step in self.steps}
        roots = [self.plan.root[slot] for slot in self.plan.outputs[self.name] if slot not in self.plan.weak]
        for block, pairs in (("result", self.results), ("params", self.sums)):
            for slot, offset in pairs:
                step = made.get(slot)
                if step is None or self.layout.is_view(step) or slot in self.plan.residuals:
                    continue
                if roots.count(slot) > 1 or self._is_read(slot):
                    continue
                if block == "result" or step.op.name in PRODUCTS or step.op.name in REDUCTIONS:
                    self.layout.places[slot] = contiguous(block, offset, metas[slot].shape)
                    if block == "params":
                        self.placed_sums.add(slot)

    def _is_read(self, slot: int) -> bool:
        return any(slot in step.inputs for step in self.steps)

    def place(self, slot: int) -> Place:
        """Where a slot lies; room for it in the work block if it has none yet."""
        return self.layout.places.get(slot) or self.layout.add(slot, "work")

    def number(self, slot: int) -> str:
        return self.numbers.name(slot)

    def _emit_step(self, step: Step) -> None:
        name, out = step.op.name, self.place(step.output)
        slots, adds = (*step.inputs, step.output), step.output in self.placed_sums
        if name not in (*MOVES, *PRODUCTS, *REDUCTIONS):
            raise Unsupported(f"operation `{name}`")
        if any(self.layout.is_truth(slot) for slot in slots) and name not in MOVES:
            raise Unsupported(f"`{name}` of truth values")
        if not self.plan.weak.isdisjoint(step.inputs):
            if name != "broadcast_to":
                raise Unsupported(f"`{name}` of numbers")
            fill(self.text, out, f"d({self.number(step.inputs[0])})")
            return
        places = [self.layout.places[slot] for slot in step.inputs]
        if name in PRODUCTS:
            emit_product(self.text, step, places, out, adds=adds)
        elif name in REDUCTIONS:
            emit_reduction(self.text, step, places[0], out, adds=adds)
        else:
            emit_move(self.text, step, places, out)

    def _emit_loop(self, steps: list[Step]) -> None:
        """Elementwise steps of one shape, in one pass."""
        layout, plan = self.layout, self.plan
        shape = plan.program.metas[steps[0].output].shape
        made = {step.output for step in steps}
        inside = {id(step) for step in steps}
        read_outside = {slot for step in self.steps if id(step) not in inside for slot in step.inputs}
        wanted = read_outside.union(plan.outputs[self.name], plan.residuals)
        stored = [step.output for step in steps if step.output in wanted or step.output in layout.places]
        loaded = list(
            dict.fromkeys(s for x in steps for s in x.inputs if s not in made and s not in plan.weak)
        )
        places = {slot: self.place(slot) for slot in (*loaded, *stored)}
        strides = [places[slot].broadcast_strides(shape) for slot in (*loaded, *stored)]
        for step in steps:
            for slot in step.inputs:
                if slot in plan.weak:
                    self.number(slot)  # computed before the loop
        with nest(self.text, shape, strides) as indices:
            where = dict(zip((*loaded, *stored), indices, strict=True))
            for slot in loaded:
                test = " != d(0.0)" if layout.is_truth(slot) else ""
                self.text.line(f"x{slot} = {places[slot].at(where[slot])}{test}")
            for step in steps:
                self._emit_element(step)
                slot = step.output
                if slot in stored:
                    value = f"(d(1.0) if x{slot} else d(0.0))" if layout.is_truth(slot) else f"x{slot}"
                    self.text.line(places[slot].to(where[slot], value))

    def _emit_element(self, step: Step) -> None:
        layout = self.layout

        def operand(position: int, as_truth: bool) -> str:
            slot = step.inputs[position]
            if slot in self.plan.weak:
                return f"({self.number(slot)} != 0)" if as_truth else f"d({self.number(slot)})"
            if layout.is_truth(slot):
                return f"x{slot}" if as_truth else f"d(x{slot})"
            return f"(x{slot} != d(0.0))" if as_truth else f"x{slot}"

        text = expression(step, operand, "d", gives_truth=layout.is_truth(step.output))
        self.text.line(f"x{step.output} = {text}")

    def _finish(self) -> None:
        """Copies of results that could not be written in place, and sums."""
        for block, pairs in (("result", self.results), ("params", self.sums)):
            for slot, offset in pairs:
                place = self.layout.places.get(slot)
                if slot in self.plan.weak:
                    raise Unsupported("a result that is a number")
                assert place is not None
                target = contiguous(block, offset, place.shape)
                if place == target:
                    continue
                with nest(self.text, place.shape, [place.strides, target.strides]) as (source, to):
                    value = place.at(source)
                    self.text.line(
                        target.to(to, f"{target.at(to)} + {value}" if block == "params" else value)
                    )


class _Numbers:
    """Python numbers inside a kernel: literals, what was captured,
    and what is computed from t in double precision.
    """

    def __init__(self, plan: Plan, text: Text) -> None:
        self._text = text
        self._plan = plan
        self._literals = dict(plan.program.baked)
        self._steps = {step.output: step for step in plan.timed_numbers}
        self._known: dict[int, str] = {}
        self._captured = {slot: k for k, slot in enumerate(captured_numbers(plan))}

    def name(self, slot: int) -> str:
        """The variable or literal that holds a number; its line is written at the first use."""
        if slot in self._literals:
            return (
                repr(float(self._literals[slot])) if _is_finite(self._literals[slot]) else self._special(slot)
            )
        if slot in self._captured:
            return f"load(numbers, {self._captured[slot]})"
        if slot not in self._steps:
            return "t"
        if slot not in self._known:
            step = self._steps[slot]
            is_truth = self._plan.program.metas[slot].number is bool
            names = [self.name(read) for read in step.inputs]

            def operand(position: int, as_truth: bool) -> str:
                return f"({names[position]} != 0)" if as_truth else f"n({names[position]})"

            if not is_elementwise(step):
                raise Unsupported(f"operation `{step.op.name}` on numbers")
            value = expression(step, operand, "n", gives_truth=is_truth)
            self._text.line(f"n{slot} = " + (f"n(1.0) if {value} else n(0.0)" if is_truth else value))
            self._known[slot] = f"n{slot}"
        return self._known[slot]

    def _special(self, slot: int) -> str:
        return {"inf": "inf", "-inf": "(-inf)", "nan": "nan"}[str(float(self._literals[slot]))]


def _is_finite(value: Any) -> bool:
    return abs(float(value)) < float("inf")


def captured_numbers(plan: Plan) -> list[int]:
    """The slots in the order of `numbers`: captured Python numbers, and what is computed from them only."""
    baked = {slot for slot, _ in plan.program.baked}
    return sorted(slot for slot in plan.weak & plan.constant_slots if slot not in baked)


def _units(layout: Layout, steps: Sequence[Step]) -> Iterable[Step | list[Step]]:
    """The steps in an order in which elementwise ones of a shape come together, as lists."""
    metas, pending = layout.plan.program.metas, list(steps)
    while pending:
        first = pending[0]
        if layout.is_view(first) or not is_elementwise(first):
            yield pending.pop(0)
            continue
        shape = metas[first.output].shape
        together, rest, waiting = [], [], set()  # type: list[Step], list[Step], set[int]
        for step in pending:
            joins = is_elementwise(step) and not layout.is_view(step) and metas[step.output].shape == shape
            if joins and waiting.isdisjoint(step.inputs):
                together.append(step)
            else:
                rest.append(step)
                waiting.add(step.output)
        yield together
        pending = rest
