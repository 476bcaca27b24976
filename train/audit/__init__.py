"""How right is a gradient through an ODE, by which method, and at what cost? One page for a problem."""

from .case import Case, Portable, Problem
from .growth import audit_growth
from .measure import Measurement, measure
from .problems import FAMILIES, PROBLEMS, growing_problems, named_problem
from .reference import Reference, reference
from .report import audit

__all__ = [
    "FAMILIES",
    "PROBLEMS",
    "Case",
    "Measurement",
    "Portable",
    "Problem",
    "Reference",
    "audit",
    "audit_growth",
    "growing_problems",
    "measure",
    "named_problem",
    "reference",
]
