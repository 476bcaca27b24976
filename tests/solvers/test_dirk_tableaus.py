"""Diagonally implicit tableaus: every order condition, exactly, stability, and slips that are refused."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError
from odegrad.solvers.implicit.dirk_tableaus import ESDIRK5, IMPLICIT_EULER, KVAERNO5, TRAPEZOID
from rooted_trees import Conditions, density, trees

TABLEAUS = [IMPLICIT_EULER, TRAPEZOID, KVAERNO5, ESDIRK5]
PAIRS = [KVAERNO5, ESDIRK5]
L_STABLE = [IMPLICIT_EULER, KVAERNO5, ESDIRK5]
DIGITS = {"kvaerno5": Fraction(1, 10**16), "esdirk5": Fraction(1, 10**24)}  # to which they are published


def name_of(tableau):
    return tableau.name


def failing_trees(tableau, weights, order):
    """Trees with `order` nodes whose condition the weights do not meet."""
    conditions = Conditions(tableau.a)
    digits = DIGITS.get(tableau.name, 0)
    return [tree for tree in trees(order) if abs(conditions.residue(weights, tree)[0]) > digits]


@pytest.mark.parametrize("tableau", TABLEAUS, ids=name_of)
def test_weights_meet_every_condition_up_to_their_order(tableau):
    assert [failing_trees(tableau, tableau.b, order) for order in range(1, tableau.order + 1)] == [
        [] for _ in range(tableau.order)
    ]


@pytest.mark.parametrize("tableau", TABLEAUS, ids=name_of)
def test_weights_fail_at_the_order_after(tableau):
    assert failing_trees(tableau, tableau.b, tableau.order + 1)


@pytest.mark.parametrize("tableau", PAIRS, ids=name_of)
def test_embedded_weights_meet_every_condition_up_to_their_order_only(tableau):
    found = [failing_trees(tableau, tableau.b_embedded, order) for order in range(1, 6)]
    assert found[:4] == [[]] * 4 and found[4]


@pytest.mark.parametrize("theta", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("tableau", PAIRS, ids=name_of)
def test_dense_output_meets_every_condition_up_to_order_4(tableau, theta):
    weights = tableau.numbers.interpolant @ theta ** np.arange(1, 5)
    conditions = Conditions(tableau.a, float)
    for order in range(1, 5):
        for tree in trees(order):
            phi = np.array([float(x) for x in conditions.stage_weights(tree)])
            assert abs(weights @ phi - theta**order / density(tree)) < 1e-14


@pytest.mark.parametrize("tableau", PAIRS, ids=name_of)
def test_dense_output_begins_and_ends_with_the_slopes_of_the_step(tableau):
    interpolant = tableau.numbers.interpolant
    first, last = np.eye(tableau.stages)[[0, -1]]
    assert np.abs(interpolant[:, 0] - first).max() == 0.0
    assert np.abs(interpolant @ np.arange(1, 5) - last).max() < 1e-14


def growth(tableau, z):
    """R(z): what a step of size 1 makes of y' = z y."""
    a = tableau.numbers.a
    return 1.0 + z * a[-1] @ np.linalg.solve(np.eye(len(a)) - z * a, np.ones(len(a)))


@pytest.mark.parametrize("tableau", TABLEAUS, ids=name_of)
def test_no_step_grows_on_the_imaginary_axis(tableau):
    axis = 1j * np.geomspace(1e-3, 1e6, 2000)
    assert max(abs(growth(tableau, z)) for z in axis) <= 1.0 + 1e-12


@pytest.mark.parametrize("tableau", L_STABLE, ids=name_of)
def test_infinite_damping_in_one_step(tableau):
    assert abs(growth(tableau, -1e8)) < 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": (*KVAERNO5.a[:2], KVAERNO5.a[2][:-1], *KVAERNO5.a[3:])}, "row 2 of `a` has 2 entries"),
        ({"a": KVAERNO5.a[:1]}, "two stages"),
        ({"a": ((Fraction(1),), *KVAERNO5.a[1:])}, "not explicit"),
        ({"a": (*KVAERNO5.a[:1], (Fraction(1), Fraction(1)), *KVAERNO5.a[2:])}, "not constant"),
        ({"b_embedded": KVAERNO5.b_embedded[:-1]}, "`b_embedded` has 6 entries"),
        ({"b_embedded": (Fraction(1), *KVAERNO5.b_embedded[1:])}, "`b_embedded` sums to"),
        ({"embedded_order": None}, "go together"),
    ],
)
def test_an_inconsistent_tableau_says_what_is_wrong(changes, message):
    with pytest.raises(ArgumentError, match=message):
        dataclasses.replace(KVAERNO5, **changes)
