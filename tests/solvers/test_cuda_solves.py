"""Solves on a GPU by replay: kernels run on the CPU, CuPy's arrays are those of the stand-in."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler, on_cpu
from odegrad import odeint, ops, value_and_grad
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.solvers import stages
from oracles import EPS64, assert_close, norm

pytestmark = needs_compiler


@pytest.fixture
def cupy(fake_cupy, monkeypatch):
    """The stand-in for CuPy, with kernels that run on the CPU."""
    on_cpu(monkeypatch)
    monkeypatch.setattr(stages, "CudaWorkspace", CudaWorkspace)
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
def test_gradients_are_those_of_the_host(gradient, cupy, problem):
    y0, params = problem
    differentiate = value_and_grad(lambda both: loss(*both, gradient=gradient))
    value, (y_bar, p_bar) = differentiate((y0, params))
    found, (y_found, p_found) = differentiate((moved(cupy, y0), moved(cupy, params)))
    assert_close(found.get(), value, scale=abs(value), tol=1e3 * EPS64)
    for bar, expected in [(y_found, y_bar), *((p_found[k], p_bar[k]) for k in params)]:
        assert_close(bar.get(), expected, scale=norm(y_bar) + norm(*p_bar.values()), tol=1e4 * EPS64)


def test_an_attempted_step_costs_one_read(cupy, problem):
    y0, params = (moved(cupy, tree) for tree in problem)
    odeint(f, y0, [0.0, 1.0], params, rtol=1e-3)  # its check of a new program reads as well
    reads = []
    for t_end in (0.5, 4.0):
        cupy.reset()
        stats = odeint(f, y0, [0.0, t_end], params, rtol=1e-6, atol=1e-8, first_step=0.1).stats
        reads.append((stats.n_accepted + stats.n_rejected, cupy.reads))
    (few, few_reads), (many, many_reads) = reads
    assert many > few
    assert many_reads - few_reads == many - few


def test_f_with_complex_numbers_beside_arrays_is_evaluated_eagerly(cupy, problem, caplog):
    y0, params = problem

    def g(t, y, p):
        return np.real((y + 1j) * (y - 1j)) * -0.1

    with caplog.at_level("INFO", "odegrad"):
        found = odeint(g, moved(cupy, y0), [0.0, 1.0], moved(cupy, params)).ys
    assert "complex numbers" in caplog.text
    assert_close(found.get(), odeint(g, y0, [0.0, 1.0], params).ys, scale=norm(y0), tol=1e3 * EPS64)
