"""Adaptive methods of orders 1 to 3."""

from __future__ import annotations

from ..tableau import Tableau, hermite_interpolant, rationals, rows_of

HEUN_EULER = Tableau(
    name="heun_euler",
    order=2,
    c=rationals("0  1"),
    a=rows_of("; 1"),
    b=rationals("1/2  1/2"),
    embedded_order=1,
    b_embedded=rationals("1  0"),
    interpolant_order=2,
    interpolant=rows_of("1  -1/2; 0  1/2"),
    source="Heun (1900), Z. Math. Phys. 45, 23-38, with Euler's step as the embedded formula; interpolant: the "
    "parabola that the order conditions leave",
)

_FEHLBERG12_B = rationals("1/256  255/256  0")

FEHLBERG12 = Tableau(
    name="fehlberg12",
    order=1,
    c=rationals("0  1/2  1"),
    a=rows_of("; 1/2; 1/256  255/256"),
    b=_FEHLBERG12_B,
    embedded_order=2,
    b_embedded=rationals("1/512  255/256  1/512"),
    interpolant_order=1,
    interpolant=hermite_interpolant(_FEHLBERG12_B),
    source="Fehlberg (1969), NASA TR R-315: RK1(2), which goes on with the formula of order 1, as published; "
    "interpolant: cubic Hermite",
)

_FEHLBERG32_B = rationals("1/6  1/6  2/3  0")

FEHLBERG32 = Tableau(
    name="fehlberg32",
    order=3,
    c=rationals("0  1  1/2  1"),
    a=rows_of("; 1; 1/4  1/4; 1/6  1/6  2/3"),
    b=_FEHLBERG32_B,
    embedded_order=2,
    b_embedded=rationals("1/2  1/2  0  0"),
    interpolant_order=3,
    interpolant=hermite_interpolant(_FEHLBERG32_B),
    source="Fehlberg's 3(2) pair as in Allauzen et al. (2022), with f at the end of the step as a fourth stage; "
    "interpolant: cubic Hermite",
)

_BOSH3_B = rationals("2/9  1/3  4/9  0")

BOSH3 = Tableau(
    name="bosh3",
    order=3,
    c=rationals("0  1/2  3/4  1"),
    a=rows_of("; 1/2; 0  3/4; 2/9  1/3  4/9"),
    b=_BOSH3_B,
    embedded_order=2,
    b_embedded=rationals("7/24  1/4  1/3  1/8"),
    interpolant_order=3,
    interpolant=hermite_interpolant(_BOSH3_B),
    source="Bogacki & Shampine (1989), Appl. Math. Lett. 2(4), 321-325; interpolant: cubic Hermite",
)
