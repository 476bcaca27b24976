"""The source text of compiled kernels, run by the Python interpreter on NumPy arrays: no numba, every operation visible."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from odegrad.engine.jit import Layout, kernel_source
from odegrad.engine.jit.source import captured_numbers
from odegrad.engine.partition import PROLOGUE, partition
from odegrad.engine.program import record
from odegrad.engine.trace import evaluate

FUNCTIONS = {
    "abs": np.abs, "arctan": np.arctan, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh, "exp": np.exp,
    "expm1": np.expm1, "floor": np.floor, "log": np.log, "log1p": np.log1p, "maximum": np.maximum,
    "minimum": np.minimum, "relu": lambda x: np.maximum(x, 0.0), "relu_gate": lambda x, gate: x * (gate > 0),
    "rint": np.rint, "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)), "sign": np.sign, "sin": np.sin,
    "sinh": np.sinh, "softplus": lambda x: np.logaddexp(0.0, x), "sqrt": np.sqrt, "tan": np.tan, "tanh": np.tanh,
}  # fmt: skip


def interpreted(text: str) -> Callable[..., None]:
    """The kernel as a Python function of arrays; reading or writing outside of one is an error."""

    def load(array: np.ndarray, position: int) -> Any:
        assert 0 <= position < array.size
        return array[position]

    def store(array: np.ndarray, position: int, value: Any) -> None:
        assert 0 <= position < array.size
        array[position] = value

    names: dict[str, Any] = {"load": load, "store": store, "plus": lambda a, b: a + b}
    names |= {"d": np.float64, "n": np.float64, "inf": math.inf, "nan": math.nan}
    names |= {f"{kind}_{name}": function for kind in "dn" for name, function in FUNCTIONS.items()}
    exec(text, names)
    return names["kernel"]


class KernelTexts:
    """The texts of the prologue, the slope and the pull-back of f(t, y, *params), and the arrays they work on."""

    def __init__(self, f: Callable[..., Any], y: np.ndarray, params: list[np.ndarray]) -> None:
        recording = record(f, [0.3, y, *params], ["t", "y", *(f"p{k}" for k in range(len(params)))])
        self.joint = joint = recording.program.vjp(recording.program.inputs[1:])
        state, *given = joint.inputs[1:-1]
        slope, state_bar, *self.param_bars = joint.outputs
        self.plan = partition(
            joint,
            {"slope": [slope], "pullback": [state_bar, *self.param_bars]},
            {"slope": [state], "pullback": joint.inputs[-1:]},
            joint.inputs[0],
        )
        self.layout = Layout(self.plan, [state], joint.inputs[-1:])
        self.params, self.hidden = params, recording.hidden
        starts = np.cumsum([0, *(p.size for p in params)]).tolist()
        self.texts, n_work = {}, 0
        for group, results, sums in (
            (PROLOGUE, [], []),
            ("slope", [(slope, 0)], []),
            ("pullback", [(state_bar, 0)], [*zip(self.param_bars, starts, strict=False)]),
        ):
            self.texts[group] = kernel_source(self.layout, group, results, sums)
            n_work = max(n_work, self.layout.sizes["work"])
        self.n_params, self.n_work, self.size = starts[-1], n_work, y.size
        self.values = dict(joint.baked)
        self.values.update(zip((*given, *joint.hidden), [*params, *recording.hidden], strict=True))

    def blocks(self, dtype: Any = np.float64) -> dict[str, np.ndarray]:
        """Arrays for every block, the constants filled in."""
        const = np.zeros(self.layout.sizes["const"], dtype)
        for slot, value in self.values.items():
            if slot not in self.plan.weak and slot in self.layout.places:
                place = self.layout.places[slot]
                const[place.offset : place.offset + math.prod(place.shape)] = np.ravel(value)
        known = {slot: value for slot, value in self.values.items() if slot in self.plan.weak}
        for op, inputs, output, static in self.plan.constant_numbers:
            known[output] = evaluate(op, tuple(known[slot] for slot in inputs), static)
        numbers = np.array([float(known[slot]) for slot in captured_numbers(self.plan)])
        sizes = {"stage": self.layout.sizes["stage"], "work": self.n_work, "result": self.size}
        arrays = {name: np.full(size, np.nan, dtype) for name, size in sizes.items()}
        return {"const": const, "numbers": numbers, **arrays, "params": np.ones(self.n_params, dtype)}

    def run(self, call: Callable[[str], Callable[..., Any]], t: float, y: Any, ybar: Any) -> list[np.ndarray]:
        """[slope, state cotangent, *parameter cotangents] by the kernels that call(text) gives."""
        found, blocks = [], self.blocks(y.dtype)
        blocks["stage"][: y.size] = y.ravel()
        blocks["given"] = ybar.ravel().copy()
        order = ("const", "numbers", "stage", "work", "given", "result", "params")
        for group in (PROLOGUE, "slope", "pullback"):
            call(self.texts[group])(t, *(blocks[name] for name in order))
            if group != PROLOGUE:
                found.append(blocks["result"].copy().reshape(y.shape))
        ends = np.cumsum([p.size for p in self.params])
        parts = np.split(blocks["params"] - 1.0, ends)  # cotangents are added to what is there
        return [*found, *(part.reshape(p.shape) for part, p in zip(parts, self.params, strict=False))]
