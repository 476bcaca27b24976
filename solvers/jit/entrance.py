"""Whether a solve can be made in machine code, and the line that says why not."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import MISSING, fields
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...engine.errors import ArgumentError
from ..compiled import Compiled, Purpose, compiled_for
from ..controller import PIController
from ..controllers import controller_for
from ..dynamics import Dynamics
from ..forward import Forward
from ..options import Options
from ..stats import Stats
from ..tableau import Tableau

logger = logging.getLogger("odegrad")

# what the loops in machine code do, whatever the value
KNOWN_OPTIONS = frozenset(
    (
        "method", "rtol", "atol", "gradient", "keep", "keep_bytes", "execution", "max_steps", "max_step", "first_step",
        "step_size", "grid", "controller", "backward_rtol", "backward_atol", "drift_limit", "coupling", "warn_stiff",
    )
)  # fmt: skip
OTHERS = tuple(
    (field.name, None if field.default is MISSING else field.default)
    for field in fields(Options)
    if field.name not in KNOWN_OPTIONS
)
_refused: WeakKeyDictionary[Compiled, str] = WeakKeyDictionary()
_told: set[str] = set()


def solve_compiled(
    dynamics: Dynamics,
    options: Options,
    times: np.ndarray,
    purpose: Purpose,
    *,
    keeps_path: bool,
    stats: Stats | None = None,
) -> Forward | None:
    """The forward pass in machine code; None, and a line in the log, where replay has to make it.

    Raises: ArgumentError if numba is not installed.
    """
    if not _has_numba():
        raise ArgumentError(
            "execution='compiled' needs numba, which is not installed: pip install 'odegrad[jit]', or pass "
            "execution='replay'"
        )
    reason = _unknown(dynamics, options, purpose, keeps_path, len(times))
    if reason:
        _tell(reason)
        return None
    compiled = compiled_for(dynamics, purpose)
    if compiled in _refused:
        return None
    solve, Unsupported = _solver()
    try:
        return solve(dynamics, options, times, purpose, compiled, Stats() if stats is None else stats)
    except Unsupported as error:
        _refused[compiled] = str(error)
        _tell(str(error))
        return None


def _unknown(dynamics: Dynamics, options: Options, purpose: Purpose, keeps_path: bool, n_times: int) -> str:
    """What the loops in machine code do not do; empty if they do all that is asked for."""
    if dynamics.xp is not np:
        return "arrays on a device"
    if dynamics.layout.dtype.kind != "f" or not dynamics.layout.size:
        return f"a state of {dynamics.layout.dtype} with {dynamics.layout.size} values"
    if not isinstance(options.method, Tableau):
        return f"method={options.method.name!r}"
    if options.tableau.b_coarse is not None:
        return f"method={options.method.name!r}, with two error estimates"
    if options.tableau.extra_c and n_times > 2:
        return f"method={options.method.name!r} with output times inside of steps"
    if options.gradient == "reversible":
        return "gradient='reversible'"
    if keeps_path:
        return "gradient='interpolated'"
    if purpose.time:
        return "a derivative with respect to `ts`"
    if dynamics.has_aux:
        return "has_aux=True"
    if any(not isinstance(getattr(options, name), (int, float)) for name in ("rtol", "atol")):
        return "tolerances that are arrays"
    if options.controller is not None:
        found = controller_for(options.controller, options.tableau.error_order or 1)
        if type(found) is not PIController:
            return f"controller={options.controller!r}"
    return next((f"`{name}`" for name, default in OTHERS if _differs(getattr(options, name), default)), "")


def _differs(value: Any, default: Any) -> bool:
    return value is not default and (isinstance(value, np.ndarray) or value != default)


@cache
def _solver() -> tuple[Any, type[Exception]]:
    """`solve`, which imports numba, and what it raises."""
    from ...engine.jit import Unsupported
    from .solve import solve

    return solve, Unsupported


@cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def _tell(reason: str) -> None:
    """One line for each reason."""
    if reason not in _told:
        _told.add(reason)
        logger.warning("odegrad: execution='compiled' does not know %s; the solve is replayed", reason)
