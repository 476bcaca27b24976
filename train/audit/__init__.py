"""How right is a gradient through an ODE, by which method, and at what cost? One page for a problem."""

from .measure import Measurement, Reference, measure, reference
from .problems import PROBLEMS, Case, Problem, named_problem
from .report import audit

__all__ = [
    "PROBLEMS",
    "Case",
    "Measurement",
    "Problem",
    "Reference",
    "audit",
    "measure",
    "named_problem",
    "reference",
]
