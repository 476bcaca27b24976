"""Solves in which every row of a batch has its own time, step size and end."""

from .solve import solve_independent

__all__ = ["solve_independent"]
