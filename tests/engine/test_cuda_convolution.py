"""Convolutions by cuDNN: what is asked of it, what is done with its answer, and what it is not asked."""

import subprocess
import sys
import types

import numpy as np
import pytest
from fake_cudnn import FakeCudnn, data_type, numerical_note
from odegrad.engine import backend, kernels
from odegrad.engine.cuda import convolution, cudnn_plans
from odegrad.engine.product_precision import product_precision

EPS32 = float(np.finfo(np.float32).eps)
CASES = {  # images (B, H, W, Cin), kernel (kh, kw, Cin, Cout), stride, padding
    "3x3": ((2, 6, 5, 4), (3, 3, 4, 8), 1, 1),
    "stride 2": ((2, 7, 6, 3), (3, 3, 3, 5), 2, 1),
    "stride 2, a row left over": ((1, 8, 8, 2), (3, 3, 2, 4), 2, 1),
    "1x1": ((3, 4, 4, 65), (1, 1, 65, 1), 1, 0),
    "rows and columns differ": ((2, 9, 5, 1), (3, 1, 1, 3), (2, 1), (0, 2)),
}


@pytest.fixture(autouse=True)
def no_plans(monkeypatch):
    """Fresh plans, and NumPy's memory in the place of the GPU's."""
    monkeypatch.setattr(cudnn_plans, "_local", type(cudnn_plans._local)())
    monkeypatch.setattr(backend, "device_address", lambda array: array.ctypes.data)
    monkeypatch.setattr(backend, "current_stream", lambda: 7)
    monkeypatch.setattr(backend, "device_number", lambda: 0)
    monkeypatch.setattr(convolution, "narrowed", _narrowed)
    monkeypatch.setattr(convolution, "widened", _widened)


@pytest.fixture
def cudnn(monkeypatch):
    return _use(monkeypatch, FakeCudnn())


def _use(monkeypatch, fake):
    monkeypatch.setattr(backend, "cudnn_module", lambda: fake)
    return fake


def _narrowed(x):
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def _widened(halves, out=None):
    values = (halves.astype(np.uint32) << 16).view(np.float32)
    if out is None:
        return values
    out[...] = values
    return out


class Drawn:
    """The arrays of a case and its three convolutions, by cuDNN and plainly."""

    def __init__(self, case, rng):
        x_shape, w_shape, self.stride, self.padding = CASES[case]
        y_shape = kernels.conv2d_output_shape(x_shape, w_shape, self.stride, self.padding)
        self.x, self.w, self.y = (
            rng.standard_normal(shape).astype(np.float32) for shape in (x_shape, w_shape, y_shape)
        )

    def by_cudnn(self, kind, **more):
        x, w, y = self.x, self.w, self.y
        settings = {"stride": self.stride, "padding": self.padding, **more}
        if kind == "fprop":
            return convolution.conv2d_cudnn(x, w, **settings)
        if kind == "dgrad":
            return convolution.conv2d_input_grad_cudnn(y, w, size=x.shape[1:3], **settings)
        return convolution.conv2d_weight_grad_cudnn(x, y, kernel=w.shape[:2], **settings)

    def plainly(self, kind):
        x, w, y = (array.astype(np.float64) for array in (self.x, self.w, self.y))
        settings = {"stride": self.stride, "padding": self.padding}
        if kind == "fprop":
            return kernels.conv2d(np, x, w, **settings)
        if kind == "dgrad":
            return kernels.conv2d_input_grad(np, y, w, input_shape=x.shape[1:3], **settings)
        return kernels.conv2d_weight_grad(np, x, y, kernel_shape=w.shape[:2], **settings)


@pytest.fixture(params=CASES)
def drawn(request, rng):
    return Drawn(request.param, rng)


KINDS = pytest.mark.parametrize("kind", ["fprop", "dgrad", "wgrad"])


def _assert_near(got, expected, error):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= error * np.abs(expected).max()


@KINDS
def test_it_agrees_with_the_plain_kernel(cudnn, drawn, kind):
    got = drawn.by_cudnn(kind)
    assert got.dtype == np.float32
    _assert_near(got, drawn.plainly(kind), 2 * EPS32)
    assert len(cudnn.runs) == 1


@KINDS
def test_the_result_goes_where_the_caller_says(cudnn, drawn, kind):
    out = np.full(drawn.plainly(kind).shape, np.nan, np.float32)
    assert drawn.by_cudnn(kind, out=out) is out
    _assert_near(out, drawn.plainly(kind), 2 * EPS32)


@KINDS
def test_into_memory_with_gaps(cudnn, rng, kind):
    drawn = Drawn("3x3", rng)
    expected = drawn.plainly(kind)
    out = np.full((*expected.shape[:-1], 2 * expected.shape[-1]), np.nan, np.float32)[..., ::2]
    drawn.by_cudnn(kind, out=out)
    _assert_near(out, expected, 2 * EPS32)


@KINDS
def test_operands_with_gaps(cudnn, rng, kind):
    drawn = Drawn("3x3", rng)
    expected = drawn.plainly(kind)
    for name in ("x", "w", "y"):
        array = getattr(drawn, name)
        spread = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, np.float32)
        spread[..., ::2] = array
        setattr(drawn, name, spread[..., ::2])
    _assert_near(drawn.by_cudnn(kind), expected, 2 * EPS32)


def test_images_are_taken_where_they_lie(cudnn, rng):
    drawn = Drawn("3x3", rng)
    drawn.by_cudnn("fprop")
    image = cudnn.graphs[0].operands[0]
    assert (image.dim, image.stride) == ([2, 4, 6, 5], [120, 1, 20, 4])


def test_a_plan_is_built_once_for_the_same_shapes(cudnn, rng):
    drawn = Drawn("3x3", rng)
    for _ in range(3):
        drawn.by_cudnn("fprop")
    assert (len(cudnn.graphs), len(cudnn.runs), len(cudnn.handles)) == (1, 3, 1)


@pytest.mark.parametrize("other", ["stride 2", "1x1"])
def test_other_shapes_have_another_plan(cudnn, rng, other):
    for case in ("3x3", other):
        Drawn(case, rng).by_cudnn("fprop")
    assert len(cudnn.graphs) == 2


def test_another_precision_has_another_plan(cudnn, rng, monkeypatch):
    monkeypatch.setattr(backend, "matrix_products_in", _nothing)
    drawn = Drawn("3x3", rng)
    drawn.by_cudnn("fprop")
    with product_precision("tf32"):
        drawn.by_cudnn("fprop")
    assert len(cudnn.graphs) == 2


def test_the_plan_unused_for_longest_is_dropped(cudnn, rng, monkeypatch):
    monkeypatch.setattr(cudnn_plans, "_MOST_PLANS", 2)
    first, second, third = (Drawn(case, rng) for case in ("3x3", "stride 2", "1x1"))
    for drawn in (first, second, first, third):
        drawn.by_cudnn("fprop")
    kept = {problem.x_shape for problem in cudnn_plans.plans_in_use()}
    assert kept == {first.x.shape, third.x.shape}


def test_it_runs_on_the_stream_of_the_caller(cudnn, rng):
    Drawn("3x3", rng).by_cudnn("fprop")
    assert cudnn.streams == [7]


@KINDS
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_products_are_added_in_float32(cudnn, rng, kind, precision, monkeypatch):
    monkeypatch.setattr(backend, "matrix_products_in", _nothing)
    with product_precision(precision):
        Drawn("3x3", rng).by_cudnn(kind)
    assert cudnn.graphs[0].node["compute_data_type"] is data_type.FLOAT
    assert cudnn.graphs[0].result.data_type is data_type.FLOAT


TENSOR_CORE, NONDETERMINISTIC = numerical_note.TENSOR_CORE, numerical_note.NONDETERMINISTIC


@pytest.mark.parametrize(
    "precision, deterministic, expected",
    [
        ("fp32", False, set()),
        ("tf32", False, {TENSOR_CORE, NONDETERMINISTIC}),
        ("tf32", True, {TENSOR_CORE}),
        ("bf16", False, {TENSOR_CORE, NONDETERMINISTIC}),
        ("bf16", True, {TENSOR_CORE}),
    ],
)
def test_the_first_plan_that_the_precision_allows(monkeypatch, rng, precision, deterministic, expected):
    plans = [
        {numerical_note.REDUCED_PRECISION_REDUCTION},
        {TENSOR_CORE, NONDETERMINISTIC},
        {TENSOR_CORE},
        set(),
    ]
    cudnn = _use(monkeypatch, FakeCudnn(lambda graph: plans))
    monkeypatch.setattr(backend, "matrix_products_in", _nothing)
    with product_precision(precision, deterministic=deterministic):
        Drawn("3x3", rng).by_cudnn("wgrad")
    assert cudnn.graphs[0].chosen == expected


@KINDS
def test_bf16_rounds_the_operands_alone(cudnn, drawn, kind, monkeypatch):
    monkeypatch.setattr(backend, "matrix_products_in", _nothing)
    for name in ("x", "w", "y"):
        setattr(drawn, name, _widened(_narrowed(getattr(drawn, name))))  # numbers that bfloat16 holds
    with product_precision("bf16"):
        got = drawn.by_cudnn(kind)
    assert {tensor.data_type for tensor in cudnn.graphs[0].operands} == {data_type.BFLOAT16}
    _assert_near(got, drawn.plainly(kind), 2 * EPS32)


@KINDS
@pytest.mark.parametrize("has_fused_engines", [True, False])
def test_bf16_writes_float32_behind_an_epilogue_or_directly(monkeypatch, rng, kind, has_fused_engines):
    cudnn = _use(
        monkeypatch, FakeCudnn(lambda graph: [set()] if graph.has_epilogue <= has_fused_engines else [])
    )
    monkeypatch.setattr(backend, "matrix_products_in", _nothing)
    with product_precision("bf16"):
        assert Drawn("3x3", rng).by_cudnn(kind).dtype == np.float32
    [ran] = cudnn.runs
    assert ran.has_epilogue == has_fused_engines and ran.result.data_type is data_type.FLOAT


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_float32_operands_need_no_epilogue(cudnn, rng, precision, monkeypatch):
    monkeypatch.setattr(backend, "matrix_products_in", _nothing)
    with product_precision(precision):
        Drawn("3x3", rng).by_cudnn("fprop")
    assert not cudnn.runs[0].has_epilogue


@KINDS
def test_without_a_plan_that_writes_float32_the_result_is_widened(monkeypatch, drawn, kind):
    is_narrow = lambda graph: graph.result.data_type is data_type.BFLOAT16  # noqa: E731
    cudnn = _use(monkeypatch, FakeCudnn(lambda graph: [set()] if is_narrow(graph) else []))
    monkeypatch.setattr(backend, "matrix_products_in", _nothing)
    expected = drawn.plainly(kind)
    with product_precision("bf16"):
        got = drawn.by_cudnn(kind, out=np.full(expected.shape, np.nan, np.float32))
    assert got.dtype == np.float32 and len(cudnn.runs) == 1
    _assert_near(got, expected, 3 * 2.0**-7)  # two operands and the result, each cut off


@KINDS
def test_what_cudnn_refuses_is_computed_plainly(monkeypatch, drawn, kind):
    cudnn = _use(monkeypatch, FakeCudnn(lambda graph: [None]))
    for _ in range(2):
        _assert_near(drawn.by_cudnn(kind), drawn.plainly(kind), 20 * EPS32)
    assert len(cudnn.graphs) == 1 and not cudnn.runs  # and is asked once


def test_a_missing_package_of_an_engine_is_a_refusal(monkeypatch, rng):
    def engines(graph):
        raise ModuleNotFoundError("No module named 'cuda'")

    _use(monkeypatch, FakeCudnn(engines))
    drawn = Drawn("3x3", rng)
    _assert_near(drawn.by_cudnn("fprop"), drawn.plainly("fprop"), 20 * EPS32)


def test_sizes_that_do_not_fit_are_reported_as_by_the_plain_kernel(cudnn, rng):
    drawn = Drawn("3x3", rng)
    with pytest.raises(ValueError, match="`ybar` must have the shape of the convolution"):
        convolution.conv2d_input_grad_cudnn(drawn.y, drawn.w, size=(9, 9), stride=1, padding=1)


@pytest.mark.parametrize(
    "arrays",
    [
        (np.ones((1, 3, 3, 2)), np.ones((3, 3, 2, 1))),
        (np.ones((1, 3, 3, 2), np.complex128), np.ones((3, 3, 2, 1), np.complex128)),
        (np.ones((0, 3, 3, 2), np.float32), np.ones((3, 3, 2, 1), np.float32)),
        (np.ones((3, 3, 2), np.float32), np.ones((3, 3, 2, 1), np.float32)),
    ],
    ids=["float64", "complex", "empty", "three axes"],
)
def test_what_cudnn_is_not_asked(cudnn, arrays):
    assert not convolution.fits(*arrays)


def test_float32_is_for_cudnn(cudnn):
    assert convolution.fits(np.ones((1, 3, 3, 2), np.float32), np.ones((3, 3, 2, 1), np.float32))


def test_without_the_package_nothing_is(monkeypatch):
    _use(monkeypatch, None)
    assert not convolution.fits(np.ones((1, 3, 3, 2), np.float32), np.ones((3, 3, 2, 1), np.float32))


@pytest.mark.parametrize("trouble", [None, RuntimeError("no libcudnn"), OSError("a library is missing")])
def test_the_package_counts_only_with_the_library_that_it_loads(monkeypatch, trouble):
    module = types.ModuleType("cudnn")

    def backend_version():
        if trouble is not None:
            raise trouble
        return 90800

    module.backend_version = backend_version
    monkeypatch.setitem(sys.modules, "cudnn", module)
    assert backend.cudnn_module.__wrapped__() is (module if trouble is None else None)


def test_importing_the_package_gives_convolutions_their_kernels():
    """Whoever asks for CuPy arrays gets cuDNN without importing more."""
    text = "import odegrad; from odegrad.engine.primitive import PRIMITIVES; assert PRIMITIVES['conv2d'].cuda"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class _nothing:  # noqa: N801  in the place of a context of CuPy's
    def __init__(self, precision):
        pass

    def __enter__(self):
        return None

    def __exit__(self, *raised):
        return None
