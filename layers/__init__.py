"""Layers: one contract for all, from the affine map to the block that solves an ODE."""

from .activations import GELU, Identity, ReLU, Sigmoid, SiLU, Softplus, Tanh
from .batch_norm import BatchNorm
from .chain import Chain, Skip
from .convolution import Conv2d, ConvTranspose2d
from .dropout import Dropout
from .group_norm import GroupNorm
from .layer import Layer
from .linear import Linear
from .moments import Moments
from .normalization import READINGS, normalization
from .ode_block import ODEBlock, Solved, solves
from .pooling import AvgPool2d, GlobalAvgPool, MaxPool2d
from .shaping import Flatten, TimeConcat
from .ta_batch_norm import TABatchNorm
from .time_grid import uniform_nodes
from .unet import unet

__all__ = [
    "READINGS",
    "AvgPool2d",
    "BatchNorm",
    "Chain",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Flatten",
    "GELU",
    "GlobalAvgPool",
    "GroupNorm",
    "Identity",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Moments",
    "ODEBlock",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Skip",
    "Softplus",
    "Solved",
    "TABatchNorm",
    "Tanh",
    "TimeConcat",
    "normalization",
    "solves",
    "uniform_nodes",
    "unet",
]
