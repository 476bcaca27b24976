"""The text of compiled kernels, interpreted, against eager evaluation and its tape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_texts import KernelTexts, interpreted
from odegrad.engine import ops, vjp
from odegrad.engine.jit import Unsupported
from oracles import EPS64, assert_close, norm
from strategies import seeds

RNG = np.random.default_rng(11)
DIAGONAL, MASK = RNG.standard_normal(3), np.array([True, False, True])
DENSE = RNG.standard_normal((6, 6))
RATE, POWER, LIMIT = 0.7, 3, float("inf")


def mlp(t, y, w, b):
    return np.tanh(y @ w + b) @ w.T * np.cos(t)


def gru(t, h, w, b):
    z = ops.sigmoid(h @ w + b)
    return (1.0 - z) * (np.tanh((ops.sigmoid(h @ w.T + t * b) * h) @ w) - h)


def attention(t, y, w, b):
    scores = ops.softmax(np.einsum("bi,ij,cj->bc", y, w, y))
    return np.einsum("bc,ci->bi", scores, y) + b


# f(t, y, w, b) with y (4, 3), w (3, 3), b (3,)
CASES = {
    "mlp": mlp,
    "gru": gru,
    "attention": attention,
    "identity": lambda t, y, w, b: y,
    "constant": lambda t, y, w, b: np.ones((4, 3)),
    "parameter": lambda t, y, w, b: w[0] * np.ones((4, 3)),
    "time": lambda t, y, w, b: t * np.ones((4, 3)),
    "zero": lambda t, y, w, b: 0.0 * y,
    "powers": lambda t, y, w, b: y**2 + y**3 - y**5 + (y * y + 1) ** -2 + (y * y + 1) ** 1.5 + 2**y,
    "array powers": lambda t, y, w, b: (y * y + 1.0) ** b,
    "division": lambda t, y, w, b: y / 3 + 1 / (2 + y * y) + y / (1 + np.exp(-y)),
    "time arithmetic": lambda t, y, w, b: y * (1 - t) / (1 + t**2) + np.exp(-t) * np.sin(3 * t) - t,
    "time where": lambda t, y, w, b: y * ops.where(t > 0.25, 1.0, t),
    "time and parameter": lambda t, y, w, b: y @ (w * t) + np.tanh(t * w[0]),
    "captured": lambda t, y, w, b: y * DIAGONAL + DIAGONAL**2 * RATE + y**POWER,
    "captured mask": lambda t, y, w, b: np.where(MASK, y, 0.5 * y) * MASK,
    "infinite number": lambda t, y, w, b: np.minimum(y, LIMIT),
    "functions": lambda t, y, w, b: (
        np.exp(0.1 * y) + np.expm1(y) + np.log(y * y + 1) + np.log1p(y * y) + np.sqrt(y * y + 1)
        + np.sin(y) + np.cos(y) + np.tan(0.1 * y) + np.arctan(y) + np.sinh(y) + np.cosh(y) + ops.softplus(y)
    ),
    "rounding": lambda t, y, w, b: y * (np.floor(y) + np.ceil(y) + np.rint(y)) + np.sign(y),
    "transpose": lambda t, y, w, b: (w @ y.T).T,
    "rows and columns": lambda t, y, w, b: np.stack([y[..., 1], y[..., 0] - y[..., 2], y[:, 1] * t], axis=-1),
    "full index": lambda t, y, w, b: y * y[0, 0] + y[-1, -2],
    "reversed": lambda t, y, w, b: y[::-1, ::-1] * y,
    "new axes": lambda t, y, w, b: (y[:, :, None] * w[None]).sum(axis=1),
    "reshape of a transpose": lambda t, y, w, b: y.T.reshape(4, 3) * y,
    "reshape of a slice": lambda t, y, w, b: y[:, ::2].reshape(-1)[:4, None] * y,
    "broadcast": lambda t, y, w, b: np.broadcast_to(y[0], (4, 3)) - y,
    "view of a view": lambda t, y, w, b: y[1:][::-1].T[:, 1][None] + y,
    "concatenate": lambda t, y, w, b: np.concatenate([y[:, :2], np.ones((4, 1)), t * y], axis=1)[:, 1:4] @ w,
    "pad": lambda t, y, w, b: np.pad(y, ((0, 0), (1, 1)))[:, 2:] - np.pad(y, 1)[1:-1, :-2],
    "where": lambda t, y, w, b: np.where(y > 0, y, 0.1 * y) + np.where(y > t, 1.0, 0.0),
    "masks": lambda t, y, w, b: y * ((y > 0) & (y < 1) | ~(y > -1)),
    "comparisons": lambda t, y, w, b: y * ops.logical_and(ops.isfinite(y), ops.logical_not(ops.isnan(y))),
    "clip": lambda t, y, w, b: np.clip(y, -0.5, 0.5) + np.maximum(y, 0.1) - np.minimum(y, w[0]),
    "relu": lambda t, y, w, b: ops.relu(y @ w) + abs(y),
    "means": lambda t, y, w, b: y - np.mean(y, axis=0) + y.mean(axis=-1, keepdims=True) + np.var(y),
    "moments": lambda t, y, w, b: ops.normalize(y, *ops.moments(y), 1e-5, b),
    "extrema": lambda t, y, w, b: y * np.max(y) - np.min(y, axis=1, keepdims=True),
    "scalar functions": lambda t, y, w, b: y * np.tanh(np.sum(y)) + np.exp(-y[0] @ y[1]),
    "wide product": lambda t, y, w, b: (y @ np.concatenate([w, w], axis=1)) @ np.concatenate([w, w], axis=1).T,
    "long sums": lambda t, y, w, b: np.concatenate([y, y, y], axis=1) @ np.concatenate([w, w, w])[:, :3],
    "sums along rows of both": lambda t, y, w, b: (
        np.concatenate([y, y], axis=1) @ np.concatenate([np.concatenate([w, -w], axis=1), DENSE[:3]]).T
    )[:, 2:5],
    "tall product": lambda t, y, w, b: (np.concatenate([y.T, y.T]).T @ np.concatenate([w, -w])[:, :2]) @ w[:2],
    "batched products": lambda t, y, w, b: (y[:, None, :] @ np.stack([w, w.T, w, w]))[:, 0],
    "outer": lambda t, y, w, b: np.outer(y[:, 0], w[0]),
    "stop gradient": lambda t, y, w, b: y * ops.stop_gradient(y),
    "cotangents of each other": lambda t, y, w, b: y + b + w[0],
    "unused parameter": lambda t, y, w, b: np.sin(y),
}  # fmt: skip


def eager(f, t, y, params, ybar):
    """[slope, state cotangent, *parameter cotangents] by one traced call on arrays."""

    def reaching(y, *params):  # a function that depends on nothing has the derivative zero
        return f(t, y, *params) + 0.0 * y, 0.0

    slope, pull_back, _ = vjp(reaching, y, *params, has_aux=True)
    return [slope, *pull_back(ybar)]


def draw(*shape):
    return RNG.standard_normal(shape)


@pytest.mark.parametrize("name", CASES)
def test_kernels_compute_slopes_and_cotangents(name):
    f, params = CASES[name], [draw(3, 3), draw(3)]
    texts = KernelTexts(f, draw(4, 3), params)
    y, ybar = draw(4, 3), draw(4, 3)
    expected = eager(f, 0.4, y, params, ybar)
    scale = norm(y) + norm(ybar) + norm(*expected)
    for found, wanted in zip(texts.run(interpreted, 0.4, y, ybar), expected, strict=True):
        assert_close(found, wanted, scale=scale, tol=64 * EPS64)


@pytest.mark.parametrize(
    ("f", "named"),
    [
        (lambda t, y: np.cumsum(y, axis=0), "cumsum"),
        (lambda t, y: y[[0, 2, 1]], "int64"),
        (lambda t, y: y.astype(np.float32).astype(float), "float32"),
        (lambda t, y: y * y.astype(complex).real, "complex"),
        (lambda t, y: y[:0].sum() + y, "empty"),
        (lambda t, y: (np.ones((65, 65)) @ (y[0] * np.ones((65, 65)))).sum() * y, "BLAS"),
    ],
)
def test_what_is_not_supported_is_named(f, named):
    with pytest.raises(Unsupported, match=named):
        KernelTexts(f, np.ones(3), [])


def test_parameters_with_the_same_cotangent():
    y, ybar, a, b = draw(4, 3), draw(4, 3), draw(3), draw(3)
    found = KernelTexts(lambda t, y, a, b: y * (a + b), y, [a, b]).run(interpreted, 0.0, y, ybar)
    for bar in found[2:]:
        assert_close(bar, (ybar * y).sum(axis=0), scale=norm(ybar), tol=64 * EPS64)


def test_elementwise_steps_of_one_shape_share_a_loop():
    texts = KernelTexts(lambda t, y: np.tanh(np.sin(y) * t) + y, np.ones((4, 3)), [])
    assert texts.texts["slope"].count("for ") == 1


def test_a_result_that_nothing_else_reads_is_not_stored():
    texts = KernelTexts(lambda t, y: 3.0 * (y + 1.0) * 2.0, np.ones((4, 3)), [])
    assert texts.texts["slope"].count("store(") == 1 and texts.layout.sizes["stage"] == 12


def test_transposed_products_read_their_operands_where_they_are():
    texts = KernelTexts(lambda t, y, w: y @ w.T, np.ones((4, 3)), [np.ones((3, 3))])
    assert "work," not in texts.texts["slope"].partition("\n")[2]


UNARY = [
    np.tanh,
    lambda x: x.T,
    lambda x: x[::-1],
    lambda x: x[:, 1][:, None] * np.ones((1, 3)),
    lambda x: x.T.reshape(3, 3),
    lambda x: x - x.mean(axis=0),
    ops.relu,
    lambda x: np.broadcast_to(x[0], (3, 3)),
    lambda x: np.concatenate([x[1:], x[:1]]),
    lambda x: x**2 * 0.1,
]
BINARY = [
    np.add,
    lambda a, b: 0.3 * a * b,
    lambda a, b: 0.3 * a @ b,
    lambda a, b: np.where(a > b, a, -b),
    lambda a, b: a - b.sum(axis=1, keepdims=True),
]
indices = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))


@given(choices=st.lists(indices, min_size=1, max_size=10), seed=seeds)
def test_drawn_programs(choices, seed):
    """Each step combines earlier values, so that views, residuals and loops meet in many orders."""

    def f(t, y, w):
        values = [y, w, y * t]
        for kind, first, second in choices:
            a, b = values[-1 - first % min(3, len(values))], values[second % len(values)]
            values.append(UNARY[kind % len(UNARY)](a) if kind % 2 else BINARY[kind % len(BINARY)](a, b))
        return values[-1] + 0.0 * y

    y, w, ybar = np.random.default_rng(seed).standard_normal((3, 3, 3))
    texts = KernelTexts(f, y, [w])
    for found, expected in zip(
        texts.run(interpreted, 0.5, y, ybar), eager(f, 0.5, y, [w], ybar), strict=True
    ):
        assert_close(found, expected, scale=1.0 + norm(expected), tol=1e-12)
