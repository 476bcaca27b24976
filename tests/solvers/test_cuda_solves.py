"""Solves on a GPU by replay: kernels run on the CPU, CuPy's arrays are those of the stand-in."""

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
def device(device_xp, request):
    """The stand-in for CuPy, and CuPy itself under the `gpu` marker."""
    return request.getfixturevalue("cupy") if isinstance(device_xp, FakeCupy) else device_xp


@pytest.fixture
def cupy(fake_cupy, monkeypatch):
    """The stand-in for CuPy, with kernels that run on the CPU."""
    on_cpu(monkeypatch)
    monkeypatch.setattr(stages, "CudaWorkspace", CudaWorkspace)
    install(fake_cupy, monkeypatch)
    pool.drop(lambda key: True)  # idle buffers with graphs of other tests
    return fake_cupy


def f(t, y, p):
    return np.tanh(y**3 @ p["w"] + p["b"] * np.cos(t)) @ p["w"].T - 0.1 * y


@pytest.fixture
def problem(rng):
    """(y0, params)"""
    return rng.standard_normal((6, 2)), {"w": 0.5 * rng.standard_normal((2, 9)), "b": rng.standard_normal(9)}


def moved(cupy, tree):
    return {k: cupy.asarray(v) for k, v in tree.items()} if isinstance(tree, dict) else cupy.asarray(tree)


def loss(y0, params, **options):
    sol = odeint(f, y0, [0.0, 0.4, 1.0], params, rtol=1e-6, atol=1e-8, **options)
    return ops.sum(np.square(sol.ys))


@pytest.mark.parametrize("gradient", ["discrete", "backsolve", "interpolated", "reversible"])
def test_gradients_are_those_of_the_host(gradient, device, problem):
    y0, params = problem
    differentiate = value_and_grad(lambda both: loss(*both, gradient=gradient))
    value, (y_bar, p_bar) = differentiate((y0, params))
    found, (y_found, p_found) = differentiate((moved(device, y0), moved(device, params)))
    assert_close(found.get(), value, scale=abs(value), tol=1e3 * EPS64)
    for bar, expected in [(y_found, y_bar), *((p_found[k], p_bar[k]) for k in params)]:
        assert_close(bar.get(), expected, scale=norm(y_bar) + norm(*p_bar.values()), tol=1e4 * EPS64)


def test_an_attempted_step_costs_one_read(device, problem):
    y0, params = (moved(device, tree) for tree in problem)
    odeint(f, y0, [0.0, 1.0], params, rtol=1e-3)  # its check of a new program reads as well
    reads = []
    for t_end in (0.5, 4.0):
        before = transfers().reads
        stats = odeint(f, y0, [0.0, t_end], params, rtol=1e-6, atol=1e-8, first_step=0.1).stats
        reads.append((stats.n_accepted + stats.n_rejected, transfers().reads - before))
    (few, few_reads), (many, many_reads) = reads
    assert many > few
    assert many_reads - few_reads == many - few


def test_f_with_complex_numbers_beside_arrays_is_evaluated_eagerly(device, problem, caplog):
    y0, params = problem

    def g(t, y, p):
        return np.real((y + 1j) * (y - 1j)) * -0.1

    with caplog.at_level("INFO", "odegrad"):
        found = odeint(g, moved(device, y0), [0.0, 1.0], moved(device, params)).ys
    assert "complex numbers" in caplog.text
    assert_close(found.get(), odeint(g, y0, [0.0, 1.0], params).ys, scale=norm(y0), tol=1e3 * EPS64)


def happened(cupy, *kinds):
    return [call for call in cupy.calls if call[0] in kinds]


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "rk4", "dop853"])
def test_steps_launched_as_graphs_give_the_values_of_the_host(method, device, problem):
    """Methods whose last stage is the first of the next step, and others; fixed steps; an error of two estimates."""
    y0, params = problem
    options = {"step_size": 0.05} if method == "rk4" else {"rtol": 1e-6, "atol": 1e-8}
    ts = [0.0, 0.3, 1.0]
    expected = odeint(f, y0, ts, params, method=method, **options)
    found = odeint(f, moved(device, y0), ts, moved(device, params), method=method, **options)
    assert found.stats.n_accepted == expected.stats.n_accepted
    assert_close(found.ys.get(), expected.ys, scale=norm(expected.ys), tol=1e3 * EPS64)
    if isinstance(device, FakeCupy):
        assert any("stage_sum" in names for _, names in happened(device, "captured"))


def test_a_step_is_captured_once_and_then_one_launch_and_one_wait(cupy, problem):
    y0, params = (moved(cupy, tree) for tree in problem)
    solve = {"rtol": 1e-6, "atol": 1e-8, "first_step": 0.1}
    odeint(f, y0, [0.0, 2.0], params, **solve)
    (captured,) = happened(cupy, "captured")
    cupy.reset()
    stats = odeint(f, y0, [0.0, 2.0], params, **solve).stats
    attempts = stats.n_accepted + stats.n_rejected
    assert [call[0] for call in cupy.calls if call[0] != "upload"] == ["launch", "wait"] * attempts
    names = captured[1]
    assert names[-1] == "download"
    assert names.count("stage_sum") == 6
    assert names.count("numbers_at") == 6
    assert names[-3:-1] == ("block_norms", "whole_norm")
    assert "numbers_for" not in names


def test_a_step_that_calls_cublas_is_launched_kernel_by_kernel(cupy, problem, caplog):
    y0, params = problem

    def g(t, y, p):
        return (y[:, None] @ (y[:, :, None] * (p["w"] @ p["w"].T)))[:, 0] * -0.1

    with caplog.at_level("INFO", "odegrad"):
        found = odeint(g, moved(cupy, y0), [0.0, 1.0], moved(cupy, params), rtol=1e-6).ys
    (line,) = [record.message for record in caplog.records if "kernel by kernel" in record.message]
    assert "while a stream captures" in line
    assert_close(
        found.get(), odeint(g, y0, [0.0, 1.0], params, rtol=1e-6).ys, scale=norm(y0), tol=1e3 * EPS64
    )


def test_a_step_that_reads_the_time_on_the_host_is_not_captured(cupy, problem, caplog):
    y0, params = problem

    def g(t, y, p):
        return y * ops.astype(ops.astype(y * 3.0, np.int64) * t > 1.0, y.dtype) * -0.1

    with caplog.at_level("INFO", "odegrad"):
        odeint(g, moved(cupy, y0), [0.0, 1.0], moved(cupy, params), rtol=1e-2)
    assert "reads the time on the host" in caplog.text
    assert not happened(cupy, "capture")


def test_kept_steps_have_graphs_of_their_own(cupy, problem):
    """A derivative that keeps its stages: each set of buffers is captured at its second use, in a later solve."""
    y0, params = problem
    differentiate = value_and_grad(lambda both: loss(*both))
    _, expected = differentiate((y0, params))
    for _ in range(3):
        _, (y_found, p_found) = differentiate((moved(cupy, y0), moved(cupy, params)))
        assert_close(y_found.get(), expected[0], scale=norm(expected[0]), tol=1e4 * EPS64)
        for name, bar in expected[1].items():
            assert_close(p_found[name].get(), bar, scale=norm(bar), tol=1e4 * EPS64)
    assert happened(cupy, "launch")


def test_recomputed_steps_have_the_bits_of_kept_ones(device, problem):
    y0, params = (moved(device, tree) for tree in problem)
    bars = [
        value_and_grad(lambda both, k=keep: loss(*both, keep=k))((y0, params))[1][0]
        for keep in ("all", "none")
    ]
    assert np.array_equal(bars[0].get(), bars[1].get())


@pytest.mark.parametrize("number", [3, True, 2.5], ids=repr)
def test_numbers_beside_the_slope_keep_their_type(device, problem, number):
    y0, _ = problem
    seen = [
        odeint(lambda t, y: (-y, {"n": number}), xp.asarray(y0), [0.0, 1.0], has_aux=True).aux.values["n"]
        for xp in (np, device)
    ]
    assert seen[1].dtype == seen[0].dtype
    np.testing.assert_array_equal(seen[1].get(), seen[0])


def test_buffers_stay_on_their_stream(cupy, problem, monkeypatch):
    """On another one they could be written to before what was launched on the first is done."""
    y0, params = (moved(cupy, tree) for tree in problem)
    odeint(f, y0, [0.0, 1.0], params)
    once, first, other = pool.nbytes, cupy.cuda.get_current_stream(), cupy.cuda.Stream()
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: other)
    odeint(f, y0, [0.0, 1.0], params)
    assert pool.nbytes == 2 * once
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: first)
    odeint(f, y0, [0.0, 1.0], params)
    assert pool.nbytes == 2 * once
