"""The value that each rule documents at a kink or a tie, and where infinities must not leak."""

import numpy as np
import pytest
from odegrad.engine import grad, ops, vjp

AT_ZERO = [
    (ops.absolute, 0.0),
    (ops.relu, 0.0),
    (lambda x: ops.maximum(x, 0.0), 0.5),
    (lambda x: ops.maximum(0.0, x), 0.5),
    (lambda x: ops.minimum(x, 0.0), 0.5),
    (lambda x: ops.clip(x, 0.0, 1.0), 0.5),
    (lambda x: ops.clip(x, -1.0, 0.0), 0.5),
    (lambda x: ops.clip(x, -1.0), 1.0),
    (ops.leaky_relu, 0.01),
    (ops.elu, 1.0),
    (lambda x: ops.sign(x) + x, 1.0),
    (lambda x: ops.where(x > 0, 2.0 * x, 3.0 * x), 3.0),
    (lambda x: ops.where(x >= 0, 2.0 * x, 3.0 * x), 2.0),
]


@pytest.mark.parametrize("f, expected", AT_ZERO)
def test_derivative_at_the_kink(f, expected):
    assert grad(lambda x: ops.sum(f(x)))(np.zeros(2)).tolist() == [expected] * 2


@pytest.mark.parametrize("extremum", [ops.max, ops.min])
def test_tied_extrema_share_in_equal_parts(extremum):
    assert grad(extremum)(np.array([1.0, 1.0, 1.0, 1.0])).tolist() == [0.25] * 4


def test_tied_maxima_share_along_their_axis_only():
    x = np.array([[2.0, 2.0, 0.0], [1.0, 3.0, 0.0]])
    _, pull_back = vjp(lambda x: ops.max(x, axis=1), x)
    assert pull_back(np.array([1.0, 10.0]))[0].tolist() == [[0.5, 0.5, 0.0], [0.0, 10.0, 0.0]]


def test_max_pool_gives_a_tie_to_the_first_in_row_major_order():
    x = np.ones((1, 2, 2, 1))
    assert grad(lambda x: ops.sum(ops.max_pool(x, 2)))(x)[0, :, :, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_hat_weights_take_the_right_derivative_at_a_node():
    grid, a = np.array([0.0, 1.0, 3.0]), np.array([0.0, 5.0, 11.0])
    slope = grad(lambda t: ops.matmul(ops.hat_weights(t, grid, dtype="float64"), a))
    assert [float(slope(t)) for t in (0.0, 1.0, 3.0)] == [5.0, 3.0, 0.0]


@pytest.mark.parametrize(
    "t, expected", [(-1.0, [1, 0, 0]), (0.5, [0.5, 0.5, 0]), (1.0, [0, 1, 0]), (9.0, [0, 0, 1])]
)
def test_hat_weights_are_clamped_and_sum_to_one(t, expected):
    assert ops.hat_weights(t, np.array([0.0, 1.0, 3.0]), dtype="float64").tolist() == expected


@pytest.mark.parametrize("choose", ["a", "b"])
def test_where_passes_no_infinite_cotangent_to_the_other_side(choose):
    _, pull_back = vjp(lambda a, b: ops.where(np.array([choose == "a"]), a, b), np.ones(1), np.ones(1))
    abar, bbar = pull_back(np.array([np.inf]))
    assert (abar.tolist(), bbar.tolist()) == (([np.inf], [0.0]) if choose == "a" else ([0.0], [np.inf]))


def test_maximum_passes_no_infinite_cotangent_to_the_smaller():
    _, pull_back = vjp(ops.maximum, np.array([1.0]), np.array([2.0]))
    assert [bar.tolist() for bar in pull_back(np.array([np.inf]))] == [[0.0], [np.inf]]


@pytest.mark.parametrize("f", [ops.maximum, ops.minimum])
def test_maximum_and_minimum_keep_a_nan(f):
    assert np.isnan(f(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))).all()


OVERFLOWING = [
    (ops.sigmoid, [0.0, 1.0]),
    (ops.softplus, [0.0, 1000.0]),
    (ops.log_softmax, [-2000.0, 0.0]),
    (ops.softmax, [0.0, 1.0]),
    (ops.silu, [0.0, 1000.0]),
    (ops.elu, [-1.0, 1000.0]),
]


AT_INFINITY = [
    (ops.softplus, [0.0, np.inf]),
    (ops.elu, [-1.0, np.inf]),
    (lambda x: ops.logsumexp(np.stack([x, x]), axis=0), [-np.inf, np.inf]),
]


@pytest.mark.parametrize("f, expected", AT_INFINITY)
def test_limits_at_infinity(f, expected):
    assert f(np.array([-np.inf, np.inf])).tolist() == expected


def test_gradient_of_an_empty_logsumexp_is_zero():
    x = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    weights = np.array([1.0, 2.0])
    _, pull_back = vjp(ops.logsumexp, x)
    assert pull_back(weights)[0].tolist() == [[0.0, 0.0], [2.0, 0.0]]


@pytest.mark.parametrize("f, expected", OVERFLOWING)
def test_large_arguments_do_not_overflow(f, expected):
    assert f(np.array([-1000.0, 1000.0])).tolist() == expected


def test_an_integer_cast_is_flat():
    assert grad(lambda x: ops.sum(x * ops.astype(x, np.int64)))(np.array([2.5, -3.5])).tolist() == [2.0, -3.0]


def test_variance_of_shifted_data_does_not_cancel():
    x = (1e4 + np.random.default_rng(0).standard_normal((1000, 1))).astype(np.float32)
    exact = np.var(x.astype(np.float64))
    assert abs(ops.moments(x)[1][0] - exact) < 1e-5 * exact
