"""cublasLt's products on a GPU: against sums in float64, in every precision, in graphs, with bits that repeat where asked."""

import numpy as np
import pytest
from cuda_on_device import cupy_or_skip
from odegrad import odeint, ops, value_and_grad
from odegrad.engine import backend
from odegrad.engine.cuda import cublaslt, cublaslt_plans
from odegrad.engine.cuda.graph import Graph
from odegrad.engine.ops.linear import matmul_arrays
from odegrad.engine.product_precision import OPERAND_ERRORS, product_precision
from oracles import EPS32, EPS64, assert_close, norm

pytestmark = pytest.mark.gpu
CASES = {  # shapes of a and b; beyond what the small kernel takes
    "square": ((300, 300), (300, 300)),
    "many terms": ((3, 5000), (5000, 65)),
    "odd": ((1023, 129), (129, 77)),
    "one column": ((4096, 1100), (1100, 1)),
    "wide": ((600, 700), (700, 520)),
    "stack": ((7, 33, 65), (7, 65, 17)),
    "one for the stack": ((9, 130, 65), (65, 3)),
    "two axes": ((2, 3, 16, 8), (2, 3, 8, 16)),
}


@pytest.fixture
def cupy():
    """CuPy with cublasLt; the test is skipped, with the reason, without."""
    module = cupy_or_skip()
    if backend.cublaslt_module() is None:
        pytest.skip("nvmath-python, or the cublasLt that it loads, is not installed")
    return module


def drawn(case, cupy, dtype=np.float32, turned=""):
    """The operands on the device, and the exact product of their numbers."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in CASES[case])
    exact = a.astype(np.float64) @ b.astype(np.float64)
    on_device = [cupy.asarray(x) for x in (a, b)]
    for k, name in enumerate("ab"):
        if name in turned:
            x = on_device[k]
            on_device[k] = cupy.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    return *on_device, exact, norm(a) * norm(b)


@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("case", CASES)
def test_it_agrees_with_sums_in_float64(cupy, case, dtype, turned):
    a, b, exact, scale = drawn(case, cupy, dtype, turned)
    assert cublaslt.fits(a, b)
    found = matmul_arrays(a, b)
    assert found.dtype == dtype
    assert_close(
        backend.to_host(found), exact, scale=scale, tol=8 * (EPS64 if dtype is np.float64 else EPS32)
    )


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_operands_are_rounded_as_the_precision_says(cupy, case, precision):
    a, b, exact, scale = drawn(case, cupy)
    with product_precision(precision):
        found = backend.to_host(matmul_arrays(a, b))
    assert_close(found, exact, scale=scale, tol=3 * OPERAND_ERRORS[precision])


def test_large_products_are_rounded_to_bfloat16(cupy):
    """Numbers that bfloat16 holds are multiplied exactly, others are not."""
    a, b, exact, scale = drawn("wide", cupy)
    with product_precision("bf16"):
        off = norm(backend.to_host(matmul_arrays(a, b)) - exact) / scale
    a, b = (cupy.asarray((backend.to_host(x).view("u4") & 0xFFFF0000).view("f4")) for x in (a, b))
    exact = backend.to_host(a).astype(np.float64) @ backend.to_host(b).astype(np.float64)
    with product_precision("bf16"):
        held = norm(backend.to_host(matmul_arrays(a, b)) - exact) / scale
    assert held <= EPS32 * 8 < 2**-14 < off


@pytest.mark.parametrize("precision", OPERAND_ERRORS)
@pytest.mark.parametrize("case", CASES)
def test_there_is_an_algorithm(cupy, case, precision):
    a, b, *_ = drawn(case, cupy)
    with product_precision(precision):
        matmul_arrays(a, b)
    assert cublaslt_plans.plans_in_use()
    assert None not in cublaslt_plans.plans_in_use().values()


@pytest.mark.parametrize("precision", OPERAND_ERRORS)
@pytest.mark.parametrize("case", ["many terms", "wide", "stack"])
def test_deterministic_products_repeat_their_bits(cupy, case, precision):
    a, b, *_ = drawn(case, cupy)
    with product_precision(precision, deterministic=True):
        first, second = (matmul_arrays(a, b) for _ in range(2))
    assert bool((first == second).all())


@pytest.mark.parametrize("offset", [1, 2, 4])
def test_operands_off_the_widest_alignment(cupy, offset):
    a, b, exact, scale = drawn("square", cupy)
    memory = cupy.empty(a.size + offset, a.dtype)
    memory[offset:] = a.reshape(-1)
    found = matmul_arrays(memory[offset:].reshape(a.shape), b)
    assert_close(backend.to_host(found), exact, scale=scale, tol=8 * EPS32)


@pytest.mark.parametrize("precision", OPERAND_ERRORS)
@pytest.mark.parametrize("case", CASES)
def test_a_graph_holds_it(cupy, case, precision):
    """And computes with what lies in its operands when it is launched."""
    a, b, exact, scale = drawn(case, cupy)
    out, memory = cupy.empty(exact.shape, a.dtype), backend.private_memory()
    with product_precision(precision):
        work = lambda: cublaslt.matmul_into(a, b, out)  # noqa: E731
        backend.carry_out(work, memory)
        graph = Graph(work, memory)
        a *= 2
        out.fill(np.nan)
        graph.launch()
    assert_close(
        backend.to_host(out), 2 * exact, scale=2 * scale, tol=3 * OPERAND_ERRORS[precision] + 8 * EPS32
    )


def by_stacks(t, y, w):
    return np.tanh(y @ np.swapaxes(y, 1, 2) @ y @ w) * np.cos(t) - y


def by_long_sums(t, y, w):
    return np.tanh(y @ w) @ w.T / 32.0 - y


def by_convolutions(t, y, w):
    return np.tanh(ops.conv2d(y, w, padding=1)) - y


SOLVES = {  # f, shape of the state, shape of w
    "stacks": (by_stacks, (7, 5, 12), (12, 12)),
    "long sums": (by_long_sums, (9, 1200), (1200, 33)),
    "convolutions in float64": (by_convolutions, (6, 15, 14, 16), (3, 3, 16, 16)),
}


@pytest.mark.parametrize("case", SOLVES)
def test_steps_and_pull_backs_are_captured(cupy, case, caplog):
    """Three times: launched, captured, as graphs."""
    f, *shapes = SOLVES[case]
    rng = np.random.default_rng(0)
    y, w = (0.3 * rng.standard_normal(shape) for shape in shapes)

    def loss(both):
        ys = odeint(f, both[0], [0.0, 0.5], both[1], rtol=1e-5, atol=1e-5).ys
        return ops.sum(np.square(ys))

    _, expected = value_and_grad(loss)((y, w))
    with caplog.at_level("DEBUG", "odegrad"):
        for _ in range(3):
            _, found = value_and_grad(loss)((cupy.asarray(y), cupy.asarray(w)))
            for bar, exact in zip(found, expected, strict=True):
                assert_close(backend.to_host(bar), exact, scale=norm(*expected), tol=1e5 * EPS64)
    assert "kernel by kernel" not in caplog.text
    assert "no algorithm" not in caplog.text
