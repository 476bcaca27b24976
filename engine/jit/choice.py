"""Whether elementwise work, steps of optimisers and the transforms of convolutions are left to NumPy or done
by machine code: by numba where it is installed, unless one is named.

`ODEGRAD_FUSION=numpy` does without kernels, `ODEGRAD_FUSION=numba` asks for them:
it is an error if numba is missing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeVar

from ..errors import ArgumentError

logger = logging.getLogger("odegrad")

CHOICE = "ODEGRAD_FUSION"  # the environment variable: numpy, numba, or empty for numba where it is installed
Maker = TypeVar("Maker")


def maker_if_chosen(importable: Callable[[], Maker | None]) -> Maker | None:
    """What `importable` gives, None where NumPy is to work. Raises: ArgumentError of the choice."""
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "numpy", "numba"):
        raise ArgumentError(f"{CHOICE} must be numpy, numba or empty; got {choice!r}")
    found = None if choice == "numpy" else importable()
    if choice == "numba" and found is None:
        raise ArgumentError(f"{CHOICE}=numba, but numba cannot be imported: pip install 'odegrad[jit]'")
    return found


def imported(what: str, import_it: Callable[[], Maker]) -> Maker | None:
    """What is imported from a module that needs numba; None without numba.

    Args:
        what: the work that is then left to NumPy, for the log:
            a numba that is there and cannot be used is a surprise.
    """
    try:
        return import_it()
    except ImportError as error:
        if error.name != "numba":  # installed, but not for this Python or NumPy
            logger.warning("odegrad: %s are left to NumPy: %s", what, error)
        return None
