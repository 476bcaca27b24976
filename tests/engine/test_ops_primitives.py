"""Every primitive: derivatives of first and second order, dtypes, writing kernels, from one table of cases."""

import zlib

import numpy as np
import pytest
from odegrad.engine import vjp
from odegrad.engine.primitive import PRIMITIVES
from op_cases import ANALYTIC, CASES, DIFFERENTIABLE, FLAT
from oracles import EPS32, EPS64, assert_close, central_difference, complex_step, host, inner, inner_all, norm

TOL = {"complex": 200 * EPS64, "difference": 1e-9}


@pytest.fixture
def rng(case):
    return np.random.default_rng(zlib.crc32(str(case).encode()))


def directions(rng, values):
    return [rng.standard_normal(np.shape(value)) for value in values]


def to_module(xp, values):
    return [xp.asarray(v) if isinstance(v, np.ndarray) else v for v in values]


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
    values = case.draw(rng)
    chosen = [values[k] for k in case.wrt]
    xdot = directions(rng, chosen)
    oracle = complex_step if case.oracle == "complex" else central_difference
    ydot = oracle(case.plain(values), chosen, xdot)
    y, pull_back = vjp(case.function(to_module(xp, values)), *to_module(xp, chosen))
    ybar = rng.standard_normal(ydot.shape)
    xbar = pull_back(xp.asarray(ybar))
    assert [bar.shape for bar in xbar] == [x.shape for x in chosen]
    scale = norm(ybar) * norm(ydot) + norm(*xbar) * norm(*xdot)
    assert_close(inner(ybar, ydot), inner_all(xbar, xdot), scale=scale, tol=TOL[case.oracle])


@pytest.mark.parametrize("case", ANALYTIC, ids=str)
def test_rule_is_differentiable(case, rng):
    """The pull-back as a function of (x, ybar): its own VJP against complex step through the rule."""
    values = case.draw(rng)
    chosen = [values[k] for k in case.wrt]
    ybar = rng.standard_normal(np.shape(case.forward(values)))

    def pulled(*arguments):
        _, pull_back = vjp(case.function(values), *arguments[:-1])
        return sum(
            (bar * weight).sum() for bar, weight in zip(pull_back(arguments[-1]), weights, strict=True)
        )

    weights = directions(rng, chosen)
    arguments = [*chosen, ybar]
    xdot = directions(rng, arguments)
    expected = complex_step(pulled, arguments, xdot)
    _, pull_back = vjp(pulled, *arguments)
    bars = pull_back(np.ones(()))
    scale = abs(expected) + norm(*bars) * norm(*xdot)
    assert_close(inner_all(bars, xdot), expected, scale=scale, tol=400 * EPS64)


@pytest.mark.parametrize("case", FLAT, ids=str)
def test_flat_operation_passes_no_cotangent(case, rng):
    values = case.draw(rng)
    chosen = [values[k] for k in case.wrt]
    if not chosen:
        pytest.skip("nothing to differentiate")

    def with_detour(*arguments):  # reaches the arguments by the second term only
        return case.function(values)(*arguments).sum() * 2.0 + sum(x.sum() for x in arguments)

    _, pull_back = vjp(with_detour, *chosen)
    for x, bar in zip(chosen, pull_back(np.ones(())), strict=True):
        assert_close(bar, np.ones(x.shape), scale=0.0, tol=0.0)


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
