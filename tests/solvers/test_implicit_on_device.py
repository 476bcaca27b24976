"""Implicit methods on CuPy arrays: solutions are those of the host, and what only NumPy arrays can do is refused."""

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler, on_cpu
from fake_cupy import FakeCupy
from fake_graphs import install
from odegrad import odeint
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.engine.errors import ArgumentTypeError, NonConvergence
from odegrad.solvers import Kvaerno5, stages
from odegrad.solvers.compiled import pool

METHODS = ["implicit_euler", "trapezoid", "rosenbrock23", "kvaerno5", "esdirk5", "radau5"]
RATES = np.array([[1.0, 50.0], [4.0, 2000.0]])


def relaxing(t, y, p):
    return -p * (y - np.cos(t)) + 0.1 * np.sum(y) * y


def solved(xp, method, execution):
    """States (3, 2, 2) on arrays of module xp, on the host."""
    options = {"method": method, "execution": execution, "rtol": 1e-4, "atol": 1e-6}
    if method in ("implicit_euler", "trapezoid"):
        options["step_size"] = 0.02
    y0, rates = xp.asarray(np.full((2, 2), 0.5)), xp.asarray(RATES)
    ys = odeint(relaxing, y0, [0.0, 0.3, 1.0], rates, **options).ys
    return ys if xp is np else ys.get()


@pytest.mark.parametrize("method", METHODS)
def test_solutions_are_those_of_the_host(method, device_xp):
    found, expected = (solved(xp, method, "eager") for xp in (device_xp, np))
    assert np.abs(found - expected).max() < 1e-8


@needs_compiler
@pytest.mark.parametrize("method", ["rosenbrock23", "radau5"])
def test_solutions_by_replay_are_those_of_the_host(method, device_xp, monkeypatch):
    if isinstance(device_xp, FakeCupy):
        on_cpu(monkeypatch)
        monkeypatch.setattr(stages, "CudaWorkspace", CudaWorkspace)
        install(device_xp, monkeypatch)
        pool.drop(lambda key: True)  # idle buffers with graphs of other tests
    found, expected = (solved(xp, method, "replay") for xp in (device_xp, np))
    assert np.abs(found - expected).max() < 1e-8


@pytest.mark.parametrize("method", ["rosenbrock23", "kvaerno5", "radau5"])
def test_dense_output_on_a_device(method, device_xp):
    ts = np.linspace(0.0, 1.0, 7)
    found, expected = (
        odeint(
            lambda t, y: -20.0 * (y - np.cos(t)), xp.asarray(np.ones(3)), [0.0, 1.0], method=method, dense=True,
            execution="eager",
        ).dense(ts)
        for xp in (device_xp, np)
    )  # fmt: skip
    assert np.abs(found.get() - expected).max() < 1e-9


def test_a_singular_matrix_on_a_device_is_named(device_xp):
    with pytest.raises(NonConvergence, match="I - h gamma J is singular"):
        odeint(
            lambda t, y: 8.0 * y, device_xp.asarray(np.ones(1)), [0.0, 0.125], method="implicit_euler",
            execution="eager",
        )  # fmt: skip


def test_krylov_solves_are_refused_on_a_device(device_xp):
    with pytest.raises(ArgumentTypeError, match="linear_solver='dense'"):
        odeint(relaxing, device_xp.asarray(np.ones((2, 2))), [0.0, 1.0], device_xp.asarray(RATES),
               method=Kvaerno5(linear_solver="krylov"))  # fmt: skip
