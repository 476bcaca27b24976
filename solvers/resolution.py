"""Whether the tolerances of a solve are ones that its arithmetic can resolve.

A step's error estimate is a difference of slopes. Once what was rounded off in the slopes is as large as the
tolerance, a smaller tolerance shrinks steps without making the solution more accurate. On the network of the
digits (dopri5; operands rounded as `engine.product_precision` says), solves to rtol = atol took these
evaluations of f, and the logits behind them were this far, relatively,
from those in float32 (`benchmarks/precision.py`):

| rtol | float32 | TF32 | bfloat16 |
|---|---|---|---|
| 1e-2 | 20 | 20, 1.9e-3 off | 20, 1.6e-2 off |
| 1e-3 | 26 | 26, 2.8e-3 off | 26, 9.6e-3 off |
| 1e-4 | 38 | 38, 2.1e-3 off | 50, 7.6e-3 off |
| 1e-5 | 62 | 68, 1.3e-3 off | 206, 5.1e-3 off |
| 1e-6 | 134 | 272, 1.1e-3 off | 1820, 5.5e-3 off |

So tolerances below the error of rounding one operand (2**-10, 2**-8) gain nothing,
and soon they cost evaluations.
"""

from __future__ import annotations

import warnings

import numpy as np

from ..engine.errors import PrecisionWarning
from ..engine.product_precision import OPERAND_ERRORS, current_products
from .caller import level_of_caller
from .dynamics import Dynamics
from .options import Options
from .tolerances import shown, smallest


def warn_unresolved(options: Options, dynamics: Dynamics) -> None:
    """`PrecisionWarning` where rtol and atol are both below what the arithmetic of this solve resolves.

    That is the machine epsilon of the state, or the error of an operand where products are rounded further.
    The absolute tolerance counts as it stands: states are taken to be of order one.
    """
    if not options.method.is_adaptive:
        return
    asked = max(smallest(options.rtol), smallest(options.atol))
    dtype = dynamics.layout.dtype
    precision = current_products().precision
    rounds_operands = precision != "fp32" and dynamics.xp is not np and dtype == np.float32
    resolved = OPERAND_ERRORS[precision] if rounds_operands else float(np.finfo(dtype).eps)
    if asked >= resolved:
        return
    cause = (
        f"products in {precision}, which round their operands by up to {resolved:.1e} of their size"
        if rounds_operands
        else f"{dtype}, whose machine epsilon is {resolved:.1e}"
    )
    other = "a product_precision with more bits" if rounds_operands else "float64"
    warnings.warn(
        f"odeint: rtol={shown(options.rtol)} and atol={shown(options.atol)} are below what can be resolved in {cause}: "
        f"smaller tolerances shrink the steps and gain no accuracy. Set rtol or atol to {resolved:.0e} or more, or use "
        f"{other}.",
        PrecisionWarning,
        stacklevel=level_of_caller(),
    )
