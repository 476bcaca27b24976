"""A U-Net as dynamics: down and up again, each level beside what it came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .activations import ReLU
from .chain import Chain, Skip
from .convolution import Conv2d, ConvTranspose2d
from .layer import Layer, Shape
from .pooling import MaxPool2d

Norm = Callable[[int], Layer]  # channels -> normalisation layer


def unet(shape: Shape, norm: Norm, widths: Sequence[int] = (32, 64, 128, 256)) -> Chain:
    """A network of images (H, W, C) -> (H, W, C): two convolutions a level, 2x2 max-pooling down,
    up-convolutions back.

    Every convolution is 3x3, has t as one more channel, and is followed by norm and ReLU, the last one by
    norm alone. An odd size gets one row and column around it before it is pooled,
    so that the up-convolution can restore it.

    Args:
        shape: (H, W, C) of the state.
        norm: makes the normalisation layer for a number of channels.
        widths: channels of each level, top to bottom; the default gives 18 convolutions.
    Source: Ronneberger, Fischer & Brox (2015), MICCAI, figure 1;
        here sizes are kept and up-convolutions are 3x3.
    """
    height, width, channels = shape
    return Chain(
        [
            *_level((height, width), channels, norm, tuple(widths)),
            Conv2d(widths[0], channels, with_time=True),
            norm(channels),
        ],
        input_shape=shape,
    )


def _level(size: tuple[int, int], n_in: int, norm: Norm, widths: tuple[int, ...]) -> list[Layer]:
    """The layers from an image of this size down to the last width and back: (*size, n_in)
    -> (*size, widths[0]).
    """
    n = widths[0]
    double = [*_conv(n_in, n, norm), *_conv(n, n, norm)]
    if len(widths) == 1:
        return double
    odd = (size[0] % 2, size[1] % 2)
    below = (size[0] // 2 + odd[0], size[1] // 2 + odd[1])
    up = [ConvTranspose2d(widths[1], n, size, with_time=True), norm(n), ReLU()]
    inner = Chain([MaxPool2d(2, padding=odd), *_level(below, n, norm, widths[1:]), *up])
    return [*double, Skip(inner), *_conv(2 * n, n, norm), *_conv(n, n, norm)]


def _conv(n_in: int, n_out: int, norm: Norm) -> list[Layer]:
    return [Conv2d(n_in, n_out, with_time=True), norm(n_out), ReLU()]
