"""What is launched for a slope and a pull-back of a network of four layers with TA-BN."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from cuda_on_cpu import needs_compiler, on_cpu
from fake_graphs import install
from odegrad import grad, odeint, ops
from odegrad.engine.cuda import chains
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.layers import TABatchNorm
from odegrad.solvers import stages
from odegrad.solvers.compiled import pool

pytestmark = needs_compiler
SHAPE, LAYERS = (2, 5, 4, 3), 4
NORM = TABatchNorm(3, (0.0, 0.2, 0.6, 1.0))


@pytest.fixture
def cupy(fake_cupy, monkeypatch):
    """The stand-in for CuPy, with kernels that run on the CPU and the state as a large array."""
    on_cpu(monkeypatch)
    monkeypatch.setattr(stages, "CudaWorkspace", CudaWorkspace)
    monkeypatch.setattr(chains, "LARGE", math.prod(SHAPE))
    install(fake_cupy, monkeypatch)
    pool.drop(lambda key: True)  # idle buffers with graphs of other tests
    return fake_cupy


def network(t, y, params):
    """Convolutions of one pixel, with bias."""
    seen = []
    for p in params:
        y = (y.reshape(-1, 3) @ p["w"]).reshape(SHAPE) + p["b"]
        y, moments = NORM.apply(p, NORM.init_stats(y.dtype), t, y, mode="train")
        y = ops.relu(y)
        seen.append(moments)
    return y, seen


def test_a_layer_is_three_launches_forward_and_three_back_beside_products(cupy, rng):
    """Forward: moments, factors a channel, the result. Back: sums, what follows from them, the cotangent.

    Products: the convolution, gamma and alpha at a time; back those of its two gradients, and what nodes get of
    gamma's and alpha's. Once for all: hat functions, moments that leave f; cotangents of parameters.
    """
    y0 = cupy.asarray(rng.standard_normal(SHAPE))
    shapes = {"w": (3, 3), "b": (3,), "gamma": (4, 3), "alpha": (4, 3)}
    params = [
        {k: cupy.asarray(0.3 * rng.standard_normal(s)) for k, s in shapes.items()} for _ in range(LAYERS)
    ]

    def loss(p):
        sol = odeint(network, y0, [0.0, 1.0], p, rtol=1e-3, has_aux=True, keep="none")
        return ops.sum(ops.square(sol.ys))

    grad(loss)(params)
    found = [names for kind, *rest in cupy.calls if kind == "captured" for names in rest]
    counts = [Counter(name.rstrip("0123456789") for name in names) for names in found]
    slope = {"product_f": 3 * LAYERS, "hat_weights_f64_f": 1, "chain_": 3 * LAYERS, "deliver": 1}
    adjoint = {"product_f": 4 * LAYERS, "chain_": 3 * LAYERS, "deliver": 1}
    assert slope in counts
    assert {"stage_sum": 6, **{name: 5 * n for name, n in adjoint.items()}} in counts
