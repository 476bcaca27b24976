"""Stiff problems with published end states, shared by the tests of implicit methods.

Source: Mazzia & Magherini (2008), Test Set for Initial Value Problem Solvers, release 2.4: HIRES and VDPOL (there in
time divided by mu, which divides the speed by mu too); Robertson at t = 40: Hairer & Wanner (1996), Solving ODEs II,
section IV.10. Each was compared with SciPy's Radau at rtol 1e-12.
"""

import numpy as np
from problems import problem


def robertson(t, y):
    slow, fast, growth = 0.04 * y[..., 0], 3e7 * y[..., 1] ** 2, 1e4 * y[..., 1] * y[..., 2]
    return np.stack([growth - slow, slow - growth - fast, fast], axis=-1)


def van_der_pol(t, y):
    x, v = y[..., 0], y[..., 1]
    return np.stack([v, 1e3 * (1.0 - x**2) * v - x], axis=-1)


def hires(t, y):
    a, b, c, d, e, f, g, h = (y[..., i] for i in range(8))
    rates = [
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
        1.71 * a - 8.75 * b,
        -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d,
        -1.745 * e + 0.43 * f + 0.43 * g,
        -280.0 * f * h + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
        280.0 * f * h - 1.81 * g,
        -280.0 * f * h + 1.81 * g,
    ]
    return np.stack(rates, axis=-1)


ROBERTSON = problem(
    "robertson",
    robertson,
    y0=[1.0, 0.0, 0.0],
    t1=40.0,
    y1=[0.7158270687194, 9.185534764558e-6, 0.2841637457458],
)
VAN_DER_POL = problem(
    "van_der_pol_1000",
    van_der_pol,
    y0=[2.0, 0.0],
    t1=2000.0,
    y1=[1.706167732170483, -0.8928097010247975e-3],
)
HIRES = problem(
    "hires",
    hires,
    y0=[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057],
    t1=321.8122,
    y1=[
        0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4, 0.1175651343283149e-2,
        0.2386356198831331e-2, 0.6238968252742796e-2, 0.2849998395185769e-2, 0.2850001604814231e-2,
    ],
)  # fmt: skip
