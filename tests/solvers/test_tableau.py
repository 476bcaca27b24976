"""Tableaus: every order condition, exactly; the conditions come from generated rooted trees, not from a table."""

import dataclasses
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement
from math import prod

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError
from odegrad.solvers.methods import method_named
from odegrad.solvers.tableau import Tableau, rationals
from odegrad.solvers.tableaus import BOSH3, DOPRI5, EULER, MIDPOINT, RK4, TABLEAUS
from scipy.integrate import RK23, RK45

# A rooted tree is the sorted tuple of its branches, each a rooted tree; the single node is ().
# Source of the conditions, sum_i b_i Phi_i(t) = 1 / gamma(t): Hairer, Norsett & Wanner (1993), theorem II.2.13.


@cache
def trees(order):
    """All rooted trees with `order` nodes."""
    return sorted({tuple(sorted(branches)) for branches in forests(order - 1, order - 1)})


def forests(nodes, largest):
    """All multisets of trees with `nodes` nodes together, none larger than `largest`."""
    if nodes == 0:
        yield ()
        return
    for size in range(min(nodes, largest), 0, -1):
        for count in range(1, nodes // size + 1):
            for chosen in combinations_with_replacement(trees(size), count):
                for rest in forests(nodes - size * count, size - 1):
                    yield (*chosen, *rest)


def size_of(tree):
    return 1 + sum(map(size_of, tree))


def density(tree):
    """gamma(t): the product of the sizes of all subtrees."""
    return size_of(tree) * prod(map(density, tree))


def stage_weights(method, tree):
    """Phi_i(t) for each stage i: the product over branches u of sum_j a_ij Phi_j(u)."""
    branches = [stage_weights(method, branch) for branch in tree]
    return [
        prod(
            (sum((a * w for a, w in zip(row, branch, strict=False)), Fraction(0)) for branch in branches),
            start=Fraction(1),
        )
        for row in method.a
    ]


def elementary_weight(method, weights, tree):
    return sum(b * phi for b, phi in zip(weights, stage_weights(method, tree), strict=True))


def failing_trees(method, weights, order):
    """Trees with `order` nodes whose condition the weights do not meet."""
    return [t for t in trees(order) if elementary_weight(method, weights, t) != Fraction(1, density(t))]


def conditions(stated_order):
    """(method, order) for every order from 1 up to the one the method states in the field `stated_order`."""
    return [
        pytest.param(method, order, id=f"{method.name}-{order}")
        for method in TABLEAUS.values()
        for order in range(1, (getattr(method, stated_order) or 0) + 1)
    ]


ADAPTIVE = [method for method in TABLEAUS.values() if method.is_adaptive]
WITH_INTERPOLANT = [method for method in TABLEAUS.values() if method.interpolant is not None]


def name_of(method):
    return method.name


@pytest.mark.parametrize(("order", "count"), list(enumerate([1, 1, 2, 4, 9, 20, 48], start=1)))
def test_there_are_as_many_rooted_trees_as_cayley_counted(order, count):
    assert len(trees(order)) == count


@pytest.mark.parametrize(("method", "order"), conditions("order"))
def test_weights_meet_every_condition_up_to_their_order(method, order):
    assert failing_trees(method, method.b, order) == []


@pytest.mark.parametrize("method", TABLEAUS.values(), ids=name_of)
def test_weights_fail_at_the_order_after(method):
    assert failing_trees(method, method.b, method.order + 1)


@pytest.mark.parametrize(("method", "order"), conditions("embedded_order"))
def test_embedded_weights_meet_every_condition_up_to_their_order(method, order):
    assert failing_trees(method, method.b_embedded, order) == []


@pytest.mark.parametrize("method", ADAPTIVE, ids=name_of)
def test_embedded_weights_fail_at_the_order_after(method):
    assert failing_trees(method, method.b_embedded, method.embedded_order + 1)


def interpolant_residue(method, tree):
    """Coefficients of theta, theta**2, ... in sum_i b_i(theta) Phi_i(t) - theta**|t| / gamma(t)."""
    degree = len(method.interpolant[0])
    residue = [
        elementary_weight(method, [row[power] for row in method.interpolant], tree) for power in range(degree)
    ]
    residue += [Fraction(0)] * (size_of(tree) - degree)
    residue[size_of(tree) - 1] -= Fraction(1, density(tree))
    return residue


@pytest.mark.parametrize(("method", "order"), conditions("interpolant_order"))
def test_interpolant_meets_every_condition_as_a_polynomial(method, order):
    assert [t for t in trees(order) if any(interpolant_residue(method, t))] == []


@pytest.mark.parametrize("method", WITH_INTERPOLANT, ids=name_of)
def test_interpolant_fails_at_the_order_after(method):
    assert any(any(interpolant_residue(method, t)) for t in trees(method.interpolant_order + 1))


@pytest.mark.parametrize(("method", "peer"), [(DOPRI5, RK45), (BOSH3, RK23)], ids=["dopri5", "bosh3"])
def test_interpolant_is_that_of_scipy(method, peer):
    np.testing.assert_allclose(method.as_floats().interpolant, peer.P, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("method", "peer"), [(DOPRI5, RK45), (BOSH3, RK23)], ids=["dopri5", "bosh3"])
def test_error_estimate_is_that_of_scipy_up_to_sign(method, peer):
    np.testing.assert_allclose(-method.as_floats().b_error, peer.E, rtol=1e-14, atol=0)


def test_the_other_published_error_estimate_of_dopri5_is_two_thirds_of_ours():
    other = rationals("1951/21600  0  22642/50085  451/720  -12231/42400  649/6300  1/60")
    assert [b - o for b, o in zip(DOPRI5.b, other, strict=True)] == [
        Fraction(2, 3) * e for e in DOPRI5.b_error
    ]


@pytest.mark.parametrize(
    ("method", "stages", "fsal", "error_order"),
    [
        (EULER, 1, False, None),
        (MIDPOINT, 2, False, None),
        (RK4, 4, False, None),
        (BOSH3, 4, True, 3),
        (DOPRI5, 7, True, 5),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_derived_facts(method, stages, fsal, error_order):
    assert (method.stages, method.fsal, method.error_order) == (stages, fsal, error_order)


def test_a_last_stage_that_has_a_weight_of_its_own_is_not_fsal():
    halves = rationals("1/2 1/2")
    method = Tableau(
        name="x", order=1, c=rationals("0 1/2"), a=(rationals(""), halves[:1]), b=halves, source=""
    )
    assert not method.fsal


def numbers_of(method):
    """(field, row or None, position) of every coefficient of a tableau."""
    for field in ("c", "b", "b_embedded"):
        yield from ((field, None, i) for i in range(len(getattr(method, field) or ())))
    for field in ("a", "interpolant"):
        for i, row in enumerate(getattr(method, field) or ()):
            yield from ((field, i, j) for j in range(len(row)))


def with_a_slip(method, field, row, position):
    """The tableau with 1/1000 added to one coefficient."""

    def slip(values):
        return (*values[:position], values[position] + Fraction(1, 1000), *values[position + 1 :])

    rows = getattr(method, field)
    new = slip(rows) if row is None else (*rows[:row], slip(rows[row]), *rows[row + 1 :])
    return dataclasses.replace(method, **{field: new})


@pytest.mark.parametrize(
    ("method", "field", "row", "position"),
    [
        pytest.param(method, *place, id=f"{method.name}-{'-'.join(map(str, place))}")
        for method in TABLEAUS.values()
        for place in numbers_of(method)
    ],
)
def test_a_slip_in_any_coefficient_is_refused(method, field, row, position):
    with pytest.raises(ArgumentError, match=f"tableau '{method.name}' is inconsistent"):
        with_a_slip(method, field, row, position)


def test_two_slips_that_keep_the_row_sum_break_an_order_condition():
    row = DOPRI5.a[3]
    shift = Fraction(1, 1000)
    changed = (*DOPRI5.a[:3], (row[0] + shift, row[1] - shift, row[2]), *DOPRI5.a[4:])
    slipped = dataclasses.replace(DOPRI5, a=changed)
    assert any(failing_trees(slipped, slipped.b, order) for order in range(1, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": rationals("0")}, "`c` has 1 entries, `b` has 2"),
        ({"a": (rationals(""), rationals("1/2 0"))}, "row 1 of `a` has 2 entries"),
        ({"b": rationals("0 1/2")}, "`b` sums to 1/2, not 1"),
        ({"embedded_order": 1}, "`embedded_order` and `b_embedded` go together"),
        (
            {"interpolant_order": 1, "interpolant": (rationals("0 0"), rationals("1"))},
            "the rows of `interpolant` differ in length",
        ),
    ],
    ids=["length of c", "length of a row", "sum of b", "order alone", "ragged interpolant"],
)
def test_an_inconsistent_tableau_says_what_is_wrong(changes, message):
    with pytest.raises(ArgumentError) as caught:
        dataclasses.replace(MIDPOINT, **changes)
    assert message in str(caught.value)


def test_floats_are_the_correctly_rounded_fractions():
    floats = DOPRI5.as_floats()
    assert [float(value) for row in DOPRI5.a for value in row] == np.concatenate(floats.a).tolist()


def test_floats_are_made_once():
    assert DOPRI5.as_floats() is DOPRI5.as_floats()


def test_floats_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        DOPRI5.as_floats().b[0] = 1.0


def test_a_method_without_embedded_formula_has_no_error_weights():
    assert RK4.as_floats().b_error is None


def test_a_name_finds_its_tableau():
    assert method_named("dopri5") is DOPRI5


@pytest.mark.parametrize(
    ("name", "nearest"), [("dopri", "dopri5"), ("RK4", "rk4"), ("mid_point", "midpoint")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(ArgumentError, match=f"got '{name}'.*Did you mean '{nearest}'"):
        method_named(name)


def test_a_name_like_no_other_is_refused_with_the_list():
    with pytest.raises(
        ArgumentError, match=r"one of 'euler', 'midpoint', 'rk4', 'bosh3', 'dopri5'; got 'xyz'\.$"
    ):
        method_named("xyz")


def test_every_tableau_is_registered_under_its_name():
    assert {name: method.name for name, method in TABLEAUS.items()} == {name: name for name in TABLEAUS}


def test_every_tableau_names_its_source():
    assert all(isinstance(method, Tableau) and method.source for method in TABLEAUS.values())
