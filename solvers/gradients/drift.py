"""The drift of a state that is solved back instead of stored: measured where both are known,
and refused beyond a limit.

A gradient along a state that is not the forward one is the gradient of another solution. It looks like any
other number, so that the only honest result is an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.backend import Array, namespace_of, to_number
from ...engine.errors import DriftError
from ..options import Options
from ..stats import Stats
from ..tolerances import shown

MOST_UNITS = 1e3
FIXED_STEP_UNIT = 1e-3  # of the largest |y|


def units_allowed(drift_limit: float | None, rtol: Any) -> float:
    """`drift_limit`, by default `MOST_UNITS`, or where tolerances are loose as many units as half of |y| has.

    Of a state further away than that nothing is left to differentiate along.
    """
    return min(MOST_UNITS, 0.5 / to_number(np.max(rtol))) if drift_limit is None else drift_limit


@dataclass(frozen=True)
class DriftGuard:
    """Measures the drift of one backward pass in units of atol + rtol |y|, for the gradient method `name`.

    Args:
        rtol, atol: what makes the unit, numbers or arrays (n,); where the two passes differ, the looser
            tolerances, since neither state is better than its own.
        limit: drift beyond which `check` raises; math.inf for none.
        remedy: what to try first, a sentence without its full stop.
        stats: its `drift` becomes the largest one met.
    """

    name: str
    rtol: Any
    atol: Any
    limit: float
    remedy: str
    stats: Stats

    @classmethod
    def of_backward_solve(cls, name: str, options: Options, ys: Array, stats: Stats) -> DriftGuard:
        """The guard of a backward solve with these options, ys (T, n) the stored states.

        Fixed steps have no tolerances: their unit is a part of the largest |y|.
        """
        if not options.tableau.is_adaptive:
            atol = FIXED_STEP_UNIT * to_number(abs(ys).max()) if ys.size else 0.0
            limit = units_allowed(options.drift_limit, FIXED_STEP_UNIT)
            return cls(name, 0.0, atol, limit, "Take smaller steps", stats)
        backward = options.backward()
        rtol, atol = np.maximum(options.rtol, backward.rtol), np.maximum(options.atol, backward.atol)
        limit = units_allowed(options.drift_limit, rtol)
        return cls(name, rtol, atol, limit, "Tighten rtol and atol", stats)

    def check(self, t: float, y_back: Array, y: Array) -> None:
        """Compare the state solved back to t with the stored one, both (n,).

        DriftError beyond the limit, and beyond every limit where the drift is infinite.
        """
        drift = self._measured(y_back, y)
        self.stats.drift = max(drift, self.stats.drift)
        if drift > self.limit or drift == math.inf:
            raise DriftError(
                f"{self.name}: the state solved back to t={t:.6g} is {drift:.3g} x (atol + rtol |y|) away from that of "
                f"the forward solve (rtol={shown(self.rtol)}, atol={shown(self.atol)}), and `drift_limit` is "
                f"{self.limit:g}: the gradient would be that of another solution. {self.remedy}, give more output times "
                "(the state is anchored at each), or use gradient='interpolated' or 'discrete', which do not solve it back; "
                "drift_limit=math.inf accepts the drift.",
                drift=drift, limit=self.limit, t=t, stats=self.stats,
            )  # fmt: skip

    def _measured(self, y_back: Array, y: Array) -> float:
        """max |y_back - y| / (atol + rtol |y|); infinite where NaN or infinity came back.
        One read from the device.
        """
        distance = abs(y_back - y)
        if distance.size == 0:
            return 0.0
        xp = namespace_of(y)
        unit = xp.asarray(self.atol) + xp.asarray(self.rtol) * abs(y)
        unit[distance == 0.0] = math.inf  # where both are equal there is no drift, whatever the unit
        drift = to_number((distance / unit).max())
        return math.inf if math.isnan(drift) else drift
