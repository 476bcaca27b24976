"""Implicit methods for stiff problems: Radau IIA, diagonally implicit Runge-Kutta and Rosenbrock."""

from .dirk import DiagonallyImplicit, Esdirk5, ImplicitEuler, Kvaerno5, Trapezoid
from .dirk_tableau import DirkTableau
from .radau import Radau5
from .rosenbrock import Rosenbrock23

__all__ = [
    "DiagonallyImplicit",
    "DirkTableau",
    "Esdirk5",
    "ImplicitEuler",
    "Kvaerno5",
    "Radau5",
    "Rosenbrock23",
    "Trapezoid",
]
