"""Adaptive methods of orders 4 and 5 with rational coefficients and an interpolant of order 4 without further
stages.

Fehlberg's and Cash and Karp's methods have f at the end of the step as a seventh stage, with which the next
one begins. With it there are quartics through both ends and both slopes whose remaining coefficients `d` meet
the conditions of order 4: a line of them for Cash and Karp's, of which the one with the smallest conditions
of order 5 (integral over the step of the sum of their squares; nearest parameter with denominator at most 20)
was taken; for Fehlberg's the one that leaves out the sixth stage, as the step does.
"""

from __future__ import annotations

from ..tableau import Tableau, hermite_interpolant, rationals, rows_of

_RKF45_B = rationals("25/216  0  1408/2565  2197/4104  -1/5  0  0")

RKF45 = Tableau(
    name="rkf45",
    order=4,
    c=rationals("0  1/4  3/8  12/13  1  1/2  1"),
    a=rows_of(
        """
        ;
        1/4;
        3/32  9/32;
        1932/2197  -7200/2197  7296/2197;
        439/216  -8  3680/513  -845/4104;
        -8/27  2  -3544/2565  1859/4104  -11/40;
        25/216  0  1408/2565  2197/4104  -1/5  0
        """
    ),
    b=_RKF45_B,
    embedded_order=5,
    b_embedded=rationals("16/135  0  6656/12825  28561/56430  -9/50  2/55  0"),
    interpolant_order=4,
    interpolant=hermite_interpolant(
        _RKF45_B, correction=rationals("-13/18  0  1664/855  -2197/342  27/10  0  5/2")
    ),
    source="Fehlberg (1969), NASA TR R-315, as in Hairer, Norsett & Wanner (1993), Table II.5.1: it goes on with the "
    "formula of order 4, as published; interpolant: solved for, see the module",
)

_CASH_KARP_B = rationals("37/378  0  250/621  125/594  0  512/1771  0")

CASH_KARP = Tableau(
    name="cash_karp",
    order=5,
    c=rationals("0  1/5  3/10  3/5  1  7/8  1"),
    a=rows_of(
        """
        ;
        1/5;
        3/40  9/40;
        3/10  -9/10  6/5;
        -11/54  5/2  -70/27  35/27;
        1631/55296  175/512  575/13824  44275/110592  253/4096;
        37/378  0  250/621  125/594  0  512/1771
        """
    ),
    b=_CASH_KARP_B,
    embedded_order=4,
    b_embedded=rationals("2825/27648  0  18575/48384  13525/55296  277/14336  1/4  0"),
    interpolant_order=4,
    interpolant=hermite_interpolant(
        _CASH_KARP_B,
        correction=rationals("-46721/41472  0  205225/72576  -114925/82944  -27527/64512  -43/18  5/2"),
    ),
    source="Cash & Karp (1990), ACM Trans. Math. Software 16, 201-222: its pair of orders 5 and 4; interpolant: solved "
    "for, see the module",
)

_DOPRI5_B = rationals("35/384  0  500/1113  125/192  -2187/6784  11/84  0")

DOPRI5 = Tableau(
    name="dopri5",
    order=5,
    c=rationals("0  1/5  3/10  4/5  8/9  1  1"),
    a=rows_of(
        """
        ;
        1/5;
        3/40  9/40;
        44/45  -56/15  32/9;
        19372/6561  -25360/2187  64448/6561  -212/729;
        9017/3168  -355/33  46732/5247  49/176  -5103/18656;
        35/384  0  500/1113  125/192  -2187/6784  11/84
        """
    ),
    b=_DOPRI5_B,
    embedded_order=4,
    b_embedded=rationals("5179/57600  0  7571/16695  393/640  -92097/339200  187/2100  1/40"),
    interpolant_order=4,
    interpolant=hermite_interpolant(
        _DOPRI5_B,
        correction=rationals(
            "-12715105075/11282082432  0  87487479700/32700410799  -10690763975/1880347072"
            "  701980252875/199316789632  -1453857185/822651844  69997945/29380423"
        ),
    ),
    source="Dormand & Prince (1980), J. Comput. Appl. Math. 6(1), 19-26, as in Hairer, Norsett & Wanner (1993), "
    "Table II.5.2, which is also the error estimate of SciPy's RK45 (the other published embedded formula, with first "
    "weight 1951/21600, estimates 2/3 of it); interpolant: Shampine (1986), Math. Comp. 46, 135-150, "
    "as in section II.6",
)
