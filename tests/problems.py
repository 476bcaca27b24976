"""Textbook initial value problems with their end states, shared by the tests of solvers and gradients.

Each `f(t, y)` acts on the last axis of y, (..., D), so one problem serves a single state and a batch of them.

Where no closed form exists, the end state was computed in 45-digit arithmetic (mpmath) from the very doubles given
here as y0, t0, t1 and constants, by Gragg's extrapolation method of order 28 on 200 to 400 equal steps (Arenstorf:
steps of a sixth of the distance to the nearer body over the speed, 0.05 at most); halving every step changed no
more than the 32nd digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ellipj

Dynamics = Callable[[float, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Problem:
    """y' = f(t, y), y(t0) = y0 (D,), with y1 = y(t1), right to the last few digits of a double."""

    name: str
    f: Dynamics
    y0: np.ndarray
    t0: float
    t1: float
    y1: np.ndarray

    def __str__(self) -> str:
        return self.name


def problem(
    name: str, f: Dynamics, *, y0: list[float], t0: float = 0.0, t1: float, y1: list[float]
) -> Problem:
    """A `Problem` from lists; its arrays are read-only, since all tests share them."""
    start, end = np.array(y0), np.array(y1)
    start.flags.writeable = end.flags.writeable = False
    return Problem(name, f, start, t0, t1, end)


def decay(t, y):
    return -y


def forced(t, y):
    return y * np.cos(t)


def logistic(t, y):
    return y * (1.0 - y)


def oscillator(t, y):
    return np.stack([y[..., 1], -y[..., 0]], axis=-1)


def triangular(t, y):
    """A linear system whose matrix is far from normal: [[-1, 10], [0, -2]]."""
    return np.stack([10.0 * y[..., 1] - y[..., 0], -2.0 * y[..., 1]], axis=-1)


def pendulum(t, y):
    return np.stack([y[..., 1], -np.sin(y[..., 0])], axis=-1)


def rigid_body(t, y):
    """Euler's equations of a free rigid body, in the scaling whose solution is sn, cn, dn with m = 0.51."""
    y1, y2, y3 = y[..., 0], y[..., 1], y[..., 2]
    return np.stack([y2 * y3, -y1 * y3, -0.51 * y1 * y2], axis=-1)


def kepler(t, y):
    position, velocity = y[..., :2], y[..., 2:]
    distance = np.sqrt(position[..., :1] ** 2 + position[..., 1:] ** 2)
    return np.concatenate([velocity, -position / distance**3], axis=-1)


def lotka_volterra(t, y):
    prey, predators = y[..., 0], y[..., 1]
    return np.stack([prey * (1.5 - predators), predators * (prey - 3.0)], axis=-1)


def van_der_pol(t, y):
    x, v = y[..., 0], y[..., 1]
    return np.stack([v, (1.0 - x**2) * v - x], axis=-1)


def brusselator(t, y):
    u, v = y[..., 0], y[..., 1]
    return np.stack([1.0 + u**2 * v - 4.0 * u, 3.0 * u - u**2 * v], axis=-1)


def lorenz(t, y):
    x, y_, z = y[..., 0], y[..., 1], y[..., 2]
    return np.stack([10.0 * (y_ - x), x * (28.0 - z) - y_, x * y_ - 8.0 / 3.0 * z], axis=-1)


def arenstorf(t, y, mu=0.012277471):
    """Restricted three-body problem: a satellite between earth and moon, in rotating coordinates."""
    x, y_, vx, vy = y[..., 0], y[..., 1], y[..., 2], y[..., 3]
    to_earth = ((x + mu) ** 2 + y_**2) ** 1.5
    to_moon = ((x - (1.0 - mu)) ** 2 + y_**2) ** 1.5
    ax = x + 2.0 * vy - (1.0 - mu) * (x + mu) / to_earth - mu * (x - (1.0 - mu)) / to_moon
    ay = y_ - 2.0 * vx - (1.0 - mu) * y_ / to_earth - mu * y_ / to_moon
    return np.stack([vx, vy, ax, ay], axis=-1)


def pendulum_state(amplitude: float, t: float) -> list[float]:
    """Angle and speed of a pendulum released at rest: sin(angle / 2) = k cd(t), k = sin(amplitude / 2)."""
    k = math.sin(amplitude / 2)
    sn, cn, dn, _ = ellipj(t, k * k)
    speed = -2 * k * (1 - k * k) * sn / dn**2 / math.sqrt(1 - (k * cn / dn) ** 2)
    return [2 * math.asin(k * cn / dn), speed]


PROBLEMS = (
    problem("decay", decay, y0=[1.0], t1=5.0, y1=[math.exp(-5)]),
    problem("forced", forced, y0=[1.0], t1=10.0, y1=[math.exp(math.sin(10))]),
    problem("logistic", logistic, y0=[0.1], t1=10.0, y1=[1 / (1 + 9 * math.exp(-10))]),
    problem("oscillator", oscillator, y0=[1.0, 0.0], t1=10.0, y1=[math.cos(10), -math.sin(10)]),
    problem(
        "triangular",
        triangular,
        y0=[1.0, 1.0],
        t1=3.0,
        y1=[11 * math.exp(-3) - 10 * math.exp(-6), math.exp(-6)],
    ),
    problem("pendulum", pendulum, y0=[2.0, 0.0], t1=10.0, y1=pendulum_state(2.0, 10.0)),
    problem("rigid_body", rigid_body, y0=[0.0, 1.0, 1.0], t1=12.0, y1=list(ellipj(12.0, 0.51)[:3])),
    problem(  # eccentricity 0.5, from the pericentre round to it again
        "kepler",
        kepler,
        y0=[0.5, 0.0, 0.0, math.sqrt(3)],
        t1=2 * math.pi,
        y1=[0.5, 0.0, 0.0, math.sqrt(3)],
    ),
    problem(
        "lotka_volterra",
        lotka_volterra,
        y0=[1.0, 2.0],
        t1=10.0,
        y1=[0.97289857641537004563, 1.7074983601218098457],
    ),
    problem(
        "van_der_pol",
        van_der_pol,
        y0=[2.0, 0.0],
        t1=10.0,
        y1=[-2.0083407825797123328, 0.032907065863324064431],
    ),
    problem(
        "brusselator",
        brusselator,
        y0=[1.5, 3.0],
        t1=20.0,
        y1=[0.49863707126834784865, 4.5967803494520111832],
    ),
    problem(
        "lorenz",
        lorenz,
        y0=[1.0, 1.0, 1.0],
        t1=2.0,
        y1=[-8.1734999322422488696, -9.562023686798798018, 24.620702049679665983],
    ),
    problem(  # one period; an error made at the start is a million times larger at the end
        "arenstorf",
        arenstorf,
        y0=[0.994, 0.0, 0.0, -2.00158510637908252],
        t1=17.0652165601579626,
        y1=[
            0.99399999999990884034,
            -3.0309430229824183309e-13,
            -4.9285365810550527326e-11,
            -2.0015851063932702385,
        ],
    ),
)
