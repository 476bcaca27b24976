"""The first step size, from norms of the state, of its slope and of the change of slope over one probe."""

from __future__ import annotations

import math

SMALL_STEP = 1e-6  # where the norms say nothing; the controller grows it tenfold a step


def probe_step(y_norm: float, f_norm: float, interval: float) -> float:
    """Size h0 of the explicit Euler step that probes how fast the slope changes.

    Args:
        y_norm, f_norm: scaled norms d0, d1 of y0 and f(t0, y0); the scale is atol + rtol |y0|.
        interval: t1 - t0, signed and not zero.
    Returns: h0 with the sign of `interval`, 0 < |h0| <= |interval|.
    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section II.4, starting step size (a) to (c).
    """
    h0 = SMALL_STEP
    if math.isfinite(y_norm) and math.isfinite(f_norm) and min(y_norm, f_norm) >= 1e-5:
        h0 = 0.01 * y_norm / f_norm
    return math.copysign(min(h0, abs(interval)), interval)


def first_step(h0: float, f_norm: float, curvature: float, order: int, interval: float) -> float:
    """Size of the first step: an Euler step of it would make an error of about 0.01 in the scaled norm.

    Args:
        h0: what `probe_step` returned.
        f_norm: d1 as in `probe_step`.
        curvature: d2, the scaled norm of f(t0 + h0, y0 + h0 f0) - f0, divided by |h0|.
        order: power of h with which the error estimate vanishes, `Tableau.error_order` (dopri5: 5).
        interval: t1 - t0, signed and not zero.
    Returns: h with the sign of `interval`, 0 < |h| <= |interval|. A probe that met NaN or infinity gives a
        step a thousand times shorter than the probe.
    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section II.4, starting step size (d) to (f); the
        power 1/order is that of their code DOPRI5.
    """
    probe = abs(h0)
    if not (math.isfinite(f_norm) and math.isfinite(curvature)):
        h = 1e-3 * probe
    elif max(f_norm, curvature) <= 1e-15:
        h = max(SMALL_STEP, 1e-3 * probe)
    else:
        h = (0.01 / max(f_norm, curvature)) ** (1.0 / order)
    return math.copysign(min(100.0 * probe, h, abs(interval)), interval)
