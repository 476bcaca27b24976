"""What a textbook problem is: an initial value problem with output times and, beside it,
its solution there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Dynamics = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Textbook:
    """y' = f(t, y), y(ts[0]) = y0, in float64.

    Attributes:
        f: f(t, y) -> slope like y, in ordinary NumPy: odegrad traces it, and other solvers call it. It keeps
            the dtype of y and takes constants as the doubles they are,
            so that extended precision solves the same problem.
        y0: initial state (D,).
        ts: output times (T,), the initial one included.
        about: one sentence.
        is_stiff: explicit methods take steps that stability limits.
        smallest: size of the smallest component that matters; atol is rtol times this.
        portrait: pairs of components to draw, the second against the first; -1 stands for time.
        reference: name of the problem whose stored solution is this one's.
    """

    name: str
    f: Dynamics
    y0: np.ndarray
    ts: np.ndarray
    about: str
    is_stiff: bool = False
    smallest: float = 1.0
    portrait: tuple[tuple[int, int], ...] = ()
    reference: str = ""

    def __post_init__(self) -> None:
        self.y0.flags.writeable = self.ts.flags.writeable = False

    def __str__(self) -> str:
        return self.name


def mirrored(problem: Textbook) -> Textbook:
    """The same curve run through backwards in time: z' = -f(-t, z), z(-t) = y(t),
    from -ts[0] down to -ts[-1].
    """

    def f(t: Any, z: Any) -> Any:
        return -problem.f(-t, z)

    name, about = f"{problem.name}-mirrored", f"{problem.about} Mirrored in time, and integrated backward."
    reference = problem.reference or problem.name
    return replace(
        problem, name=name, f=f, y0=problem.y0.copy(), ts=-problem.ts, about=about, reference=reference
    )
