"""Gradients by torchdiffeq and diffrax on the same problems: an extra, used where it is installed."""

from .installed import missing_packages, peers_of
from .peer import Peer

__all__ = ["Peer", "missing_packages", "peers_of"]
