"""The arguments of the checks: what is refused, and the tolerances that are meant where none are given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import to_host
from ..errors import ArgumentError, ArgumentTypeError
from ..trace import describe, dtype_of, is_weak
from ..tree import Tree, leaves_with_paths, path_name

REFERENCES = ("auto", "differences")
SINGLE = 1e-10  # floats whose spacing is larger are single precision
TOL_DOUBLE, TOL_SINGLE = 1e-7, 1e-3
SURE = 10.0  # an error that is so many estimated errors of its reference larger than allowed is one of the gradient


def default_tol(eps: float) -> float:
    """The relative error up to which a gradient is right, if it was computed with floats of spacing eps."""
    return TOL_SINGLE if eps > SINGLE else TOL_DOUBLE


def check_function(call: str, f: Any, x: Any) -> None:
    """ArgumentTypeError unless f, which comes first in `call`, is a function; x stands second."""
    if not callable(f):
        advice = "; it came second, so swap the two" if callable(x) else ""
        raise ArgumentTypeError(f"{call} takes a function first; got {type(f).__name__}{advice}")


def check_settings(
    *,
    seed: Any,
    tol: Any = None,
    step: Any = None,
    reference: Any = "auto",
    entries: Any = None,
    directions: Any = 1,
) -> None:
    """ArgumentError with a line for each setting of a check that is none."""
    problems = []
    if not _is_count(seed, 0):
        problems.append(f"`seed` must be an integer from 0 up; got {seed!r}")
    if tol is not None and not (_is_number(tol) and 0.0 < tol < 1.0):
        problems.append(f"`tol` must lie between 0 and 1; got {tol!r}")
    if step is not None and not (_is_number(step) and 0.0 < step < math.inf):
        problems.append(f"`step` must be a positive number; got {step!r}")
    if reference not in REFERENCES:
        problems.append(f"`reference` must be one of {', '.join(map(repr, REFERENCES))}; got {reference!r}")
    if entries is not None and not _is_count(entries, 0):
        problems.append(f"`entries` must be None or an integer from 0 up; got {entries!r}")
    if not _is_count(directions, 1):
        problems.append(f"`directions` must be an integer from 1 up; got {directions!r}")
    if problems:
        raise ArgumentError("; ".join(problems))


def check_leaves(x: Tree) -> None:
    """An error unless x has leaves, all of them float or complex arrays or numbers."""
    found = [(path_name(path), leaf) for path, leaf in leaves_with_paths(x)]
    if not found:
        raise ArgumentError(f"the tree to differentiate has no leaves; got {x!r}")
    wrong = [f"{name}: {describe(leaf)}" for name, leaf in found if not is_differentiable(leaf)]
    if wrong:
        raise ArgumentTypeError(
            f"only float and complex leaves have a gradient; got {', '.join(wrong)}. Convert it with "
            "numpy.asarray(x, dtype=float), or let the function capture what is not differentiated (indices, labels, "
            "counts)"
        )


def check_point(x: Tree) -> None:
    """`check_leaves`, and ArgumentError for a leaf that is not finite."""
    check_leaves(x)
    for path, leaf in leaves_with_paths(x):
        bad = ~np.isfinite(to_host(leaf))
        if bad.any():
            name = path_name(path)
            raise ArgumentError(f"the leaf {name} has {int(bad.sum())} of {bad.size} values NaN or infinite")


def is_differentiable(leaf: Any) -> bool:
    """Whether a leaf is a float or complex array or number."""
    return (is_weak(leaf) or hasattr(leaf, "dtype")) and dtype_of(leaf).kind in "fc"


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
