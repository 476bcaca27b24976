"""Tools that judge gradients: derivatives without rules, transpose and Taylor tests,
a report leaf by leaf.
"""

from .complex_step import complex_step
from .derivative import Derivative, central_difference
from .directions import random_direction
from .dot_product import DotProductReport, dot_product_test
from .gradients import gradients
from .report import GradientReport, LeafReport, WorstEntry
from .taylor import TaylorReport, taylor_test

__all__ = [
    "Derivative",
    "DotProductReport",
    "GradientReport",
    "LeafReport",
    "TaylorReport",
    "WorstEntry",
    "central_difference",
    "complex_step",
    "dot_product_test",
    "gradients",
    "random_direction",
    "taylor_test",
]
