"""The Runge-Kutta methods that `odeint` knows, as data."""

from __future__ import annotations

from difflib import get_close_matches

from ..engine.errors import ArgumentError
from .tableau import Tableau, hermite_interpolant, rationals

EULER = Tableau(
    name="euler",
    order=1,
    c=rationals("0"),
    a=(rationals(""),),
    b=rationals("1"),
    source="Euler (1768), Institutiones calculi integralis, volume I",
)

MIDPOINT = Tableau(
    name="midpoint",
    order=2,
    c=rationals("0  1/2"),
    a=(rationals(""), rationals("1/2")),
    b=rationals("0  1"),
    source="Runge (1895), Math. Annalen 46, 167-178; Hairer, Norsett & Wanner (1993), Table II.1.1",
)

RK4 = Tableau(
    name="rk4",
    order=4,
    c=rationals("0  1/2  1/2  1"),
    a=(rationals(""), rationals("1/2"), rationals("0  1/2"), rationals("0  0  1")),
    b=rationals("1/6  1/3  1/3  1/6"),
    source="Kutta (1901), Z. Math. Phys. 46, 435-453; Hairer, Norsett & Wanner (1993), Table II.1.2",
)

_BOSH3_B = rationals("2/9  1/3  4/9  0")

BOSH3 = Tableau(
    name="bosh3",
    order=3,
    c=rationals("0  1/2  3/4  1"),
    a=(rationals(""), rationals("1/2"), rationals("0  3/4"), rationals("2/9  1/3  4/9")),
    b=_BOSH3_B,
    embedded_order=2,
    b_embedded=rationals("7/24  1/4  1/3  1/8"),
    interpolant_order=3,
    interpolant=hermite_interpolant(_BOSH3_B),
    source="Bogacki & Shampine (1989), Appl. Math. Lett. 2(4), 321-325; interpolant: cubic Hermite",
)

_DOPRI5_B = rationals("35/384  0  500/1113  125/192  -2187/6784  11/84  0")

DOPRI5 = Tableau(
    name="dopri5",
    order=5,
    c=rationals("0  1/5  3/10  4/5  8/9  1  1"),
    a=(
        rationals(""),
        rationals("1/5"),
        rationals("3/40  9/40"),
        rationals("44/45  -56/15  32/9"),
        rationals("19372/6561  -25360/2187  64448/6561  -212/729"),
        rationals("9017/3168  -355/33  46732/5247  49/176  -5103/18656"),
        rationals("35/384  0  500/1113  125/192  -2187/6784  11/84"),
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

TABLEAUS: dict[str, Tableau] = {tableau.name: tableau for tableau in (EULER, MIDPOINT, RK4, BOSH3, DOPRI5)}


def tableau(name: str) -> Tableau:
    """The tableau called `name`; ArgumentError with the nearest names if there is none."""
    if isinstance(name, str) and name in TABLEAUS:
        return TABLEAUS[name]
    nearest = get_close_matches(str(name).lower(), TABLEAUS, n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ArgumentError(f"`method` must be one of {', '.join(map(repr, TABLEAUS))}; got {name!r}.{hint}")
