"""Ways to differentiate a solve. Each opens by saying what it is exact about."""

from .backsolve import EagerAdjointStages, ReplayAdjointStages, backsolve
from .discrete import Cotangents, DiscreteAdjoint
from .drift import DriftGuard
from .tape import walk

__all__ = [
    "Cotangents",
    "DiscreteAdjoint",
    "DriftGuard",
    "EagerAdjointStages",
    "ReplayAdjointStages",
    "backsolve",
    "walk",
]
