"""Operations made of primitives: values against NumPy and SciPy, derivatives against complex step."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from odegrad.engine import hvp, ops, vjp
from odegrad.engine.errors import ArgumentError, TracedValueError
from odegrad.engine.primitive import Primitive
from oracles import EPS64, assert_close, central_difference, complex_step, inner, inner_all, norm
from strategies import broadcasting_pairs, seeds, shapes

LABELS = np.array([2, 0, 1, 2])
KEY = np.array([1, 2], np.uint32)
SQRT_2_PI = np.sqrt(2 / np.pi)


def transposed_convolution(x, w):
    """Each input pixel adds its stamp of the kernel; then the border is cut."""
    out = np.zeros((x.shape[0], 6, 6, w.shape[2]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += np.einsum("bc,hwoc->bhwo", x[:, i, j], w)
    return out


def groups_normalized(x):
    shape = x.shape
    g = x.reshape(shape[0], -1, 2, shape[-1] // 2)
    return ((g - g.mean((1, 3), keepdims=True)) / np.sqrt(g.var((1, 3), keepdims=True) + 1e-5)).reshape(shape)


# name, function, NumPy's value, shapes of the arguments
COMPOSITES = [
    ("power", lambda x: ops.power(x, 2), lambda x: x**2, [(2, 3)]),
    ("power", lambda x: ops.power(2.0 + x * x, 0.5), lambda x: (2.0 + x * x) ** 0.5, [(2, 3)]),
    ("power", lambda x: ops.power(x, 1), lambda x: x, [(2, 3)]),
    ("clip", lambda x: ops.clip(x, -0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5), [(2, 3)]),
    (
        "gelu",
        ops.gelu,
        lambda x: 0.5 * x * (1 + np.tanh(SQRT_2_PI * (x + 0.044715 * x**3))),
        [(2, 3)],
    ),
    ("sign", lambda x: ops.sign(ops.real(x)) + x, lambda x: np.sign(x) + x, [(2, 3)]),
    ("silu", ops.silu, lambda x: x * scipy.special.expit(x), [(2, 3)]),
    ("leaky_relu", ops.leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x), [(2, 3)]),
    ("elu", ops.elu, lambda x: np.where(x > 0, x, np.exp(x) - 1), [(2, 3)]),
    ("matmul", ops.matmul, np.matmul, [(3,), (3,)]),
    ("matmul", ops.matmul, np.matmul, [(3,), (3, 2)]),
    ("matmul", ops.matmul, np.matmul, [(3,), (4, 3, 2)]),
    ("matmul", ops.matmul, np.matmul, [(2, 3), (3,)]),
    ("matmul", ops.matmul, np.matmul, [(4, 2, 3), (3,)]),
    ("matmul", ops.matmul, np.matmul, [(4, 2, 3), (3, 2)]),
    ("matmul", ops.matmul, np.matmul, [(4, 2, 3), (4, 3, 2)]),
    ("matmul", ops.matmul, np.matmul, [(2, 3), (4, 3, 2)]),
    ("matmul", ops.matmul, np.matmul, [(2, 3, 0), (0, 4)]),
    ("dot", ops.dot, np.dot, [(3,), (3,)]),
    ("dot", ops.dot, np.dot, [(), (3,)]),
    ("dot", ops.dot, np.dot, [(2, 4, 3), (3, 2)]),
    ("outer", ops.outer, np.outer, [(3,), (2,)]),
    (
        "einsum",
        lambda a, b: ops.einsum("ij, jk", a, b),
        lambda a, b: np.einsum("ij,jk", a, b),
        [(2, 3), (3, 4)],
    ),
    (
        "einsum",
        lambda a, b: ops.einsum("ji,kj", a, b),
        lambda a, b: np.einsum("ji,kj", a, b),
        [(3, 2), (4, 3)],
    ),
    ("softmax", ops.softmax, lambda x: scipy.special.softmax(x, -1), [(4, 3)]),
    ("softmax", lambda x: ops.softmax(x, 0), lambda x: scipy.special.softmax(x, 0), [(4, 3)]),
    ("log_softmax", ops.log_softmax, lambda x: scipy.special.log_softmax(x, -1), [(4, 3)]),
    ("logsumexp", ops.logsumexp, lambda x: scipy.special.logsumexp(x, -1), [(4, 3)]),
    (
        "logsumexp",
        lambda x: ops.logsumexp(x, 0, True),
        lambda x: scipy.special.logsumexp(x, 0, keepdims=True),
        [(4, 3)],
    ),
    (
        "softmax_cross_entropy",
        lambda x: ops.softmax_cross_entropy(x, LABELS),
        lambda x: -np.mean(scipy.special.log_softmax(x, -1)[np.arange(4), LABELS]),
        [(4, 3)],
    ),
    ("mse", ops.mse, lambda a, b: np.mean((a - b) ** 2), [(2, 3), (2, 3)]),
    ("mean", ops.mean, np.mean, [(2, 3)]),
    ("mean", lambda x: ops.mean(x, (0, -1), True), lambda x: np.mean(x, (0, -1), keepdims=True), [(2, 3, 4)]),
    ("var", lambda x: ops.var(x, -1), lambda x: np.var(x, -1), [(2, 3)]),
    ("var", lambda x: ops.var(x, 0, ddof=1), lambda x: np.var(x, 0, ddof=1), [(4, 3)]),
    ("std", lambda x: ops.std(x, 0, True), lambda x: np.std(x, 0, keepdims=True), [(4, 3)]),
    ("norm", ops.norm, np.linalg.norm, [(2, 3)]),
    ("norm", lambda x: ops.norm(x, 1, True), lambda x: np.linalg.norm(x, axis=1, keepdims=True), [(2, 3)]),
    ("sum", lambda x: ops.sum(x, -1, True), lambda x: np.sum(x, -1, keepdims=True), [(2, 3)]),
    ("sum", ops.sum, np.sum, [()]),
    ("max", lambda x: ops.max(x, (0, 2), True), lambda x: np.max(x, (0, 2), keepdims=True), [(2, 3, 4)]),
    ("min", lambda x: ops.min(x, -2), lambda x: np.min(x, -2), [(2, 3, 4)]),
    ("moments", lambda x: ops.moments(x)[0], lambda x: np.mean(x, (0, 1)), [(2, 3, 4)]),
    ("moments", lambda x: ops.moments(x)[1], lambda x: np.var(x, (0, 1)), [(2, 3, 4)]),
    (
        "normalize",
        lambda x, m, v, g, b: ops.normalize(x, m, v * v, 1e-5, g, b),
        lambda x, m, v, g, b: g * (x - m) / np.sqrt(v * v + 1e-5) + b,
        [(5, 3), (3,), (3,), (3,), (3,)],
    ),
    ("group_normalize", lambda x: ops.group_normalize(x, 2, 1e-5), groups_normalized, [(2, 3, 2, 4)]),
    ("squeeze", ops.squeeze, np.squeeze, [(1, 3, 1)]),
    ("squeeze", lambda x: ops.squeeze(x, -1), lambda x: np.squeeze(x, -1), [(1, 3, 1)]),
    ("expand_dims", lambda x: ops.expand_dims(x, -1), lambda x: np.expand_dims(x, -1), [(2, 3)]),
    ("swapaxes", lambda x: ops.swapaxes(x, 0, -1), lambda x: np.swapaxes(x, 0, -1), [(2, 3, 4)]),
    ("moveaxis", lambda x: ops.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1), [(2, 3, 4)]),
    ("transpose", ops.transpose, np.transpose, [(2, 3, 4)]),
    ("reshape", lambda x: ops.reshape(x, 3, -1), lambda x: x.reshape(3, -1), [(2, 3)]),
    ("broadcast_to", lambda x: ops.broadcast_to(x, (2, 3)), lambda x: np.broadcast_to(x, (2, 3)), [(3,)]),
    (
        "concatenate",
        lambda a, b: ops.concatenate([a, b], -1),
        lambda a, b: np.concatenate([a, b], -1),
        [(2, 3), (2, 1)],
    ),
    ("stack", lambda a, b: ops.stack([a, b], -1), lambda a, b: np.stack([a, b], -1), [(2, 3), (2, 3)]),
    ("flip", lambda x: ops.flip(x, -1), lambda x: np.flip(x, -1), [(2, 3)]),
    ("split", lambda x: ops.split(x, 2)[1], lambda x: np.split(x, 2, -1)[1], [(2, 4)]),
    ("split", lambda x: ops.split(x, 2, 0)[0], lambda x: np.split(x, 2)[0], [(2, 0)]),
    ("pad", lambda x: ops.pad(x, 2), lambda x: np.pad(x, 2), [(2, 3)]),
    ("take", lambda x: ops.take(x, [0, 2, 2], -1), lambda x: np.take(x, [0, 2, 2], -1), [(2, 3)]),
    ("getitem", lambda x: ops.getitem(x, (slice(None), [2, 0])), lambda x: x[:, [2, 0]], [(2, 3)]),
    (
        "getitem",
        lambda x: ops.getitem(x, np.array([[1, 1], [0, 1]])),
        lambda x: x[[[1, 1], [0, 1]]],
        [(2, 3)],
    ),
    ("astype", lambda x: ops.astype(x, x.dtype), lambda x: x, [(2, 3)]),
    ("unbroadcast", lambda x: ops.unbroadcast(x, (1, 3)), lambda x: x.sum(0, keepdims=True), [(2, 3)]),
    (
        "conv2d",
        lambda x, w: ops.conv2d(x, w),
        lambda x, w: np.einsum("bhwijc,ijco->bhwo", np.moveaxis(windows(x), 3, -1), w),
        [(2, 4, 4, 3), (2, 2, 3, 2)],
    ),
    (
        "conv_transpose2d",
        lambda x, w: ops.conv_transpose2d(x, w, size=(6, 6), stride=2),
        transposed_convolution,
        [(2, 3, 3, 4), (2, 2, 3, 4)],
    ),
    (
        "max_pool",
        lambda x: ops.max_pool(x, 2),
        lambda x: x.reshape(2, 2, 2, 2, 2, 3).max((2, 4)),
        [(2, 4, 4, 3)],
    ),
    (
        "avg_pool",
        lambda x: ops.avg_pool(x, 2),
        lambda x: x.reshape(2, 2, 2, 2, 2, 3).mean((2, 4)),
        [(2, 4, 4, 3)],
    ),
    (
        "hat_weights",
        lambda t: ops.hat_weights(t, np.array([-9.0, 0.0, 9.0]), dtype="float64"),
        lambda t: np.array([max(0.0, -t / 9), 1 - abs(t) / 9, max(0.0, t / 9)]),
        [()],
    ),
    (
        "dropout",
        lambda x: ops.dropout(x, KEY, 0.5),
        lambda x: x * np.round(ops.dropout(0 * x + 1, KEY, 0.5)),
        [(4, 5)],
    ),
]


def windows(x):
    return np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2))


def case_id(case):
    return f"{case[0]}{case[3]}"


def test_every_public_operation_is_tested():
    composites = {name for name in ops.__all__ if not isinstance(getattr(ops, name), Primitive)}
    assert composites - {case[0] for case in COMPOSITES} == set()


@pytest.mark.parametrize("case", COMPOSITES, ids=case_id)
def test_value_is_that_of_numpy(case):
    _, f, reference, dims = case
    rng = np.random.default_rng(5)
    xs = [rng.standard_normal(s) for s in dims]
    expected = reference(*xs)
    assert_close(f(*xs), expected, scale=1.0 + np.max(np.abs(expected), initial=0.0), tol=64 * EPS64)


@pytest.mark.parametrize("case", COMPOSITES, ids=case_id)
def test_vjp_agrees_with_complex_step(case):
    _, f, _, dims = case
    rng = np.random.default_rng(6)
    xs, xdot = ([rng.standard_normal(s) for s in dims] for _ in range(2))
    ydot = complex_step(f, xs, xdot)
    _, pull_back = vjp(f, *xs)
    ybar = rng.standard_normal(ydot.shape)
    xbar = pull_back(ybar)
    scale = norm(ybar) * norm(ydot) + norm(*xbar) * norm(*xdot)
    assert_close(np.sum(ybar * ydot), inner_all(xbar, xdot), scale=scale, tol=400 * EPS64)


@pytest.mark.parametrize("case", COMPOSITES, ids=case_id)
def test_float32_stays_float32(case):
    _, f, _, dims = case
    if case[0] == "hat_weights":
        pytest.skip("the dtype is an argument")
    rng = np.random.default_rng(7)
    xs = [rng.standard_normal(s).astype(np.float32) for s in dims]
    y, pull_back = vjp(f, *xs)
    assert {y.dtype.name, *(bar.dtype.name for bar in pull_back(np.ones(y.shape, np.float32)))} == {"float32"}


BINARY = [ops.add, ops.sub, ops.mul, ops.div, ops.maximum, ops.minimum]


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.name)
@given(pair=broadcasting_pairs(min_side=0), seed=seeds)
def test_broadcast_operands_get_cotangents_of_their_shape(op, pair, seed):
    rng = np.random.default_rng(seed)
    xs, xdot = ([rng.uniform(0.5, 2.0, shape) for shape in pair] for _ in range(2))
    ydot = central_difference(op, xs, xdot, h=1e-4)
    y, pull_back = vjp(op, *xs)
    ybar = rng.standard_normal(y.shape)
    xbar = pull_back(ybar)
    assert [bar.shape for bar in xbar] == list(pair)
    scale = norm(ybar) * norm(ydot) + norm(*xbar) * norm(*xdot)
    assert_close(np.sum(ybar * ydot), inner_all(xbar, xdot), scale=scale, tol=1e-7)


@given(shape=shapes(1, 4, min_side=0), seed=seeds)
def test_sum_over_every_axis_is_numpys(shape, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    for axis in range(-len(shape), len(shape)):
        assert_close(ops.sum(x, axis), np.sum(x, axis), scale=norm(x), tol=4 * EPS64)


x23 = np.ones((2, 3))
WRONG = [
    (lambda: ops.reshape(x23, (4, 2)), "cannot reshape"),
    (lambda: ops.sum(x23, 2), "axis 2 is out of range for 2"),
    (lambda: ops.squeeze(x23, 1), "not of length one"),
    (lambda: ops.squeeze(x23, 5), "axis 5 is out of range"),
    (lambda: ops.transpose(x23, (0, 5)), "axis 5 is out of range"),
    (lambda: ops.transpose(x23, (0,)), "do not fit"),
    (lambda: ops.moveaxis(x23, 0, 2), "axis 2 is out of range"),
    (lambda: ops.expand_dims(x23, 3), "axis 3 is out of range"),
    (lambda: ops.concatenate([]), "at least one"),
    (lambda: ops.concatenate([x23, x23], 2), "axis 2 is out of range"),
    (lambda: ops.concatenate([1.0, x23]), "axis 0 is out of range for 0"),
    (lambda: ops.take(x23, [0], 2), "axis 2 is out of range"),
    (lambda: ops.take(x23, [0.5]), "integer indices"),
    (lambda: ops.split(x23, 2), "equal parts"),
    (lambda: ops.flip(x23, 2), "axis 2 is out of range"),
    (lambda: ops.matmul(x23, x23), "do not fit"),
    (lambda: ops.matmul(x23, 2.0), "do not fit"),
    (lambda: ops.dot(x23, np.ones((2, 3, 2))), "use matmul or einsum"),
    (lambda: ops.einsum("ii->i", np.ones((2, 2))), "not supported"),
    (lambda: ops.einsum("...i->i", x23), "not supported"),
    (lambda: ops.einsum("ij,jk->ik", x23), "does not fit"),
    (lambda: ops.einsum("ij,jk->ik", x23, np.ones((1, 2))), "two lengths"),
    (lambda: ops.astype(x23 * 1j, np.float64), "imaginary"),
    (lambda: ops.moments(np.ones((0, 3))), "at least one row"),
    (lambda: ops.softmax_cross_entropy(x23, np.array([0, 3])), r"labels must lie in 0..2; got 0..3"),
    (lambda: ops.softmax_cross_entropy(x23, np.array([0, -1])), "got -1..0"),
    (lambda: ops.softmax_cross_entropy(x23, np.array([0.0, 1.0])), "integer labels"),
    (lambda: ops.softmax_cross_entropy(x23, np.array([0])), r"labels \(B,\)"),
    (lambda: ops.softmax_cross_entropy(np.ones((0, 3)), np.zeros(0, int)), "B >= 1"),
    (lambda: ops.dropout(x23, KEY, 1.0), r"\[0, 1\)"),
    (lambda: ops.dropout(x23, None, 0.5), "needs a `key`"),
]


@pytest.mark.parametrize("call, message", WRONG)
def test_wrong_argument_is_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


MASKS = [x23 > 0, (slice(None), np.array([True, False, True])), True]


@pytest.mark.parametrize("index", MASKS, ids=["full", "column", "bool"])
def test_boolean_mask_as_index_is_refused(index):
    with pytest.raises(TracedValueError, match=f"mask.*{__file__}:.*where"):
        ops.getitem(x23, index)


def test_two_index_arrays_are_refused():
    with pytest.raises(TracedValueError, match="one after the other"):
        ops.getitem(x23, (np.array([0, 1]), np.array([0, 1])))


@pytest.mark.parametrize("index", [1.5, "a"])
def test_index_that_is_no_integer_is_refused(index):
    with pytest.raises(TypeError):
        ops.getitem(x23, index)


NUMBERS = [
    lambda t: ops.where(t > 0.5, 1.0, 2.0),
    lambda t: ops.sqrt(t) + ops.relu(t) - ops.clip(t, 0.0, 0.2),
    lambda t: ops.zeros_like(t) + ops.ones_like(t) * t,
    lambda t: ops.power(t, 3) / 3 + ops.softplus(t) + ops.sigmoid(t) + ops.real(t),
    lambda t: ops.sum(t) * ops.mean(t) + ops.max(t),
    lambda t: ops.stop_gradient(ops.copy(t)),
]


@pytest.mark.parametrize("f", NUMBERS)
def test_python_numbers_stay_python_numbers(f):
    assert type(f(0.7)) is float


def test_ones_like_an_infinite_number_is_one():
    assert ops.ones_like(float("inf")) == 1.0


def test_a_numpy_scalar_is_not_a_weak_number():
    assert ops.tanh(np.float64(0.5)).dtype == np.float64


@pytest.mark.parametrize(
    ("f", "plain"),
    [
        (lambda x: ops.moments(x)[1], lambda x: np.mean((x - np.mean(x, (0, 1))) ** 2, (0, 1))),
        (lambda x: ops.normalize(x, *ops.moments(x), 0.1), lambda x: normalized(x, (0, 1))),
        (lambda x: ops.group_normalize(x, 1, 0.1), lambda x: normalized(x, (1, 2))),
    ],
    ids=["variance", "batch", "group"],
)
def test_second_derivatives_know_that_a_mean_moves_with_its_values(f, plain, rng):
    """u^T H v of sum(w sin(f(x))): differences of the complex step of NumPy's formula."""
    x, u, v = rng.standard_normal((3, 4, 3, 2))
    w = rng.standard_normal(np.shape(plain(x)))

    def slope(x):
        return complex_step(lambda z: np.sum(w * np.sin(plain(z))), [x], [u])

    expected = central_difference(slope, [x], [v])
    _, (product,) = hvp(lambda x: ops.sum(w * np.sin(f(x))), (x,), (v,))
    assert_close(inner(u, product), expected, scale=norm(u) * norm(v) * norm(w), tol=1e-9)


def normalized(x, axes):
    centred = x - np.mean(x, axes, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axes, keepdims=True) + 0.1)
