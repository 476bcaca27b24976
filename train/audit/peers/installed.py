"""Which libraries are there to compare with, and their gradient methods on a problem."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from ..case import Case, Problem
from .peer import Peer, checked

PACKAGES = {"torchdiffeq": ("torch", "torchdiffeq"), "diffrax": ("jax", "diffrax")}


def missing_packages() -> list[str]:
    """The libraries to compare with that are not installed."""
    return [
        library
        for library, needed in PACKAGES.items()
        if any(importlib.util.find_spec(package) is None for package in needed)
    ]


def peers_of(problem: Problem, case: Case, most_steps: int) -> Iterator[Peer]:
    """All methods of the libraries that are installed, each checked; none for a problem that is not portable.

    Raises: NeuralODEError where a peer computes another slope or loss than we do.
    """
    if problem.portable is None:
        return
    missing = missing_packages()
    if "torchdiffeq" not in missing:
        from .torchdiffeq_peer import torchdiffeq_peers

        yield from (checked(peer, case) for peer in torchdiffeq_peers(problem.portable, case, most_steps))
    if "diffrax" not in missing:
        from .diffrax_peer import diffrax_peers

        yield from (checked(peer, case) for peer in diffrax_peers(problem.portable, case, most_steps))
