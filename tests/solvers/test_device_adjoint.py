"""Backward passes on a GPU: an adjoint step is one graph, and the host waits for none of them."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler, on_cpu
from fake_cupy import FakeCupy
from fake_graphs import install
from odegrad import odeint, ops, value_and_grad
from odegrad.engine.backend import transfers
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.solvers import stages
from odegrad.solvers.compiled import pool
from oracles import EPS64, assert_close, norm

pytestmark = needs_compiler


@pytest.fixture
def cupy(fake_cupy, monkeypatch):
    """The stand-in for CuPy, with kernels that run on the CPU."""
    on_cpu(monkeypatch)
    monkeypatch.setattr(stages, "CudaWorkspace", CudaWorkspace)
    install(fake_cupy, monkeypatch)
    pool.drop(lambda key: True)  # idle buffers with graphs of other tests
    return fake_cupy


@pytest.fixture
def device(device_xp, request):
    """The stand-in for CuPy, and CuPy itself under the `gpu` marker."""
    return request.getfixturevalue("cupy") if isinstance(device_xp, FakeCupy) else device_xp


def f(t, y, w):
    return np.tanh(y**3 @ w * np.cos(t)) @ w.T - 0.1 * y


def by_cublas(t, y, w):
    """A product of stacks of matrices, which CuPy does not capture."""
    return (y[:, None] @ (y[:, :, None] * (w @ w.T)))[:, 0] * -0.1


@pytest.fixture
def problem(rng):
    """(y0, w)"""
    return rng.standard_normal((6, 2)), 0.5 * rng.standard_normal((2, 9))


def gradients(xp, problem, *, f=f, ts=(0.0, 1.0), **options):
    """Cotangents of the state at the start and of w, on the host."""

    def loss(both):
        return ops.sum(np.square(odeint(f, both[0], ts, both[1], **options).ys))

    bars = value_and_grad(loss)(tuple(xp.asarray(x) for x in problem))[1]
    return [bar if xp is np else bar.get() for bar in bars]


def assert_equal(found, expected):
    for bar, right in zip(found, expected, strict=True):
        assert_close(bar, right, scale=norm(*expected), tol=1e4 * EPS64)


FIXED = {"method": "rk4", "step_size": 0.1}
ADAPTIVE = {"rtol": 1e-6, "atol": 1e-8}
CASES = {
    "first same as last": {**ADAPTIVE, "keep": "none"},
    "kept": {**ADAPTIVE, "keep": "all"},
    "fixed": {**FIXED, "keep": "none"},
    "one stage": {"method": "euler", "step_size": 0.1, "keep": "none"},
    "twelve stages": {**ADAPTIVE, "method": "dop853", "keep": "none"},
    "outputs inside": {**ADAPTIVE, "keep": "none", "ts": (0.0, 0.31, 0.32, 1.0)},
    "by cuBLAS": {**ADAPTIVE, "keep": "none", "f": by_cublas},
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_host(name, device, problem):
    """Carried out launch by launch at first, then as graphs."""
    expected = gradients(np, problem, **CASES[name])
    for _ in range(3):
        assert_equal(gradients(device, problem, **CASES[name]), expected)


def test_times_are_differentiated_beside_the_graphs(device, problem):
    y0, w = problem

    def along(xp):
        def loss(ts):
            return ops.sum(np.square(odeint(f, xp.asarray(y0), ts, xp.asarray(w), rtol=1e-6, keep="none").ys))

        return value_and_grad(loss)(np.array([0.0, 0.4, 1.0]))[1]

    expected = along(np)
    for _ in range(2):
        assert_close(along(device), expected, scale=norm(expected), tol=1e4 * EPS64)


def captured(cupy):
    return [names for kind, *rest in cupy.calls if kind == "captured" for names in rest]


def test_an_adjoint_step_is_captured_once(cupy, problem):
    """Its six sums, and the five pull-backs between them; that of the first slope belongs to the step before as well."""
    for _ in range(2):
        gradients(cupy, problem, **CASES["first same as last"])
    counts = [[names.count(kernel) for kernel in ("stage_sum", "numbers_at")] for names in captured(cupy)]
    assert counts.count([6, 5]) == 1
    cupy.reset()
    gradients(cupy, problem, **CASES["first same as last"])
    assert not captured(cupy)


def test_outputs_inside_of_steps_have_a_graph_of_their_own(cupy, problem):
    """Of four steps three have some."""
    sizes = {"first_step": 0.25, "max_step": 0.25, "rtol": 1.0, "atol": 1.0}
    options = {"ts": (0.0, 0.1, 0.3, 0.6, 1.0), "keep": "none", **sizes}
    for _ in range(2):
        found = gradients(cupy, problem, **options)
    assert_equal(found, gradients(np, problem, **options))
    sums = [names.count("stage_sum") for names in captured(cupy) if names.count("numbers_at") == 5]
    assert sums.count(6) == 2


def test_a_backward_pass_waits_for_nothing(cupy, problem):
    """Of a forward pass with steps of a fixed size each is asked whether it is finite."""
    reads = []
    for size in (0.1, 0.1, 0.05):
        before = transfers().reads
        gradients(cupy, problem, method="rk4", step_size=size, keep="none")
        reads.append(transfers().reads - before)
    assert reads[2] - reads[1] == 10
    assert ("wait",) not in cupy.calls


def test_what_cannot_be_captured_is_said_once(cupy, problem, caplog):
    with caplog.at_level("INFO", "odegrad"):
        gradients(cupy, problem, **CASES["by cuBLAS"])
    lines = [
        line for line in caplog.messages if "adjoint steps of dopri5 are launched kernel by kernel" in line
    ]
    assert len(lines) == 1
