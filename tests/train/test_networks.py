"""The paper's networks: widths, sizes, counts, and every one of them on every size of image."""

import numpy as np
import pytest
from odegrad.engine import random
from odegrad.engine.tree import leaves_with_paths
from odegrad.layers import Conv2d, ConvTranspose2d, normalization, uniform_nodes
from odegrad.train.config import TrainConfig
from odegrad.train.experiments import NETWORKS, classifier, dynamics, published_count

SHAPES = [(28, 28, 1), (32, 32, 3), (64, 64, 3), (8, 8, 1), (7, 5, 3)]


def norm(channels):
    return normalization("tabn", channels, nodes=uniform_nodes(n_cells=4))


def widths(name, shape):
    return [layer.n_out for layer in convolutions(name, shape)]


def convolutions(name, shape):
    return [
        layer for layer in dynamics(name, shape, norm).layers if isinstance(layer, (Conv2d, ConvTranspose2d))
    ]


COLOUR = {
    "4-layer": [32, 64, 32, 3],
    "6-layer": [32, 64, 128, 64, 32, 3],
    "8-layer": [32, 64, 128, 256, 128, 64, 32, 3],
    "10-layer": [32, 64, 128, 256, 256, 256, 128, 64, 32, 3],
    "12-layer": [32, 64, 128, 256, 256, 256, 256, 256, 128, 64, 32, 3],
}


@pytest.mark.parametrize("name", COLOUR)
def test_widths_on_colour_images(name):
    assert widths(name, (32, 32, 3)) == COLOUR[name]


@pytest.mark.parametrize("name", COLOUR)
def test_widths_are_halved_on_grey_images(name):
    assert widths(name, (28, 28, 1)) == [*(width // 2 for width in COLOUR[name][:-1]), 1]


SIZES = {  # of 28x28 images, behind each convolution
    "4-layer": [14, 7, 14, 28],
    "6-layer": [28, 14, 7, 14, 28, 28],
    "8-layer": [28, 14, 7, 4, 7, 14, 28, 28],
    "10-layer": [28, 14, 7, 4, 4, 4, 7, 14, 28, 28],
    "12-layer": [28, 14, 7, 4, 4, 4, 4, 4, 7, 14, 28, 28],
}


@pytest.mark.parametrize("name", SIZES)
def test_up_convolutions_restore_the_size_of_their_mirror(name):
    shape, sizes = (28, 28, 1), []
    for layer in convolutions(name, shape):
        shape = layer.output_shape(shape)
        sizes.append(shape[0])
    assert sizes == SIZES[name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dynamics_keep_the_shape_of_the_state(name, shape):
    assert dynamics(name, shape, norm).output_shape(shape) == shape


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
@pytest.mark.parametrize("name", ["4-layer", "6-layer"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_slope_has_the_shape_and_dtype_of_the_state(name, shape, mode):
    assert_slope_is_like_the_state(name, shape, mode)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("4-layer", "6-layer")])
@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 5, 3)], ids=str)
def test_a_slope_of_the_large_networks_has_the_shape_and_dtype_of_the_state(name, shape):
    assert_slope_is_like_the_state(name, shape, "train")


def assert_slope_is_like_the_state(name, shape, mode):
    net = dynamics(name, shape, norm)
    key = random.key(0)
    weights, stats = net.init(key, np.float32, np), net.init_stats(np.float32, np)
    h = random.normal(key, (2, *shape), np.float32)
    slope, _ = net.apply(weights, stats, 0.3, h, mode=mode, key=None)
    assert (slope.shape, slope.dtype, bool(np.isfinite(slope).all())) == (h.shape, h.dtype, True)


def weights_of(network, shape, n_classes=10):
    return classifier(TrainConfig(network=network), shape, n_classes).init(random.key(0), np.float32, np)


def test_the_published_count_of_the_unet():
    """The 18-layer U-Net on CIFAR-10; convolutions and the linear layer as papers count them."""
    assert published_count(weights_of("unet", (32, 32, 3))) == 2_170_560


@pytest.mark.parametrize("name", COLOUR)
def test_published_counts_follow_from_the_widths(name):
    inputs = [3, *COLOUR[name][:-1]]
    convolution = 9 * sum(n * m for n, m in zip(inputs, COLOUR[name], strict=True))
    assert published_count(weights_of(name, (32, 32, 3))) == convolution + 32 * 32 * 3 * 10


def test_the_published_count_leaves_out_what_time_adds():
    names = {path[-1] for path, _ in leaves_with_paths(weights_of("4-layer", (8, 8, 1)))}
    assert {"w", "gamma", "alpha"} < names


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_a_classifier_has_a_logit_for_each_class(n_classes):
    network = classifier(TrainConfig(network="4-layer", max_steps=20), (8, 8, 1), n_classes)
    key = random.key(0)
    weights, stats = network.init(key, np.float32, np), network.init_stats(np.float32, np)
    logits, _ = network.apply(weights, stats, None, np.ones((2, 8, 8, 1), np.float32), mode="eval")
    assert logits.shape == (2, n_classes)
