"""A gradient method of another library on one case, checked to solve the same problem."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ....engine.errors import NeuralODEError
from ..case import Case
from ..gradient import Gradient


class PeerFailure(Exception):
    """A library gave up on a solve; the message is its own."""


class Peer(ABC):
    """One gradient method of another library, with its dopri5, on a portable problem in one precision.

    Attributes:
        name: of library and method.
    """

    name: str

    @abstractmethod
    def compile(self) -> None:
        """Do what is done once, so that `gradient` can be timed and is not found slow."""

    @abstractmethod
    def gradient(self, rtol: float, atol: float) -> Gradient:
        """Of the loss with respect to y0, params and, where the method has it, ts; or PeerFailure."""

    @abstractmethod
    def counts(self, rtol: float, atol: float) -> dict[str, int]:
        """nfe_forward, nfe_backward, n_vjp_state and n_vjp_params of the two passes of `gradient`.

        A pull-back that gives the cotangents of state and parameters at once counts as one of each.
        """

    @abstractmethod
    def slope(self, t: float, y: np.ndarray) -> np.ndarray:
        """f(t, y, params)."""

    @abstractmethod
    def loss(self, ys: np.ndarray) -> float:
        """The loss of a solution (T, *y.shape)."""


def checked(peer: Peer, case: Case) -> Peer:
    """The peer, if its slopes at three times and states and its loss are ours; else NeuralODEError."""
    eps = float(np.finfo(case.y0.dtype).eps)
    states = [case.y0 * case.y0.dtype.type(scale) for scale in (1.0, 0.9, 1.1)]
    times = np.linspace(case.ts[0], case.ts[-1], 5)[1:4].tolist()  # neither end: TA-BN has nodes there
    for t, y in zip(times, states, strict=True):
        ours, theirs = np.asarray(case.f(t, y, case.params)), peer.slope(t, y)
        apart, scale = np.abs(theirs - ours).max(), np.abs(ours).max()
        if not apart <= 1000 * eps * scale:
            raise NeuralODEError(
                f"{peer.name} computes another slope than we do at t = {t:g}: {apart:.1e} apart, the largest "
                f"entry is {scale:.1e}; nothing can be compared"
            )
    ys = np.stack(states)
    loss, found = float(case.loss(ys)), peer.loss(ys)
    if not abs(found - loss) <= 1000 * eps * abs(loss):
        raise NeuralODEError(f"{peer.name} computes another loss than we do: {found!r}, expected {loss!r}")
    return peer
