"""The kernel that copies and adds many results in one launch, and the launches of programs that use it."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import Guarded, needs_compiler
from cuda_on_device import PLACES, kernels_at
from fake_cupy import FakeCupy
from odegrad.engine.cuda.delivery import CHUNK, delivery_calls, fits_delivery
from odegrad.engine.replay import StageSet
from on_device import OnDevice, with_kernels
from oracles import EPS64, assert_close, norm

SHAPES = [(3,), (1, 1), (2, 5), (CHUNK,), (CHUNK + 1,), (3, CHUNK - 5)]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


@pytest.fixture(params=PLACES)
def kernels(request, monkeypatch):
    kernels_at(request.param, monkeypatch)


def drawn(rng, dtype, offset):
    """Pairs of guarded targets and values."""
    targets = [Guarded(shape, dtype, offset) for shape in SHAPES]
    for target in targets:
        target.array[...] = rng.standard_normal(target.array.shape)
    return targets, [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


@pytest.mark.parametrize("weight", [None, -0.5])
@pytest.mark.parametrize("offset", [0, 1])
@DTYPES
def test_values_are_copied_and_added(rng, dtype, offset, weight, kernels):
    """Every other one is added; leaves end within blocks, at their ends and behind them."""
    targets, values = drawn(rng, dtype, offset)
    pairs = [(target.array, value) for target, value in zip(targets, values, strict=True)]
    expected = [value.copy() for value in values]
    for k in range(1, len(pairs), 2):
        expected[k] = pairs[k][0] + dtype(1.0 if weight is None else weight) * values[k]
    factor = None if weight is None else np.array(weight, dtype)
    ((kernel, arguments, _),) = delivery_calls(pairs[::2], pairs[1::2], factor)
    kernel(*arguments)
    for target, value in zip(targets, expected, strict=True):
        assert_close(target.check(), value, scale=4.0, tol=np.finfo(dtype).eps)


def test_each_dtype_is_a_launch(rng, kernels):
    pairs = [(np.empty(3, dtype), np.ones(3, dtype)) for dtype in (np.float32, np.float64, np.float32)]
    calls = delivery_calls(pairs, [], None)
    assert len(calls) == 2
    for kernel, arguments, _ in calls:
        kernel(*arguments)
    assert all((target == 1).all() for target, _ in pairs)


@pytest.mark.parametrize(
    ("target", "value", "weight"),
    [
        (np.ones(3), np.ones(3, np.float32), None),
        (np.ones((2, 3)).T, np.ones((3, 2)), None),
        (np.ones(3), np.ones(()), None),
        (np.ones(0), np.ones(0), None),
        (np.ones(3, np.int64), np.ones(3, np.int64), None),
        (np.ones(3), np.ones(3), np.ones((), np.float32)),
    ],
    ids=["dtypes", "strides", "shapes", "empty", "whole", "weight"],
)
def test_what_does_not_fit(target, value, weight):
    assert not fits_delivery((target, value), weight)


def both(t, y, w, b):
    """A product of a parameter, and one that is only a view of the cotangent."""
    return np.tanh(y @ w) + b


@needs_compiler
@pytest.mark.parametrize("weight", [None, 0.25])
def test_a_program_adds_all_parameter_cotangents_in_one_launch(weight, device_xp, rng, monkeypatch):
    cupy = with_kernels(device_xp, monkeypatch)
    y, ybar, b = rng.standard_normal((3, 6, 4))
    device = OnDevice(cupy, both, 0.4, y, [rng.standard_normal((4, 4)), b])
    _, _, *expected = device.plainly(0.4, y, ybar)
    program, plan = device.program, device.plan
    totals = [cupy.ones(program.metas[slot].shape) for slot in plan.outputs["Q"]]
    targets = {"F": [(program.outputs[0], device.results[0])], "S": [(program.outputs[1], device.results[1])]}
    factor = None if weight is None else cupy.asarray(np.array(weight))
    added = StageSet(
        device.workspace,
        device.inputs,
        targets,
        {"Q": [*zip(plan.outputs["Q"], totals, strict=True)]},
        factor,
    )
    device(0.4, y, ybar)
    for run in added.run.values():
        run(0.4)
    for total, bar in zip(totals, expected, strict=True):
        assert_close(total.get(), 1.0 + (weight or 1.0) * bar, scale=norm(*expected), tol=100 * EPS64)
    if isinstance(cupy, FakeCupy):
        added.run["Q"](0.4)
        ((_, names),) = [call for call in cupy.calls if call[0] == "captured"]
        assert (names.count("deliver"), names.count("add"), names.count("multiply")) == (1, 0, 0)
