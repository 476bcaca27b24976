"""Elementwise nonlinearities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..engine import ops
from ..engine.tree import Tree
from .layer import Layer


class Elementwise(Layer):
    """A function of each entry, with neither weights nor statistics."""

    function: ClassVar[Any]  # a function of one array

    def apply(
        self, weights: Tree, stats: Tree, t: Any, x: Any, *, mode: str, key: Any = None
    ) -> tuple[Any, Tree]:
        """x of any shape -> the same shape."""
        return type(self).function(x), None


@dataclass(frozen=True)
class Identity(Elementwise):
    """y = x: the place of a layer that is left out."""

    function = staticmethod(lambda x: x)


@dataclass(frozen=True)
class ReLU(Elementwise):
    """y = max(x, 0); the derivative at 0 is 0."""

    function = staticmethod(ops.relu)


@dataclass(frozen=True)
class Tanh(Elementwise):
    """y = tanh(x)."""

    function = staticmethod(ops.tanh)


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x))."""

    function = staticmethod(ops.sigmoid)


@dataclass(frozen=True)
class Softplus(Elementwise):
    """y = log(1 + exp(x))."""

    function = staticmethod(ops.softplus)


@dataclass(frozen=True)
class GELU(Elementwise):
    """y = x Phi(x), by the tanh approximation (Hendrycks & Gimpel 2016)."""

    function = staticmethod(ops.gelu)


@dataclass(frozen=True)
class SiLU(Elementwise):
    """y = x sigmoid(x)."""

    function = staticmethod(ops.silu)
