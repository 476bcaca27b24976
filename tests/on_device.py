"""A function and its pull-back, traced on the host and replayed as CUDA kernels: on the CPU, with the stand-in for CuPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cuda_on_cpu import compile_with, on_cpu
from fake_cupy import FakeCupy
from fake_graphs import install
from odegrad.engine.cuda import products, replay, source
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.engine.partition import partition
from odegrad.engine.program import Recording, optimise, record
from odegrad.engine.replay import StageSet
from replaying import joint_program


class OnDevice:
    """f(t, y, *params) -> one array, or several.

    Groups: F, and with `pulls` S (cotangent of y) and Q (those of the parameters), which is in S without `apart`. Called
    with (t, y, ybar) it gives all results as NumPy arrays; `plainly` interprets the same program on the host.
    """

    def __init__(
        self,
        cupy: Any,
        f: Callable[..., Any],
        t: float,
        y: np.ndarray,
        params: list[Any],
        *,
        pulls: bool = True,
        apart: bool = True,
    ) -> None:
        names = ["t", "y", *(f"p{k}" for k in range(len(params)))]
        with np.errstate(all="ignore"):
            self.recording: Recording = record(f, [t, y, *params], names)
        self.cupy, self.params = cupy, params
        self.program = program = (joint_program if pulls else optimise)(self.recording.program)
        outputs, n = program.outputs, len(params)
        groups = {"F": outputs[:1], "S": outputs[1:2], "Q": outputs[2:]} if pulls else {"F": outputs}
        if pulls and not apart:
            groups = {"F": outputs[:1], "S": outputs[1:]}
        given = {"F": [program.inputs[1]], "S": [program.inputs[-1]]} if pulls else {"F": [program.inputs[1]]}
        self.plan = partition(program, groups, given, time=program.inputs[0])
        self.workspace = CudaWorkspace(self.plan, cupy)
        self.load(self.recording.hidden)
        self.inputs = {slots[0]: self._zeros(slots[0]) for slots in given.values()}
        self.results = [self._poisoned(slot) for slot in outputs]
        where = dict(zip(outputs, self.results, strict=True))
        targets = {name: [(slot, where[slot]) for slot in slots] for name, slots in groups.items()}
        self.set = StageSet(self.workspace, self.inputs, targets)
        assert len(self.workspace.constants) >= n

    def load(self, hidden: list[Any]) -> None:
        """Give the parameters and what f captured."""
        slots = (*self.program.inputs[2 : 2 + len(self.params)], *self.program.hidden)
        values = (*self.params, *hidden)
        arriving = [self.cupy.asarray(v) if isinstance(v, np.ndarray) else v for v in values]
        self.workspace.load(dict(zip(slots, arriving, strict=True)))

    def _zeros(self, slot: int) -> Any:
        meta = self.program.metas[slot]
        return self.cupy.zeros(meta.shape, meta.dtype)

    def _poisoned(self, slot: int) -> Any:
        meta = self.program.metas[slot]
        return self.cupy.full(meta.shape, True if meta.dtype == bool else np.nan, meta.dtype or np.float64)

    def __call__(self, t: float, *given: np.ndarray) -> list[np.ndarray]:
        for buffer, value in zip(self.inputs.values(), given, strict=True):
            buffer[...] = self.cupy.asarray(value)
        for run in self.set.run.values():
            run(t)
        return [array.get() for array in self.results]

    def plainly(self, t: float, y: np.ndarray, *ybar: np.ndarray) -> list[Any]:
        """The program interpreted on the host."""
        with np.errstate(all="ignore"):
            return self.program.run([t, y, *self.params, *ybar], self.recording.hidden)


def with_kernels(device_xp: Any, monkeypatch: Any) -> Any:
    """The module itself; of the stand-in for CuPy, kernels run on the CPU from now on."""
    if isinstance(device_xp, FakeCupy):
        on_cpu(monkeypatch)
        install(device_xp, monkeypatch)
    return device_xp


class Nothing:
    """A module of kernels that are never launched."""

    def get_function(self, name: str) -> str:
        return name


def without_compiling(monkeypatch: Any) -> None:
    """From here to the end of the test, texts of kernels are written and not compiled."""
    compile_with(lambda code, options: Nothing(), monkeypatch)
    for module in (replay, products):
        monkeypatch.setattr(module, "module", source.module)
