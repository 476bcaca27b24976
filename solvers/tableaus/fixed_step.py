"""Methods without an error estimate, for steps of a given size."""

from __future__ import annotations

from ..tableau import Tableau, rationals, rows_of

EULER = Tableau(
    name="euler",
    order=1,
    c=rationals("0"),
    a=rows_of(""),
    b=rationals("1"),
    source="Euler (1768), Institutiones calculi integralis, volume I",
)

MIDPOINT = Tableau(
    name="midpoint",
    order=2,
    c=rationals("0  1/2"),
    a=rows_of("; 1/2"),
    b=rationals("0  1"),
    source="Runge (1895), Math. Annalen 46, 167-178; Hairer, Norsett & Wanner (1993), Table II.1.1",
)

HEUN = Tableau(
    name="heun",
    order=2,
    c=rationals("0  1"),
    a=rows_of("; 1"),
    b=rationals("1/2  1/2"),
    source="Heun (1900), Z. Math. Phys. 45, 23-38: the trapezoidal rule with Euler's step as predictor",
)

RALSTON = Tableau(
    name="ralston",
    order=2,
    c=rationals("0  2/3"),
    a=rows_of("; 2/3"),
    b=rationals("1/4  3/4"),
    source="Ralston (1962), Runge-Kutta methods with minimum error bounds, Math. Comp. 16, 431-437",
)

RK4 = Tableau(
    name="rk4",
    order=4,
    c=rationals("0  1/2  1/2  1"),
    a=rows_of("; 1/2; 0  1/2; 0  0  1"),
    b=rationals("1/6  1/3  1/3  1/6"),
    source="Kutta (1901), Z. Math. Phys. 46, 435-453; Hairer, Norsett & Wanner (1993), Table II.1.2",
)

THREE_EIGHTHS = Tableau(
    name="three_eighths",
    order=4,
    c=rationals("0  1/3  2/3  1"),
    a=rows_of("; 1/3; -1/3  1; 1  -1  1"),
    b=rationals("1/8  3/8  3/8  1/8"),
    source="Kutta (1901), Z. Math. Phys. 46, 435-453; Hairer, Norsett & Wanner (1993), Table II.1.2 (3/8 rule)",
)
