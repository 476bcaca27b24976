"""NumPy code on traced values: the same values as NumPy, and a refusal that names the caller's line otherwise."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from odegrad.engine import ops, vjp
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, TracedValueError
from odegrad.engine.numpy_functions import FUNCTIONS, UFUNCS
from odegrad.engine.program import record
from odegrad.engine.protocols import METHODS, OPERATORS
from odegrad.engine.trace import Var
from oracles import EPS64, assert_close, central_difference, norm

RNG = np.random.default_rng(3)
Y = RNG.uniform(0.2, 0.9, (2, 3))  # inside every function's domain
SIGNED = RNG.standard_normal((2, 3))
W = RNG.standard_normal((3, 2))
MASK = SIGNED > 0


def traced(f, *arguments):
    """f's results on traced values, lowered to arrays: as a tape and as a program."""
    tape, _ = vjp(f, *arguments)
    recording = record(f, arguments, [str(k) for k in range(len(arguments))])
    return tape, recording.values[0]


def assert_as_numpy(f, *arguments):
    expected = f(*arguments)
    for found in traced(f, *arguments):
        assert np.asarray(found).dtype == np.asarray(expected).dtype
        scale = 1.0 + float(np.max(np.abs(np.asarray(expected, float)), initial=0.0))
        assert_close(found, expected, scale=scale, tol=16 * EPS64)


# --- ufuncs ---------------------------------------------------------------------------------------------------------

BINARY = {u for u in UFUNCS if u.nin == 2} - {np.matmul, np.bitwise_and, np.bitwise_or}
ON_MASKS = {np.logical_and, np.logical_or, np.logical_not, np.bitwise_and, np.bitwise_or, np.invert}
UNARY = {u for u in UFUNCS if u.nin == 1} - ON_MASKS


def by_name(functions):
    return sorted(functions, key=lambda u: u.__name__)


@pytest.mark.parametrize("ufunc", by_name(UNARY), ids=lambda u: u.__name__)
def test_unary_ufunc_gives_numpys_values(ufunc):
    assert_as_numpy(lambda y: ufunc(y), Y)


@pytest.mark.parametrize("ufunc", by_name(BINARY - ON_MASKS), ids=lambda u: u.__name__)
@pytest.mark.parametrize("side", ["both", "left", "right", "number on the left", "number on the right"])
def test_binary_ufunc_gives_numpys_values(ufunc, side):
    calls = {
        "both": lambda y: ufunc(y, y[::-1]),
        "left": lambda y: ufunc(y, W.T),
        "right": lambda y: ufunc(abs(W.T), y),
        "number on the left": lambda y: ufunc(2.0, y),
        "number on the right": lambda y: ufunc(y, 2.0),
    }
    assert_as_numpy(calls[side], Y)


@pytest.mark.parametrize("ufunc", by_name(ON_MASKS), ids=lambda u: u.__name__)
def test_ufunc_of_masks_gives_numpys_values(ufunc):
    assert_as_numpy(lambda y: ufunc(*[y > 0, MASK][: ufunc.nin]), SIGNED)


@pytest.mark.parametrize("ufunc", [np.bitwise_and, np.bitwise_or, np.invert], ids=lambda u: u.__name__)
def test_bits_of_integers_are_refused(ufunc):
    with pytest.raises(TracedValueError, match="int64"):
        vjp(lambda y: ufunc(*[y.astype(int), 1][: ufunc.nin]), Y)


# --- functions: (NumPy function, call) ------------------------------------------------------------------------------

CALLS = [
    (np.sum, lambda y: np.sum(y)),
    (np.sum, lambda y: np.sum(y, axis=-1, keepdims=True)),
    (np.sum, lambda y: np.sum(y, (0, 1))),
    (np.mean, lambda y: np.mean(y)),
    (np.mean, lambda y: np.mean(y, axis=0)),
    (np.mean, lambda y: np.mean(y > 0.5)),
    (np.var, lambda y: np.var(y, axis=0, ddof=1)),
    (np.std, lambda y: np.std(y, axis=-1, keepdims=True)),
    (np.max, lambda y: np.max(y, axis=0)),
    (np.min, lambda y: np.min(y)),
    (np.amax, lambda y: np.amax(y, -1)),
    (np.amin, lambda y: np.amin(y, -1)),
    (np.argmax, lambda y: np.argmax(y)),
    (np.argmax, lambda y: np.argmax(y, axis=0)),
    (np.cumsum, lambda y: np.cumsum(y)),
    (np.cumsum, lambda y: np.cumsum(y, axis=0)),
    (np.linalg.norm, lambda y: np.linalg.norm(y)),
    (np.linalg.norm, lambda y: np.linalg.norm(y, axis=-1, keepdims=True)),
    (np.reshape, lambda y: np.reshape(y, (3, -1))),
    (np.ravel, lambda y: np.ravel(y)),
    (np.transpose, lambda y: np.transpose(y)),
    (np.transpose, lambda y: np.transpose(y, (1, 0))),
    (np.swapaxes, lambda y: np.swapaxes(y, 0, -1)),
    (np.moveaxis, lambda y: np.moveaxis(y, 0, -1)),
    (np.squeeze, lambda y: np.squeeze(y[:1])),
    (np.expand_dims, lambda y: np.expand_dims(y, -1)),
    (np.broadcast_to, lambda y: np.broadcast_to(y, (4, 2, 3))),
    (np.concatenate, lambda y: np.concatenate([y, SIGNED], axis=-1)),
    (np.concatenate, lambda y: np.concatenate((SIGNED, y, y))),
    (np.stack, lambda y: np.stack([y[0], y[1] ** 2], axis=-1)),
    (np.stack, lambda y: np.stack([y, SIGNED])),
    (np.hstack, lambda y: np.hstack([y, SIGNED])),
    (np.hstack, lambda y: np.hstack([y[0], y[1]])),
    (np.vstack, lambda y: np.vstack([y, y[0], W[:, 0]])),
    (np.split, lambda y: np.split(y, 3, axis=1)[1]),
    (np.split, lambda y: np.split(y, [1], axis=-1)[1]),
    (np.split, lambda y: np.split(y, 2)[0]),
    (np.concatenate, lambda y: np.concatenate([y[0], [1.0, 2.0]])),
    (np.roll, lambda y: np.roll(y, 1, axis=-1)),
    (np.roll, lambda y: np.roll(y, -2, axis=0)),
    (np.roll, lambda y: np.roll(y, 4)),
    (np.diff, lambda y: np.diff(y)),
    (np.diff, lambda y: np.diff(y.T, n=2, axis=0)),
    (np.full_like, lambda y: np.full_like(y, 2)),
    (np.pad, lambda y: np.pad(y, ((1, 0), (0, 2)))),
    (np.pad, lambda y: np.pad(y, 1, mode="constant")),
    (np.flip, lambda y: np.flip(y)),
    (np.flip, lambda y: np.flip(y, axis=-1)),
    (np.flip, lambda y: np.flip(y, (0, 1))),
    (np.where, lambda y: np.where(y > 0.5, y, -y)),
    (np.where, lambda y: np.where(MASK, y, 0.0)),
    (np.clip, lambda y: np.clip(y, 0.3, 0.6)),
    (np.clip, lambda y: np.clip(y, a_min=0.3, a_max=None)),
    (np.clip, lambda y: np.clip(y, min=0.3, max=0.5)),
    (np.dot, lambda y: np.dot(y, W)),
    (np.dot, lambda y: np.dot(W, y)),
    (np.outer, lambda y: np.outer(y[0], W[:, 0])),
    (np.einsum, lambda y: np.einsum("ij,jk->ik", y, W)),
    (np.real, lambda y: np.real(y)),
    (np.copy, lambda y: np.copy(y)),
    (np.take, lambda y: np.take(y, [5, 0, 0])),
    (np.take, lambda y: np.take(y, np.array([2, 0, 0]), axis=-1)),
    (np.zeros_like, lambda y: np.zeros_like(y)),
    (np.ones_like, lambda y: np.ones_like(y)),
    (np.ndim, lambda y: y * np.ndim(y)),
    (np.shape, lambda y: y * np.shape(y)[0]),
    (np.size, lambda y: y * np.size(y)),
]


def call_id(value):
    return value.__name__ if value in FUNCTIONS else ""


def test_every_numpy_function_is_tested():
    assert {function for function, _ in CALLS} == set(FUNCTIONS)


@pytest.mark.parametrize("function, call", CALLS, ids=call_id)
def test_function_gives_numpys_values(function, call):
    assert_as_numpy(call, Y)


# --- operators, methods, indices ------------------------------------------------------------------------------------

EXPRESSIONS = {
    "scalars on the left": lambda y: 1 / (2 - 3 * y) + 2**y - True,
    "scalars on the right": lambda y: (y / 3 - 1) * 2 + y**2,
    "negation": lambda y: -(+y) + abs(-y),
    "negative power": lambda y: y**-1 + y**-2.0,
    "fractional power": lambda y: y**0.5 + y**1.5,
    "power zero": lambda y: y**0,
    "power of two values": lambda y: y ** y[::-1],
    "array on the left": lambda y: SIGNED - y,
    "array times": lambda y: SIGNED * y / W.T,
    "array to the power": lambda y: Y**y,
    "matmul from the left": lambda y: W @ y,
    "matmul from the right": lambda y: y @ W,
    "inner product": lambda y: y[0] @ y[1],
    "integer arrays": lambda y: y * np.arange(3) + np.arange(6).reshape(2, 3),
    "numpy scalars": lambda y: np.float64(2.0) * y + y * np.int64(3),
    "lists": lambda y: y + [1.0, 2.0, 3.0],
    "comparisons": lambda y: (
        (y > 0.5) * 1.0 + (y >= 0.5) + 2.0 * (y < 0.3) + (y <= 0.3) + (y == y) + (y != 1)
    ),
    "reflected comparison": lambda y: (0.5 < y) * 1.0 + (SIGNED > y),
    "masks": lambda y: y * ((y > 0.3) & (y < 0.6) | ~(y > 0.2)),
    "mask from the left": lambda y: y * (MASK & (y > 0.3)),
    "integers": lambda y: y * ((y > 0.5) * 2 - 1),
    "row": lambda y: y[1],
    "column": lambda y: y[..., 0],
    "new axis": lambda y: y[:, None] * y[None],
    "steps": lambda y: y[::-1, ::2],
    "negative index": lambda y: y[-1, -2],
    "numpy integer index": lambda y: y[np.int64(1)],
    "list index": lambda y: y[:, [2, 0]],
    "array index": lambda y: y[np.array([1, 1, 0])],
    "array index in columns": lambda y: y[:, np.array([1, 1, 0])],
    "iteration": lambda y: sum(row * k for k, row in enumerate(y)),
    "unpacking": lambda y: (lambda a, b: a * b)(*y),
    "length": lambda y: y * len(y) * y.shape[1] * y.ndim * y.size,
    "T": lambda y: y.T @ SIGNED,
    "real": lambda y: y.real,
    "astype": lambda y: y.astype(np.float32).astype(y.dtype),
    "astype int": lambda y: (10 * y).astype(int),
    "sum": lambda y: y.sum(0) + y.sum(axis=(0, 1), keepdims=True),
    "mean": lambda y: y.mean(-1, keepdims=True) + y.var(0) + y.std(),
    "max": lambda y: y.max(axis=0) - y.min() + y.argmax(),
    "argmax": lambda y: y.argmax(1),
    "cumsum": lambda y: y.cumsum(),
    "reshape": lambda y: y.reshape(-1) + y.reshape(6) * y.reshape((6,)) + y.ravel() * y.flatten(),
    "transpose": lambda y: y.transpose() + y.transpose(1, 0) + y.transpose((1, 0)) + y.swapaxes(0, 1),
    "squeeze": lambda y: y[:, None].squeeze(1) + y[None].squeeze(),
    "clip": lambda y: y.clip(0.3, 0.5) + y.clip(min=0.4),
    "dot": lambda y: y.dot(W),
    "take": lambda y: y.take([4, 0]) + y.take([1, 0], axis=1)[0],
    "copy": lambda y: y.copy(),
    "conjugates": lambda y: y.conj() + y.conjugate() * y,
    "reduce": lambda y: np.add.reduce(y) + np.maximum.reduce(y, axis=0) + np.minimum.reduce(y, axis=1).sum(),
    "builtin sum": lambda y: sum([y, y]),
    "0-d": lambda y: y * np.tanh(np.sum(y)) / np.sqrt(y.max()),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression_gives_numpys_values(name):
    assert_as_numpy(EXPRESSIONS[name], Y)


FLAT = {"power zero", "astype int", "argmax", "comparisons", "reflected comparison"}
APPROXIMATE = {"astype"}  # through float32


@pytest.mark.parametrize("name", sorted(set(EXPRESSIONS) - FLAT - APPROXIMATE))
def test_expression_has_the_derivative_of_differences(name):
    f = EXPRESSIONS[name]
    rng = np.random.default_rng(1)
    xdot = rng.standard_normal(Y.shape)
    ydot = central_difference(f, [Y], [xdot], h=1e-3)
    _, pull_back = vjp(f, Y)
    ybar = rng.standard_normal(ydot.shape)
    (xbar,) = pull_back(ybar)
    scale = norm(ybar) * norm(ydot) + norm(xbar) * norm(xdot)
    assert_close(np.sum(xbar * xdot), np.sum(ybar * ydot), scale=scale, tol=1e-9)


def test_every_method_is_used_by_an_expression():
    source = Path(__file__).read_text()
    assert [name for name in METHODS if f".{name}(" not in source] == []


def test_operators_are_on_the_class():
    assert [name for name in OPERATORS if not callable(getattr(Var, name))] == []


# --- float32 --------------------------------------------------------------------------------------------------------

KEEPING = [
    "scalars on the left",
    "scalars on the right",
    "fractional power",
    "masks",
    "mean",
    "0-d",
    "reduce",
    "clip",
]


@pytest.mark.parametrize("name", KEEPING)
def test_float32_expression_stays_float32(name):
    for found in traced(EXPRESSIONS[name], Y.astype(np.float32)):
        assert found.dtype == np.float32


def test_float32_scalar_is_welcome():
    for found in traced(lambda y: np.float32(2.0) * y, Y.astype(np.float32)):
        assert found.dtype == np.float32


UPCASTS = [
    lambda y: np.sqrt(2.0) * y,
    lambda y: y * np.sqrt(2.0),
    lambda y: y + np.float64(1.0),
    lambda y: np.pi * y / np.mean([1.0, 2.0]),
    lambda y: np.power(y, np.int64(2)),
    lambda y: y ** np.float64(2.5),
]


@pytest.mark.parametrize("f", UPCASTS)
def test_upcast_by_a_numpy_scalar_is_refused_with_its_line(f):
    with pytest.raises(
        ArgumentTypeError, match=f"float32.*float64.*{re.escape(__file__)}:{f.__code__.co_firstlineno}"
    ):
        record(f, [Y.astype(np.float32)], ["y"])


# --- what is refused ------------------------------------------------------------------------------------------------


def branch(y):
    if y.sum() > 0:
        return y
    return -y


def in_place(y):
    y += 1.0
    return y


def assign(y):
    y[0] = 1.0
    return y


def loop(y):
    while np.linalg.norm(y) > 1:
        y = y / 2
    return y


def write_into(y):
    out = np.empty_like(Y)
    np.tanh(y, out=out)
    return out


def fill_array(y):
    out = np.zeros((2, 3))
    out[0] = y[0]
    return out


def add_in_place_to_array(y):
    out = np.zeros((2, 3))
    out += y
    return out


REFUSED = {
    "branch": (branch, "branch"),
    "loop": (loop, "branch"),
    "and": (lambda y: y[0, 0] and y, "branch"),
    "builtin max": (lambda y: max(y[0, 0], y[0, 1]), "branch"),
    "float": (lambda y: float(y[0, 0]) * y, "float"),
    "int": (lambda y: int(y[0, 0]) * y, "int"),
    "complex": (lambda y: complex(y[0, 0]) * y, "complex"),
    "item": (lambda y: y[0, 0].item() * y, "item"),
    "math": (lambda y: __import__("math").sin(y[0, 0]) * y, "float"),
    "asarray": (lambda y: np.asarray(y), "conversion"),
    "array": (lambda y: np.array([y[0], y[1]]), "conversion.*np.stack"),
    "range": (lambda y: range(y), "index"),
    "slice by value": (lambda y: Y[: y[0, 0]], "index"),
    "in place": (in_place, "in-place"),
    "assign": (assign, "in-place"),
    "out": (write_into, "in place"),
    "fill an array": (fill_array, "conversion|float"),
    "add to an array": (add_in_place_to_array, "in place"),
    "mask": (lambda y: y[y > 0], "where"),
    "mask of an array": (lambda y: y[MASK], "where"),
    "two index arrays": (lambda y: y[np.array([0]), np.array([1])], "take"),
    "unknown ufunc": (lambda y: np.arctan2(y, 1.0), "arctan2"),
    "ufunc method": (lambda y: np.multiply.outer(y, y), "multiply.outer"),
    "ufunc option": (lambda y: np.add(y, 1.0, where=MASK), "add with where"),
    "reduce option": (lambda y: np.add.reduce(y, dtype=np.float32), "add.reduce with dtype"),
    "unknown function": (lambda y: np.linalg.svd(y), "svd"),
    "unknown option": (lambda y: np.sum(y, dtype=np.float32), "sum with dtype"),
    "norm order": (lambda y: np.linalg.norm(y, 1), "norm with ord=1"),
    "pad mode": (lambda y: np.pad(y, 1, mode="edge"), "pad with mode='edge'"),
    "where of one": (lambda y: np.where(y > 0), "where"),
    "option of a like": (lambda y: np.zeros_like(y, dtype=np.float32), "zeros_like with dtype"),
    "out of a function": (lambda y: np.sum(y, axis=0, out=np.zeros(3)), "sum with axis=0, out"),
    "floor division": (lambda y: y // 2, "//"),
    "remainder": (lambda y: 2.0 % y, "%"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["tape", "program"])
def test_refusal_names_the_callers_line(name, kind):
    f, word = REFUSED[name]
    lines = []

    def remember(frame, event, _):
        if frame.f_code is f.__code__:
            lines.append(frame.f_lineno)
            return lambda inner, *_: lines.append(inner.f_lineno)
        return None

    before = sys.gettrace()
    sys.settrace(remember)
    try:
        with pytest.raises(TracedValueError) as caught:
            if kind == "tape":
                vjp(f, SIGNED)
            else:
                record(f, [SIGNED], ["y"])
    finally:
        sys.settrace(before)
    assert re.search(word, str(caught.value)), str(caught.value)
    assert f"{__file__}:{lines[-1]}" in str(caught.value)


def test_hash_is_by_identity():
    vjp(lambda y: y * len({y, y}), Y)


def test_repr_tells_shape_dtype_and_level():
    seen = []
    vjp(lambda y: seen.append(repr(y)) or y, np.ones((2, 3), np.float32))
    assert re.fullmatch(r"Var\(f32\[2,3\], level \d+\)", seen[0])


def test_length_of_a_scalar_is_a_type_error():
    with pytest.raises(TypeError, match="0-d"):
        vjp(lambda y: len(y.sum()), Y)


UNKNOWN = {
    "prod": lambda y: y.prod(),
    "any": lambda y: y.any(),
    "nbytes": lambda y: y.nbytes,
    "mean": lambda y: y.mean(dtype=np.float64),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_only_arrays_have_is_refused_by_name_with_its_line(name):
    f = UNKNOWN[name]
    line = f"{re.escape(__file__)}:{f.__code__.co_firstlineno}"
    with pytest.raises(TracedValueError, match=f"{name}.*{line}"):
        record(f, [Y], ["y"])


@pytest.mark.parametrize("name", ["prod", "flags", "no_such_attribute", "__array_interface__"])
def test_hasattr_of_what_a_traced_value_lacks_is_false(name):
    found = []
    record(lambda y: found.append(hasattr(y, name)) or y, [Y], ["y"])
    assert found == [False]


@pytest.mark.parametrize("axis", [0, -1, (0, 1), (0, -1), (1, 3)])
def test_expand_dims_takes_one_axis_or_several(axis):
    assert ops.expand_dims(Y, axis).shape == np.expand_dims(Y, axis).shape


def test_expand_dims_refuses_a_place_named_twice():
    with pytest.raises(ArgumentError, match="name a place twice"):
        ops.expand_dims(Y, (0, 0))
