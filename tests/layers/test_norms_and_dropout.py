"""BatchNorm, GroupNorm, Dropout, and the readings of the ablation by name."""

import math

import numpy as np
import pytest
from odegrad import ArgumentError
from odegrad.engine import random
from odegrad.layers import (
    READINGS,
    BatchNorm,
    Chain,
    Dropout,
    GroupNorm,
    Identity,
    TABatchNorm,
    normalization,
)
from oracles import EPS64, assert_close, norm

KEY = random.key(1)
AFFINE = {"gamma": np.array([2.0, -1.0, 0.5]), "alpha": np.array([1.0, 0.0, -3.0])}
STATS = {"mean": np.array([1.0, 2.0, 3.0]), "var": np.array([0.5, 1.0, 9.0])}


def normalized(x, mean, var):
    return (x - mean) / np.sqrt(var + 1e-5) * AFFINE["gamma"] + AFFINE["alpha"]


@pytest.mark.parametrize(
    ("statistics", "mode"), [("running", "train"), ("minibatch", "train"), ("minibatch", "eval")]
)
def test_batch_norm_uses_the_biased_moments_of_the_batch(statistics, mode, rng):
    x = 3.0 + rng.standard_normal((4, 2, 2, 3))
    y, _ = BatchNorm(3, statistics).apply(AFFINE, STATS, None, x, mode=mode)
    expected = normalized(x, x.mean((0, 1, 2)), x.var((0, 1, 2)))
    assert_close(y, expected, scale=norm(expected), tol=100 * EPS64)


def test_batch_norm_evaluates_with_the_running_pair(rng):
    x = rng.standard_normal((4, 3))
    y, _ = BatchNorm(3).apply(AFFINE, STATS, None, x, mode="eval")
    expected = normalized(x, STATS["mean"], STATS["var"])
    assert_close(y, expected, scale=norm(expected), tol=10 * EPS64)


def test_batch_norm_records_the_unbiased_variance(rng):
    x = rng.standard_normal((4, 3))
    _, seen = BatchNorm(3).apply(AFFINE, STATS, None, x, mode="train")
    assert_close(seen.var, x.var(0, ddof=1), scale=1.0, tol=10 * EPS64)


def test_minibatch_keeps_nothing(rng):
    layer = BatchNorm(3, "minibatch")
    _, seen = layer.apply(AFFINE, None, None, rng.standard_normal((4, 3)), mode="train")
    assert layer.init_stats() is None and seen is None


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_minibatch_refuses_one_value_a_channel(mode):
    with pytest.raises(ArgumentError, match="at least two values a channel"):
        BatchNorm(3, "minibatch").apply(AFFINE, None, None, np.ones((1, 3)), mode=mode)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_is_its_definition(groups, rng):
    layer = GroupNorm(4, groups)
    weights = {"gamma": rng.standard_normal(4), "alpha": rng.standard_normal(4)}
    x = 2.0 + rng.standard_normal((3, 2, 5, 4))
    expected = np.empty_like(x)
    for b in range(3):
        for first in range(0, 4, 4 // groups):
            part = x[b, ..., first : first + 4 // groups]
            expected[b, ..., first : first + 4 // groups] = (part - part.mean()) / math.sqrt(
                part.var() + 1e-5
            )
    expected = expected * weights["gamma"] + weights["alpha"]
    y, _ = layer.apply(weights, None, None, x, mode="train")
    assert_close(y, expected, scale=norm(expected), tol=100 * EPS64)


def test_dropout_keeps_the_mean():
    y, _ = Dropout(0.3).apply(None, None, None, np.ones(200_000), mode="train", key=KEY)
    assert abs(y.mean() - 1.0) < 5 * math.sqrt(0.3 / 0.7 / y.size)


def test_dropout_leaves_zeros_and_scaled_values():
    y, _ = Dropout(0.75).apply(None, None, None, np.ones((8, 50)), mode="train", key=KEY)
    assert set(y.ravel()) == {0.0, 4.0}


def test_dropout_mask_does_not_depend_on_the_values(rng):
    layer = Dropout(0.5)
    x = rng.uniform(1.0, 2.0, (6, 20))
    first, second = (
        layer.apply(None, None, t, z, mode="train", key=KEY)[0] for t, z in ((0.1, x), (0.9, x**2))
    )
    assert np.array_equal(first == 0, second == 0)


def test_dropout_masks_of_two_keys_differ():
    x = np.ones((6, 20))
    first, second = (
        Dropout(0.5).apply(None, None, None, x, mode="train", key=random.key(k))[0] for k in (0, 1)
    )
    assert not np.array_equal(first, second)


def test_dropout_layers_of_a_chain_have_masks_of_their_own():
    net = Chain([Dropout(0.5), Dropout(0.5)])
    x = np.ones((6, 200))
    y, _ = net.apply(net.init(KEY), net.init_stats(), None, x, mode="train", key=KEY)
    assert 0.15 < (y > 0).mean() < 0.35


def test_dropout_in_evaluation_is_the_identity(rng):
    x = rng.standard_normal((3, 4))
    assert Dropout(0.5).apply(None, None, None, x, mode="eval")[0] is x


def test_dropout_in_training_asks_for_a_key():
    with pytest.raises(ArgumentError, match="needs a `key`; got None"):
        Dropout(0.5).apply(None, None, None, np.ones(3), mode="train")


EXPECTED = {
    "tabn": TABatchNorm(3, momentum=0.2, normalize="population"),
    "none": Identity(),
    "minibatch": BatchNorm(3, "minibatch", momentum=0.2),
    "pop-ti": BatchNorm(3, momentum=0.2),
}


@pytest.mark.parametrize("reading", READINGS)
def test_readings_by_name(reading):
    assert normalization(reading, 3, momentum=0.2, normalize="population") == EXPECTED[reading]


def test_unknown_reading_is_refused():
    with pytest.raises(ArgumentError, match="'tabn', 'none', 'minibatch', 'pop-ti'; got 'popti'"):
        normalization("popti", 3)
