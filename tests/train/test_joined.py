"""Joined leaves: an optimiser's step on many leaves has the bits of one on each."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad.engine.tree import leaves
from odegrad.train import optimizers
from odegrad.train.joined import SMALL, step_leaves
from odegrad.train.optimizers import SGD, Adam, AdamW
from strategies import float_dtypes, seeds, shapes

OPTIMIZERS = [
    SGD(weight_decay=0.1),
    SGD(momentum=0.9),
    SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
    Adam(weight_decay=0.1),
    AdamW(weight_decay=0.1, decays=lambda path: path[0] % 2 == 0),
]
LARGE = st.sampled_from([(SMALL,), (SMALL - 1,), (3, SMALL), (SMALL, 1)])


def step_each(step, n_results, columns, settings):
    """The plain path: a leaf at a time."""
    return zip(*(step(*leaf) for leaf in zip(settings, *columns, strict=True)), strict=True)


def steps(optimizer, params, grads):
    """Parameters and states after each of several steps."""
    state, found = optimizer.init(params), []
    for g in grads:
        params, state = optimizer.update(g, state, params, 0.1)
        found += leaves((params, state))
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__class__.__name__)
@given(
    given_shapes=st.lists(st.one_of(shapes(min_side=0), LARGE), min_size=1, max_size=5),
    dtypes=st.lists(float_dtypes, min_size=5, max_size=5),
    seed=seeds,
)
def test_bits_are_those_of_a_step_on_each_leaf(optimizer, given_shapes, dtypes, seed):
    rng = np.random.default_rng(seed)

    def drawn():
        return [
            np.asarray(rng.standard_normal(s)).astype(d) for s, d in zip(given_shapes, dtypes, strict=False)
        ]

    params, grads = drawn(), [drawn() for _ in range(2)]
    with patch.object(optimizers, "step_leaves", step_each):
        each = steps(optimizer, params, grads)
    for together, alone in zip(steps(optimizer, params, grads), each, strict=True):
        assert together.dtype == alone.dtype and np.array_equal(together, alone)


@pytest.mark.parametrize(
    "sizes, n_calls", [([3, 4, 5], 1), ([SMALL - 1] * 20, 1), ([SMALL, 3, 4], 2), ([SMALL, SMALL], 2)]
)
def test_small_leaves_are_stepped_in_one_call(sizes, n_calls):
    calls = []

    def step(setting, x):
        calls.append(x.size)
        return (x + setting,)

    (found,) = step_leaves(step, 1, [[np.zeros(size) for size in sizes]], [1.0] * len(sizes))
    assert len(calls) == n_calls
    assert [leaf.size for leaf in found] == sizes and all((leaf == 1.0).all() for leaf in found)


def test_leaves_of_other_settings_and_dtypes_are_kept_apart():
    columns = [[np.zeros(2), np.zeros(2, np.float32), np.zeros(2)]]
    (found,) = step_leaves(lambda setting, x: (x + setting,), 1, columns, [1.0, 1.0, 2.0])
    assert [(leaf.dtype.name, leaf[0]) for leaf in found] == [
        ("float64", 1.0),
        ("float32", 1.0),
        ("float64", 2.0),
    ]
