"""Tableaus: every order condition, exactly (of published decimals to their digits), from generated rooted trees."""

import dataclasses
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError
from odegrad.solvers.methods import METHODS, method_named
from odegrad.solvers.tableau import Tableau, rationals, rows_of
from odegrad.solvers.tableaus import (
    BOSH3,
    CASH_KARP,
    DOP853,
    DOPRI5,
    EULER,
    HEUN_EULER,
    MIDPOINT,
    RK4,
    RKF45,
    TABLEAUS,
    VERN6,
    VERN7,
)  # fmt: skip
from rooted_trees import Conditions, density, in_digits, trees
from scipy.integrate import DOP853 as ScipyDOP853
from scipy.integrate import RK23, RK45
from scipy.integrate._ivp import dop853_coefficients
from scipy.integrate._ivp.rk import Dop853DenseOutput


@cache
def conditions_on(name, *, with_extra=False):
    method = TABLEAUS[name]
    rows = method.a + method.extra_a if with_extra else method.a
    return Conditions(rows, in_digits) if method.tolerance else Conditions(rows)


def failing_trees(method, weights, order):
    """Trees with `order` nodes whose condition the weights do not meet, to the tolerance of the coefficients."""
    known = conditions_on(method.name) if TABLEAUS.get(method.name) is method else Conditions(method.a)
    found = []
    for tree in trees(order):
        residue, size = known.residue(weights, tree)
        if abs(residue) > method.tolerance * Fraction(size):
            found.append((tree, residue))
    return found


def clearly(failing):
    """Those of them that are no matter of digits."""
    return [tree for tree, residue in failing if abs(residue) > 1e-9]


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


@pytest.mark.parametrize(("order", "count"), list(enumerate([1, 1, 2, 4, 9, 20, 48, 115, 286], start=1)))
def test_there_are_as_many_rooted_trees_as_cayley_counted(order, count):
    assert len(trees(order)) == count


@pytest.mark.parametrize(("method", "order"), conditions("order"))
def test_weights_meet_every_condition_up_to_their_order(method, order):
    assert failing_trees(method, method.b, order) == []


@pytest.mark.parametrize("method", TABLEAUS.values(), ids=name_of)
def test_weights_fail_at_the_order_after(method):
    assert clearly(failing_trees(method, method.b, method.order + 1))


@pytest.mark.parametrize(("method", "order"), conditions("embedded_order"))
def test_embedded_weights_meet_every_condition_up_to_their_order(method, order):
    assert failing_trees(method, method.b_embedded, order) == []


@pytest.mark.parametrize("method", ADAPTIVE, ids=name_of)
def test_embedded_weights_fail_at_the_order_after(method):
    assert clearly(failing_trees(method, method.b_embedded, method.embedded_order + 1))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_third_weights_of_dop853_meet_every_condition_up_to_their_order(order):
    assert DOP853.coarse_order == 3 and failing_trees(DOP853, DOP853.b_coarse, order) == []


def test_the_third_weights_of_dop853_fail_at_the_order_after():
    assert clearly(failing_trees(DOP853, DOP853.b_coarse, 4))


def failing_powers(method, order):
    """(tree, power) wherever sum_i b_i(theta) Phi_i(t) has another coefficient than theta**|t| / gamma(t)."""
    known = conditions_on(method.name, with_extra=True)
    found = []
    for tree in trees(order):
        for power, column in enumerate(zip(*method.interpolant, strict=True), start=1):
            residue, size = known.residue(column, tree, Fraction(power == order))
            if abs(residue) > method.tolerance * Fraction(size):
                found.append(((tree, power), residue))
    degree = len(method.interpolant[0])
    return (
        found if order <= degree else [*found, *(((t, order), Fraction(1, density(t))) for t in trees(order))]
    )


@pytest.mark.parametrize(("method", "order"), conditions("interpolant_order"))
def test_interpolant_meets_every_condition_as_a_polynomial(method, order):
    assert failing_powers(method, order) == []


@pytest.mark.parametrize("method", WITH_INTERPOLANT, ids=name_of)
def test_interpolant_fails_at_the_order_after(method):
    assert clearly(failing_powers(method, method.interpolant_order + 1))


@pytest.mark.parametrize("method", [m for m in ADAPTIVE if m.order >= 3], ids=name_of)
def test_interpolant_has_the_order_of_its_method_or_one_less(method):
    assert method.interpolant_order in (method.order, method.order - 1)


@pytest.mark.parametrize("method", WITH_INTERPOLANT, ids=name_of)
def test_interpolant_joins_with_its_slope(method):
    """Only the parabola of heun_euler, which has no slope at the end of a step, has a kink between steps."""
    assert method.fsal is (method is not HEUN_EULER)


@pytest.mark.parametrize(("method", "peer"), [(DOPRI5, RK45), (BOSH3, RK23)], ids=["dopri5", "bosh3"])
def test_interpolant_is_that_of_scipy(method, peer):
    np.testing.assert_allclose(method.as_floats().interpolant, peer.P, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("method", "peer"), [(DOPRI5, RK45), (BOSH3, RK23)], ids=["dopri5", "bosh3"])
def test_error_estimate_is_that_of_scipy_up_to_sign(method, peer):
    np.testing.assert_allclose(-method.as_floats().b_error, peer.E, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(DOP853.b_error, dop853_coefficients.E5), (DOP853.coarse_error, dop853_coefficients.E3)],
    ids=["fine", "coarse"],
)
def test_error_estimates_of_dop853_are_those_of_scipy(ours, theirs):
    np.testing.assert_allclose(np.array(ours, float), theirs, rtol=1e-14, atol=1e-17)


def test_interpolant_of_dop853_is_that_of_scipy(rng):
    """Theirs is a nested product of theta and 1 - theta over random slopes."""
    slopes, h = rng.standard_normal((16, 3)), 0.3
    b, d = dop853_coefficients.B, dop853_coefficients.D
    change = h * b @ slopes[:12]
    ends = [change, h * slopes[0] - change, 2 * change - h * (slopes[12] + slopes[0])]
    theirs = Dop853DenseOutput(0.0, h, np.zeros(3), np.array([*ends, *(h * d @ slopes)]))
    thetas = np.linspace(0.0, 1.0, 7)
    powers = thetas[:, None] ** np.arange(1, 8)
    ours = h * powers @ DOP853.as_floats().interpolant.T @ slopes
    np.testing.assert_allclose(ours, theirs(thetas * h).T, rtol=0, atol=1e-12)


def test_order_of_the_error_of_dop853_is_that_of_scipy():
    assert DOP853.error_order == ScipyDOP853.error_estimator_order + 1


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
        (RKF45, 7, True, 5),
        (CASH_KARP, 7, True, 5),
        (DOPRI5, 7, True, 5),
        (VERN6, 9, True, 6),
        (VERN7, 11, True, 7),
        (DOP853, 13, True, 8),
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


ROWS = ("a", "extra_a", "interpolant")


def places_in(method):
    """(field, row or None, position): a coefficient of every row of a tableau."""
    for field in ("c", "b", "b_embedded", "b_coarse", "extra_c"):
        if getattr(method, field):
            yield field, None, len(getattr(method, field)) // 2
    for field in ROWS:
        for i, row in enumerate(getattr(method, field) or ()):
            if row:
                yield field, i, len(row) // 2


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
        for place in places_in(method)
    ],
)
def test_a_slip_in_any_row_is_refused(method, field, row, position):
    with pytest.raises(ArgumentError, match=f"tableau '{method.name}' is inconsistent"):
        with_a_slip(method, field, row, position)


def test_a_slip_in_the_last_published_digits_is_refused():
    row = (*DOP853.a[8][:-1], DOP853.a[8][-1] + Fraction(1, 10**20))
    with pytest.raises(ArgumentError, match="row 8 of `a` sums to"):
        dataclasses.replace(DOP853, a=(*DOP853.a[:8], row, *DOP853.a[9:]))


def test_rows_are_read_between_semicolons():
    assert rows_of("; 1/2; 0  3/4") == ((), (Fraction(1, 2),), (Fraction(0), Fraction(3, 4)))


def test_two_slips_that_keep_the_row_sum_break_an_order_condition():
    row = DOPRI5.a[3]
    shift = Fraction(1, 1000)
    changed = (*DOPRI5.a[:3], (row[0] + shift, row[1] - shift, row[2]), *DOPRI5.a[4:])
    slipped = dataclasses.replace(DOPRI5, a=changed)
    assert any(failing_trees(slipped, slipped.b, order) for order in range(1, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": rationals("0")}, "`c` has 1 entries, expected 2"),
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
    ("name", "nearest"),
    [
        ("dopri", "dopri5"),
        ("RK4", "rk4"),
        ("mid_point", "midpoint"),
        ("RK45", "dopri5"),
        ("dopri8", "dop853"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(ArgumentError, match=f"got '{name}'.*Did you mean '{nearest}'"):
        method_named(name)


def test_a_name_like_no_other_is_refused_with_the_list():
    with pytest.raises(ArgumentError, match=r"one of 'euler', 'midpoint', .*'dopri5', .*; got 'xyz'\.$"):
        method_named("xyz")


def test_every_tableau_is_registered_under_its_name():
    assert {name: method.name for name, method in TABLEAUS.items()} == {name: name for name in TABLEAUS}


def test_every_tableau_is_a_method():
    assert all(METHODS[name] is method for name, method in TABLEAUS.items())


def test_every_tableau_names_its_source():
    assert all(isinstance(method, Tableau) and method.source for method in TABLEAUS.values())
