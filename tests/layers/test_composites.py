"""Chain, Skip and the U-Net."""

import numpy as np
import pytest
from odegrad.engine import random
from odegrad.engine.tree import leaves_with_paths
from odegrad.layers import (
    BatchNorm,
    Chain,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Identity,
    Linear,
    Skip,
    TABatchNorm,
    Tanh,
    unet,
)
from oracles import EPS64, assert_close, norm

KEY = random.key(2)


def test_a_chain_is_its_layers_in_turn(rng):
    first, second = Linear(3, 4), Linear(4, 2)
    net = Chain([first, Tanh(), second])
    weights, x = net.init(KEY, np.float64), rng.standard_normal((5, 3))
    y, _ = net.apply(weights, net.init_stats(), None, x, mode="train")
    hidden = np.tanh(x @ weights[0]["w"] + weights[0]["b"])
    expected = hidden @ weights[2]["w"] + weights[2]["b"]
    assert_close(y, expected, scale=norm(expected), tol=10 * EPS64)


def test_equal_layers_of_a_chain_start_differently():
    weights = Chain([Linear(3, 3), Linear(3, 3)]).init(KEY)
    assert not np.array_equal(weights[0]["w"], weights[1]["w"])


def test_an_empty_chain_is_the_identity(rng):
    x = rng.standard_normal((2, 3))
    assert Chain([]).apply([], [], None, x, mode="train") == (x, None)


def test_seen_names_the_layers_that_saw_something(rng):
    net = Chain([Tanh(), BatchNorm(3), Chain([Tanh()]), Chain([BatchNorm(3)])])
    _, seen = net.apply(net.init(KEY), net.init_stats(), None, rng.standard_normal((4, 3)), mode="train")
    assert [path[:-1] for path, _ in leaves_with_paths(seen)][::2] == [(1,), (3, 0)]


@pytest.mark.parametrize(("layers", "expected"), [([Tanh()], False), ([Tanh(), Chain([Dropout(0.1)])], True)])
def test_a_chain_uses_a_key_if_a_layer_does(layers, expected):
    assert Chain(layers).uses_key is expected


def test_skip_puts_the_input_behind_the_inner_output(rng):
    inner = Conv2d(2, 3)
    weights, x = inner.init(KEY, np.float64), rng.standard_normal((2, 4, 4, 2))
    y, _ = Skip(inner).apply(weights, None, None, x, mode="train")
    expected, _ = inner.apply(weights, None, None, x, mode="train")
    assert np.array_equal(y, np.concatenate([expected, x], axis=-1))


def test_penalty_of_a_network_is_that_of_its_layers():
    net = Chain([TABatchNorm(2), Tanh(), Skip(Chain([BatchNorm(2), TABatchNorm(2)]))])
    weights = net.init(KEY, np.float64)
    weights[0]["gamma"] += 1.0  # 101 nodes, mean square 1 each
    weights[2][1]["alpha"] += 2.0  # 101 nodes, mean square 4 each
    weights[2][0]["gamma"] += 7.0  # ordinary batch norm is not penalised
    assert_close(net.penalty(weights), np.array(101.0 + 404.0), scale=505.0, tol=10 * EPS64)


def convolutions(layer):
    """Every convolution of a network, in order."""
    if isinstance(layer, Chain):
        return [found for child in layer.layers for found in convolutions(child)]
    if isinstance(layer, Skip):
        return convolutions(layer.inner)
    return [layer] if isinstance(layer, (Conv2d, ConvTranspose2d)) else []


def test_unet_has_18_convolutions():
    assert len(convolutions(unet((32, 32, 3), lambda n: Identity()))) == 18


def test_unet_has_the_channels_of_its_description():
    found = [(conv.n_in, conv.n_out) for conv in convolutions(unet((32, 32, 3), lambda n: Identity()))]
    down = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    up = [(256, 128), (256, 128), (128, 128), (128, 64), (128, 64), (64, 64), (64, 32), (64, 32), (32, 32)]
    assert found == [*down, *up, (32, 3)]


def test_unet_has_the_published_number_of_weights():
    """2,170,560, of which 30,720 are those of the linear layer 32 * 32 * 3 -> 10 after the solve."""
    weights = unet((32, 32, 3), lambda n: Identity()).init(KEY)
    assert (
        sum(w.size for path, w in leaves_with_paths(weights) if path[-1] == "w") + 32 * 32 * 3 * 10
        == 2_170_560
    )


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (30, 17, 3)], ids=str)
def test_unet_keeps_any_shape(shape):
    net = unet(shape, lambda n: Identity(), widths=(2, 2, 3, 3))
    x = np.zeros((1, *shape), np.float32)
    assert net.apply(net.init(KEY), net.init_stats(), 0.5, x, mode="eval")[0].shape == x.shape


def test_unet_reads_the_whole_image():
    """The skip connections carry detail, the levels below what is far away: one pixel moves all of the output."""
    net = unet((8, 8, 1), lambda n: Identity(), widths=(3, 3, 3, 3))
    weights, x = net.init(random.key(8), np.float64), np.random.default_rng(0).standard_normal((1, 8, 8, 1))
    moved = x.copy()
    moved[0, 0, 0] += 1.0
    y, y_moved = (net.apply(weights, net.init_stats(), 0.5, z, mode="eval")[0] for z in (x, moved))
    assert np.all(y != y_moved)
