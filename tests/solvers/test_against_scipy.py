"""NFE and achieved error on the textbook problems, beside SciPy's RK45: the same formulas, another implementation."""

from __future__ import annotations

import functools

import numpy as np
import problems
import pytest
from odegrad import odeint
from scipy.integrate import solve_ivp

TOLERANCES = tuple(10.0 ** -np.arange(5, 10.01, 0.5))  # at looser ones Arenstorf's orbit is lost by both


@functools.cache
def both(p: problems.Problem) -> tuple[np.ndarray, np.ndarray]:
    """NFE (2, tolerances) and end errors (2, tolerances): ours, SciPy's."""
    nfe, errors = np.zeros((2, len(TOLERANCES))), np.zeros((2, len(TOLERANCES)))
    for k, rtol in enumerate(TOLERANCES):
        tolerances = {"rtol": rtol, "atol": 1e-2 * rtol}
        ours = odeint(p.f, p.y0, [p.t0, p.t1], **tolerances)
        theirs = solve_ivp(p.f, (p.t0, p.t1), p.y0, method="RK45", **tolerances)
        nfe[:, k] = ours.stats.nfe, theirs.nfev
        errors[:, k] = np.linalg.norm(ours.ys[-1] - p.y1), np.linalg.norm(theirs.y[:, -1] - p.y1)
    return nfe, errors


@pytest.mark.parametrize("p", problems.PROBLEMS, ids=str)
def test_nfe_is_at_most_that_of_rk45(p):
    nfe, _ = both(p)
    assert np.all(nfe[0] <= 1.15 * nfe[1]), nfe


@pytest.mark.parametrize("p", problems.PROBLEMS, ids=str)
def test_the_error_is_no_larger_than_that_of_rk45(p):
    """In the geometric mean over the tolerances; at single ones the errors of both scatter about each other."""
    _, errors = both(p)
    assert np.exp(np.mean(np.log(errors[0] / errors[1]))) <= 1.0, errors
