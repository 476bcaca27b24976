"""One gradient, by one method at one tolerance in one precision, against a float64 reference."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.errors import ArgumentError, ArgumentTypeError, NeuralODEError, SolveError
from ...engine.transforms import value_and_grad
from ...engine.tree import Tree, leaves
from ...solvers import odeint
from ...solvers.options import GRADIENTS
from ...solvers.solution import Solution
from .problems import Case, Problem

PARTS = ("y0", "params", "ts")
_REFERENCE_RTOL = 1e-13
_REFERENCE_STEPS = 6  # dopri5 steps between breakpoints
_REPEATS = 3
_CLOSED_FORM = "closed form"
_MOST_STEPS = 20_000


@dataclass(frozen=True)
class Reference:
    """The gradient that all others are measured against.

    Attributes:
        loss: value of the loss.
        gradient: {"y0", "params", "ts"}, each flat, float64.
        uncertainty: its own relative error: its distance from the closed form, or from the gradient at a tenfold
            tolerance where there is none.
        source: how it was computed.
    """

    loss: float
    gradient: dict[str, np.ndarray]
    uncertainty: float
    source: str

    @property
    def is_exact(self) -> bool:
        """Whether it is a formula, so that `uncertainty` is that of the solve beside it."""
        return self.source == _CLOSED_FORM


@dataclass(frozen=True)
class Measurement:
    """What one gradient is worth and what it cost.

    Attributes:
        error: |g - reference| / |reference| over all parts together; error_* of one part, scaled by the whole
            reference where that part is less than its thousandth.
        evaluations: of f forward and backward, and pull-backs to state and parameters, all added up.
        peak_saved_bytes: what was kept between the passes.
        seconds: fastest of three, forward and backward.
        drift: of the state that the method reconstructed, in units of atol + rtol |y|.
        failure: name and first words of the error instead of a gradient, else "".
    """

    problem: str
    gradient: str
    dtype: str
    rtol: float
    atol: float
    error: float
    error_y0: float
    error_params: float
    error_ts: float
    nfe_forward: int
    nfe_backward: int
    n_vjp_state: int
    n_vjp_params: int
    evaluations: int
    peak_saved_bytes: int
    seconds: float
    drift: float
    failure: str = ""


def reference(problem: Problem) -> Reference:
    """The reference of a problem in float64.

    A closed form where there is one; else the adjoint of the discrete solution at the tightest tolerance, or between
    breakpoints on many steps, with its distance from the one at a tenfold tolerance or half the steps as uncertainty.
    """
    case = problem.build(np.dtype(np.float64))
    _check_real(case)
    try:
        return _reference(problem, case)
    except SolveError as error:
        raise ArgumentError(
            f"{problem.name}: the reference solve (rtol {_REFERENCE_RTOL:g}, at most {_MOST_STEPS} steps) failed, and without "
            f"it nothing can be judged: {error}"
        ) from error


def _reference(problem: Problem, case: Case) -> Reference:
    if case.breakpoints:
        source = f"`discrete`, float64, {_REFERENCE_STEPS} steps between breakpoints"
        loss, fine, _ = _gradient(case, "discrete", grid=_divided(case, _REFERENCE_STEPS))
        _, coarse, _ = _gradient(case, "discrete", grid=_divided(case, _REFERENCE_STEPS // 2))
    else:
        source = f"`discrete`, float64, rtol {_REFERENCE_RTOL:g}"
        loss, fine, _ = _gradient(case, "discrete", **_tolerances(case, _REFERENCE_RTOL))
        _, coarse, _ = _gradient(case, "discrete", **_tolerances(case, 10 * _REFERENCE_RTOL))
    if not all(np.isfinite(part).all() for part in fine.values()):
        raise ArgumentError(f"{problem.name}: the reference gradient has NaN or infinite entries")
    if _norm(fine) == 0:
        raise ArgumentError(
            f"{problem.name}: the gradient is zero; the loss depends on nothing that is differentiated"
        )
    if problem.closed_form is not None:
        exact = {name: _flat(part) for name, part in problem.closed_form().items()}
        return Reference(loss, exact, _distance(fine, exact), _CLOSED_FORM)
    return Reference(loss, fine, _distance(coarse, fine), source)


def _check_real(case: Case) -> None:
    for name, tree in (("y0", case.y0), ("params", case.params)):
        kinds = {np.asarray(leaf).dtype for leaf in leaves(tree)}
        wrong = [str(dtype) for dtype in kinds if dtype.kind != "f"]
        if wrong or (name == "y0" and not kinds):
            raise ArgumentTypeError(
                f"an audit needs a `{name}` of real floating-point arrays; got {', '.join(wrong) or 'no array'}"
            )


def measure(
    problem: Problem,
    truth: Reference,
    gradients: Sequence[str],
    rtols: Sequence[float],
    dtypes: Sequence[str],
) -> list[Measurement]:
    """Every method at every tolerance in every precision; a solve that fails is a row that says so.

    atol is rtol times the largest entry of y0, at least rtol / 1000. Tolerances below 10 times the precision are left out.
    Raises: ArgumentError for an unknown method, a tolerance outside (0, 1), or none of either.
    """
    _check_asked(gradients, rtols, dtypes)
    rows = []
    for dtype in map(np.dtype, dtypes):
        case = problem.build(dtype)
        for gradient in gradients:
            for rtol in rtols:
                if rtol >= 10 * np.finfo(dtype).eps:
                    rows.append(_measured(problem.name, case, truth, gradient, rtol, dtype))
    return rows


def _check_asked(gradients: Sequence[str], rtols: Sequence[float], dtypes: Sequence[str]) -> None:
    unknown = [name for name in gradients if name not in GRADIENTS]
    if unknown or not gradients:
        close = difflib.get_close_matches(unknown[0], GRADIENTS, n=1) if unknown else []
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(GRADIENTS)}"
        raise ArgumentError(
            f"`gradients` must name gradient methods; got {', '.join(gradients) or 'none'}; {hint}"
        )
    if not rtols or not all(0 < rtol < 1 for rtol in rtols):
        raise ArgumentError(
            f"`rtols` must be tolerances in (0, 1); got {', '.join(map(str, rtols)) or 'none'}"
        )
    if not dtypes:
        raise ArgumentError("`dtypes` must name precisions, float32 or float64; got none")
    if min(10 * np.finfo(dtype).eps for dtype in dtypes) > max(rtols):
        raise ArgumentError(
            f"all `rtols` lie below 10 times the precision of {', '.join(dtypes)}; got {max(rtols):g} at most"
        )


def _measured(
    name: str, case: Case, truth: Reference, gradient: str, rtol: float, dtype: np.dtype[Any]
) -> Measurement:
    tolerances = _tolerances(case, rtol)
    seconds, failure, found, stats, drift = np.inf, "", None, None, 0.0
    try:
        for _ in range(_REPEATS):
            started = time.perf_counter()
            _, found, solution = _gradient(case, gradient, **tolerances)
            seconds, stats = min(seconds, time.perf_counter() - started), solution.stats
    except (ArgumentError, ArgumentTypeError):
        raise  # not the method's fault
    except NeuralODEError as error:
        failure = f"{type(error).__name__}: {str(error)[:160]}"
        drift = getattr(error, "drift", 0.0)  # of a DriftError
    errors = dict.fromkeys(PARTS, np.nan) if found is None else _errors(found, truth.gradient)
    counts = {
        "nfe_forward": getattr(stats, "nfe", 0),
        "nfe_backward": getattr(stats, "nfe_backward", 0),
        "n_vjp_state": getattr(stats, "n_vjp_state", 0),
        "n_vjp_params": getattr(stats, "n_vjp_params", 0),
    }
    return Measurement(
        problem=name,
        gradient=gradient,
        dtype=dtype.name,
        rtol=tolerances["rtol"],
        atol=tolerances["atol"],
        error=np.nan if found is None else _distance(found, truth.gradient),
        error_y0=errors["y0"],
        error_params=errors["params"],
        error_ts=errors["ts"],
        evaluations=sum(counts.values()),
        peak_saved_bytes=getattr(stats, "peak_saved_bytes", 0),
        seconds=seconds,
        drift=getattr(stats, "drift", drift),
        failure=failure,
        **counts,
    )


def _gradient(case: Case, gradient: str, **options: Any) -> tuple[float, dict[str, np.ndarray], Solution]:
    """(loss, its gradient by part, the solution with the statistics of both passes)."""
    kept: list[Solution] = []

    def loss(at: dict[str, Any]) -> Any:
        solution = odeint(
            case.f, at["y0"], at["ts"], at["params"], gradient=gradient, max_steps=_MOST_STEPS, **options
        )
        kept.append(solution)
        return case.loss(solution.ys)

    value, bars = value_and_grad(loss)({"y0": case.y0, "params": case.params, "ts": case.ts})
    return float(value), {name: _flat(bars[name]) for name in PARTS}, kept[0]


def _tolerances(case: Case, rtol: float) -> dict[str, float]:
    return {"rtol": rtol, "atol": rtol * _scale(case)}


def _divided(case: Case, n: int) -> np.ndarray:
    """Times from ts[0] to ts[-1]: all breakpoints and output times, and n - 1 more between neighbours."""
    ts = np.asarray(case.ts)
    apart = 1e-9 * abs(ts[-1] - ts[0])  # a breakpoint that is an output time but for round-off is that time
    inside = [t for t in case.breakpoints if ts.min() < t < ts.max() and abs(ts - t).min() > apart]
    corners = np.unique(np.concatenate((ts, inside)))
    pieces = [np.linspace(a, b, n, endpoint=False) for a, b in zip(corners, corners[1:], strict=False)]
    times = np.append(np.concatenate(pieces), corners[-1])
    return times if ts[0] < ts[-1] else times[::-1]


def _scale(case: Case) -> float:
    return max([1e-3, *(float(abs(leaf).max()) for leaf in leaves(case.y0) if leaf.size)])


def _flat(tree: Tree) -> np.ndarray:
    parts = [np.asarray(leaf, np.float64).ravel() for leaf in leaves(tree)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _norm(gradient: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum((part**2).sum() for part in gradient.values())))


def _distance(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    difference = {name: found[name] - truth[name] for name in PARTS}
    return _norm(difference) / _norm(truth)


def _errors(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float]:
    least = 1e-3 * _norm(truth)
    return {
        name: float(
            np.linalg.norm(found[name] - truth[name]) / max(float(np.linalg.norm(truth[name])), least)
        )
        for name in PARTS
    }
