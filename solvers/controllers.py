"""The step-size controllers by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .controller import Controller, PIController
from .digital_filter import FilterController
from .predictive import PredictiveController

SODERLIND = "Soderlind (2003), ACM TOMS 29, 1-26, Table III"
DEFAULT = "i"  # the steps, and so the errors, of SciPy's methods at the same tolerance (docs/solvers.md)


@dataclass(frozen=True)
class Preset:
    """A controller for any order (`Tableau.error_order`), and where its constants are published."""

    make: Callable[[int], Controller]
    source: str


def _filter(
    betas: tuple[float, float, float], alphas: tuple[float, float] = (0.0, 0.0)
) -> Callable[[int], Controller]:
    return lambda order: FilterController(order, betas, alphas)


CONTROLLERS: dict[str, Preset] = {
    "i": Preset(
        lambda order: PIController(order, beta=0.0),
        "classical control: Hairer, Norsett & Wanner (1993), Solving ODEs I, equation (II.4.13)",
    ),
    "pi": Preset(PIController, "Hairer & Wanner (1996), Solving ODEs II, section IV.2, code DOPRI5"),
    "gustafsson": Preset(_filter((0.7, -0.4, 0.0)), "PI.3.4 of Gustafsson (1991), ACM TOMS 17, 533-554"),
    "pi33": Preset(_filter((2 / 3, -1 / 3, 0.0)), "PI.3.3: Soderlind (2002), Numer. Algorithms 31, 281-310"),
    "pi42": Preset(_filter((0.6, -0.2, 0.0)), "PI.4.2: Soderlind (2002), Numer. Algorithms 31, 281-310"),
    "pid": Preset(
        _filter((0.58, -0.21, 0.10)), "the constants of ARKODE (SUNDIALS), for any kind of problem"
    ),
    "h211pi": Preset(_filter((1 / 6, 1 / 6, 0.0)), SODERLIND),
    "h211b": Preset(_filter((1 / 4, 1 / 4, 0.0), (1 / 4, 0.0)), f"{SODERLIND}, with b = 4"),
    "h312pid": Preset(_filter((1 / 18, 1 / 9, 1 / 18)), SODERLIND),
    "h312b": Preset(_filter((1 / 8, 2 / 8, 1 / 8), (3 / 8, 1 / 8)), f"{SODERLIND}, with b = 8"),
    "predictive": Preset(PredictiveController, "Hairer & Wanner (1996), Solving ODEs II, section IV.8"),
    "h321": Preset(_filter((1 / 3, 1 / 18, -5 / 18), (-5 / 6, -1 / 6)), SODERLIND),
}


def controller_for(choice: str | Controller | None, order: int) -> Controller:
    """The controller that a user chose, for an error estimate of this order; None is DEFAULT."""
    choice = DEFAULT if choice is None else choice
    return CONTROLLERS[choice].make(order) if isinstance(choice, str) else choice
