"""Explicit Runge-Kutta methods as data."""

from .by_name import TABLEAUS
from .dop853 import DOP853
from .fifth_order import CASH_KARP, DOPRI5, RKF45
from .fixed_step import EULER, HEUN, MIDPOINT, RALSTON, RK4, THREE_EIGHTHS
from .low_order import BOSH3, FEHLBERG12, FEHLBERG32, HEUN_EULER
from .tsit5 import TSIT5
from .vern6 import VERN6
from .vern7 import VERN7

__all__ = [
    "BOSH3",
    "CASH_KARP",
    "DOP853",
    "DOPRI5",
    "EULER",
    "FEHLBERG12",
    "FEHLBERG32",
    "HEUN",
    "HEUN_EULER",
    "MIDPOINT",
    "RALSTON",
    "RK4",
    "RKF45",
    "TABLEAUS",
    "THREE_EIGHTHS",
    "TSIT5",
    "VERN6",
    "VERN7",
]
