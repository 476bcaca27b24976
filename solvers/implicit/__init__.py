"""Implicit methods for stiff problems: diagonally implicit Runge-Kutta and Rosenbrock."""

from .dirk import DiagonallyImplicit, Esdirk5, ImplicitEuler, Kvaerno5, Trapezoid
from .dirk_tableau import DirkTableau
from .rosenbrock import Rosenbrock23

__all__ = [
    "DiagonallyImplicit",
    "DirkTableau",
    "Esdirk5",
    "ImplicitEuler",
    "Kvaerno5",
    "Rosenbrock23",
    "Trapezoid",
]
