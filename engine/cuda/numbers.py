"""The Python numbers of a program on the device: a table of doubles,
those that depend on time computed there.

Kernels read a number from the table, or hold it as a literal where it belongs to the program. A time that
lies on the device serves as well as one of the host, so that a captured graph needs no number of the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array, is_array, to_xp
from ..jit.expressions import CPP, expression, is_elementwise
from ..jit.layout import Unsupported
from ..partition import Plan
from ..program import Step

_KERNELS = """
__device__ inline void timed(const double t, double* numbers) {{
{body}
}}
extern "C" __global__ void __launch_bounds__(1) numbers_for(double t, double* numbers) {{ timed(t, numbers); }}
extern "C" __global__ void __launch_bounds__(1) numbers_at(const double* t, double* numbers) {{ timed(*t, numbers); }}
"""


class Numbers:
    """The table of one workspace.

    Attributes:
        table: float64 (n,), one entry for each number of the plan.
        text: the kernels that fill in the numbers that depend on time.
    Raises: Unsupported for complex numbers and for operations on numbers that are no expressions.
    """

    def __init__(self, plan: Plan, xp: Any) -> None:
        self._plan, self._xp = plan, xp
        if any(plan.program.metas[slot].number is complex for slot in plan.weak):
            raise Unsupported("complex numbers")
        self._place = {slot: k for k, slot in enumerate(sorted(plan.weak))}
        self._literals = {
            slot: float(value)
            for slot, value in plan.program.baked
            if slot in plan.weak and math.isfinite(float(value))
        }
        self.text = _KERNELS.format(body="\n".join(self._lines()))
        self.table = xp.zeros(max(1, len(self._place)), "float64")

    def load(self, values: Mapping[int, Any]) -> None:
        """Write the numbers that stay the same during a solve; one copy to the device."""
        host = np.zeros(self.table.shape)
        for slot, value in values.items():
            host[self._place[slot]] = value
        if self._place:
            self.table[...] = to_xp(self._xp, host)

    def in_kernel(self, slot: int) -> str:
        """The text of a number inside a kernel that has the table as `numbers`."""
        return repr(self._literals[slot]) if slot in self._literals else f"numbers[{self._place[slot]}]"

    def place(self, slot: int) -> int:
        """The entry of a number."""
        return self._place[slot]

    def view(self, slot: int) -> Array:
        """The entry of a number, shape ()."""
        return self.table[self._place[slot] :][:1].reshape(())

    def is_timed(self, slot: int) -> bool:
        """Whether a slot is a number that depends on time."""
        return slot in self._place and slot not in self._plan.constant_slots

    def update(self, module: Any) -> Any:
        """A function of the time, on the host or a float64 () on the device,
        that fills in what depends on it.
        """
        for_host, for_device = (module.get_function(name) for name in ("numbers_for", "numbers_at"))

        def fill(t: Any) -> None:
            kernel, time = (for_device, t) if is_array(t) else (for_host, float(t))
            kernel((1,), (1,), (time, self.table))

        return fill

    def _lines(self) -> list[str]:
        lines = []
        for slot in (slot for slot in self._plan.program.inputs if self.is_timed(slot)):
            lines.append(f"  numbers[{self._place[slot]}] = t;")
        for step in self._plan.timed_numbers:
            lines.append(f"  numbers[{self._place[step.output]}] = {self._expression(step)};")
        return lines

    def _expression(self, step: Step) -> str:
        if not is_elementwise(step):
            raise Unsupported(f"operation `{step.op.name}` on numbers")
        names = [self.in_kernel(slot) for slot in step.inputs]

        def operand(position: int, as_truth: bool) -> str:
            return f"({names[position]} != 0.0)" if as_truth else f"f64({names[position]})"

        gives_truth = self._plan.program.metas[step.output].number is bool
        value = expression(step, operand, "f64", gives_truth=gives_truth, dialect=CPP)
        return f"({value}) ? 1.0 : 0.0" if gives_truth else value
