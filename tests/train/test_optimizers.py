"""Optimisers against closed forms and against the published recursions in plain Python floats."""

import math

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError, ArgumentTypeError
from odegrad.engine.tree import leaves, leaves_with_paths, unflatten
from odegrad.train.config import TrainConfig
from odegrad.train.optimizers import SGD, Adam, AdamW, make_optimizer

EPS64 = np.finfo(np.float64).eps
ALL = [
    SGD(),
    SGD(momentum=0.9, weight_decay=0.1),
    SGD(momentum=0.9, nesterov=True),
    Adam(weight_decay=0.1),
    AdamW(),
]


def params_tree(dtype=np.float64):
    rng = np.random.default_rng(3)
    return {
        "block": [{"w": rng.normal(size=(4, 3)).astype(dtype), "b": rng.normal(size=3).astype(dtype)}],
        "scale": np.array(0.5, dtype),
        "empty": np.zeros((0, 2), dtype),
        "nothing": None,
    }


def grads_like(params, seed):
    rng = np.random.default_rng(seed)
    return {
        "block": [{k: rng.normal(size=v.shape).astype(v.dtype) for k, v in params["block"][0].items()}],
        "scale": np.array(rng.normal(), params["scale"].dtype),
        "empty": params["empty"],
        "nothing": None,
    }


def run(optimizer, grads, x0=1.0, lr=0.1):
    """The values of a single float64 number after each of `grads`."""
    params, values = {"x": np.array([x0])}, []
    state = optimizer.init(params)
    for g in grads:
        params, state = optimizer.update({"x": np.array([g])}, state, params, lr)
        values.append(float(params["x"][0]))
    return values


def test_sgd_steps_against_the_gradient():
    assert run(SGD(), [2.0, -1.0], x0=1.0, lr=0.1) == pytest.approx([0.8, 0.9], rel=4 * EPS64)


def test_momentum_sums_a_geometric_series():
    # a constant gradient 1: v_n = (1 - m**n) / (1 - m), x_n = -lr * (v_1 + ... + v_n)
    m, lr = 0.5, 0.25
    velocities = [(1 - m**n) / (1 - m) for n in range(1, 6)]
    expected = [-lr * sum(velocities[:n]) for n in range(1, 6)]
    assert run(SGD(momentum=m), [1.0] * 5, x0=0.0, lr=lr) == pytest.approx(expected, rel=10 * EPS64)


def test_nesterov_looks_ahead_along_the_velocity():
    # v = 1, 1.5; direction = g + 0.5 v = 1.5, 1.75
    assert run(SGD(momentum=0.5, nesterov=True), [1.0, 1.0], x0=0.0, lr=1.0) == [-1.5, -3.25]


def test_sgd_decay_shrinks_geometrically_without_gradient():
    assert run(SGD(weight_decay=0.5), [0.0] * 3, x0=8.0, lr=0.5) == [6.0, 4.5, 3.375]


def test_momentum_accumulates_the_decay_too():
    # v = 0.5 * 8 = 4, x = 4; v = 0.5 * 4 + 0.5 * 4 = 4, x = 0
    assert run(SGD(momentum=0.5, weight_decay=0.5), [0.0] * 2, x0=8.0, lr=1.0) == [4.0, 0.0]


@pytest.mark.parametrize("gradient", [3.0, -1e-3, 1e6])
def test_first_adam_step_has_the_length_of_the_learning_rate(gradient):
    expected = 1.0 - 0.1 * gradient / (abs(gradient) + 1e-8)  # bias correction undoes the start at zero
    assert run(Adam(), [gradient]) == pytest.approx([expected], rel=10 * EPS64)


def adam_by_hand(grads, x, lr, b1, b2, eps, l2=0.0, decoupled=0.0):
    """Algorithm 1 of Kingma & Ba, and algorithm 2 of Loshchilov & Hutter, in Python floats."""
    m = v = 0.0
    values = []
    for t, g in enumerate(grads, start=1):
        g = g + l2 * x
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        x = x - lr * decoupled * x - lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)
        values.append(x)
    return values


GRADS = [1.0, -2.0, 0.5, 0.25, 0.0, -3.0, 1e-4]
ADAMS = [
    (Adam(beta1=0.8, beta2=0.95, eps=1e-3), {"b1": 0.8, "b2": 0.95, "eps": 1e-3}),
    (Adam(weight_decay=0.3), {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "l2": 0.3}),
    (AdamW(weight_decay=0.3), {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "decoupled": 0.3}),
    (AdamW(), {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "decoupled": 0.01}),
]


@pytest.mark.parametrize(("optimizer", "numbers"), ADAMS, ids=["adam", "adam-l2", "adamw", "adamw-default"])
def test_adam_follows_its_recursion(optimizer, numbers):
    expected = adam_by_hand(GRADS, 0.7, 0.05, **numbers)
    assert run(optimizer, GRADS, x0=0.7, lr=0.05) == pytest.approx(expected, rel=100 * EPS64, abs=1e-15)


def test_adamw_decays_without_gradient():
    assert run(AdamW(weight_decay=0.5), [0.0], x0=8.0, lr=0.5) == [6.0]


@pytest.mark.parametrize("make", [SGD, Adam, AdamW])
def test_the_mask_chooses_which_leaves_decay(make):
    params = {"w": np.array([2.0]), "b": np.array([2.0])}
    optimizer = make(weight_decay=0.1, decays=lambda path: path[-1] == "w")
    zeros = {"w": np.zeros(1), "b": np.zeros(1)}
    moved, _ = optimizer.update(zeros, optimizer.init(params), params, 0.1)
    assert moved["w"][0] < 2.0 and moved["b"][0] == 2.0


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_dtypes_and_structure_are_kept(optimizer, dtype):
    params = params_tree(dtype)
    moved, state = optimizer.update(grads_like(params, 1), optimizer.init(params), params, 0.1)
    moved, _ = optimizer.update(grads_like(params, 2), state, moved, 0.1)
    described = [(path, type(leaf), leaf.shape, leaf.dtype) for path, leaf in leaves_with_paths(moved)]
    assert described == [(p, np.ndarray, leaf.shape, leaf.dtype) for p, leaf in leaves_with_paths(params)]


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_nothing_given_is_written_to(optimizer):
    params = params_tree()
    grads, state = grads_like(params, 1), optimizer.init(params)
    _, state = optimizer.update(grads, state, params, 0.1)
    given = [*leaves(params), *leaves(grads), *leaves(state)]
    before = [leaf.copy() for leaf in given]
    for leaf in given:
        leaf.flags.writeable = False
    optimizer.update(grads, state, params, 0.1)
    assert all(np.array_equal(old, new) for old, new in zip(before, given, strict=True))


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_no_result_shares_memory_with_what_was_given(optimizer):
    params = params_tree()
    grads, state = grads_like(params, 1), optimizer.init(params)
    moved, new_state = optimizer.update(grads, state, params, 0.1)
    given = [*leaves(params), *leaves(grads), *leaves(state)]
    assert not any(np.shares_memory(new, old) for new in leaves((moved, new_state)) for old in given)


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_float32_follows_float64(optimizer):
    finals = {}
    for dtype in (np.float32, np.float64):
        params = params_tree(dtype)
        state = optimizer.init(params)
        for seed in range(5):
            params, state = optimizer.update(grads_like(params, seed), state, params, 0.01)
        finals[dtype] = params["block"][0]["w"]
    np.testing.assert_allclose(finals[np.float32], finals[np.float64], rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_scales_multiply_the_leaves_of_the_gradient(optimizer):
    params = params_tree()
    grads, state = grads_like(params, 1), optimizer.init(params)
    scales = [1.0, 0.5, 3.0, 0.25]
    scaled = unflatten(grads, map(np.asarray, map(np.multiply, leaves(grads), scales)))
    expected = leaves(optimizer.update(scaled, state, params, 0.1))
    found = leaves(optimizer.update(grads, state, params, 0.1, scales))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_a_scale_for_each_leaf_is_asked_for():
    with pytest.raises(ArgumentError, match="each of 2 leaves; got 1"):
        SGD().update([np.ones(2)] * 2, {}, [np.ones(2)] * 2, 0.1, [1.0])


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
@pytest.mark.parametrize("empty", [{}, [], {"a": None, "b": ()}, None], ids=repr)
def test_a_tree_without_leaves_stays_as_it_is(optimizer, empty):
    state = optimizer.init(empty)
    moved, new_state = optimizer.update(empty, state, empty, 0.1)
    assert moved == empty and new_state.keys() == state.keys()


def test_a_gradient_of_another_structure_is_listed_leaf_by_leaf():
    params = {"a": np.zeros(3), "b": np.zeros(2)}
    grads = {"a": np.zeros(3, np.float32), "c": np.zeros(2)}
    with pytest.raises(ArgumentError) as caught:
        SGD().update(grads, {}, params, 0.1)
    for part in ("a: expected float64 (3,), got float32 (3,)", "b: expected", "c: expected nothing"):
        assert part in str(caught.value)


@pytest.mark.parametrize("leaf", [1.0, np.zeros(2, np.int64), np.zeros(2, complex)], ids=str)
@pytest.mark.parametrize("make", [SGD, Adam])
def test_only_real_floating_arrays_are_parameters(make, leaf):
    with pytest.raises(ArgumentTypeError, match="block/w"):
        make().init({"block": {"w": leaf}})


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (SGD, {"momentum": 1.0}),
        (SGD, {"nesterov": True}),
        (SGD, {"weight_decay": -1.0}),
        (Adam, {"beta2": 1.0}),
        (Adam, {"eps": 0.0}),
        (AdamW, {"weight_decay": math.inf}),
    ],
)
def test_an_option_out_of_range_is_refused(make, options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        make(**options)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", SGD(momentum=0.8, weight_decay=0.3)),
        ("adam", Adam(weight_decay=0.3)),
        ("adamw", AdamW(weight_decay=0.3)),
    ],
)
def test_the_configuration_chooses_the_optimizer(name, expected):
    assert make_optimizer(TrainConfig(optimizer=name, momentum=0.8, weight_decay=0.3)) == expected
