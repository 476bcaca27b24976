"""Neural ODEs for images: h(0) is the normalised image itself, dh/dt = net(t, h) on [0, 1],
then a linear classifier.

Every convolution of `net` is 3x3 with time as one more channel, followed by norm(t) and ReLU. A stride-2
convolution halves the image, and a transposed one restores its mirror's exact size.

Source: Zheng, Gao, Lu, Su, Yu & Xie (2024), "Improving neural ODE training with temporal adaptive batch
    normalization",
NeurIPS; 1-channel images use half of the widths.
"""

from __future__ import annotations

from collections.abc import Callable

from ...engine.tree import Tree, leaves_with_paths
from ...layers import (
    BatchNorm,
    Chain,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    ODEBlock,
    ReLU,
    normalization,
    unet,
    uniform_nodes,
)
from ..config import TrainConfig

Norm = Callable[[int], Layer]

DOWN, KEEP, UP = "down", "keep", "up"
_PLANS: dict[str, tuple[tuple[int, str], ...]] = {  # (width in units of the base, what it does to the size)
    "4-layer": ((1, DOWN), (2, DOWN), (1, UP)),
    "6-layer": ((1, KEEP), (2, DOWN), (4, DOWN), (2, UP), (1, UP)),
    "8-layer": ((1, KEEP), (2, DOWN), (4, DOWN), (8, DOWN), (4, UP), (2, UP), (1, UP)),
    "10-layer": ((1, KEEP), (2, DOWN), (4, DOWN), (8, DOWN), (8, KEEP), (8, KEEP), (4, UP), (2, UP), (1, UP)),
    "12-layer": ((1, KEEP), (2, DOWN), (4, DOWN), (8, DOWN), *((8, KEEP),) * 4, (4, UP), (2, UP), (1, UP)),
}
NETWORKS = (*_PLANS, "unet")


def dynamics(name: str, shape: tuple[int, int, int], norm: Norm) -> Chain:
    """The network `name` of NETWORKS as dynamics of a state (H, W, C)."""
    base = 32 if shape[2] > 1 else 16
    if name == "unet":
        return unet(shape, norm, widths=(base, 2 * base, 4 * base, 8 * base))
    layers: list[Layer] = []
    height, width, channels = shape
    sizes = [(height, width)]
    plan = [(units * base, action) for units, action in _PLANS[name]]
    ups = sum(action == UP for _, action in plan) < sum(action == DOWN for _, action in plan)
    for n, action in (*plan, (channels, UP if ups else KEEP)):
        if action == UP:
            sizes.pop()
            layers.append(ConvTranspose2d(_channels(layers, channels), n, sizes[-1], with_time=True))
        else:
            layers.append(
                Conv2d(_channels(layers, channels), n, stride=2 if action == DOWN else 1, with_time=True)
            )
        if action == DOWN:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        layers += [norm(n), ReLU()]
    return Chain(layers, input_shape=shape)


def _channels(layers: list[Layer], first: int) -> int:
    """Channels that the last convolution left."""
    made = [layer.n_out for layer in layers if isinstance(layer, (Conv2d, ConvTranspose2d))]
    return made[-1] if made else first


def classifier(config: TrainConfig, shape: tuple[int, int, int], n_classes: int) -> Chain:
    """The whole network: ODE, ordinary batch norm, dropout, one linear layer; images (B, H, W, C)
    -> logits (B, K).
    """

    def norm(channels: int) -> Layer:
        return normalization(
            config.norm,
            channels,
            nodes=uniform_nodes(n_cells=config.tabn_nodes - 1),
            normalize=config.normalize,
            unvisited=config.unvisited,
            momentum=config.tabn_momentum,
        )

    height, width, channels = shape
    block = ODEBlock(
        dynamics(config.network, shape, norm),
        method=config.method,
        rtol=config.rtol,
        atol=config.atol,
        gradient=config.gradient,
        keep=config.keep,
        execution=config.execution,
        max_steps=config.max_steps,
        drift_limit=config.drift_limit,
        step_size=None if config.method == "dopri5" else config.step_size,
    )
    head = [
        BatchNorm(channels),
        Flatten(),
        Dropout(config.dropout),
        Linear(height * width * channels, n_classes),
    ]
    return Chain([block, *head], input_shape=shape)


def published_count(weights: Tree) -> int:
    """The number of weights as papers count them: convolutions and the linear layer, without what time adds
    (time channels, gamma and alpha) and without biases.
    The U-Net has 2,170,560 on 32x32x3 images and 10 classes.
    """
    return sum(leaf.size for path, leaf in leaves_with_paths(weights) if path[-1] == "w")
