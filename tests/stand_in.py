"""The stand-in for CuPy in the place of CuPy: every op is computed plainly, and a program step by step.

`test_cuda_replay.py` compiles the kernels of programs for the CPU, which takes seconds.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from odegrad.engine import backend, jitted
from odegrad.engine.primitive import Primitive
from odegrad.engine.program import Step
from odegrad.engine.replay import Binder, Code, WeakScalars, Workspace
from odegrad.solvers import stages
from odegrad.train import optimizers
from odegrad.train.data import augmentation

FAKE = FakeCupy()  # one for all tests: caches are kept by array module


def install(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    """The stand-in as if it were CuPy and installed, with nothing counted yet."""
    monkeypatch.setitem(sys.modules, "cupy", FAKE)
    monkeypatch.setattr(Primitive, "fits_cuda", lambda *_: False)
    monkeypatch.setattr(backend, "cublaslt_module", lambda: None)  # of the products inside kernels
    monkeypatch.setattr(optimizers, "fits_adamw", lambda *_: False)
    monkeypatch.setattr(augmentation, "fits_augment", lambda *_: False)
    for module in (jitted, stages):
        monkeypatch.setattr(module, "CudaWorkspace", PlainWorkspace)
    FAKE.reset()
    return FAKE


class PlainWorkspace(Workspace):
    """Replay without kernels: each step is its plain forward and a copy."""

    def _schedules(self) -> dict[str, Any]:
        return {group: list(self.plan.steps[group]) for group in self.plan.order}

    def binder(self, *given: Any) -> Binder:
        return _PlainBinder(self, *given)


class _PlainBinder(Binder):
    def _scalars(self, code: Code) -> WeakScalars:
        return _DeviceNumbers(self.workspace, code)

    def _view(self, step: Step) -> Any:
        source, view = self.arrays[step.inputs[0]], super()._view(step)
        assert self.xp.may_share_memory(source, view) or not view.size, f"`{step.op.name}` made a copy"
        return view

    def _emit(self, code: Code, step: Step, scalars: WeakScalars) -> None:
        function = code.name(functools.partial(_compute, self.xp, self.arrays[step.output], step))
        words = [
            scalars.name_of(slot) if slot in self.plan.weak else code.name(self.arrays[slot])
            for slot in step.inputs
        ]
        code.call_line(f"{function}({', '.join(words)})")


class _DeviceNumbers(WeakScalars):
    """Numbers that leave a group lie on the device."""

    def array(self, slot: int, dtype: np.dtype) -> Any:
        buffer = self._workspace.xp.zeros((), dtype)
        self._code.scalar_line(f"{self._code.name(buffer)}[()] = {self.name_of(slot)}")
        return buffer


def _compute(xp: Any, out: Any, step: Step, *arguments: Any) -> None:
    out[...] = step.op.forward(xp, *arguments, **step.static)
