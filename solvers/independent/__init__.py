"""Solves in which every row of a batch has its own time, step size and end."""

from .row_stats import RowStats
from .solve import solve_independent

__all__ = ["RowStats", "solve_independent"]
