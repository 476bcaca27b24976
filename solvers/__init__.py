"""Adaptive and fixed-step Runge-Kutta solvers, and the ways to differentiate through them."""

from .adams import AdamsBashforth, AdamsBashforthMoulton
from .controller import PIController
from .controllers import CONTROLLERS
from .dense import Dense
from .digital_filter import FilterController
from .leapfrog import Leapfrog
from .methods import METHODS
from .odeint import odeint
from .solution import Aux, Solution, Stats, StepInfo
from .stepper import Step, Stepper
from .stepping import rk_step
from .tableau import Tableau
from .tableaus import TABLEAUS

__all__ = [
    "CONTROLLERS",
    "METHODS",
    "TABLEAUS",
    "AdamsBashforth",
    "AdamsBashforthMoulton",
    "Aux",
    "Dense",
    "FilterController",
    "Leapfrog",
    "PIController",
    "Solution",
    "Stats",
    "Step",
    "StepInfo",
    "Stepper",
    "Tableau",
    "odeint",
    "rk_step",
]
