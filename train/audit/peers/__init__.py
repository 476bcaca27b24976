"""Gradients by torchdiffeq and diffrax on the same problems: an extra, used where it is installed."""

from .installed import missing_packages, peers_of
from .peer import Peer, PeerFailure

__all__ = ["Peer", "PeerFailure", "missing_packages", "peers_of"]
