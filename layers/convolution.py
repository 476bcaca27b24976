"""Convolution and its transpose, channels last, with time as an optional extra channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import Array, namespace_of
from ..engine.errors import ArgumentError
from ..engine.kernels.geometry import window_count
from ..engine.trace import base_value, dtype_of, shape_of
from ..engine.tree import Tree
from .initialisation import uniform_within
from .layer import Layer, Shape, check_channels
from .linear import add_offset


@dataclass(frozen=True)
class Conv2d(Layer):
    """Cross-correlation of x (B, H, W, n_in) with a square kernel,
    zeros around the image -> (B, Ho, Wo, n_out).

    With `with_time` the image has t as one more constant channel. That channel's part is t times the response
    to an image of ones, (Ho, Wo, n_out), which depends on weights only: a program computes it once per solve,
    and the evaluation adds b + t * response in the pass that adds the bias. The result is that of
    `TimeConcat` before a convolution with n_in + 1 channels, whose weights are here apart: "w" for the image,
    "w_t" for time.

    Initialisation: uniform within 1 / sqrt(channels * kernel**2), bias included (the default of PyTorch).
    """

    n_in: int
    n_out: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    bias: bool = True
    with_time: bool = False

    def __post_init__(self) -> None:
        _check_sizes(self)

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """{"w": (k, k, n_in, n_out)} and, where the layer has them, "b" (n_out,)
        and "w_t" (k, k, 1, n_out).
        """
        shapes: dict[str, Shape] = {"w": (self.kernel, self.kernel, self.n_in, self.n_out)}
        if self.bias:
            shapes["b"] = (self.n_out,)
        if self.with_time:
            shapes["w_t"] = (self.kernel, self.kernel, 1, self.n_out)
        fan_in = (self.n_in + self.with_time) * self.kernel**2
        return uniform_within(1.0 / math.sqrt(fan_in), shapes, key, dtype, xp)

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, H, W, n_in) -> (B, Ho, Wo, n_out)."""
        self.output_shape(shape_of(x)[1:])
        window = {"stride": self.stride, "padding": self.padding}
        response = None
        if self.with_time:
            response = ops.conv2d(_ones_like_channel(x), weights["w_t"], **window)[0]
        return add_offset(ops.conv2d(x, weights["w"], **window), weights, response, t), None

    def output_shape(self, shape: Shape) -> Shape:
        """(H, W, n_in) -> (Ho, Wo, n_out), Ho = (H + 2 padding - kernel) // stride + 1."""
        check_channels(self, shape, self.n_in, ndim=3)
        return (*_windows(self, shape[:2]), self.n_out)


@dataclass(frozen=True)
class ConvTranspose2d(Layer):
    """The transpose of the `Conv2d` that maps (*size, n_out) to its input: x (B, H, W, n_in)
    -> (B, *size, n_out).

    `size` is the exact height and width of the result, since a strided convolution maps several sizes to one:
    a network that goes down 28, 14, 7, 4 says where it comes back to. `with_time` as in `Conv2d`.

    Initialisation: uniform within 1 / sqrt(n_out * kernel**2), bias included (the default of PyTorch, which
    counts the channels of the output here).
    """

    n_in: int
    n_out: int
    size: tuple[int, int]
    kernel: int = 3
    stride: int = 2
    padding: int = 1
    bias: bool = True
    with_time: bool = False

    def __post_init__(self) -> None:
        _check_sizes(self)
        if len(self.size) != 2 or min(self.size) < 1:
            raise ArgumentError(f"`size` of ConvTranspose2d must be (height, width); got {self.size}")

    def init(self, key: np.ndarray, dtype: Any = np.float32, xp: ModuleType = np) -> Tree:
        """{"w": (k, k, n_out, n_in)} and, where the layer has them, "b" (n_out,)
        and "w_t" (k, k, n_out, 1).
        """
        shapes: dict[str, Shape] = {"w": (self.kernel, self.kernel, self.n_out, self.n_in)}
        if self.bias:
            shapes["b"] = (self.n_out,)
        if self.with_time:
            shapes["w_t"] = (self.kernel, self.kernel, self.n_out, 1)
        return uniform_within(1.0 / math.sqrt(self.n_out * self.kernel**2), shapes, key, dtype, xp)

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x (B, H, W, n_in) -> (B, *size, n_out)."""
        self.output_shape(shape_of(x)[1:])
        window: dict[str, Any] = {"size": self.size, "stride": self.stride, "padding": self.padding}
        response = None
        if self.with_time:
            response = ops.conv_transpose2d(_ones_like_channel(x), weights["w_t"], **window)[0]
        return add_offset(ops.conv_transpose2d(x, weights["w"], **window), weights, response, t), None

    def output_shape(self, shape: Shape) -> Shape:
        """(H, W, n_in) -> (*size, n_out), where `size` is one that the convolution maps to (H, W)."""
        check_channels(self, shape, self.n_in, ndim=3)
        mirrored = _windows(self, self.size)
        if mirrored != shape[:2]:
            raise ArgumentError(
                f"{self} cannot reach size {self.size} from {shape[:2]}: a convolution with this kernel, stride and "
                f"padding maps {self.size} to {mirrored}"
            )
        return (*self.size, self.n_out)


def _check_sizes(layer: Conv2d | ConvTranspose2d) -> None:
    if min(layer.n_in, layer.n_out, layer.kernel, layer.stride) < 1 or layer.padding < 0:
        raise ArgumentError(
            f"channels, kernel and stride must be at least 1 and padding at least 0; got {layer}"
        )


def _windows(layer: Conv2d | ConvTranspose2d, size: Shape) -> Shape:
    """How many windows of the layer fit into an image of this size."""
    square = tuple((n, n) for n in (layer.kernel, layer.stride, layer.padding))
    return window_count((size[0], size[1]), *square)


def _ones_like_channel(x: Any) -> Array:
    """Ones (1, H, W, 1) of the module and dtype of x: made apart from x,
    so that what follows is constant in a solve.
    """
    return namespace_of(base_value(x)).ones((1, *shape_of(x)[1:3], 1), dtype_of(x))
