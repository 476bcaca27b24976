"""Ways to differentiate a solve. Each opens by saying what it is exact about."""

from .backsolve import BacksolveStages
from .continuous import AdjointStages, solve_adjoint
from .discrete import Cotangents, DiscreteAdjoint
from .drift import DriftGuard
from .evaluations import EagerEvaluations, ReplayEvaluations
from .interpolated import InterpolatedStages
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
    "solve_adjoint",
    "walk",
]
