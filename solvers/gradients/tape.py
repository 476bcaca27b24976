"""`tape`: the derivative of the steps taken, accepted grid held fixed; exact to round-off.

The accepted steps are walked once more on traced values, with the readable `rk_step` and ordinary operations,
and the trace is pulled back. It shares no code with the hand-written adjoints, which is why it is their
oracle; and because it consists of operations it can itself be differentiated.
Held fixed are the interior accepted times. The first and the last step stretch with ts[0] and ts[-1], and an
interior output time moves along the interpolant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...engine import ops
from ...engine.backend import to_host
from ...engine.trace import Var, base_value
from ..dynamics import Dynamics
from ..stepping import extra_slopes, rk_step, weighted_sum
from ..tableau import Tableau
from ..trajectory import locate


def walk(
    dynamics: Dynamics,
    tableau: Tableau,
    grid: np.ndarray,
    y0: Any,
    ts: Any,
    params: Sequence[Any],
    hidden: Sequence[Any],
) -> Any:
    """The states (T, n) at the output times `ts` (T,), computed from y0 (n,) over the accepted times `grid`.

    Cost: as many evaluations of f as the accepted steps have stages (extra ones where outputs lie inside).
    """
    times = _times(ts)
    output_steps, thetas = locate(to_host(base_value(ts)).astype(np.float64), grid)
    n_steps = len(grid) - 1

    def f(t: Any, y: Any) -> Any:
        return dynamics.slope(t, y, params, hidden)

    outputs: list[Any] = [y0] + [None] * (len(times) - 1)
    at_node: list[int] = []
    y, slope = y0, None
    for n in range(n_steps):
        t = times[0] if n == 0 else float(grid[n])
        t_next = times[-1] if n == n_steps - 1 else float(grid[n + 1])
        h = t_next - t
        y_next, _, k = rk_step(f, t, y, h, tableau, slope)
        _move_along(outputs, at_node, times, float(grid[n]), k[0])
        at_node = []
        outputs_here = np.flatnonzero((output_steps == n) & (np.arange(len(times)) > 0))
        slopes = extra_slopes(f, t, y, h, tableau, k) if np.any(thetas[outputs_here] < 1.0) else k
        for i in outputs_here:
            if thetas[i] < 1.0:
                outputs[i] = _interpolated(tableau, y, h, slopes, (times[i] - t) / h)
            else:
                outputs[i] = y_next
                if i < len(times) - 1:
                    at_node.append(int(i))
        y, slope = y_next, k[-1] if tableau.fsal else None
    return ops.stack(outputs)


def _times(ts: Any) -> list[Any]:
    """The output times as numbers, traced where ts is."""
    if type(ts) is not Var:
        return to_host(ts).astype(np.float64).tolist()
    return [ops.as_number(ops.getitem(ts, i)) for i in range(len(ts))]


def _move_along(outputs: list[Any], at_node: list[int], times: list[Any], node: float, slope: Any) -> None:
    """An output time that is an accepted time as well: the derivative of the solution there is the slope."""
    for i in at_node:
        if type(times[i]) is Var:
            outputs[i] = outputs[i] + (times[i] - node) * slope


def _interpolated(tableau: Tableau, y: Any, h: Any, k: Sequence[Any], theta: Any) -> Any:
    """y + h sum_i b_i(theta) k_i."""
    interpolant = tableau.as_floats().interpolant
    assert interpolant is not None
    total, power = None, theta
    for column in interpolant.T:
        term = power * weighted_sum(column, k)
        total = term if total is None else total + term
        power = power * theta
    return y + h * total
