"""One gradient of a case, flat and by part, and how far two of them are apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine.transforms import value_and_grad
from ...engine.tree import Tree, leaves
from ...solvers import odeint
from ...solvers.solution import Solution
from .case import Case

PARTS = ("y0", "params", "ts")
Gradient = dict[str, np.ndarray]  # of each part, flat, float64; a peer may not give "ts"


def gradient_of(case: Case, method: str, **options: Any) -> tuple[float, Gradient, Solution]:
    """(loss, its gradient by part, the solution with the statistics of both passes)."""
    kept: list[Solution] = []

    def loss(at: dict[str, Any]) -> Any:
        solution = odeint(
            case.f, at["y0"], at["ts"], at["params"], gradient=method, warn_stiff=False, **options
        )
        kept.append(solution)
        return case.loss(solution.ys)

    value, bars = value_and_grad(loss)({"y0": case.y0, "params": case.params, "ts": case.ts})
    return float(value), {name: flat(bars[name]) for name in PARTS}, kept[0]


def tolerances_of(case: Case, rtol: float) -> dict[str, float]:
    """rtol, and atol = rtol times the largest entry of y0, at least rtol / 1000."""
    sizes = (float(abs(leaf).max()) for leaf in leaves(case.y0) if leaf.size)
    return {"rtol": rtol, "atol": rtol * max([1e-3, *sizes])}


def flat(tree: Tree) -> np.ndarray:
    """All leaves one after the other, float64."""
    parts = [np.asarray(leaf, np.float64).ravel() for leaf in leaves(tree)]
    return np.concatenate(parts) if parts else np.zeros(0)


def norm(gradient: Gradient) -> float:
    """Euclidean norm of all parts together."""
    return float(np.sqrt(sum((part**2).sum() for part in gradient.values())))


def distance(found: Gradient, truth: Gradient, parts: tuple[str, ...] = PARTS) -> float:
    """|found - truth| / |truth| of these parts together; NaN if `found` lacks one.

    Scaled by a thousandth of the whole truth where the parts are less than that.
    """
    if any(name not in found for name in parts):
        return float("nan")
    apart = norm({name: found[name] - truth[name] for name in parts})
    return apart / max(norm({name: truth[name] for name in parts}), 1e-3 * norm(truth))
