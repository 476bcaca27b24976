"""Solves in machine code: step, error norm, controller, loop and the sweep of `discrete`,
around compiled dynamics.

`entrance.py` decides whether a solve can be made so; only then is numba imported.
"""

from .entrance import solve_compiled

__all__ = ["solve_compiled"]
