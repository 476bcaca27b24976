"""vjp, jvp, grad, value_and_grad, hvp: closed forms, nesting, trees, and what is refused."""

import math
import threading
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from odegrad.engine import grad, hvp, jvp, ops, value_and_grad, vjp
from odegrad.engine.errors import (
    ArgumentError,
    ArgumentTypeError,
    NoRuleError,
    NotReachedError,
    TracedValueError,
)
from odegrad.engine.primitive import Primitive
from odegrad.engine.trace import Var, new_trace, pull
from odegrad.engine.tree import leaves, leaves_with_paths
from oracles import EPS64, assert_close, central_difference, complex_step, inner, inner_all, norm
from strategies import seeds

# --- closed forms -----------------------------------------------------------------------------------------------------

# f, its derivatives of order 1, 2, 3
TOWERS = [
    (lambda x: x**5, lambda x: 5 * x**4, lambda x: 20 * x**3, lambda x: 60 * x**2),
    (np.sin, np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x)),
    (np.exp, np.exp, np.exp, np.exp),
    (np.log, lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3),
    (lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3, lambda x: -6 / x**4),
    (np.sqrt, lambda x: 0.5 * x**-0.5, lambda x: -0.25 * x**-1.5, lambda x: 0.375 * x**-2.5),
    (
        np.tanh,
        lambda x: 1 - np.tanh(x) ** 2,
        lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
        lambda x: (6 * np.tanh(x) ** 2 - 2) * (1 - np.tanh(x) ** 2),
    ),
    (lambda x: 2**x, *[lambda x, k=k: math.log(2) ** k * 2**x for k in (1, 2, 3)]),
]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("tower", TOWERS)
def test_nested_grad_is_the_closed_form(tower, order):
    f = tower[0]
    for _ in range(order):
        f = grad(f)
    x = np.array(0.8)
    assert_close(f(x), tower[order](x), scale=1.0 + abs(tower[order](x)), tol=16 * EPS64)


def test_gradient_of_a_quadratic_form():
    rng = np.random.default_rng(0)
    a, x = rng.standard_normal((4, 4)), rng.standard_normal(4)
    assert_close(grad(lambda x: x @ a @ x)(x), (a + a.T) @ x, scale=norm(a) * norm(x), tol=4 * EPS64)


def test_perturbations_of_two_levels_are_not_confused():
    """d/dx (x * d/dy (x + y)) = 1, not 2."""
    outer = grad(lambda x: x * grad(lambda y: x + y)(np.array(3.0)))
    assert float(outer(np.array(5.0))) == 1.0


def test_inner_gradient_sees_a_captured_outer_value():
    outer = grad(lambda x: grad(lambda y: x * x * y * y)(np.array(3.0)))  # d/dx 6 x**2
    assert float(outer(np.array(5.0))) == 60.0


def test_inner_point_that_depends_on_the_outer_value():
    outer = grad(lambda x: grad(lambda y: y**3)(2.0 * x))  # d/dx 12 x**2
    assert float(outer(np.array(5.0))) == 120.0


def test_inner_function_may_ignore_the_outer_value():
    assert float(grad(lambda x: x * grad(lambda y: y * y)(np.array(3.0)))(np.array(2.0))) == 6.0


def mlp(x, w1, b1, w2):
    return np.sum(np.tanh(x @ w1 + b1) @ w2 * x)


def mlp_arguments(seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s) for s in [(5, 3), (3, 7), (7,), (7, 3)]]


@given(seed=seeds)
def test_jvp_agrees_with_complex_step(seed):
    xs, xdot = mlp_arguments(seed), mlp_arguments(seed + 1)
    y, ydot = jvp(mlp, xs, xdot)
    assert_close(y, mlp(*xs), scale=abs(mlp(*xs)), tol=0)
    expected = complex_step(mlp, xs, xdot)
    assert_close(ydot, expected, scale=norm(*xs) * norm(*xdot), tol=16 * EPS64)


@given(seed=seeds)
def test_jvp_is_the_transpose_of_vjp(seed):
    rng = np.random.default_rng(seed)
    x, xdot, w = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.standard_normal((3, 2))

    def f(x):
        return ops.softmax(np.sin(x) @ w)

    y, ydot = jvp(f, [x], [xdot])
    ybar = rng.standard_normal(y.shape)
    _, pull_back = vjp(f, x)
    assert_close(
        inner(ybar, ydot), inner(*pull_back(ybar), xdot), scale=norm(ybar) * norm(xdot), tol=32 * EPS64
    )


@given(seed=seeds)
def test_hvp_agrees_with_complex_step_of_the_gradient(seed):
    xs, xdot = mlp_arguments(seed), mlp_arguments(seed + 1)
    gradients, products = hvp(mlp, xs, xdot)
    for k, expected in enumerate(grad(mlp, (0, 1, 2, 3))(*xs)):
        assert_close(gradients[k], expected, scale=0.0, tol=0.0)
        of_k = complex_step(lambda *z, k=k: grad(mlp, (0, 1, 2, 3))(*z)[k], xs, xdot)
        assert_close(products[k], of_k, scale=norm(of_k) + norm(*xs), tol=64 * EPS64)


def test_hessian_of_a_linear_function_is_zero():
    _, (product,) = hvp(lambda x: np.sum(3.0 * x), [np.ones(2)], [np.ones(2)])
    assert product.tolist() == [0.0, 0.0]


def test_jvp_of_a_value_that_depends_on_nothing_is_zero():
    y, ydot = jvp(lambda x: np.ones(2), [np.ones(3)], [np.ones(3)])
    assert (y.tolist(), ydot.tolist()) == ([1.0, 1.0], [0.0, 0.0])


def test_jvp_along_trees():
    point, tangent = {"a": np.array(2.0), "b": [np.array(3.0)]}, {"a": np.array(1.0), "b": [np.array(10.0)]}
    _, ydot = jvp(lambda p: {"product": p["a"] * p["b"][0]}, [point], [tangent])
    assert float(ydot["product"]) == 23.0


# --- arguments, trees, auxiliary results ----------------------------------------------------------------------------


def cubic(a, b, c=1.0):
    return np.sum(a * b * b) * c


@pytest.mark.parametrize(
    "argnums, expected", [(0, 9.0), (1, 12.0), (-1, 12.0), ((1, 0), (12.0, 9.0)), ((0,), (9.0,))]
)
def test_argnums_choose_the_arguments(argnums, expected):
    assert grad(cubic, argnums)(np.array(2.0), np.array(3.0)) == expected


def test_keyword_arguments_are_passed_on():
    assert float(grad(cubic)(np.array(2.0), np.array(3.0), c=10.0)) == 90.0


@pytest.mark.parametrize("argnums", [2, -3, (0, 5)])
def test_argnums_out_of_range_are_refused(argnums):
    with pytest.raises(ArgumentError, match="argnums"):
        grad(cubic, argnums)(np.array(2.0), np.array(3.0))


class Pair(NamedTuple):
    w: np.ndarray
    b: np.ndarray


TREES = [
    {"w": np.ones(2), "deep": [{"b": np.ones(())}, (np.ones((1, 2)),)]},
    Pair(np.ones(3), np.ones(())),
    [np.ones(2), None, np.ones(1)],
    ({"b": np.ones(1), "a": np.ones(2)},),
]


@pytest.mark.parametrize("tree", TREES, ids=["nested", "named tuple", "none", "dict"])
def test_gradient_has_the_structure_of_its_argument(tree):
    gradient = grad(lambda p: sum(np.sum((k + 2.0) * leaf) for k, leaf in enumerate(leaves(p))))(tree)
    assert type(gradient) is type(tree)
    assert [p for p, _ in leaves_with_paths(gradient)] == [p for p, _ in leaves_with_paths(tree)]
    assert [float(leaf.reshape(-1)[0]) for leaf in leaves(gradient)] == [
        k + 2.0 for k in range(len(leaves(tree)))
    ]


def test_value_may_be_a_tree():
    value, pull_back = vjp(lambda x: {"double": 2.0 * x, "same": x}, np.ones(2))
    assert value["double"].tolist() == [2.0, 2.0]
    assert pull_back({"double": np.array([1.0, 0.0]), "same": np.array([0.0, 5.0])})[0].tolist() == [2.0, 5.0]


def test_one_result_in_two_places_adds_its_cotangents():
    def f(x):
        y = 2.0 * x
        return y, y

    _, pull_back = vjp(f, np.ones(1))
    assert pull_back((np.array([1.0]), np.array([10.0])))[0].tolist() == [22.0]


def test_identity_passes_the_cotangent():
    _, pull_back = vjp(lambda x: x, np.ones(2))
    assert pull_back(np.array([3.0, 4.0]))[0].tolist() == [3.0, 4.0]


def test_pull_back_may_be_called_again():
    _, pull_back = vjp(np.tanh, np.array([0.3]))
    first = pull_back(np.ones(1))[0].tolist()
    assert pull_back(np.ones(1))[0].tolist() == first


def test_pull_back_leaves_its_cotangent_as_it_was():
    ybar = np.array([1.0, 2.0])
    vjp(lambda x: x + x, np.ones(2))[1](ybar)
    assert ybar.tolist() == [1.0, 2.0]


def test_aux_is_returned_as_plain_arrays():
    (value, aux), gradient = value_and_grad(lambda x: (np.sum(x * x), {"double": 2.0 * x}), has_aux=True)(
        np.ones(2)
    )
    assert (float(value), aux["double"].tolist(), gradient.tolist()) == (2.0, [2.0, 2.0], [2.0, 2.0])
    assert type(aux["double"]) is np.ndarray


@pytest.mark.parametrize("transform", [grad, lambda f, **k: lambda x: vjp(f, x, **k)[::2]])
def test_has_aux_of_other_transforms(transform):
    aux = transform(lambda x: (np.sum(x * x), x * 3.0), has_aux=True)(np.ones(1))[1]
    assert aux.tolist() == [3.0]


def test_jvp_and_hvp_pass_aux_on():
    def f(x):
        return np.sum(x**3), x * 3.0

    assert jvp(f, [np.ones(1)], [np.ones(1)], has_aux=True)[2].tolist() == [3.0]
    assert hvp(f, [np.ones(1)], [np.ones(1)], has_aux=True)[2].tolist() == [3.0]


def test_aux_survives_nesting():
    def inner_loss(x):
        gradient, aux = grad(lambda y: (np.sum(y**3), y * 2.0), has_aux=True)(x)
        return np.sum(gradient * aux)  # sum(3 x**2 * 2 x)

    assert grad(inner_loss)(np.array([2.0])).tolist() == [72.0]


@pytest.mark.parametrize("result", [1.0, (1.0, 2.0, 3.0)])
def test_missing_aux_is_refused(result):
    with pytest.raises(ArgumentTypeError, match="has_aux"):
        grad(lambda x: result, has_aux=True)(np.ones(1))


# --- dtypes and numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_gradient_has_the_dtype_of_its_leaf(dtype):
    assert grad(lambda x: np.sum(np.tanh(x) / 3 + 2 * x**2))(np.ones(3, dtype)).dtype == dtype


def test_gradient_of_a_float32_leaf_among_float64_ones():
    _, pull_back = vjp(lambda a, b: a * b, np.ones(2, np.float32), np.ones(2))
    assert [bar.dtype.name for bar in pull_back(np.ones(2))] == ["float32", "float64"]


@pytest.mark.parametrize(
    "f", [lambda t: t * t, lambda t: np.sum(t * t * np.ones(1)), lambda t: np.sin(t) ** 2 + t]
)
def test_gradient_of_a_python_number_is_one(f):
    gradient = grad(f)(0.5)
    assert type(gradient) is float
    assert_close(gradient, central_difference(f, [0.5], [1.0]), scale=1.0, tol=1e-10)


def test_gradient_of_a_number_that_scales_an_array():
    assert grad(lambda t: np.sum(t * np.arange(4.0)))(2.0) == 6.0


def test_real_leaf_of_a_complex_computation_has_a_real_gradient():
    gradient = grad(lambda x: np.real(np.sum(x * (2.0 + 3.0j))))(np.ones(2))
    assert (gradient.dtype, gradient.tolist()) == (np.float64, [2.0, 2.0])


def test_empty_array_has_an_empty_gradient():
    assert grad(lambda x: np.sum(np.tanh(x)))(np.ones((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    "leaf", [3, np.arange(3), np.array([True]), "text", object()], ids=lambda leaf: str(type(leaf))
)
def test_leaf_that_cannot_be_differentiated_is_named(leaf):
    with pytest.raises(ArgumentTypeError, match="p.*|0/p: "):
        grad(lambda tree: tree["p"])({"p": leaf})


# --- what is returned belongs to the caller ----------------------------------------------------------------------------

SHARING = {
    "identity": lambda a, b: a + b,
    "sum": lambda a, b: np.zeros(3) + np.sum(a) + np.sum(b),
    "views": lambda a, b: np.reshape(np.concatenate([a, b]), (2, 3))[0] + b[::-1],
    "unused": lambda a, b: a * 2.0,
}


@pytest.mark.parametrize("name", SHARING)
def test_gradients_are_writable_and_share_no_memory(name):
    a, b, ybar = np.ones(3), np.ones(3), np.ones(3)
    _, pull_back = vjp(SHARING[name], a, b)
    found = [*pull_back(ybar), *pull_back(ybar)]
    assert all(bar.flags.writeable and bar.flags.owndata for bar in found)
    arrays = [a, b, ybar, *found]
    assert not any(np.shares_memory(x, y) for k, x in enumerate(arrays) for y in arrays[:k])


@pytest.mark.parametrize(
    "f", [lambda x: x, lambda x: x[:2], lambda x: np.broadcast_to(x, (2, 3))], ids=["x", "slice", "broadcast"]
)
def test_value_is_writable_and_shares_no_memory_with_the_argument(f):
    x = np.ones(3)
    value, _ = vjp(f, x)
    assert value.flags.writeable
    assert not np.shares_memory(value, x)


# --- what is reached ------------------------------------------------------------------------------------------------


def test_unused_leaf_gets_zeros():
    gradient = grad(lambda p: np.sum(p["used"]))({"used": np.ones(2), "unused": np.ones((2, 3), np.float32)})
    assert gradient["unused"].tolist() == np.zeros((2, 3)).tolist()
    assert gradient["unused"].dtype == np.float32


@pytest.mark.parametrize(
    "f", [lambda x: np.array(1.0), lambda x: np.sum(np.sign(x)), lambda x: ops.sum(ops.stop_gradient(x))]
)
def test_nothing_reached_is_an_error_that_names_the_arguments(f):
    with pytest.raises(NotReachedError, match="0/w"):
        grad(lambda p: f(p["w"]))({"w": np.ones(2)})


def test_stop_gradient_blocks_one_path():
    assert grad(lambda x: np.sum(x * ops.stop_gradient(x)))(np.array([3.0])).tolist() == [3.0]


def test_missing_rule_is_named():
    cube = Primitive("cube_without_rule", lambda xp, x: x**3, is_flat=False, may_view=False)
    with pytest.raises(NoRuleError, match="cube_without_rule"):
        grad(lambda x: np.sum(cube(x)))(np.ones(2))


def test_missing_rule_off_the_path_is_no_error():
    cube = Primitive("cube_without_rule", lambda xp, x: x**3, is_flat=False, may_view=False)
    assert grad(lambda x: np.sum(x) + np.sum(cube(np.ones(2))))(np.ones(2)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "value", [np.ones(2), {"a": np.array(1.0)}, [np.array(1.0)], (np.array(1.0), np.array(2.0))]
)
def test_gradient_of_what_is_no_scalar_is_refused(value):
    with pytest.raises(ArgumentError, match="scalar"):
        grad(lambda x: value)(np.ones(2))


@pytest.mark.parametrize(
    "ybar", [np.ones(3), [np.ones(2), np.ones(2)], np.ones(())], ids=["shape", "tree", "0d"]
)
def test_cotangent_of_another_shape_is_refused(ybar):
    _, pull_back = vjp(np.tanh, np.ones(2))
    with pytest.raises(ArgumentError, match="cotangent"):
        pull_back(ybar)


def test_tangents_must_match_the_primals():
    with pytest.raises(ArgumentError, match="tangents"):
        jvp(lambda a, b: a * b, [np.ones(2), np.ones(2)], [np.ones(2)])


# --- levels ---------------------------------------------------------------------------------------------------------


def open_level():
    with new_trace() as trace:
        return trace.level


def test_level_is_given_back_after_an_exception():
    def fails(x):
        raise ZeroDivisionError

    before = open_level()
    with pytest.raises(ZeroDivisionError):
        grad(grad(fails))(np.ones(()))
    assert open_level() == before


def test_levels_belong_to_their_thread():
    seen = []
    with new_trace():
        thread = threading.Thread(target=lambda: seen.append(open_level()))
        thread.start()
        thread.join()
    assert seen == [open_level()]


def test_threads_differentiate_at_the_same_time():
    results = {}
    barrier = threading.Barrier(4)

    def work(k):
        def f(x):
            barrier.wait(timeout=20)  # every thread is inside its trace
            return np.sum(x ** (k + 2))

        results[k] = grad(f)(np.array([2.0])).tolist()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: [(k + 2) * 2.0 ** (k + 1)] for k in range(4)}


def test_branch_on_a_traced_value_is_refused():
    with pytest.raises(TracedValueError, match=f"branch.*{__file__}"):
        grad(lambda x: x if x > 0 else -x)(np.array(1.0))


def test_values_of_a_transform_are_no_traced_values():
    value, gradient = value_and_grad(lambda x: np.sum(x * x))(np.ones(2))
    assert not isinstance(value, Var) and not isinstance(gradient, Var)


def test_pull_gives_cotangents_of_intermediate_values_too():
    with new_trace() as trace:
        x = trace.input(np.array(2.0))
        y = x * x
        z = np.sin(y)
    found = pull(trace.instructions, {z.slot: np.array(1.0)}, [x.slot, y.slot])
    assert_close([found[y.slot], found[x.slot]], [np.cos(4.0), 4.0 * np.cos(4.0)], scale=1.0, tol=4 * EPS64)


# --- whole networks -------------------------------------------------------------------------------------------------


def gru(h, x, p):
    z = ops.sigmoid(x @ p["wz"] + h @ p["uz"] + p["bz"])
    r = ops.sigmoid(x @ p["wr"] + h @ p["ur"] + p["br"])
    return (1.0 - z) * h + z * np.tanh(x @ p["wh"] + (r * h) @ p["uh"] + p["bh"])


def residual_block(x, p):
    mean, var = ops.moments(x)
    y = ops.relu(ops.normalize(x, mean, var, 1e-5, p["g"], p["b"]))
    return ops.conv2d(y, p["w"], padding=1) + x


def pooled_classifier(x, p):
    y = ops.softplus(ops.conv2d(x, p["w1"], stride=2, padding=1))
    y = np.concatenate([ops.max_pool(y, 2), ops.avg_pool(y, 2)], axis=-1)
    y = ops.conv_transpose2d(y, p["w2"], size=(4, 4), stride=2)
    return ops.softmax_cross_entropy(np.mean(y, axis=(1, 2)), np.array([1, 0]))


def attention(x, p):
    scores = ops.softmax(np.einsum("bid,de,bje->bij", x, p["q"], x) / 3.0)
    return np.einsum("bij,bjd->bid", scores, ops.gelu(x[..., ::-1]) @ p["v"])


NETWORKS = {
    "mlp": (
        lambda x, p: np.tanh(x @ p["w1"] + p["b1"]) @ p["w2"],
        (4, 3),
        {"w1": (3, 6), "b1": (6,), "w2": (6, 3)},
    ),
    "gru": (
        lambda h, p: gru(h, np.cos(h[:, :2]), p),
        (4, 3),
        {
            **{f"w{k}": (2, 3) for k in "zrh"},
            **{f"u{k}": (3, 3) for k in "zrh"},
            **{f"b{k}": (3,) for k in "zrh"},
        },
    ),
    "residual": (residual_block, (2, 5, 4, 3), {"w": (3, 3, 3, 3), "g": (3,), "b": (3,)}),
    "pooled": (pooled_classifier, (2, 8, 8, 1), {"w1": (3, 3, 1, 2), "w2": (2, 2, 3, 4)}),
    "attention": (attention, (2, 4, 3), {"q": (3, 3), "v": (3, 3)}),
}


@pytest.mark.parametrize("name", NETWORKS)
@given(seed=seeds)
def test_network_gradient_agrees_with_complex_step(name, seed):
    f, shape, shapes = NETWORKS[name]
    rng = np.random.default_rng(seed)
    names = sorted(shapes)
    xs, xdot = ([rng.standard_normal(s) for s in [shape, *(shapes[k] for k in names)]] for _ in range(2))

    def of_list(x, *weights):
        return f(x, dict(zip(names, weights, strict=True)))

    ydot = complex_step(of_list, xs, xdot)
    y, pull_back = vjp(of_list, *xs)
    ybar = rng.standard_normal(np.shape(y))
    xbar = pull_back(ybar)
    scale = norm(ybar) * norm(ydot) + norm(*xbar) * norm(*xdot)
    assert_close(inner(ybar, ydot), inner_all(xbar, xdot), scale=scale, tol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "gru", "residual", "attention"])
def test_network_hessian_agrees_with_complex_step_of_the_gradient(name):
    f, shape, shapes = NETWORKS[name]
    rng = np.random.default_rng(11)
    p = {k: rng.standard_normal(s) for k, s in shapes.items()}
    x, xdot = rng.standard_normal(shape), rng.standard_normal(shape)

    def loss(x):
        return np.sum(f(x, p) ** 2)

    _, (product,) = hvp(loss, [x], [xdot])
    expected = complex_step(grad(loss), [x], [xdot])
    assert_close(product, expected, scale=norm(expected), tol=1e-12)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_the_gradient_of_a_0d_array_is_a_0d_array(power):
    gradient = grad(lambda x: x**power)(np.array(2.0))
    assert isinstance(gradient, np.ndarray) and gradient.shape == ()
    assert gradient == power * 2.0 ** (power - 1)
