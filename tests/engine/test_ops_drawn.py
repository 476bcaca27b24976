"""Every primitive at drawn values, the elementwise ones at drawn shapes: hypothesis finds what fixed cases miss."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odegrad.engine import vjp
from op_cases import CASES, Case, Real
from oracles import assert_close, central_difference, complex_step, inner, inner_all, norm
from strategies import broadcasting_pairs, seeds, shapes

TOL = {"complex": 1e-12, "difference": 1e-7}
DIFFERENTIABLE = [case for case in CASES if case.oracle != "flat"]
ELEMENTWISE = {case.name: case for case in DIFFERENTIABLE if len(case.op.chunk_calls) == 1}


def check(case: Case, rng) -> None:
    """<ybar, J xdot> = <J^T ybar, xdot> with J xdot from complex step, or from differences for kinked operations."""
    values = case.draw(rng)
    chosen = [values[k] for k in case.wrt]
    xdot = [rng.standard_normal(x.shape) for x in chosen]
    oracle = complex_step if case.oracle == "complex" else central_difference
    ydot = oracle(case.plain(values), chosen, xdot)
    _, pull_back = vjp(case.function(values), *chosen)
    ybar = rng.standard_normal(ydot.shape)
    xbar = pull_back(ybar)
    scale = norm(ybar) * norm(ydot) + norm(*xbar) * norm(*xdot)
    assert_close(inner(ybar, ydot), inner_all(xbar, xdot), scale=scale, tol=TOL[case.oracle])


@settings(max_examples=300)
@given(case=st.sampled_from(DIFFERENTIABLE), seed=seeds)
def test_vjp_at_drawn_values(case, seed):
    check(case, np.random.default_rng(seed))


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
@given(data=st.data(), seed=seeds)
def test_vjp_at_drawn_shapes(name, data, seed):
    case = ELEMENTWISE[name]
    reals = [k for k, argument in enumerate(case.args) if isinstance(argument, Real)]
    drawn = data.draw(broadcasting_pairs()) if len(reals) == 2 else (data.draw(shapes()),)
    args = list(case.args)
    for k, shape in zip(reals, drawn, strict=True):
        args[k] = replace(args[k], shape=shape)
    check(replace(case, args=tuple(args)), np.random.default_rng(seed))
