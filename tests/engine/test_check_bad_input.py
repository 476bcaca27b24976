"""Functions and trees that cannot be checked: each named, located, explained."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from odegrad import check
from odegrad.engine.errors import (
    ArgumentError,
    ArgumentTypeError,
    ImpureFunctionError,
    NonFiniteGradient,
    NoRuleError,
    NotReachedError,
    TracedValueError,
)
from odegrad.engine.primitive import PRIMITIVES, primitive

X = np.array([1.0, -2.0, 0.5])
HERE = __file__
CALLS = {
    "gradients": check.gradients,
    "taylor_test": check.taylor_test,
    "dot_product_test": check.dot_product_test,
    "central_difference": lambda f, x: check.central_difference(f, x, X),
    "complex_step": lambda f, x: check.complex_step(f, x, X),
}
TOOLS = {
    "gradients": check.gradients,
    "taylor_test": check.taylor_test,
    "central_difference": lambda f, x: check.central_difference(f, x, check.random_direction(x)),
    "complex_step": lambda f, x: check.complex_step(f, x, check.random_direction(x)),
}
every_tool = pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)


def total(tree: Any) -> Any:
    return np.sum(np.sin(tree["w"]))


# --- functions ------------------------------------------------------------------------------------------------------


@every_tool
def test_a_value_that_changes_between_calls(tool):
    counter = itertools.count()
    with pytest.raises(ImpureFunctionError, match="not pure: two calls with the same argument gave .* and "):
        tool(lambda x: np.sum(x) + next(counter), X)


@every_tool
def test_a_random_value(tool):
    rng = np.random.default_rng(0)
    with pytest.raises(ImpureFunctionError, match="key or a seed"):
        tool(lambda x: np.sum(x * rng.normal()), X)


def writes(x):
    x[0] = 3.0
    return np.sum(x)


def adds_in_place(x):
    x += 1.0
    return np.sum(x)


@every_tool
@pytest.mark.parametrize("f, line", [(writes, 0), (adds_in_place, 0)])
def test_an_argument_edited_in_place(tool, f, line):
    line = f.__code__.co_firstlineno + 1
    with pytest.raises(ImpureFunctionError, match=f"writes into its argument at {HERE}:{line}"):
        tool(f, X.copy())


def test_the_edited_argument_is_as_before():
    x = X.copy()
    with pytest.raises(ImpureFunctionError):
        check.gradients(adds_in_place, x)
    assert np.array_equal(x, X)


@every_tool
def test_a_tree_whose_leaves_are_exchanged(tool):
    def exchanges(p):
        p["w"] = p["w"] * 2.0
        return np.sum(p["w"])

    with pytest.raises(ImpureFunctionError, match="exchanges leaves of the tree"):
        tool(exchanges, {"w": X})


def test_the_tree_itself_is_as_before():
    p = {"w": X}

    def adds_a_leaf(p):
        p["v"] = 1.0
        return np.sum(p["w"])

    with pytest.raises(ImpureFunctionError):
        check.gradients(adds_a_leaf, p)
    assert set(p) == {"w"} and p["w"] is X


def branches(x):
    return np.sum(x) if x[0] > 0 else np.sum(x * x)


@pytest.mark.parametrize("tool", [check.gradients, check.taylor_test, check.dot_product_test])
def test_a_branch_on_a_value(tool):
    with pytest.raises(
        TracedValueError, match=f"a branch .* at {HERE}:{branches.__code__.co_firstlineno + 1}"
    ):
        tool(branches, X)


def test_a_function_that_looks_at_the_type_of_its_argument():
    def looks(x):
        return np.sum(x * x) if isinstance(x, np.ndarray) else np.sum(x)

    with pytest.raises(ImpureFunctionError, match=r"5\.25 when it is called and -0\.5 when it is traced"):
        check.gradients(looks, X)


RESULTS = {
    "an array": (lambda x: x * x, r"a real scalar was expected; the function returned f64\[3\]"),
    "one entry": (lambda x: x[:1], r"returned f64\[1\]"),
    "integers": (lambda x: np.sum(x).astype(np.int64), "returned int64"),
    "a truth value": (lambda x: np.sum(x) > 0, "returned bool"),
    "complex": (lambda x: np.sum(x * 1j), "returned c128"),
    "nothing": (lambda x: None, "returned None"),
    "a tree": (lambda x: {"loss": np.sum(x)}, r"returned dict \(loss: f64\[\]\)"),
    "a string": (lambda x: "loss", "returned str"),
}


@every_tool
@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_a_result_that_is_no_real_scalar(tool, result):
    f, message = result
    with pytest.raises(ArgumentError, match=message):
        tool(f, X)


@pytest.mark.parametrize("result", [lambda x: np.argmax(x), lambda x: {}, lambda x: "text"])
def test_a_result_without_a_jacobian(result):
    with pytest.raises(ArgumentError, match="must return float or complex arrays"):
        check.dot_product_test(result, X)


@pytest.fixture
def no_rule():
    """A primitive without a rule, which exists during the test only."""
    yield primitive("without_a_rule")(lambda xp, x: xp.sin(x))
    del PRIMITIVES["without_a_rule"]


def test_an_operation_without_a_rule_is_located(no_rule):
    def f(x):
        return np.sum(x * no_rule(x))

    line = f.__code__.co_firstlineno + 1
    with pytest.raises(
        NoRuleError, match=f"`without_a_rule` has no VJP rule.*`without_a_rule` at {HERE}:{line}"
    ):
        check.gradients(f, X)


def test_nothing_reached():
    with pytest.raises(NotReachedError, match="nothing that is differentiated reaches the result: .*w"):
        check.gradients(lambda p: np.sum(X), {"w": X})


@pytest.mark.parametrize("name", CALLS)
def test_swapped_arguments(name):
    with pytest.raises(
        ArgumentTypeError, match=rf"{name}\(.*\) takes a function first; got dict; it came second, so swap"
    ):
        CALLS[name]({"w": X}, total)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("f", [None, 3.0, X, "loss"])
def test_a_function_that_is_none(name, f):
    with pytest.raises(
        ArgumentTypeError, match=rf"{name}\(.*\) takes a function first; got {type(f).__name__}$"
    ):
        CALLS[name](f, X)


def test_an_error_of_the_function_passes():
    with pytest.raises(ZeroDivisionError):
        check.gradients(lambda x: np.sum(x) / (1 // 0), X)


# --- NaN and infinity -----------------------------------------------------------------------------------------------


@every_tool
@pytest.mark.parametrize("f", [lambda x: np.sum(np.log(x)), lambda x: np.sum(1.0 / (x - X))])
def test_a_loss_that_is_not_finite(tool, f):
    with pytest.raises(NonFiniteGradient, match="the function is (nan|inf) at the point"):
        tool(f, X)


def test_a_gradient_that_is_not_finite_names_leaf_and_entry():
    x = {"a": np.ones(2), "b": np.array([[1.0, 0.0]])}
    with pytest.raises(
        NonFiniteGradient, match=r"not finite in b \(1 of 2 entries, the first at \[0, 1\]: inf\)"
    ):
        check.gradients(lambda p: np.sum(p["a"]) + np.sum(np.sqrt(p["b"])), x)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_given_gradient_that_is_not_finite(value):
    with pytest.raises(NonFiniteGradient, match=r"w \(1 of 3 entries, the first at \[1\]"):
        check.gradients(total, {"w": X}, gradient={"w": np.array([1.0, value, 1.0])})


def test_a_reference_that_is_not_finite_stops_the_comparison():
    with pytest.raises(NonFiniteGradient, match="no difference along a random direction in w"):
        check.gradients(lambda p: np.sum(np.sqrt(p["w"])), {"w": np.zeros(2)}, gradient={"w": np.zeros(2)})


def test_an_entry_whose_reference_is_not_finite_is_named():
    def undefined_below(p):  # NaN as soon as the second entry falls, whatever the first does
        return np.sum(p["w"]) + np.sqrt(p["w"][1])

    with pytest.raises(NonFiniteGradient, match="in w"):
        check.gradients(undefined_below, {"w": np.array([1.0, 0.0])}, gradient={"w": np.ones(2)})


@every_tool
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_leaf_that_is_not_finite(tool, value):
    with pytest.raises(ArgumentError, match="the leaf w has 1 of 2 values NaN or infinite"):
        tool(total, {"w": np.array([value, 1.0])})


# --- trees ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [check.gradients, check.taylor_test, check.dot_product_test])
@pytest.mark.parametrize("empty", [{}, [], None, {"a": []}])
def test_an_empty_tree(tool, empty):
    with pytest.raises(ArgumentError, match="has no leaves"):
        tool(lambda p: 1.0, empty)


@pytest.mark.parametrize("empty", [{}, [], None])
def test_an_empty_tree_has_no_direction(empty):
    with pytest.raises(ArgumentError, match="has no leaves"):
        check.random_direction(empty)


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [(np.arange(3), r"int64\[3\]"), (3, "int"), (np.ones(2, bool), r"bool\[2\]"), ("a", "str")],
)
def test_a_leaf_without_a_direction(leaf, kind):
    """A direction in its dtype would be rounded to 0 and 1."""
    with pytest.raises(
        ArgumentTypeError, match=f"only float and complex leaves have a gradient; got n: {kind}"
    ):
        check.random_direction({"w": X, "n": leaf})


@pytest.mark.parametrize(
    "leaf, kind", [(np.arange(3), r"int64\[3\]"), (3, "int"), (np.ones(2, bool), r"bool\[2\]")]
)
@pytest.mark.parametrize("tool", [check.gradients, check.taylor_test, check.dot_product_test])
def test_a_leaf_without_a_gradient(tool, leaf, kind):
    with pytest.raises(
        ArgumentTypeError, match=f"only float and complex leaves have a gradient; got n: {kind}"
    ):
        tool(total, {"w": X, "n": leaf})


@pytest.mark.parametrize("leaf", ["text", object()])
def test_a_leaf_that_is_no_number(leaf):
    with pytest.raises(ArgumentTypeError, match="n: "):
        check.gradients(total, {"w": X, "n": leaf})


@pytest.mark.parametrize("gradient", [{"w": np.ones(2)}, {"v": X}, X, {"w": X, "v": X}, {"w": 1.0}])
def test_a_gradient_of_another_shape(gradient):
    with pytest.raises(
        ArgumentError, match=r"`gradient` must be shaped like params; got .*, expected w: f64\[3\]"
    ):
        check.gradients(total, {"w": X}, gradient=gradient)


@pytest.mark.parametrize("gradient", [{"w": np.ones(2)}, {"v": X}])
def test_a_gradient_of_another_shape_for_the_taylor_test(gradient):
    with pytest.raises(ArgumentError, match="must be shaped like params"):
        check.taylor_test(total, {"w": X}, gradient=gradient)


DIRECTIONS = {
    "shape": (np.ones(2), ArgumentError, r"must be shaped like x; got \.: f64\[2\], expected \.: f64\[3\]"),
    "structure": ([X], ArgumentError, "must be shaped like x"),
    "complex": (X * 1j, ArgumentTypeError, "complex where x is real"),
    "NaN": (X * np.nan, ArgumentError, "not finite"),
    "zero": (0.0 * X, ArgumentError, "the direction is zero"),
}


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize("tool", [check.central_difference, check.complex_step, check.taylor_test])
def test_a_direction_that_does_not_fit(tool, direction):
    v, error, message = direction
    with pytest.raises(error, match=message):
        tool(lambda x: np.sum(np.sin(x)), X, v)


OPTIONS = {
    "reference": ("exact", "`reference` must be one of 'auto', 'differences'; got 'exact'"),
    "entries": (-1, "`entries` must be None or an integer from 0 up; got -1"),
    "directions": (0, "`directions` must be an integer from 1 up; got 0"),
    "tol": (0.0, r"`tol` must lie between 0 and 1; got 0\.0"),
    "seed": (-1, "`seed` must be an integer from 0 up; got -1"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_setting_that_is_none(name):
    value, message = OPTIONS[name]
    with pytest.raises(ArgumentError, match=message):
        check.gradients(total, {"w": X}, **{name: value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"entries": "all"},
        {"entries": 2.5},
        {"directions": None},
        {"directions": True},
        {"tol": "x"},
        {"tol": True},
        {"seed": None},
        {"seed": 1.5},
        {"seed": True},
    ],
    ids=str,
)
def test_settings_of_another_type_are_refused(wrong):
    with pytest.raises(ArgumentError, match=f"`{next(iter(wrong))}`"):
        check.gradients(lambda p: np.sum(p**2), np.ones(2), **wrong)


def test_several_wrong_settings_come_in_one_message():
    with pytest.raises(ArgumentError, match="(?s)`seed`.*`tol`.*`entries`"):
        check.gradients(total, {"w": X}, seed=-1, tol=2.0, entries=-3)


@pytest.mark.parametrize("step", [0, 0.0, -1, np.nan, np.inf, "1e-3", True])
def test_a_step_that_is_no_positive_number(step):
    with pytest.raises(ArgumentError, match=f"`step` must be a positive number; got {step!r}"):
        check.central_difference(np.sum, X, X, step=step)


@pytest.mark.parametrize("tol", [-1, 0.0, 1.0, np.nan, "x", True])
def test_a_tolerance_of_dot_products_that_is_none(tol):
    """With NaN every comparison would be passed."""
    with pytest.raises(ArgumentError, match=f"`tol` must lie between 0 and 1; got {tol!r}"):
        check.dot_product_test(np.sin, X, tol=tol)


SEEDED = {
    "dot_product_test": lambda seed: check.dot_product_test(np.sin, X, seed=seed),
    "taylor_test": lambda seed: check.taylor_test(np.sum, X, seed=seed),
    "random_direction": lambda seed: check.random_direction(X, seed),
}


@pytest.mark.parametrize("tool", SEEDED.values(), ids=SEEDED)
@pytest.mark.parametrize("seed", [-1, 0.5, None, "x"])
def test_a_seed_that_is_none(tool, seed):
    with pytest.raises(ArgumentError, match=f"`seed` must be an integer from 0 up; got {seed!r}"):
        tool(seed)


def test_a_numpy_integer_is_a_seed():
    assert np.array_equal(check.random_direction(X, np.int64(3)), check.random_direction(X, 3))


def test_a_complex_gradient_of_a_real_leaf_is_refused():
    """Its real part may be right: 2 + 5j for 2."""
    with pytest.raises(ArgumentTypeError, match="must be real where params are"):
        check.gradients(lambda p: np.sum(p**2), np.ones(2), gradient=np.array([2 + 5j, 2 + 5j]))
