"""The tests of every primitive can fail: each rule is broken in turn, and the judge of that primitive must reject it."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import odegrad.layers  # noqa: F401 - registers the primitives of layers
import pytest
from odegrad.engine.primitive import PRIMITIVES
from op_cases import CASES
from op_judges import judge_derivative_of_the_rule, judge_flat, judge_vjp, rng_of
from op_mutations import (
    INSENSITIVE,
    NOT_ANALYTIC,
    argument_name,
    cases_of,
    judged_positions,
    mutations_of,
    passing,
    returned_positions,
    saved_values,
)

WITH_RULE = [op for op in PRIMITIVES.values() if op.rule is not None]
FLAT = [op for op in PRIMITIVES.values() if op.is_flat and judged_positions(op)]
MUTATIONS = [mutation for op in WITH_RULE for mutation in mutations_of(op)]

WITHOUT_MUTATION = {
    "logical_and": "truth values have no derivative",
    "logical_or": "truth values have no derivative",
    "logical_not": "truth values have no derivative",
    "keep_mask": "its only input is a key of integers",
    "fold_key": "its only input is a key of integers",
    "fill_unvisited": "it reads running statistics, which are never differentiated; it has no rule",
}
"""Primitives of which nothing can be broken, with the reason."""


def is_rejected(judge, case):
    """Whether the judge finds the result wrong. A broken rule may not even fit the shapes: that judges nothing."""
    try:
        with np.errstate(all="ignore"):
            judge(case, rng_of(case))
    except AssertionError:
        return True
    except ValueError:
        return False
    return False


def is_caught(op, judges, broken):
    """Whether any case of the primitive is rejected; the judges are taken in turn."""
    with broken:
        return any(is_rejected(judge, case) for case in cases_of(op) for judge in judges_of(case, judges))


def judges_of(case, judges):
    return [
        judge for judge in judges if judge is not judge_derivative_of_the_rule or case.oracle == "complex"
    ]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_broken_rule_is_rejected(mutation):
    judge = judge_derivative_of_the_rule if mutation.second_order else judge_vjp
    assert is_caught(mutation.op, [judge], mutation.broken(mutation.op)), f"{mutation} survives"


@pytest.mark.parametrize("op", FLAT, ids=lambda op: op.name)
def test_a_cotangent_through_a_flat_operation_is_rejected(op):
    assert is_caught(op, [judge_flat], passing(op)), f"{op.name} may pass a cotangent unnoticed"


@pytest.mark.parametrize("op", WITH_RULE, ids=lambda op: op.name)
def test_the_rule_as_it_is_is_accepted(op):
    assert not is_caught(op, [judge_vjp, judge_derivative_of_the_rule], nullcontext())


@pytest.mark.parametrize("op", WITH_RULE, ids=lambda op: op.name)
def test_every_cotangent_that_a_rule_returns_is_mutated(op):
    names = {argument_name(op, k).partition("[")[0] for k in judged_positions(op)}
    assert {argument_name(op, k).partition("[")[0] for k in returned_positions(op)} == names


def test_every_primitive_is_broken_or_has_a_reason_not_to_be():
    broken = {mutation.op.name for mutation in MUTATIONS} | {op.name for op in FLAT}
    assert broken.isdisjoint(WITHOUT_MUTATION)
    assert broken | set(WITHOUT_MUTATION) == set(PRIMITIVES)


def test_values_are_exempt_only_where_a_rule_saves_them():
    assert set(INSENSITIVE) <= {(op.name, name) for op in WITH_RULE for name in saved_values(op).values()}


def test_rules_are_exempt_only_where_no_case_has_a_complex_step():
    has_complex_step = {case.name for case in CASES if case.oracle == "complex"}
    assert {op.name for op in WITH_RULE} - has_complex_step == set(NOT_ANALYTIC)
