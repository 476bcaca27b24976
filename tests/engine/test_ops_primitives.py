"""Every primitive: derivatives of first and second order, dtypes, writing kernels, from one table of cases."""

import numpy as np
import pytest
from odegrad.engine import vjp
from odegrad.engine.primitive import PRIMITIVES
from op_cases import ANALYTIC, CASES, DIFFERENTIABLE, FLAT
from op_judges import judge_derivative_of_the_rule, judge_flat, judge_vjp, rng_of
from oracles import EPS32, EPS64, assert_close, host


@pytest.fixture
def rng(case):
    return rng_of(case)


def of_the_engine():
    """Primitives by name, without those that layers register for themselves."""
    return {
        name: op for name, op in PRIMITIVES.items() if op.forward.__module__.startswith("odegrad.engine.")
    }


def test_every_primitive_is_in_the_table():
    assert {case.name for case in CASES} == set(of_the_engine())


def test_every_primitive_has_a_rule_or_is_flat():
    without = [name for name, op in of_the_engine().items() if op.rule is None and not op.is_flat]
    assert without == []


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_vjp_agrees_with_the_directional_derivative(case, rng, xp):
    judge_vjp(case, rng, xp)


@pytest.mark.parametrize("case", ANALYTIC, ids=str)
def test_rule_is_differentiable(case, rng):
    judge_derivative_of_the_rule(case, rng)


@pytest.mark.parametrize("case", [case for case in FLAT if case.wrt], ids=str)
def test_flat_operation_passes_no_cotangent(case, rng):
    judge_flat(case, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("case", [c for c in ANALYTIC if c.keeps_dtype], ids=str)
def test_dtype_is_kept(case, rng, dtype):
    values = case.draw(rng, dtype)
    chosen = [values[k] for k in case.wrt]
    y, pull_back = vjp(case.function(values), *chosen)
    assert y.dtype == dtype
    assert [bar.dtype for bar in pull_back(np.ones(y.shape, dtype))] == [dtype] * len(chosen)


@pytest.mark.parametrize("case", [c for c in ANALYTIC if c.keeps_dtype], ids=str)
def test_float32_rule_computes_in_float32(case, rng):
    """No rule mixes in a float64 array: the raw cotangents, before they are cast to their leaf, are float32."""
    values = case.draw(rng, np.float32)
    y = case.forward(values)
    saved = case.op.keep(tuple(values), y)
    needs = tuple(k in case.wrt for k in range(len(values)))
    bars = list(case.op.pull_back(np.ones(np.shape(y), np.float32), saved, case.static, needs))
    assert {str(bars[k].dtype) for k in case.wrt} == {"float32"}


@pytest.mark.parametrize("case", [c for c in DIFFERENTIABLE if c.keeps_dtype], ids=str)
def test_float32_agrees_with_float64(case, rng):
    values = case.draw(rng, np.float32)
    wide = [v.astype(np.float64) if getattr(v, "dtype", None) == np.float32 else v for v in values]
    expected = case.forward(wide)
    scale = float(np.max(np.abs(expected), initial=0.0)) * max(1, np.size(values[case.wrt[0]])) ** 0.5
    assert_close(case.forward(values), expected, scale=scale, tol=16 * EPS32)


def poisoned(like):
    like = np.asarray(like)
    fill = {"f": np.nan, "c": np.nan, "b": True, "i": -7, "u": 7}[like.dtype.kind]
    return np.full(like.shape, fill, like.dtype)


def as_buffers(values, layout):
    """Arguments as replay hands them over: arrays (numbers as 0-d ones), contiguous or views with gaps."""
    buffers = []
    for value in values:
        weak = not hasattr(value, "dtype")
        array = np.asarray(value, np.float64 if weak else value.dtype)
        if layout == "gaps" and array.ndim and not weak:
            array = np.repeat(array, 2, axis=-1)[..., ::2]
        elif layout == "fortran" and array.ndim:
            array = np.asfortranarray(array)
        buffers.append(array)
    return buffers


@pytest.mark.parametrize("layout", ["contiguous", "gaps", "fortran"])
@pytest.mark.parametrize("case", [c for c in CASES if c.op.into is not None], ids=str)
def test_writing_kernel_equals_the_plain_forward(case, rng, layout):
    values = as_buffers(case.draw(rng), layout)
    out = poisoned(case.forward(values))
    calls = case.op.into(out, *values, **case.static)
    if calls is None:
        pytest.skip("the kernel declines this layout; replay uses the plain forward")
    calls = list(calls)
    for redrawn in range(2):  # the second time the bound buffers hold other values
        for value, fresh in zip(values, case.draw(np.random.default_rng(redrawn)), strict=True):
            value[...] = fresh
        if out.dtype.kind != "b":
            out[...] = poisoned(out)
        for function, args, kwargs in calls:
            function(*args, **kwargs)
        expected = case.forward(values)
        scale = float(np.max(np.abs(expected), initial=0.0)) if out.dtype.kind in "fc" else 0.0
        assert_close(out, expected, scale=scale, tol=32 * EPS64)


@pytest.mark.parametrize("case", [c for c in DIFFERENTIABLE if c.op.may_view], ids=str)
def test_only_declared_operations_return_views(case, rng):
    values = case.draw(rng)
    assert np.shares_memory(host(case.forward(values)), values[0]) or values[0].size == 0


@pytest.mark.parametrize(
    "case", [c for c in DIFFERENTIABLE if not c.op.may_view and c.name != "real"], ids=str
)
def test_other_operations_return_memory_of_their_own(case, rng):
    values = case.draw(rng)
    y = case.forward(values)
    assert not any(np.shares_memory(y, v) for v in values if isinstance(v, np.ndarray))
