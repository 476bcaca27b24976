"""The weighted sums of a solver on a GPU are not rounded, whatever products of f are; on the stand-in for CuPy."""

import contextlib

import numpy as np
import pytest
from odegrad import odeint, ops, product_precision, value_and_grad
from odegrad.engine import backend
from odegrad.solvers.options import GRADIENTS


@pytest.fixture
def found(fake_cupy, monkeypatch):
    """For each product of CuPy that was called, how cuBLAS computed it then."""
    setting, found = ["fp32"], {"dot": set(), "matmul": set()}

    @contextlib.contextmanager
    def matrix_products_in(precision):
        setting.append(precision)
        yield
        setting.pop()

    def noting(name, product):
        def call(*args, **kwargs):
            found[name].add(setting[-1])
            return product(*args, **kwargs)

        return call

    monkeypatch.setattr(backend, "matrix_products_in", matrix_products_in)
    for name in found:
        monkeypatch.setattr(fake_cupy, name, noting(name, getattr(fake_cupy, name)), raising=False)
    return found


def f(t, y, w):
    return np.tanh(y @ w) - y


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_sums_forward_and_backward_are_float32(fake_cupy, found, rng, gradient):
    y0, w = (fake_cupy.asarray(rng.standard_normal(n).astype(np.float32)) for n in ((4, 3), (3, 3)))

    def loss(y0, w):
        return ops.sum(odeint(f, y0, [0.0, 0.3, 0.4, 1.0], w, rtol=1e-2, atol=1e-2, gradient=gradient).ys)

    with product_precision("tf32"):
        value_and_grad(loss, argnums=(0, 1))(y0, w)
    assert found == {"dot": {"fp32"}, "matmul": {"tf32"}}


@pytest.mark.parametrize("method", ["dopri5", "dop853", "adams_bashforth_moulton", "kvaerno5", "radau5"])
def test_so_are_those_of_other_methods(fake_cupy, found, rng, method):
    y0, w = (fake_cupy.asarray(rng.standard_normal(n).astype(np.float32)) for n in ((4, 3), (3, 3)))
    options = {"step_size": 0.1} if method.startswith("adams") else {"rtol": 1e-2, "atol": 1e-2}
    with product_precision("tf32"):
        odeint(f, y0, [0.0, 0.3, 0.4, 1.0], w, method=method, **options)
    assert found["dot"] == {"fp32"}
