"""Every method that `odeint` knows, by name."""

from __future__ import annotations

from difflib import get_close_matches

from ..engine.errors import ArgumentError
from .adams import AdamsBashforth, AdamsBashforthMoulton
from .implicit import Esdirk5, ImplicitEuler, Kvaerno5, Radau5, Rosenbrock23, Trapezoid
from .leapfrog import Leapfrog
from .method import Method
from .tableau import Tableau
from .tableaus import TABLEAUS

METHODS: dict[str, Tableau | Method] = {
    **TABLEAUS,
    "leapfrog": Leapfrog(),
    "adams_bashforth": AdamsBashforth(),
    "adams_bashforth_moulton": AdamsBashforthMoulton(),
    "implicit_euler": ImplicitEuler(),
    "trapezoid": Trapezoid(),
    "radau5": Radau5(),
    "kvaerno5": Kvaerno5(),
    "esdirk5": Esdirk5(),
    "rosenbrock23": Rosenbrock23(),
}


SCIPY_METHODS = {
    "RK23": "bosh3",
    "RK45": "dopri5",
    "DOP853": "dop853",
    "Radau": "radau5",
    "BDF": "radau5",
    "LSODA": "radau5",
}
ELSEWHERE = {  # names in SciPy and torchdiffeq, in small letters, whose nearest spelling here is another method
    **{name.lower(): ours for name, ours in SCIPY_METHODS.items()},
    "dopri8": "dop853",
    "adaptive_heun": "heun_euler",
    "fehlberg2": "fehlberg12",
    "explicit_adams": "adams_bashforth",
    "implicit_adams": "adams_bashforth_moulton",
}


def method_named(name: str | Tableau | Method) -> Tableau | Method:
    """The method called `name` (a method itself is returned as it is);
    ArgumentError with the nearest name.
    """
    if isinstance(name, (Tableau, Method)):
        return name
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    known = ELSEWHERE.get(str(name).lower())
    nearest = [known] if known else get_close_matches(str(name).lower(), METHODS, n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    if isinstance(name, type) and issubclass(name, Method):
        hint = f" Did you mean {name.__name__}()?"
    raise ArgumentError(f"`method` must be one of {', '.join(map(repr, METHODS))}; got {name!r}.{hint}")
