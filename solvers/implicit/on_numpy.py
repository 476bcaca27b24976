"""What implicit methods ask of a state."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine.backend import namespace_of
from ...engine.errors import ArgumentTypeError
from ...engine.trace import base_value
from ...engine.tree import leaves


def check_numpy(name: str, y0: Any) -> None:
    """ArgumentTypeError for a state that is not on NumPy arrays: the Krylov solver is SciPy's."""
    xp = namespace_of(*(base_value(leaf) for leaf in leaves(y0)))
    if xp is not np:
        raise ArgumentTypeError(
            f"method={name!r} with linear_solver='krylov' works on NumPy arrays; got `y0` of {xp.__name__}. Use "
            "linear_solver='dense', or move the state to the host"
        )
