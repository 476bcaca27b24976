"""One gradient, by one method at one tolerance in one precision, against a float64 reference."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.errors import ArgumentError, ArgumentTypeError, NeuralODEError
from ...solvers.options import GRADIENTS
from .case import Case, Problem
from .gradient import Gradient, distance, gradient_of, tolerances_of
from .peers import Peer, PeerFailure, peers_of
from .reference import Reference

_REPEATS = 3
_SLOW = 3.0  # seconds from which on a gradient is not repeated
_PATIENCE = 20.0  # seconds from which on a peer is not asked for tighter tolerances
MOST_STEPS = 20_000
_LEFT_OUT = "left out"


@dataclass(frozen=True)
class Measurement:
    """What one gradient is worth and what it cost.

    Attributes:
        gradient: the method: a name of ours, or of another library's.
        error: |g - reference| / |reference| over y0 and params together, which every method gives; error_* of
            one part, NaN where the method does not give it. Scaled by a thousandth of the whole reference
            where the part is less.
        evaluations: of f forward and backward, and pull-backs to state and parameters, all added up.
        peak_saved_bytes: what was kept between the passes; None where it is not known.
        seconds: fastest of three, forward and backward.
        drift: of the state that the method reconstructed, in units of atol + rtol |y|.
        failure: name and first words of the error instead of a gradient, else "".
    """

    problem: str
    gradient: str
    dtype: str
    rtol: float
    atol: float
    error: float = np.nan
    error_y0: float = np.nan
    error_params: float = np.nan
    error_ts: float = np.nan
    nfe_forward: int = 0
    nfe_backward: int = 0
    n_vjp_state: int = 0
    n_vjp_params: int = 0
    peak_saved_bytes: int | None = None
    seconds: float = np.inf
    drift: float = 0.0
    failure: str = ""

    @property
    def is_left_out(self) -> bool:
        """Whether it was not asked for, which says nothing against the method."""
        return self.failure.startswith(_LEFT_OUT)

    @property
    def evaluations(self) -> int:
        return self.nfe_forward + self.evaluations_backward

    @property
    def evaluations_backward(self) -> int:
        """Of f on the way back, and pull-backs."""
        return self.nfe_backward + self.n_vjp_state + self.n_vjp_params


def measure(
    problem: Problem,
    truth: Reference,
    gradients: Sequence[str],
    rtols: Sequence[float],
    dtypes: Sequence[str],
    *,
    peers: bool = False,
) -> list[Measurement]:
    """Every method at every tolerance in every precision; a solve that fails is a row that says so.

    atol is rtol times the largest entry of y0, at least rtol / 1000. Tolerances below 10 times the precision
    are left out. With `peers` the gradients of other libraries that are installed follow, where the problem
    is portable.
    Raises: ArgumentError for an unknown method, a tolerance outside (0, 1), or none of either.
    """
    _check_asked(gradients, rtols, dtypes)
    rows = []
    for dtype in map(np.dtype, dtypes):
        case = problem.build(dtype)
        fitting = [rtol for rtol in rtols if rtol >= 10 * np.finfo(dtype).eps]
        for gradient in gradients:
            rows += [_measured(problem.name, case, truth, gradient, rtol, dtype) for rtol in fitting]
        for peer in peers_of(problem, case, MOST_STEPS) if peers else ():
            peer.compile()
            rows += _measured_peer(problem.name, case, truth, peer, fitting, dtype)
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
    tolerances = tolerances_of(case, rtol)
    asked: dict[str, Any] = {"problem": name, "gradient": gradient, "dtype": dtype.name, **tolerances}
    try:
        (_, found, solution), seconds = _timed(
            lambda: gradient_of(case, gradient, max_steps=MOST_STEPS, **tolerances)
        )
    except (ArgumentError, ArgumentTypeError):
        raise  # not the method's fault
    except NeuralODEError as error:
        drift = getattr(error, "drift", 0.0)  # of a DriftError
        return Measurement(**asked, failure=_words(error), drift=drift)
    stats = solution.stats
    asked |= _errors(found, truth)
    return Measurement(
        **asked,
        nfe_forward=stats.nfe,
        nfe_backward=stats.nfe_backward,
        n_vjp_state=stats.n_vjp_state,
        n_vjp_params=stats.n_vjp_params,
        peak_saved_bytes=stats.peak_saved_bytes,
        seconds=seconds,
        drift=stats.drift,
    )


def _measured_peer(
    name: str, case: Case, truth: Reference, peer: Peer, rtols: Sequence[float], dtype: np.dtype[Any]
) -> list[Measurement]:
    """A row for each tolerance; one that took longer than _PATIENCE is the last that is asked for."""
    rows: list[Measurement] = []
    slowest = 0.0
    for rtol in rtols:
        tolerances = tolerances_of(case, rtol)
        asked: dict[str, Any] = {"problem": name, "gradient": peer.name, "dtype": dtype.name, **tolerances}
        started = time.perf_counter()
        if slowest > _PATIENCE:
            failure = f"{_LEFT_OUT}: {slowest:.0f} s at a tolerance before"
            rows.append(Measurement(**asked, failure=failure))
        else:
            rows.append(_by_peer(peer, tolerances, asked, truth))
            slowest = max(slowest, time.perf_counter() - started)
    return rows


def _by_peer(
    peer: Peer, tolerances: dict[str, float], asked: dict[str, Any], truth: Reference
) -> Measurement:
    try:
        found, seconds = _timed(lambda: peer.gradient(**tolerances))
        counts = peer.counts(**tolerances)
    except PeerFailure as error:
        return Measurement(**asked, failure=f"gave up: {error}")
    if not all(np.isfinite(part).all() for part in found.values()):
        return Measurement(**asked, failure="NonFiniteGradient: the gradient has NaN or infinite entries")
    return Measurement(**asked | _errors(found, truth) | counts, seconds=seconds)


def _timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    """(what it gives, seconds of the fastest of three calls, or of the first if that is slow)."""
    fastest = np.inf
    for _ in range(_REPEATS):
        started = time.perf_counter()
        found = compute()
        fastest = min(fastest, time.perf_counter() - started)
        if fastest > _SLOW:
            break
    return found, fastest


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


def _errors(found: Gradient, truth: Reference) -> dict[str, float]:
    known = truth.gradient
    by_part = {f"error_{name}": distance(found, known, (name,)) for name in known}
    return {"error": distance(found, known, ("y0", "params")), **by_part}
