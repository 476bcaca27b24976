"""Beside SciPy: NFE and achieved error on the textbook problems, and the very steps and dense output of its methods."""

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
def test_nfe_is_that_of_rk45(p):
    """One rejected step may fall otherwise by round-off."""
    nfe, _ = both(p)
    assert np.all(np.abs(nfe[0] - nfe[1]) <= 6), nfe


@pytest.mark.parametrize("p", problems.PROBLEMS, ids=str)
def test_the_error_is_that_of_rk45(p):
    """At every tolerance; what is left is round-off, which chaos and tight tolerances magnify."""
    _, errors = both(p)
    assert np.all(np.abs(errors[0] / errors[1] - 1.0) < 1e-2), errors


@functools.cache
def theirs(method: str, direction: int):
    """SciPy's solution of the pendulum: what it stepped over, and its dense output."""
    p = next(p for p in problems.PROBLEMS if p.name == "pendulum")
    ends = (p.t0, p.t1)[::direction]
    return p, solve_ivp(p.f, ends, p.y0, method=method, rtol=1e-6, atol=1e-8, dense_output=True)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(("method", "peer"), [("bosh3", "RK23"), ("dopri5", "RK45"), ("dop853", "DOP853")])
def test_steps_over_the_same_times_are_those_of_scipy(method, peer, direction):
    p, sol = theirs(peer, direction)
    ours = odeint(p.f, p.y0, sol.t, method=method, grid=sol.t)
    assert np.abs(ours.ys - sol.y.T).max() <= 1e-12


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(("method", "peer"), [("bosh3", "RK23"), ("dopri5", "RK45"), ("dop853", "DOP853")])
def test_dense_output_over_the_same_times_is_that_of_scipy(method, peer, direction):
    p, sol = theirs(peer, direction)
    ts = np.linspace(sol.t[0], sol.t[-1], 57)
    ours = odeint(p.f, p.y0, ts, method=method, grid=sol.t)
    assert np.abs(ours.ys - sol.sol(ts).T).max() <= 1e-12
