"""cuDNN's convolutions on a GPU: against sums in float64, in every precision, with bits that repeat where asked."""

import numpy as np
import pytest
from cuda_on_device import cupy_or_skip
from odegrad import ops
from odegrad.engine import backend, kernels
from odegrad.engine.cuda import cudnn_plans
from odegrad.engine.ops.convolution import conv2d_input_grad, conv2d_weight_grad
from odegrad.engine.product_precision import OPERAND_ERRORS, product_precision

pytestmark = pytest.mark.gpu
EPS32 = float(np.finfo(np.float32).eps)
CASES = {  # images (B, H, W, Cin), kernel (kh, kw, Cin, Cout), stride, padding
    "3x3": ((8, 16, 16, 64), (3, 3, 64, 64), 1, 1),
    "stride 2": ((8, 15, 16, 32), (3, 3, 32, 64), 2, 1),
    "a row left over": ((4, 8, 8, 8), (3, 3, 8, 16), 2, 1),
    "3 channels": ((5, 9, 7, 3), (3, 3, 3, 32), 1, 1),
    "65 channels to 1": ((3, 6, 6, 65), (3, 3, 65, 1), 1, 1),
    "1x1": ((4, 5, 5, 16), (1, 1, 16, 8), 1, 0),
    "rows and columns differ": ((2, 9, 5, 4), (3, 1, 4, 8), (2, 1), (0, 2)),
}
KINDS = ["fprop", "dgrad", "wgrad"]


@pytest.fixture
def cupy():
    """CuPy with cuDNN; the test is skipped, with the reason, without."""
    module = cupy_or_skip()
    if backend.cudnn_module() is None:
        pytest.skip("nvidia-cudnn-frontend, or the cuDNN that it loads, is not installed")
    return module


def computed(case, kind, rng, xp=None, dtype=np.float64):
    """The convolution of a case on the device, or plainly in float64 of the same float32 numbers."""
    x_shape, w_shape, stride, padding = CASES[case]
    y_shape = kernels.conv2d_output_shape(x_shape, w_shape, stride, padding)
    drawn = [rng.standard_normal(shape).astype(np.float32) for shape in (x_shape, w_shape, y_shape)]
    x, w, y = (array.astype(dtype) if xp is None else xp.asarray(array) for array in drawn)
    at = {"stride": stride, "padding": padding}
    if kind == "fprop":
        return ops.conv2d(x, w, **at)
    if kind == "dgrad":
        return conv2d_input_grad(y, w, size=x_shape[1:3], **at)
    return conv2d_weight_grad(x, y, kernel=w_shape[:2], **at)


@pytest.mark.parametrize("precision, allowed", [("fp32", 20 * EPS32), ("tf32", None), ("bf16", None)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_it_agrees_with_sums_in_float64(cupy, case, kind, precision, allowed):
    with product_precision(precision):
        got = backend.to_host(computed(case, kind, np.random.default_rng(0), cupy))
    expected = computed(case, kind, np.random.default_rng(0))
    off = np.abs(got - expected).max() / np.abs(expected).max()
    assert got.dtype == np.float32 and off <= (allowed or 3 * OPERAND_ERRORS[precision])


@pytest.mark.parametrize("precision", OPERAND_ERRORS)
@pytest.mark.parametrize("kind", KINDS)
def test_deterministic_plans_repeat_their_bits(cupy, kind, precision):
    with product_precision(precision, deterministic=True):
        first, second = (computed("3x3", kind, np.random.default_rng(0), cupy) for _ in range(2))
    assert bool((first == second).all())


@pytest.mark.parametrize("precision", OPERAND_ERRORS)
@pytest.mark.parametrize("kind", KINDS)
def test_cudnn_has_a_plan_for_many_channels(cupy, kind, precision):
    with product_precision(precision):
        computed("3x3", kind, np.random.default_rng(0), cupy)
    found = {
        problem: plan
        for problem, plan in cudnn_plans.plans_in_use().items()
        if (problem.kind, problem.products.precision) == (kind, precision) and problem.x_shape[3] == 64
    }
    assert found and all(plan is not None for plan in found.values())


def test_it_runs_on_the_stream_of_the_caller(cupy, rng):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        got = computed("3x3", "fprop", np.random.default_rng(0), cupy)
        stream.synchronize()
    expected = computed("3x3", "fprop", np.random.default_rng(0))
    assert np.abs(backend.to_host(got) - expected).max() <= 20 * EPS32 * np.abs(expected).max()
