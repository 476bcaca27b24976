"""Products by cublasLt: what is asked of it for arrays of any layout, what is done with its answer, what it is not asked."""

import gc
import itertools
import logging
import sys
import types
import warnings

import numpy as np
import pytest
from cuda_on_cpu import Guarded, on_cpu
from fake_cublaslt import FakeCublasLt
from odegrad.engine import backend
from odegrad.engine.cuda import cublaslt, cublaslt_plans, products
from odegrad.engine.product_precision import product_precision
from oracles import EPS32, EPS64, assert_close, norm
from rounded_products import rounded

MOST_PRODUCTS = products.MOST_PRODUCTS
EPS = {np.float32: EPS32, np.float64: EPS64}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


def use(monkeypatch, fake):
    """`fake` in the place of the package, NumPy's memory in that of the GPU's, and no product small."""
    monkeypatch.setattr(cublaslt_plans, "_local", type(cublaslt_plans._local)())
    monkeypatch.setattr(backend, "cublaslt_module", lambda: fake)
    monkeypatch.setattr(backend, "device_address", fake.address_of)
    monkeypatch.setattr(backend, "current_stream", lambda: 7)
    monkeypatch.setattr(backend, "device_number", lambda: 0)
    monkeypatch.setattr(backend, "matrix_products_in", _nothing)
    monkeypatch.setattr(products, "MOST_PRODUCTS", 0)
    monkeypatch.setattr(cublaslt, "narrowed", _narrowed)
    return fake


@pytest.fixture
def lt(monkeypatch):
    """A library that has an algorithm for everything: nothing is left to CuPy."""
    lt = use(monkeypatch, FakeCublasLt())
    yield lt
    assert None not in cublaslt_plans.library().plans.values()


def _narrowed(x):
    assert x.flags.c_contiguous
    return (rounded(x, "bf16").view(np.uint32) >> 16).astype(np.uint16)


class _nothing:  # noqa: N801  in the place of a context of CuPy's
    def __init__(self, precision):
        pass

    def __enter__(self):
        return None

    def __exit__(self, *raised):
        return None


def drawn(rng, *shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype)


def multiplied(rng, m=3, k=4, n=2, dtype=np.float64):
    return cublaslt.matmul_cublaslt(drawn(rng, m, k, dtype=dtype), drawn(rng, k, n, dtype=dtype))


def assert_product(found, a, b, scale_of=1.0):
    """`found` is a @ b to the round-off of its dtype."""
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert found.shape == exact.shape and found.dtype == a.dtype
    assert_close(found, exact, scale=norm(a) * norm(b) * scale_of, tol=4 * EPS[a.dtype.type])


# Each takes a matrix (or a stack of them) and gives the same numbers in another place.
LIES = {
    "by rows": lambda x: x,
    "by columns": lambda x: np.swapaxes(np.swapaxes(x, -1, -2).copy(), -1, -2),
    "with gaps": lambda x: _inside(x, (0, 3)),
    "with gaps, by columns": lambda x: np.swapaxes(_inside(np.swapaxes(x, -1, -2), (0, 2)), -1, -2),
    "not from the start": lambda x: _inside(x, (1, 0)),
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: x[..., ::-1, :].copy()[..., ::-1, :],
    "spread": lambda x: np.repeat(np.repeat(x, 2, axis=-1), 2, axis=-2)[..., ::2, ::2],
}


def _inside(x, around):
    """x in the columns of a wider array."""
    wider = np.full((*x.shape[:-1], x.shape[-1] + sum(around)), np.nan, x.dtype)
    view = wider[..., around[0] : around[0] + x.shape[-1]]
    view[...] = x
    return view


@DTYPES
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (7, 65, 3), (33, 16, 17), (1, 9, 5), (5, 9, 1), (6, 1, 4)], ids=str
)
@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
def test_products_of_all_transposes(lt, rng, sizes, turned, dtype):
    m, k, n = sizes
    a, b = drawn(rng, m, k, dtype=dtype), drawn(rng, k, n, dtype=dtype)
    a, b = (np.asfortranarray(x) if name in turned else x for name, x in (("a", a), ("b", b)))
    out = Guarded((m, n), dtype)
    assert cublaslt.matmul_cublaslt(a, b, out.array) is out.array
    assert_product(out.check(), a, b)
    assert len(lt.runs) == 1


@pytest.mark.parametrize(("left", "right"), list(itertools.product(LIES, LIES)))
def test_operands_wherever_they_lie(lt, rng, left, right):
    a, b = LIES[left](drawn(rng, 5, 3)), LIES[right](drawn(rng, 3, 4))
    assert_product(cublaslt.matmul_cublaslt(a, b), a, b)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("lie", LIES)
def test_results_wherever_they_lie(lt, rng, lie, stacked):
    stack = (2,) if stacked else ()
    a, b = drawn(rng, *stack, 5, 3), drawn(rng, *stack, 3, 4)
    out = LIES[lie](np.full((*stack, 5, 4), np.nan))
    around = out.base.copy() if out.base is not None else None
    cublaslt.matmul_cublaslt(a, b, out)
    assert_product(out, a, b)
    if around is not None:
        beside = np.ones_like(out.base, bool)
        _same_view(out, beside)[...] = False
        np.testing.assert_array_equal(out.base[beside], around[beside])


def _same_view(view, other):
    """The part of `other` (shaped and strided, in values, as the base of `view`) that `view` is of its base."""
    start = (view.ctypes.data - view.base.ctypes.data) // view.itemsize
    steps = [s // view.itemsize for s in view.strides]
    flat = other.reshape(-1)
    return np.ndarray(view.shape, bool, flat.data, start, steps)


STACKS = {
    "one": ((5, 3, 4), (5, 4, 2)),
    "a matrix on the right": ((5, 3, 4), (4, 2)),
    "a matrix on the left": ((3, 4), (5, 4, 2)),
    "a stack of one": ((1, 3, 4), (5, 4, 2)),
    "two axes": ((2, 3, 3, 4), (2, 3, 4, 2)),
    "two axes and one": ((2, 3, 3, 4), (3, 4, 2)),
    "two axes, one against the other": ((2, 1, 3, 4), (1, 3, 4, 2)),
    "three axes": ((2, 1, 2, 3, 4), (2, 1, 2, 4, 2)),
    "columns": ((5, 3, 4), (5, 4, 1)),
}


@DTYPES
@pytest.mark.parametrize("case", STACKS)
def test_stacks(lt, rng, case, dtype):
    a, b = (drawn(rng, *shape, dtype=dtype) for shape in STACKS[case])
    assert_product(cublaslt.matmul_cublaslt(a, b), a, b)
    assert len(lt.runs) == 1


@pytest.mark.parametrize("lie", LIES)
def test_stacks_wherever_they_lie(lt, rng, lie):
    a, b = LIES[lie](drawn(rng, 4, 5, 3)), LIES[lie](drawn(rng, 4, 3, 2))
    assert_product(cublaslt.matmul_cublaslt(a, b), a, b)


def test_a_stack_whose_axes_changed_places(lt, rng):
    """Heads of attention: (batch, time, head, value) taken as (batch, head) matrices."""
    a = drawn(rng, 2, 7, 3, 4).transpose(0, 2, 1, 3)
    b = drawn(rng, 2, 7, 3, 4).transpose(0, 2, 3, 1)
    assert_product(cublaslt.matmul_cublaslt(a, b), a, b)


def test_a_matrix_for_the_whole_stack_is_read_where_it_is(lt, rng):
    a, b = drawn(rng, 5, 3, 4), drawn(rng, 4, 2)
    cublaslt.matmul_cublaslt(a, b)
    [problem] = cublaslt_plans.plans_in_use()
    assert (problem.n_matrices, problem.first.stack_step, problem.second.stack_step) == (5, 0, 12)


@pytest.mark.parametrize("lie", ["by rows", "by columns", "with gaps", "with gaps, by columns"])
def test_what_lies_by_rows_or_by_columns_is_not_copied(lt, rng, monkeypatch, lie):
    monkeypatch.setattr(np, "ascontiguousarray", None)
    a, b = LIES[lie](drawn(rng, 5, 3)), LIES[lie](drawn(rng, 3, 4))
    assert_product(cublaslt.matmul_cublaslt(a, b), a, b)


def test_operands_rounded_to_bfloat16_lie_as_before(lt, rng, monkeypatch):
    monkeypatch.setattr(cublaslt, "FEWEST_NARROWED", 2)
    with product_precision("bf16"):
        cublaslt.matmul_cublaslt(*(drawn(rng, *shape, dtype=np.float32).T for shape in ((3, 5), (4, 3))))
    [problem] = cublaslt_plans.plans_in_use()
    assert problem.turned == (True, True)


def test_a_column_with_gaps_is_not_copied(lt, rng, monkeypatch):
    monkeypatch.setattr(np, "ascontiguousarray", None)
    a, b = drawn(rng, 6, 2)[:, ::2], drawn(rng, 2, 5)[::2]
    assert_product(cublaslt.matmul_cublaslt(a, b), a, b)


def test_a_stack_that_runs_backwards(lt, rng):
    a, b = drawn(rng, 4, 5, 3)[::-1], drawn(rng, 4, 3, 2)
    assert_product(cublaslt.matmul_cublaslt(a, b), a, b)


# --- precisions ---


@pytest.mark.parametrize(("precision", "operands"), [("fp32", "fp32"), ("tf32", "tf32"), ("bf16", "bf16")])
def test_operands_are_rounded_as_the_precision_says(lt, rng, monkeypatch, precision, operands):
    """And the products are added up in float32 or more."""
    monkeypatch.setattr(cublaslt, "FEWEST_NARROWED", 2)
    a, b = drawn(rng, 6, 33, dtype=np.float32), drawn(rng, 33, 5, dtype=np.float32)
    with product_precision(precision):
        found = cublaslt.matmul_cublaslt(a, b)
    exact = rounded(a, operands).astype(np.float64) @ rounded(b, operands).astype(np.float64)
    assert_close(found, exact, scale=norm(a) * norm(b), tol=EPS32)
    assert [run["kind"] for run in lt.runs] == [operands]


@pytest.mark.parametrize("lie", LIES)
def test_bfloat16_wherever_operands_lie(lt, rng, monkeypatch, lie):
    monkeypatch.setattr(cublaslt, "FEWEST_NARROWED", 2)
    a, b = (LIES[lie](drawn(rng, *shape, dtype=np.float32)) for shape in ((2, 6, 9), (9, 5)))
    with product_precision("bf16"):
        found = cublaslt.matmul_cublaslt(a, b)
    exact = rounded(a, "bf16").astype(np.float64) @ rounded(b, "bf16").astype(np.float64)
    assert_close(found, exact, scale=norm(a) * norm(b), tol=EPS32)


def test_few_rows_or_columns_are_tf32_in_bf16(lt, rng):
    with product_precision("bf16"):
        for m, n in ((2, 600), (600, 2), (600, 512)):
            multiplied(rng, m, 3, n, np.float32)
    assert [run["kind"] for run in lt.runs] == ["tf32", "tf32", "bf16"]


@pytest.mark.parametrize(
    ("precision", "refused", "expected"),
    [("tf32", {"tf32"}, "fp32"), ("bf16", {"bf16"}, "tf32"), ("bf16", {"bf16", "tf32"}, "fp32")],
)
def test_what_a_card_cannot_round_is_rounded_less(rng, monkeypatch, precision, refused, expected):
    lt = use(monkeypatch, FakeCublasLt(lambda kind: [] if kind in refused else [0]))
    monkeypatch.setattr(cublaslt, "FEWEST_NARROWED", 2)
    with product_precision(precision):
        multiplied(rng, dtype=np.float32)
    assert [run["kind"] for run in lt.runs] == [expected]


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_float64_is_never_rounded(lt, rng, precision):
    a, b = drawn(rng, 6, 7), drawn(rng, 7, 5)
    with product_precision(precision):
        assert_product(cublaslt.matmul_cublaslt(a, b), a, b)


@pytest.mark.parametrize(("deterministic", "reductions"), [(False, 7), (True, 2)])
def test_deterministic_sums_are_added_up_apart(lt, rng, deterministic, reductions):
    """Parts of a sum over k: in a pass of their own, or (7) in any of the library's ways."""
    with product_precision("fp32", deterministic=deterministic):
        cublaslt.matmul_cublaslt(drawn(rng, 3, 4), drawn(rng, 4, 2))
    assert [run["reductions"] for run in lt.runs] == [reductions]


# --- plans ---


def aligned(shape, offset):
    """float64 zeros that begin `offset` bytes behind a multiple of 512."""
    raw = np.zeros(int(np.prod(shape)) * 8 + 1024, np.uint8)
    start = -raw.ctypes.data % 512 + offset
    return raw[start : start + int(np.prod(shape)) * 8].view(np.float64).reshape(shape)


def test_a_plan_is_made_once_for_the_same_layouts(lt):
    a, b, out = (aligned(shape, 0) for shape in ((3, 4), (4, 2), (3, 2)))
    for _ in range(3):
        cublaslt.matmul_cublaslt(a, b, out)
    assert (len(cublaslt_plans.plans_in_use()), len(lt.proposals), len(lt.runs), len(lt.handles)) == (
        1,
        1,
        3,
        1,
    )


@pytest.mark.parametrize(("offset", "expected"), [(0, 256), (8, 8), (16, 16), (48, 16), (320, 64)])
def test_a_plan_knows_how_its_operands_are_aligned(lt, offset, expected):
    cublaslt.matmul_cublaslt(aligned((3, 4), 0), aligned((4, 2), offset), aligned((3, 2), 0))
    [problem] = cublaslt_plans.plans_in_use()
    assert problem.alignments == (expected, 256, 256)  # b comes first


def test_the_plan_unused_for_longest_is_destroyed(lt, monkeypatch):
    monkeypatch.setattr(cublaslt_plans, "_MOST_PLANS", 2)
    for m in (3, 5, 3, 7):
        cublaslt.matmul_cublaslt(aligned((m, 4), 0), aligned((4, 2), 0), aligned((m, 2), 0))
    gc.collect()
    assert {problem.second.columns for problem in cublaslt_plans.plans_in_use()} == {3, 7}
    assert len(lt.objects) == 2 * 4  # a description and three layouts


def test_what_fails_leaves_nothing_behind(monkeypatch, rng):
    lt = use(monkeypatch, FakeCublasLt(lambda kind: [None]))
    multiplied(rng)
    gc.collect()
    assert not lt.objects


def test_it_runs_on_the_stream_of_the_caller(lt, rng):
    multiplied(rng)
    assert lt.streams == [7]


@pytest.mark.parametrize("workspace", [0, 1 << 20])
def test_it_has_the_workspace_that_it_needs(monkeypatch, rng, workspace):
    lt = use(monkeypatch, FakeCublasLt(lambda kind: [None, workspace]))
    multiplied(rng)
    assert len(lt.runs) == 1


@pytest.mark.parametrize("proposals", [[], [None, None]], ids=["none", "none that runs"])
def test_what_has_no_algorithm_is_left_to_cupy(monkeypatch, rng, caplog, proposals):
    asked = []
    lt = use(monkeypatch, FakeCublasLt(lambda kind: asked.append(1) or proposals))
    a, b, out = (aligned(shape, 0) for shape in ((3, 4), (4, 2), (3, 2)))
    a[...], b[...] = drawn(rng, 3, 4), drawn(rng, 4, 2)
    with caplog.at_level(logging.INFO, "odegrad"):
        for _ in range(2):
            assert_product(cublaslt.matmul_cublaslt(a, b, out), a, b)
    assert len(asked) == 1 and not lt.runs
    assert [record.message.partition(" for ")[0] for record in caplog.records] == [
        "odegrad: cublasLt has no algorithm"
    ]


def test_what_cublaslt_refuses_is_left_to_cupy(monkeypatch, rng, caplog):
    def refused(kind):
        raise FakeCublasLt.cuBLASLtError("CUBLAS_STATUS_NOT_SUPPORTED")

    use(monkeypatch, FakeCublasLt(refused))
    a, b = drawn(rng, 3, 4), drawn(rng, 4, 2)
    with caplog.at_level(logging.INFO, "odegrad"):
        assert_product(cublaslt.matmul_cublaslt(a, b), a, b)
    assert "(CUBLAS_STATUS_NOT_SUPPORTED)" in caplog.text


# --- what it is asked ---


@pytest.mark.parametrize(
    "arrays",
    [
        (np.ones((3, 4), complex), np.ones((4, 2), complex)),
        (np.ones((3, 4), int), np.ones((4, 2), int)),
        (np.ones((3, 4)), np.ones((4, 2), np.float32)),
        (np.ones((3, 0)), np.ones((0, 2))),
        (np.ones((0, 3, 4)), np.ones((4, 2))),
    ],
    ids=["complex", "whole numbers", "two dtypes", "nothing to add", "an empty stack"],
)
def test_what_cublaslt_is_not_asked(lt, arrays):
    assert not cublaslt.fits(*arrays)


@pytest.mark.parametrize(
    "sizes, expected",
    [
        ((128, 128, 128), False),
        ((2, 2000, 2), True),
        ((2, 256, 2), False),
        ((2, 257, 2), True),
        ((300, 300, 300), True),
    ],
)
def test_small_products_are_a_kernel(lt, monkeypatch, sizes, expected):
    monkeypatch.setattr(products, "MOST_PRODUCTS", MOST_PRODUCTS)
    m, k, n = sizes
    assert cublaslt.fits(np.ones((m, k)), np.ones((k, n))) is expected


def test_stacks_are_for_cublaslt_however_small(lt):
    assert cublaslt.fits(np.ones((2, 3, 4)), np.ones((2, 4, 2)))


def test_without_the_package_nothing_is(monkeypatch):
    monkeypatch.setattr(backend, "cublaslt_module", lambda: None)
    assert not cublaslt.fits(np.ones((300, 300)), np.ones((300, 300)))


@pytest.mark.parametrize("trouble", [None, RuntimeError("no driver"), OSError("a library is missing")])
def test_the_package_counts_only_with_the_library_that_it_loads(monkeypatch, trouble):
    bindings = types.ModuleType("nvmath.bindings")
    bindings.cublasLt = module = types.ModuleType("nvmath.bindings.cublasLt")

    def get_version():
        warnings.warn("of another package", UserWarning, stacklevel=1)
        if trouble is not None:
            raise trouble
        return 130000

    module.get_version = get_version
    monkeypatch.setitem(sys.modules, "nvmath", types.ModuleType("nvmath"))
    monkeypatch.setitem(sys.modules, "nvmath.bindings", bindings)
    assert backend.cublaslt_module.__wrapped__() is (module if trouble is None else None)


# --- the products of kernels ---


def test_products_of_kernels_are_cublaslts(lt, rng):
    a, b, out = drawn(rng, 5, 3, 4), drawn(rng, 4, 2), np.full((5, 3, 2), np.nan)
    cublaslt.matmul_into(a, b, out)
    assert_product(out, a, b)
    assert len(lt.runs) == 1


@pytest.mark.parametrize("is_apart", [False, True])
def test_small_products_of_kernels_are_a_launch_where_results_have_no_gaps(lt, rng, monkeypatch, is_apart):
    on_cpu(monkeypatch)
    monkeypatch.setattr(backend, "device_address", lt.address_of)
    monkeypatch.setattr(products, "MOST_PRODUCTS", 1000)
    a, b, out = drawn(rng, 5, 3), drawn(rng, 3, 4), np.full((5, 8), np.nan)[:, :4]
    out = out if is_apart else np.full((5, 4), np.nan)
    cublaslt.matmul_into(a, b, out)
    assert_product(out, a, b)
    assert not lt.runs


def test_a_small_product_without_an_algorithm_is_a_launch(rng, monkeypatch):
    lt = use(monkeypatch, FakeCublasLt(lambda kind: []))
    on_cpu(monkeypatch)
    monkeypatch.setattr(backend, "device_address", lt.address_of)
    monkeypatch.setattr(np, "matmul", None)
    monkeypatch.setattr(products, "MOST_PRODUCTS", MOST_PRODUCTS)
    a, b = drawn(rng, 2, 300), drawn(rng, 300, 3)
    assert cublaslt.fits(a, b)
    assert_product(cublaslt.matmul_cublaslt(a, b), a, b)


OTHERS = {
    "complex": (complex, complex, True),
    "into another dtype": (np.float32, np.float64, True),
    "without the package": (np.float64, np.float64, False),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_products_of_kernels_are_cupys(rng, monkeypatch, case):
    dtype, of_result, has_package = OTHERS[case]
    lt = use(monkeypatch, FakeCublasLt())
    if not has_package:
        monkeypatch.setattr(backend, "cublaslt_module", lambda: None)
    a = drawn(rng, 5, 4, dtype=dtype)
    out = np.full((5, 5), np.nan, of_result)
    cublaslt.matmul_into(a, a.T, out)
    assert_close(out, a @ a.T, scale=norm(a) ** 2, tol=10 * EPS32)
    assert not lt.runs
