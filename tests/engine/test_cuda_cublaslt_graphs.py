"""Programs with products by cublasLt, captured as CUDA graphs: on the CPU, with the stand-ins for CuPy and cublasLt."""

from contextlib import nullcontext

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler, on_cpu
from fake_cublaslt import FakeCublasLt
from fake_graphs import install
from odegrad import odeint, ops, value_and_grad
from odegrad.engine import backend
from odegrad.engine.cuda import cublaslt, cublaslt_plans, products
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.engine.errors import ImpureDynamicsError
from odegrad.engine.primitive import Primitive
from odegrad.engine.product_precision import product_precision
from odegrad.solvers import stages
from odegrad.solvers.compiled import pool
from on_device import OnDevice
from oracles import EPS32, EPS64, assert_close, norm

pytestmark = needs_compiler

FITS_CUDA = Primitive.fits_cuda


@pytest.fixture
def cupy(fake_cupy, monkeypatch):
    """The stand-in for CuPy with kernels that run on the CPU, and graphs."""
    on_cpu(monkeypatch)
    recorder = install(fake_cupy, monkeypatch)
    monkeypatch.setattr(Primitive, "fits_cuda", FITS_CUDA)
    monkeypatch.setattr(backend, "cudnn_module", lambda: None)
    monkeypatch.setattr(products, "MOST_PRODUCTS", 1 << 11)  # beyond, cublasLt's
    fake_cupy.lt = lt = FakeCublasLt()
    lt.recorder = recorder
    monkeypatch.setattr(cublaslt_plans, "_local", type(cublaslt_plans._local)())
    monkeypatch.setattr(backend, "cublaslt_module", lambda: lt)
    monkeypatch.setattr(backend, "device_address", lt.address_of)
    return fake_cupy


def stacked(t, y, w, b):
    """Matrices of a batch times each other, and one times all of them."""
    square = y.reshape(y.shape[0], 2, -1)
    turned = np.swapaxes(square, 1, 2)
    return ((square @ turned) @ square @ w).reshape(y.shape) * np.cos(t) + b


def large(t, y, w, b):
    """A product of many terms, and one of its transpose."""
    return np.tanh(y @ w) @ w.T * 1e-2 + b


def convolved(t, y, w, b):
    """A convolution that cuDNN is not asked: float64."""
    return np.tanh(ops.conv2d(y, w, padding=1)) + b


def convolved_from_few(t, y, w, b):
    """Of few channels: planes of taps."""
    return ops.conv2d(np.tanh(ops.conv2d(y, w, padding=1)), ops.swapaxes(w, 2, 3), padding=1) * t + b


CASES = {
    "stacked": (stacked, (4, 6), [(3, 3), (6,)]),
    "large": (large, (2, 1030), [(1030, 3), (1030,)]),
    "convolved": (convolved, (2, 5, 4, 6), [(3, 3, 6, 6), (6,)]),
    "convolved from few": (convolved_from_few, (2, 5, 4, 3), [(3, 3, 3, 8), (3,)]),
}


def case(name, rng):
    f, shape, sizes = CASES[name]
    return f, *(rng.standard_normal(s) for s in (shape, shape)), [rng.standard_normal(s) for s in sizes]


def assert_as_plain(device, t, y, ybar):
    found, plain = device(t, y, ybar), device.plainly(t, y, ybar)
    for result, expected in zip(found, plain, strict=True):
        assert_close(result, expected, scale=norm(*plain), tol=100 * EPS64)


@pytest.mark.parametrize("name", CASES)
def test_groups_are_captured_and_their_graphs_compute(cupy, rng, name):
    """Launch by launch, while it is captured, and as graphs on other values."""
    f, y, ybar, params = case(name, rng)
    device = OnDevice(cupy, f, 0.4, y, params)
    for t in (0.1, 0.2, 0.3, 0.4):
        assert_as_plain(device, t, *(rng.standard_normal(x.shape) for x in (y, ybar)))
    assert not device.workspace.recorder.refused
    captured = [call[1] for call in cupy.calls if call[0] == "captured"]
    assert len(captured) == 3
    assert any("cublasLt" in names for names in captured)


def test_a_group_without_an_algorithm_is_launched_kernel_by_kernel(cupy, rng):
    cupy.lt.algorithms = lambda kind: []
    f, y, ybar, params = case("stacked", rng)
    device = OnDevice(cupy, f, 0.4, y, params)
    for t in (0.1, 0.2, 0.3):
        assert_as_plain(device, t, y, ybar)
    assert "matmul was called while a stream captures" in device.workspace.recorder.refused["F"]


def test_a_graph_has_the_precision_it_was_captured_in(cupy, rng, monkeypatch):
    """One for each; bfloat16 and its rounding of operands are in the graph."""
    monkeypatch.setattr(backend, "matrix_products_in", lambda precision: np.errstate())
    monkeypatch.setattr(cublaslt, "FEWEST_NARROWED", 2)
    monkeypatch.setattr(products, "MOST_PRODUCTS", 0)
    y, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 8), (8, 8)))
    device = OnDevice(cupy, lambda t, y, w: y @ w, 0.4, y, [w], pulls=False)
    exact, errors = y.astype(np.float64) @ w, {}
    for precision in ("fp32", "tf32", "bf16"):
        with product_precision(precision):
            for _ in range(3):
                (found,) = device(0.1, y)
        errors[precision] = norm(found - exact) / norm(y) / norm(w)
    assert errors["fp32"] <= 2 * EPS32 < 2**-15 < errors["tf32"] < 2**-10 < 4 * errors["bf16"] < 2**-6
    captured = [call[1] for call in cupy.calls if call[0] == "captured"]
    assert [names.count("narrow") for names in captured] == [0, 0, 2]


def moved(cupy, tree):
    return [cupy.asarray(leaf) for leaf in tree]


@pytest.mark.parametrize("name", ["stacked", "convolved"])
def test_steps_and_their_pull_backs_are_captured(cupy, rng, monkeypatch, name, caplog):
    monkeypatch.setattr(stages, "CudaWorkspace", CudaWorkspace)
    pool.drop(lambda key: True)  # idle buffers with graphs of other tests
    f, y, _, params = case(name, rng)

    def loss(both):
        y, (w, b) = both
        ys = odeint(lambda t, y, p: f(t, y, *p) - y, y, [0.0, 0.3], [w, b], rtol=1e-4, atol=1e-4).ys
        return ops.sum(np.square(ys))

    params = [0.3 * leaf for leaf in params]
    _, (y_bar, bars) = value_and_grad(loss)((0.3 * y, params))
    with caplog.at_level("INFO", "odegrad"):
        for _ in range(3):
            _, (y_found, found) = value_and_grad(loss)((cupy.asarray(0.3 * y), moved(cupy, params)))
    scale = norm(y_bar) + norm(*bars)
    for bar, expected in [(y_found, y_bar), *zip(found, bars, strict=True)]:
        assert_close(bar.get(), expected, scale=scale, tol=1e4 * EPS64)
    assert "kernel by kernel" not in caplog.text
    assert any(
        "cublasLt" in call[1] and "stage_sum" in call[1] for call in cupy.calls if call[0] == "captured"
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_function_is_told_from_rounded_operands(cupy, rng, monkeypatch, precision):
    """A replay in bfloat16 is compared with products that CuPy may have rounded less: one percent is no other function."""
    monkeypatch.setattr(stages, "CudaWorkspace", CudaWorkspace)
    monkeypatch.setattr(backend, "matrix_products_in", lambda precision: np.errstate())
    y0 = cupy.asarray(rng.standard_normal((3, 2)).astype(np.float32))

    def f(t, y):
        return y * (1.01 if type(y) is cupy.ndarray else 1.0)

    differs = pytest.raises(ImpureDynamicsError) if precision == "fp32" else nullcontext()
    with product_precision(precision), differs:
        odeint(f, y0, [0.0, 0.1], rtol=0.1, atol=0.1)
