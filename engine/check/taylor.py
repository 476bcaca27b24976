"""The Taylor remainder test: how fast f(x + h v) minus its expansion falls with h."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import NonFiniteGradient
from ..transforms import hvp
from ..tree import Tree, leaves
from .arguments import check_function, check_settings
from .differences import one_sided_slopes
from .directions import checked_direction, norm_of, pairing, random_direction, relative_size
from .function import ScalarFunction
from .gradients import given_gradient, traced_gradient
from .report import KINK, OK, UNCLEAR, WRONG, aligned

LARGEST, SMALLEST, PER_DECADE = 0.3, 1e-9, 3  # h, in units of rms(x) / rms(v)
WINDOW = 6  # points of a fit, the smallest that are above round-off
FEWEST = 3  # points that a slope is fitted to
CLEAR = 100.0  # times round-off: what counts as above it
SHORTFALL = 0.2  # by which a slope may be below the order it is to have
KINK_STEP = 1e-2
TERMS = ("none", "gradient", "Hessian")


@dataclass(frozen=True)
class TaylorReport:
    """Remainders of Taylor expansions; `print` it to see them.

    Attributes:
        h: steps (N,), falling.
        remainders: (orders, N): |f(x + h v) - f(x)|, then with the term of the gradient taken away, then also
            with that of the Hessian.
        slopes: of log remainder against log h, by least squares over the smallest steps at which the
            remainder is above round-off: 1, 2, 3 if all is right. inf where the remainder is below round-off
            throughout (a polynomial), NaN where too few steps are left to fit.
        roundoff: what remainders below it are made of.
        verdict: "ok", "wrong", "unclear" (no slope could be fitted)
            or "kink" (f is not differentiable along v).
    """

    h: np.ndarray
    remainders: np.ndarray
    slopes: tuple[float, ...]
    roundoff: float
    verdict: str

    @property
    def ok(self) -> bool:
        return self.verdict == OK

    def assert_ok(self) -> None:
        """AssertionError with the table unless `ok`."""
        if not self.ok:
            raise AssertionError(f"\n{self}")

    def __str__(self) -> str:
        rows = [("h", *(f"terms: {name}" for name in TERMS[: len(self.slopes)]))]
        rows += [
            (f"{h:.1e}", *(f"{value:.3e}" for value in column))
            for h, column in zip(self.h[::PER_DECADE], self.remainders.T[::PER_DECADE], strict=True)
        ]
        rows += [("slope", *(f"{slope:.3f}" for slope in self.slopes))]
        rows += [("expected", *(str(order + 1) for order in range(len(self.slopes))))]
        verdict = self.verdict if self.ok else self.verdict.upper()
        head = f"Taylor remainders: {verdict}, round-off {self.roundoff:.1e}"
        return "\n".join([head, *aligned(rows, right=range(1, 1 + len(self.slopes)))])


def taylor_test(
    loss: Callable[[Tree], Any],
    params: Tree,
    direction: Tree = None,
    *,
    hessian: bool = True,
    gradient: Tree = None,
    seed: int = 0,
) -> TaylorReport:
    """Measure the orders at which the Taylor remainders of a loss vanish along a direction.

    Args:
        loss: pure function of a tree of arrays to a real scalar.
        params: the point x.
        direction: v, a tree shaped like params (default: `random_direction(params, seed)`).
        hessian: whether the term of second order, by `odegrad.hvp`, is tested too.
        gradient: the gradient to test, a tree like params (default: what `odegrad.grad` gives);
            then the Hessian is not.
    Returns: TaylorReport with .slopes, .h, .remainders, .verdict and .assert_ok().
    Raises: what `gradients` raises.
    A relative error of the gradient below about 1e-5 shows only where round-off has already taken over;
    `gradients` sees smaller ones.

    Cost: about 50 evaluations of the loss, one gradient, one Hessian-vector product.
    Source: Farrell, Ham, Funke & Rognes (2013), SIAM J. Sci. Comput. 35(4),
        section 6 (the test of first order).
    """
    check_function("taylor_test(loss, params)", loss, params)
    check_settings(seed=seed)
    function = ScalarFunction(loss, params)
    tree = random_direction(params, seed) if direction is None else direction
    v = checked_direction(params, tree)
    found = traced_gradient(function) if gradient is None else given_gradient(function, gradient)
    derivatives = [pairing(found, v)]
    if hessian and gradient is None:
        with np.errstate(all="ignore"):
            _, (product,) = hvp(loss, (params,), (tree,))
        derivatives.append(pairing(leaves(product), v))
    if not all(map(math.isfinite, derivatives)):
        raise NonFiniteGradient(f"the derivatives along the direction are not finite: {derivatives}")
    size = relative_size(function.leaves, v)
    n_steps = round(PER_DECADE * math.log10(LARGEST / SMALLEST)) + 1
    h = size * np.geomspace(LARGEST, SMALLEST, n_steps)
    phi = function.line(v)
    values = np.array([phi(float(step)) for step in h])
    is_finite = np.isfinite(values)
    if is_finite.sum() <= WINDOW:
        raise NonFiniteGradient("the function is NaN or infinite at almost all points along the direction")
    h, values = h[is_finite], values[is_finite]
    remainders = _remainders(h, values - function.value, derivatives)
    # moving x by h v rounds every entry of x, which moves f by the gradient times that
    largest = max(
        abs(function.value), float(np.max(np.abs(values))), norm_of(found) * norm_of(function.leaves)
    )
    roundoff = max(function.eps * largest, function.noise)
    slopes = tuple(_slope(h, row, roundoff) for row in remainders)
    is_kink = one_sided_slopes(phi, function.value, KINK_STEP * size, function.eps, function.noise).is_kink
    return TaylorReport(h, remainders, slopes, roundoff, KINK if is_kink else _verdict(slopes))


def _remainders(h: np.ndarray, change: np.ndarray, derivatives: list[float]) -> np.ndarray:
    """|f(x + h v) - f(x) - sum of the first terms|, one row for each number of terms."""
    rows = [change]
    for order, derivative in enumerate(derivatives, start=1):
        rows.append(rows[-1] - derivative * h**order / math.factorial(order))
    return np.abs(np.stack(rows))


def _slope(h: np.ndarray, remainder: np.ndarray, roundoff: float) -> float:
    """The slope of log remainder over log h where it is above round-off, at the smallest such steps."""
    is_above = remainder > CLEAR * roundoff
    if not is_above.any():
        return math.inf
    first = int(np.argmax(is_above))
    end = first + int(np.argmin(np.append(is_above[first:], False)))  # the first one that round-off reaches
    window = slice(max(first, end - WINDOW), end)
    if end - first < FEWEST:
        return math.nan
    return float(np.polyfit(np.log(h[window]), np.log(remainder[window]), 1)[0])


def _verdict(slopes: tuple[float, ...]) -> str:
    """The first order is that of any smooth function; the others are what is tested."""
    shortfalls = [order + 1.0 - slope for order, slope in enumerate(slopes)]
    if any(shortfall > SHORTFALL for shortfall in shortfalls[1:]):
        return WRONG
    return UNCLEAR if any(map(math.isnan, shortfalls[1:])) else OK
