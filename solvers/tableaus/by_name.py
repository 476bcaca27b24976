"""The explicit Runge-Kutta methods, by name."""

from __future__ import annotations

from ..tableau import Tableau
from .dop853 import DOP853
from .fifth_order import CASH_KARP, DOPRI5, RKF45
from .fixed_step import EULER, HEUN, MIDPOINT, RALSTON, RK4, THREE_EIGHTHS
from .low_order import BOSH3, FEHLBERG12, FEHLBERG32, HEUN_EULER
from .tsit5 import TSIT5
from .vern6 import VERN6
from .vern7 import VERN7

FIXED_STEP = (EULER, MIDPOINT, HEUN, RALSTON, RK4, THREE_EIGHTHS)
ADAPTIVE = (
    HEUN_EULER, FEHLBERG12, FEHLBERG32, BOSH3, RKF45, CASH_KARP, DOPRI5, TSIT5, VERN6, VERN7, DOP853,
)  # fmt: skip

TABLEAUS: dict[str, Tableau] = {tableau.name: tableau for tableau in (*FIXED_STEP, *ADAPTIVE)}
