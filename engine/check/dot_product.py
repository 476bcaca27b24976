"""The dot-product test: a function's VJP is the transpose of its JVP, and both are its derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError, NonFiniteGradient
from ..trace import describe, dtype_of
from ..transforms import jvp, vjp
from ..tree import Tree, leaves, leaves_with_paths, path_name, unflatten
from .arguments import SURE, check_function, check_point, check_settings, default_tol, is_differentiable
from .derivative import Derivative, difference_along
from .differences import START
from .directions import norm_of, pairing, random_leaf, relative_size
from .function import ScalarFunction, call_pure, described, guarded
from .report import KINK, OK, UNCLEAR, WRONG

TRANSPOSE_TOL = 1e4  # units of round-off, times the larger of |ybar| |J v| and |J^T ybar| |v|


@dataclass(frozen=True)
class DotProductReport:
    """One number of the Jacobian J at x, computed three ways, for random directions v and ybar.

    Attributes:
        by_vjp: <J^T ybar, v>, by `odegrad.vjp`.
        by_jvp: <ybar, J v>, by `odegrad.jvp`. The engine's JVP is the transpose of its VJP: equality of the
            two says that the rules are linear and transposed rightly, not that they belong to the function.
        by_differences: d/dh <ybar, f(x + h v)>, a `Derivative`: whether they do.
        scale: what errors are measured by: the larger of |ybar| |J v| and |J^T ybar| |v|.
        transpose_error, error: |by_jvp - by_vjp| and |by_vjp - by_differences|, over scale.
        verdict: "ok", "wrong", "unclear" or "kink", as for `gradients`.
    """

    by_vjp: float
    by_jvp: float
    by_differences: Derivative
    scale: float
    transpose_error: float
    error: float
    tol: float
    verdict: str

    @property
    def ok(self) -> bool:
        return self.verdict in (OK, KINK)

    def assert_ok(self) -> None:
        """AssertionError with the three numbers unless `ok`."""
        if not self.ok:
            raise AssertionError(f"\n{self}")

    def __str__(self) -> str:
        verdict = self.verdict if self.ok else self.verdict.upper()
        return (
            f"dot products: {verdict}, tolerance {self.tol:.1e} of {self.scale:.3e}\n"
            f"<J^T ybar, v> by vjp          {self.by_vjp:.15g}\n"
            f"<ybar, J v>   by jvp          {self.by_jvp:.15g}   off by {self.transpose_error:.1e}\n"
            f"<ybar, J v>   by differences  {self.by_differences}   off by {self.error:.1e}"
        )


def dot_product_test(
    f: Callable[[Tree], Tree], x: Tree, *, tol: float | None = None, seed: int = 0
) -> DotProductReport:
    """Compare <J^T ybar, v>, <ybar, J v> and differences of <ybar, f(x + h v)> for random v and ybar.

    Args:
        f: pure function of a tree of arrays to a tree of float or complex arrays.
        x: where its Jacobian J is tested.
        tol: allowed error beside differences, over the scale of the report (default: 1e-7, or 1e-3 in
            float32). Between vjp and jvp it is 1e4 units of round-off.
        seed: draws v and ybar.
    Returns: DotProductReport, with .verdict and .assert_ok().
    Raises: what `gradients` raises; ArgumentError for a result without float leaves.
    Cost: about 25 evaluations of f, one pull-back, one JVP.
    """
    check_function("dot_product_test(f, x)", f, x)
    check_settings(seed=seed, tol=tol)
    check_point(x)
    primals = leaves(x)
    result = call_pure(f, unflatten(x, [guarded(leaf) for leaf in primals]), primals)
    _check_result(result)
    rng = np.random.default_rng(seed)
    v = [random_leaf(leaf, rng) for leaf in primals]
    ybar = [random_leaf(leaf, rng) for leaf in leaves(result)]

    with np.errstate(all="ignore"):
        _, pull_back = vjp(f, x)
        xbar = leaves(pull_back(unflatten(result, ybar))[0])
        _, ydot_tree = jvp(f, (x,), (unflatten(x, v),))
    ydot = leaves(ydot_tree)
    by_vjp, by_jvp = pairing(xbar, v), pairing(ybar, ydot)
    if not (np.isfinite(by_vjp) and np.isfinite(by_jvp)):
        raise NonFiniteGradient(f"the products are not finite: {by_vjp} by vjp, {by_jvp} by jvp")

    function = ScalarFunction(lambda tree: pairing(ybar, leaves(f(tree))), x)
    eps = max(float(np.finfo(dtype_of(leaf)).eps) for leaf in [*primals, *leaves(result)])
    function.eps = eps
    reference = difference_along(function, function.line(v), START * relative_size(primals, v))
    scale = max(norm_of(ybar) * norm_of(ydot), norm_of(xbar) * norm_of(v), abs(reference.value))
    tol = default_tol(eps) if tol is None else tol
    transpose_gap, gap = abs(by_vjp - by_jvp), abs(by_vjp - reference.value)
    if transpose_gap > TRANSPOSE_TOL * eps * scale:
        verdict = WRONG
    elif reference.is_kink:
        verdict = KINK
    elif gap > tol * scale:
        verdict = WRONG if gap > tol * scale + SURE * reference.error else UNCLEAR
    else:
        verdict = OK
    over = scale or 1.0
    return DotProductReport(by_vjp, by_jvp, reference, scale, transpose_gap / over, gap / over, tol, verdict)


def _check_result(result: Tree) -> None:
    wrong = [
        f"{path_name(path)}: {describe(leaf)}"
        for path, leaf in leaves_with_paths(result)
        if not is_differentiable(leaf)
    ]
    if wrong or not leaves(result):
        raise ArgumentError(
            f"the function must return float or complex arrays; it returned {', '.join(wrong) or described(result)}"
        )
