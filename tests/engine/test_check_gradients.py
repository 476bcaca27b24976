"""`check.gradients`: right gradients pass, wrong ones fail by name, kinks are told from errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad import check, grad, ops
from odegrad.engine.primitive import PRIMITIVES, Primitive, primitive
from odegrad.engine.tree import leaves, leaves_with_paths, path_name, unflatten
from strategies import seeds, shapes

rng = np.random.default_rng(11)
X, SQUARE = rng.standard_normal((5, 3)), rng.standard_normal((3, 3))

# --- deliberately wrong rules ---------------------------------------------------------------------------------------


@contextmanager
def registered(forward: Callable[..., Any], rule: Callable[..., Any], saves: tuple) -> Iterator[Primitive]:
    """A primitive that exists inside the block only."""
    op = primitive("under_test")(forward)
    op.vjp(saves=saves)(rule)
    try:
        yield op
    finally:
        del PRIMITIVES["under_test"]


RULES = {  # forward, what the rule saves, the right rule, a wrong one, arguments
    "sign": (
        lambda xp, x: xp.cos(x),
        ("x",),
        lambda ybar, x: (-(ybar * ops.sin(x)),),
        lambda ybar, x: (ybar * ops.sin(x),),
        (X,),
    ),
    "factor": (
        lambda xp, x: x * x,
        ("x",),
        lambda ybar, x: (2.0 * ybar * x,),
        lambda ybar, x: (ybar * x,),
        (X,),
    ),
    "sum over the broadcast axis": (
        lambda xp, a, b: a * b,
        ("a", "b"),
        lambda ybar, a, b: (ybar * b, ops.sum(ybar * a, axis=0)),
        lambda ybar, a, b: (ybar * b, (ybar * a)[0]),
        (X, np.array([0.5, -1.0, 2.0])),
    ),
    "transpose": (
        lambda xp, a, b: a @ b,
        ("a", "b"),
        lambda ybar, a, b: (ybar @ b.T, a.T @ ybar),
        lambda ybar, a, b: (ybar @ b, a.T @ ybar),
        (SQUARE, np.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [3.0, 0.5, 1.0]])),
    ),
    "moment of the batch": (
        lambda xp, x: x - x.mean(axis=0),
        (),
        lambda ybar: (ybar - ops.mean(ybar, axis=0),),
        lambda ybar: (ybar,),
        (X,),
    ),
    "small term": (
        lambda xp, x: x + 1e-5 * xp.sin(x),
        ("x",),
        lambda ybar, x: (ybar * (1.0 + 1e-5 * ops.cos(x)),),
        lambda ybar, x: (ybar,),
        (X,),
    ),
}


def report_on(name: str, *, is_right: bool, **options: Any) -> check.GradientReport:
    forward, saves, right, wrong, args = RULES[name]
    with registered(forward, right if is_right else wrong, saves) as op:
        return check.gradients(lambda args: np.sum(np.tanh(op(*args)) ** 3), args, **options)


@pytest.mark.parametrize("reference", ["auto", "differences"])
@pytest.mark.parametrize("name", RULES)
def test_a_wrong_rule_is_caught(name, reference):
    assert report_on(name, is_right=False, reference=reference).verdict == "wrong"


@pytest.mark.parametrize("reference", ["auto", "differences"])
@pytest.mark.parametrize("name", RULES)
def test_the_right_rule_passes(name, reference):
    report_on(name, is_right=True, reference=reference).assert_ok()


@pytest.mark.parametrize("name", RULES)
def test_a_wrong_rule_is_caught_by_random_directions_alone(name):
    assert report_on(name, is_right=False, entries=0, directions=3).verdict == "wrong"


def test_only_the_leaf_with_the_wrong_gradient_is_named():
    assert report_on("sum over the broadcast axis", is_right=False).wrong == ("1",)


@pytest.mark.parametrize("name, factor", [("sign", -1), ("factor", 0.5)])
def test_the_report_says_by_what_factor_a_gradient_is_off(name, factor):
    report = report_on(name, is_right=False, entries=None)
    assert f"the compared entries are {factor} times the expected ones" in str(report)


# --- drawn trees ----------------------------------------------------------------------------------------------------

leaf_shapes = shapes(0, 2, min_side=0, max_side=5)
trees = st.recursive(
    leaf_shapes,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=4,
).filter(lambda tree: any(np.prod(shape) for shape in leaves_of_shapes(tree)))


def leaves_of_shapes(tree: Any) -> list[tuple]:
    if isinstance(tree, dict):
        return [shape for key in sorted(tree) for shape in leaves_of_shapes(tree[key])]
    return (
        [shape for child in tree for shape in leaves_of_shapes(child)] if isinstance(tree, list) else [tree]
    )


def filled(tree: Any, rng: np.random.Generator) -> Any:
    """The drawn shapes as arrays, 0-d ones as Python numbers half of the time."""
    if isinstance(tree, dict):
        return {key: filled(tree[key], rng) for key in tree}
    if isinstance(tree, list):
        return [filled(child, rng) for child in tree]
    values = rng.uniform(0.2, 2.0, tree) * rng.choice([-1.0, 1.0], tree)
    return float(values) if tree == () and rng.integers(2) else np.asarray(values)


def coupled(tree: Any) -> Any:
    """A smooth function in which every entry of every leaf meets every other."""
    total: Any = 0.0
    for k, leaf in enumerate(leaves(tree)):
        total = total + np.sum(np.sin(leaf * (1.0 + 0.1 * k)))
    return np.exp(0.1 * total) + total


@given(trees, seeds)
def test_the_gradient_of_a_drawn_tree_passes(shapes, seed):
    check.gradients(coupled, filled(shapes, np.random.default_rng(seed)), seed=seed).assert_ok()


@given(trees, seeds, st.sampled_from([2.0, -1.0, 0.0, 1.0 + 1e-4]))
def test_a_gradient_that_is_damaged_in_one_drawn_leaf_fails_there(shapes, seed, factor):
    rng = np.random.default_rng(seed)
    x = filled(shapes, rng)
    gradient = leaves(grad(coupled)(x))
    candidates = [k for k, leaf in enumerate(gradient) if np.size(leaf)]
    k = int(rng.choice(candidates))
    gradient[k] = gradient[k] * factor
    report = check.gradients(coupled, x, gradient=unflatten(x, gradient), seed=seed)
    assert report.wrong == ([path_name(path) for path, _ in leaves_with_paths(x)][k],)


@given(seeds)
def test_one_wrong_entry_of_many_is_caught(seed):
    x = np.random.default_rng(seed).standard_normal((40, 50))
    gradient = np.cos(x)
    gradient[seed % 40, seed % 50] += 1.0
    report = check.gradients(lambda x: np.sum(np.sin(x)), x, gradient=gradient, entries=4)
    assert report.verdict == "wrong" and report["."].checked == "4 of 2000 + 2 dir"


# --- scales ---------------------------------------------------------------------------------------------------------


def normalised(p: dict) -> Any:
    """A loss behind a batch norm, in which the bias before it does nothing."""
    z = X @ p["w"] + p["b"]
    z = (z - np.mean(z, axis=0)) / np.sqrt(np.var(z, axis=0) + 1e-5)
    return np.sum(np.sin(z) * z)


BEFORE_NORM = {"w": SQUARE, "b": np.array([0.1, 0.2, -0.3])}


def test_a_bias_before_a_batch_norm_is_measured_by_the_whole_gradient():
    report = check.gradients(normalised, BEFORE_NORM)
    assert report.ok and report["b"].is_scaled_by_whole and not report["w"].is_scaled_by_whole


def test_a_gradient_where_there_should_be_none_is_wrong():
    gradient = grad(normalised)(BEFORE_NORM)
    gradient["b"] = gradient["b"] + 1e-3
    assert check.gradients(normalised, BEFORE_NORM, gradient=gradient).wrong == ("b",)


def test_a_wrong_gradient_of_a_leaf_that_matters_little_is_caught():
    x = {"large": np.array([1.0, 2.0]), "small": np.array([0.5, 0.3])}
    gradient = {"large": np.cos(x["large"]), "small": -1e-8 * np.cos(x["small"])}
    report = check.gradients(
        lambda x: np.sum(np.sin(x["large"])) + 1e-8 * np.sum(np.sin(x["small"])), x, gradient=gradient
    )
    assert report.wrong == ("small",)


def test_a_stationary_point_passes():
    x = np.array([0.3, -2.0])
    check.gradients(lambda y: np.sum(np.cosh(y - x)), x, reference="differences").assert_ok()


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6, 1e100])
def test_scales_of_value_and_argument_do_not_matter(scale):
    x = scale * np.array([1.0, -2.0, 0.5])
    check.gradients(lambda x: np.sum(np.sin(x / scale)) * scale, x).assert_ok()


# --- kinks ----------------------------------------------------------------------------------------------------------

AT_KINKS = {
    "relu": (lambda x: np.sum(ops.relu(x) * X), 0.0 * X),
    "abs": (lambda x: np.sum(np.abs(x) * X), 0.0 * X),
    "maximum": (lambda x: np.sum(np.maximum(x, 1.0) * X), 0.0 * X + 1.0),
    "tied maximum": (np.max, np.array([1.0, 3.0, 3.0, 2.0])),
    "one of many": (lambda x: np.sum(np.abs(x) ** 1.0), np.array([1.0, 0.0, -2.0])),
    "max pool": (lambda x: np.sum(ops.max_pool(x, 2) ** 2), np.ones((1, 2, 2, 1))),
}


@pytest.mark.parametrize("name", AT_KINKS)
def test_a_kink_is_reported_and_is_no_error(name):
    f, x = AT_KINKS[name]
    report = check.gradients(f, x)
    assert (report.verdict, report.ok, report.kinks) == ("kink", True, (".",))
    assert "not differentiable here" in str(report)


def test_a_wrong_gradient_beside_a_kink_is_wrong():
    x = np.array([1.0, 0.0, -2.0])
    report = check.gradients(lambda x: np.sum(np.abs(x)), x, gradient=np.array([1.0, 0.0, 1.0]))
    assert report.verdict == "wrong" and report["."].worst.index == (2,)


def test_a_gradient_outside_of_both_slopes_is_wrong():
    report = check.gradients(lambda x: np.sum(np.abs(x)), np.zeros(1), gradient=np.array([1.5]))
    assert report.verdict == "wrong"


def test_away_from_the_kink_there_is_none():
    assert check.gradients(lambda x: np.sum(ops.relu(x)), np.array([1e-3, -1e-3])).verdict == "ok"


# --- dtypes ---------------------------------------------------------------------------------------------------------


def test_float32_leaves_are_compared_with_float64():
    x = {"w": SQUARE.astype(np.float32)}
    report = check.gradients(lambda p: np.sum(np.tanh(X.astype(np.float32) @ p["w"])), x)
    assert report.ok and 1e-9 < report.error < 1e-5 and "double precision" in str(report)


def test_a_function_that_computes_in_float32_is_compared_there():
    x = SQUARE.astype(np.float32)
    report = check.gradients(lambda w: np.sum(np.tanh(w.astype(np.float32))), x)
    assert report.ok and "differences in single precision" in str(report)


def test_a_wrong_float32_gradient_is_wrong():
    x = SQUARE.astype(np.float32)
    report = check.gradients(lambda w: np.sum(np.tanh(w)), x, gradient=1.01 * (1.0 - np.tanh(x) ** 2))
    assert report.verdict == "wrong"


def modulus(z: Any) -> Any:
    return np.sum(np.abs(z * (1.0 + 2.0j) + 1.0) ** 2)


Z = np.array([1.0 + 2.0j, -0.5j, 3.0])


def test_a_complex_gradient_passes():
    check.gradients(modulus, Z).assert_ok()


def test_the_conjugate_of_a_complex_gradient_is_wrong():
    report = check.gradients(modulus, Z, gradient=np.conj(grad(modulus)(Z)))
    assert report.verdict == "wrong" and isinstance(report["."].worst.expected, complex)


# --- the report -----------------------------------------------------------------------------------------------------

TWO = {"good": np.array([1.0, 2.0]), "bad": np.array([[0.5, 1.5]])}


def two_leaves(gradient_of_bad: float = 1.0) -> check.GradientReport:
    gradient = {"good": np.cos(TWO["good"]), "bad": np.cos(TWO["bad"]) * np.array([[1.0, gradient_of_bad]])}
    return check.gradients(
        lambda p: np.sum(np.sin(p["good"])) + np.sum(np.sin(p["bad"])), TWO, gradient=gradient
    )


def test_the_numbers_of_the_report():
    leaf = two_leaves(3.0)["bad"]
    wrong, right = 3.0 * np.cos(1.5), np.cos(1.5)
    norm = np.hypot(np.cos(0.5), wrong)
    assert leaf.norm == pytest.approx(norm) and leaf.error == pytest.approx((wrong - right) / norm)
    assert leaf.cosine == pytest.approx(
        (np.cos(0.5) ** 2 + wrong * right) / norm / np.hypot(np.cos(0.5), right)
    )
    assert (leaf.worst.index, leaf.worst.found) == ((0, 1), wrong) and leaf.worst.expected == pytest.approx(
        right
    )


def test_the_report_names_what_is_wrong():
    assert (two_leaves(3.0).wrong, two_leaves().wrong) == (("bad",), ())


def test_assert_ok_raises_with_the_table():
    with pytest.raises(
        AssertionError, match=r"(?s)gradient: WRONG.*bad +1x2 .*WRONG +\[0, 1\].*good +2 .* ok "
    ):
        two_leaves(3.0).assert_ok()


def test_the_table_is_aligned():
    head, *rows = str(two_leaves(3.0)).splitlines()[1:]
    assert [row.index("WRONG" if row.startswith("bad") else "ok") for row in rows[:2]] == [
        head.index("verdict")
    ] * 2


def test_an_unknown_leaf_is_named_with_those_there_are():
    with pytest.raises(KeyError, match="no leaf 'w'; there are bad, good"):
        two_leaves()["w"]


def test_the_same_seed_checks_the_same_entries():
    x = rng.standard_normal(200)
    first, again, other = (check.gradients(lambda x: np.sum(x**3), x, entries=5, seed=s) for s in (1, 1, 2))
    assert first == again and first["."].worst.index != other["."].worst.index


def test_an_operation_that_is_not_analytic_is_named_once_for_all_leaves():
    report = check.gradients(lambda p: np.sum(np.abs(p["good"]) * np.abs(p["bad"])), TWO)
    assert report.ok and f"bad, good: no complex step: `abs` at {__file__}:" in str(report)


def rounded(x: Any) -> Any:
    """A function that differences cannot differentiate to more than some six digits."""
    return np.round(np.sum(np.sin(x)), 8)


@pytest.mark.parametrize("error, verdict", [(0.0, "ok"), (1e-6, "unclear"), (1e-3, "wrong")])
def test_an_inaccurate_reference_makes_small_errors_unclear(error, verdict):
    x = np.array([0.3, 0.4, 0.5])
    gradient = np.cos(x) * (1.0 + error)
    assert (
        check.gradients(rounded, x, gradient=gradient, tol=1e-6 * (error != 0.0) or 1e-3).verdict == verdict
    )
