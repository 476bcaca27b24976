"""Step sizes in machine code: the formulas of `first_step.py` and `controller.PIController` on plain
numbers.
"""

from __future__ import annotations

import math
import sys

from ...engine.jit.functions import called
from ...engine.jit.memory import load
from .. import first_step as formulas
from ..controller import SMALLEST_REMEMBERED_ERROR
from . import job

NO_ERROR = -1.0  # stands for the error of the latest accepted step before there is one
TINY = sys.float_info.min

probe_step = called(formulas.probe_step)
first_step = called(formulas.first_step)


@called
def rejected_factor(error, reals):
    """What a rejected step is multiplied with."""
    if not math.isfinite(error):
        return load(reals, job.MIN_FACTOR)
    return max(
        load(reals, job.MIN_FACTOR), load(reals, job.SAFETY) * error ** (-1.0 / load(reals, job.ORDER))
    )


@called
def accepted_factor(error, remembered, was_rejected, reals):
    """What an accepted step is multiplied with; `remembered` is the error of the accepted step before it."""
    order, beta, safety = load(reals, job.ORDER), load(reals, job.BETA), load(reals, job.SAFETY)
    if error < TINY:
        factor = load(reals, job.MAX_FACTOR)
    elif remembered == NO_ERROR:
        factor = safety * error ** (-1.0 / order)
    else:
        memory = max(remembered, SMALLEST_REMEMBERED_ERROR)
        factor = safety * error ** -(1.0 / order - 0.75 * beta) * memory**beta
    largest = 1.0 if was_rejected else load(reals, job.MAX_FACTOR)
    return max(load(reals, job.MIN_FACTOR), min(largest, factor))
