"""Solvers of ordinary differential equations, and the ways to differentiate through them."""

from .adams import AdamsBashforth, AdamsBashforthMoulton
from .controller import PIController
from .controllers import CONTROLLERS
from .dense import Dense
from .digital_filter import FilterController
from .events import Event, Occurrences
from .implicit import Esdirk5, ImplicitEuler, Kvaerno5, Radau5, Rosenbrock23, Trapezoid
from .leapfrog import Leapfrog
from .methods import METHODS
from .odeint import odeint
from .predictive import PredictiveController
from .solution import Aux, Solution, StepInfo
from .solve_ivp import IvpResult, IvpSolution, solve_ivp
from .stats import RowStats, Stats
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
    "Esdirk5",
    "Event",
    "FilterController",
    "ImplicitEuler",
    "IvpResult",
    "IvpSolution",
    "Kvaerno5",
    "Leapfrog",
    "Occurrences",
    "PIController",
    "PredictiveController",
    "Radau5",
    "Rosenbrock23",
    "RowStats",
    "Solution",
    "Stats",
    "Step",
    "StepInfo",
    "Stepper",
    "Tableau",
    "Trapezoid",
    "odeint",
    "rk_step",
    "solve_ivp",
]
