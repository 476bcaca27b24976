"""Ways to differentiate a solve. Each opens by saying what it is exact about."""

from .backsolve import BacksolveStages
from .continuous import AdjointStages, solve_adjoint
from .discrete import Cotangents, DiscreteAdjoint
from .drift import DriftGuard
from .evaluations import EagerEvaluations, ReplayEvaluations
from .interpolated import InterpolatedStages
from .reversible import ReversibleAdjoint
from .tape import walk

__all__ = [
    "AdjointStages",
    "BacksolveStages",
    "Cotangents",
    "DiscreteAdjoint",
    "DriftGuard",
    "EagerEvaluations",
    "InterpolatedStages",
    "ReplayEvaluations",
    "ReversibleAdjoint",
    "solve_adjoint",
    "walk",
]
