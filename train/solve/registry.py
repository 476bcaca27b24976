"""All textbook problems by name, and their stored solutions."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files

import numpy as np

from ...engine.errors import ArgumentError
from .classics import classics
from .detest import detest
from .problem import Textbook, mirrored

MIRRORED = "-mirrored"
PROBLEMS: dict[str, Textbook] = {problem.name: problem for problem in (*detest(), *classics())}


def named_problem(name: str) -> Textbook:
    """The problem of this name, in any case of letters; with "-mirrored" run backwards.

    Raises: ArgumentError with the nearest name.
    """
    stem = name.removesuffix(MIRRORED)
    found = {known.lower(): problem for known, problem in PROBLEMS.items()}.get(stem.lower())
    if found is None:
        close = difflib.get_close_matches(stem.lower(), [known.lower() for known in PROBLEMS], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(PROBLEMS)}"
        raise ArgumentError(
            f"no textbook problem {name!r}; {hint} (`-mirrored` after a name runs it backwards)"
        )
    return mirrored(found) if name.endswith(MIRRORED) else found


def reference(problem: Textbook) -> np.ndarray:
    """The solution at problem.ts, (T, D), right to about 1e-14 of each component's largest value."""
    return _stored()[problem.reference or problem.name]


def uncertainty(problem: Textbook) -> float:
    """Distance between the two computations of the reference, relative by component."""
    return float(_stored()[f"{problem.reference or problem.name}/uncertainty"])


@cache
def _stored() -> dict[str, np.ndarray]:
    with (files(__package__) / "references.npz").open("rb") as file, np.load(file) as stored:
        return dict(stored)
