"""Programs replayed as CUDA kernels: the kernels run on the CPU, CuPy's arrays are those of the stand-in."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler, on_cpu
from odegrad import ops
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.engine.partition import partition
from odegrad.engine.program import record
from odegrad.engine.replay import StageSet
from oracles import EPS64, assert_close, norm
from replaying import joint_program

pytestmark = needs_compiler


@pytest.fixture
def cupy(fake_cupy, monkeypatch):
    """The stand-in for CuPy, with kernels that run on the CPU."""
    on_cpu(monkeypatch)
    return fake_cupy


class OnDevice:
    """One function and its pull-back, traced on the host and replayed on the device."""

    def __init__(self, cupy, f, t, y, params):
        recording = record(f, [t, y, *params], ["t", "y", *(f"p{k}" for k in range(len(params)))])
        self.cupy, self.joint, n = cupy, joint_program(recording.program), len(params)
        program = self.joint
        plan = partition(
            program,
            {"F": program.outputs[:1], "S": program.outputs[1:2], "Q": program.outputs[2:]},
            {"F": [program.inputs[1]], "S": [program.inputs[-1]]},
            time=program.inputs[0],
        )
        self.workspace = CudaWorkspace(plan, cupy)
        given = zip(program.inputs[2 : 2 + n], params, strict=True)
        hidden = zip(program.hidden, recording.hidden, strict=True)
        values = {slot: self._arriving(value) for slot, value in [*given, *hidden]}
        self.workspace.load(values)
        self.y, self.ybar = cupy.zeros(y.shape, y.dtype), cupy.zeros(y.shape, y.dtype)
        metas = program.metas
        self.results = [cupy.full(metas[s].shape, np.nan, metas[s].dtype or float) for s in program.outputs]
        targets = [*zip(program.outputs, self.results, strict=True)]
        self.set = StageSet(
            self.workspace,
            {program.inputs[1]: self.y, program.inputs[-1]: self.ybar},
            {"F": targets[:1], "S": targets[1:2], "Q": targets[2:]},
        )
        self.recording, self.params = recording, params

    def _arriving(self, value):
        return self.cupy.asarray(value) if isinstance(value, np.ndarray) else value

    def __call__(self, t, y, ybar):
        self.y[...], self.ybar[...] = self.cupy.asarray(y), self.cupy.asarray(ybar)
        for group in ("F", "S", "Q"):
            self.set.run[group](t)
        return [array.get() for array in self.results]

    def plainly(self, t, y, ybar):
        """The program interpreted on the host."""
        return self.joint.run([t, y, *self.params, ybar], self.recording.hidden)


def drawn(rng, shape, dtype=np.float64):
    """(y, ybar, params) for a state of this shape."""
    y, ybar = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    return y, ybar, [rng.standard_normal(s).astype(dtype) for s in (shape[1:], shape[-1:], shape[-1:])]


def normalised(t, y, w, gamma, b):
    """Sums to channels that feed back, an offset a position, ReLU."""
    x = y * (1.0 + np.sin(t)) + w
    mean, var = ops.moments(x)
    return ops.relu(ops.normalize(x, mean, var, 1e-5, gamma, b)) * 0.5 - y


def test_first(cupy, rng):
    y, ybar, params = drawn(rng, (5, 4, 4, 8))
    device = OnDevice(cupy, normalised, 0.4, y, params)
    device(1.3, ybar, y)
    found, plain = device(0.7, y, ybar), device.plainly(0.7, y, ybar)
    for result, expected in zip(found, plain, strict=True):
        assert_close(result, expected, scale=norm(*plain), tol=100 * EPS64)
