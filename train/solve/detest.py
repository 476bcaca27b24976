"""The 25 problems of DETEST, classes A to E, each on [0, 20] with an output at every unit of time.

Source: Hull, Enright, Fellen & Sedgwick (1972), SIAM J. Numer. Anal. 9(4), 603-637,
    with the numbers of Enright & Pryce
(1987), ACM TOMS 13(1), 1-27 (ACM Algorithm 648), which give C5's initial state and E4's 0.032 in full.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .problem import Dynamics, Textbook

Y = Any  # (D,): an array, or a traced value


def _named(
    name: str, f: Dynamics, y0: list[float], about: str, portrait: tuple[tuple[int, int], ...] = ()
) -> Textbook:
    return Textbook(name, f, np.array(y0), np.linspace(0.0, 20.0, 21), about, portrait=portrait)


# Class A: single equations


def decay(t: float, y: Y) -> Y:
    return -y


def riccati(t: float, y: Y) -> Y:
    return -0.5 * (y * y * y)


def oscillation(t: float, y: Y) -> Y:
    return y * np.cos(t)


def logistic(t: float, y: Y) -> Y:
    return 0.25 * y * (1.0 - y / 20.0)


def spiral(t: float, y: Y) -> Y:
    return (y - t) / (y + t)


# Class B: small systems


def predator_prey(t: float, y: Y) -> Y:
    eaten = y[0] * y[1]
    return np.stack([2.0 * (y[0] - eaten), eaten - y[1]])


def linear_reaction(t: float, y: Y) -> Y:
    return np.stack([y[1] - y[0], y[0] - 2.0 * y[1] + y[2], y[1] - y[2]])


def nonlinear_reaction(t: float, y: Y) -> Y:
    square = y[1] * y[1]
    return np.stack([-y[0], y[0] - square, square])


def torus(t: float, y: Y) -> Y:
    distance = np.sqrt(y[0] * y[0] + y[1] * y[1])
    return np.stack([-y[1] - y[0] * y[2] / distance, y[0] - y[1] * y[2] / distance, y[0] / distance])


def rigid_body(t: float, y: Y) -> Y:
    return np.stack([y[1] * y[2], -(y[0] * y[2]), -0.51 * (y[0] * y[1])])


# Class C: moderate systems


def _chain(rates: np.ndarray) -> Dynamics:
    """Each substance decays into the next at its rate (D - 1,); the last one is kept."""
    decays = np.append(rates, 0.0)

    def f(t: float, y: Y) -> Y:
        flow = decays * y
        return np.concatenate([-flow[:1], flow[:-1] - flow[1:]])

    return f


def diffusion(t: float, y: Y) -> Y:
    """Second differences with zeros beyond both ends."""
    padded = np.pad(y, 1)
    return padded[:-2] - 2.0 * y + padded[2:]


_SUN, _GRAVITY = 1.00000597682, 2.95912208286
_PLANETS = np.array(
    [0.954786104043e-3, 0.285583733151e-3, 0.437273164546e-4, 0.517759138449e-4, 0.277777777778e-5]
)[:, None]
_PLANETS_Y0 = [
    *(3.42947415189, 3.35386959711, 1.35494901715),
    *(6.64145542550, 5.97156957878, 2.18231499728),
    *(11.2630437207, 14.6952576794, 6.27960525067),
    *(-30.1552268759, 1.65699966404, 1.43785752721),
    *(-21.1238353380, 28.4465098142, 15.3882659679),
    *(-0.557160570446, 0.505696783289, 0.230578543901),
    *(-0.415570776342, 0.365682722812, 0.169143213293),
    *(-0.325325669158, 0.189706021964, 0.0877265322780),
    *(-0.0240476254170, -0.287659532608, -0.117219543175),
    *(-0.176860753121, -0.216393453025, -0.0148647893090),
]


def five_planets(t: float, y: Y) -> Y:
    """Five outer planets relative to the sun: 15 coordinates, planet by planet, then 15 velocities;
    per century / 10.

    The sum over the other planets of m_j q_j / r_j**3, which is how they move the sun, is the sum over all
    less the planet's own; the own part cancels against that of the mass m0 + m_i.
    """
    q = np.reshape(y[:15], (5, 3))
    square = np.sum(q * q, axis=1, keepdims=True)
    to_sun = q / (square * np.sqrt(square))
    apart = np.expand_dims(q, 0) - np.expand_dims(q, 1)
    squares = np.sum(apart * apart, axis=2, keepdims=True) + np.eye(5)[:, :, None]  # 0 / 1 to itself
    pull = np.sum(_PLANETS * (apart / (squares * np.sqrt(squares))), axis=1)
    acceleration = _GRAVITY * (pull - _SUN * to_sun - np.sum(_PLANETS * to_sun, axis=0))
    return np.concatenate([y[15:], np.reshape(acceleration, (15,))])


# Class D: the two-body problem


def two_bodies(t: float, y: Y) -> Y:
    """Position and velocity (4,) in the field of a unit mass at the origin."""
    square = y[0] * y[0] + y[1] * y[1]
    cube = square * np.sqrt(square)
    return np.stack([y[2], y[3], -(y[0] / cube), -(y[1] / cube)])


def perihelion(eccentricity: float) -> list[float]:
    """Where an orbit of semi-major axis 1 (period 2 pi) is fastest."""
    return [1.0 - eccentricity, 0.0, 0.0, math.sqrt((1.0 + eccentricity) / (1.0 - eccentricity))]


# Class E: higher-order equations


def bessel(t: float, y: Y) -> Y:
    x = t + 1.0
    return np.stack([y[1], -(y[1] / x + (1.0 - 0.25 / (x * x)) * y[0])])


def van_der_pol_1(t: float, y: Y) -> Y:
    return np.stack([y[1], (1.0 - y[0] * y[0]) * y[1] - y[0]])


def forced_duffing(t: float, y: Y) -> Y:
    return np.stack([y[1], y[0] * y[0] * y[0] / 6.0 - y[0] + 2.0 * np.sin(2.78535 * t)])


def falling(t: float, y: Y) -> Y:
    return np.stack([y[1], 0.032 - 0.4 * (y[1] * y[1])])


def pursuit(t: float, y: Y) -> Y:
    return np.stack([y[1], np.sqrt(1.0 + y[1] * y[1]) / (25.0 - t)])


def detest() -> Iterator[Textbook]:
    """A1 to E5."""
    first = [1.0] + [0.0] * 9
    yield _named("A1", decay, [1.0], "Exponential decay.")
    yield _named("A2", riccati, [1.0], "A special case of Riccati's equation.")
    yield _named("A3", oscillation, [1.0], "An oscillation, y' = y cos t.")
    yield _named("A4", logistic, [1.0], "Logistic growth.")
    yield _named("A5", spiral, [4.0], "A spiral, y' = (y - t) / (y + t).")
    yield _named("B1", predator_prey, [1.0, 3.0], "Two populations in conflict.", ((0, 1),))
    yield _named("B2", linear_reaction, [2.0, 0.0, 1.0], "A linear chemical reaction.", ((0, 1),))
    yield _named("B3", nonlinear_reaction, [1.0, 0.0, 0.0], "A nonlinear chemical reaction.", ((0, 1),))
    yield _named("B4", torus, [3.0, 0.0, 0.0], "A curve on a torus.", ((0, 1), (0, 2)))
    yield _named("B5", rigid_body, [0.0, 1.0, 1.0], "A rigid body without forces.", ((0, 1), (0, 2)))
    yield _named("C1", _chain(np.ones(9)), first, "A radioactive chain of ten substances, equal rates.")
    yield _named("C2", _chain(np.arange(1.0, 10.0)), first, "A radioactive chain of ten, rates 1 to 9.")
    yield _named("C3", diffusion, first, "Heat in a rod, 10 points.")
    yield _named("C4", diffusion, first + [0.0] * 41, "Heat in a rod, 51 points.")
    yield _named("C5", five_planets, _PLANETS_Y0, "The sun and five planets.", ((0, 1), (3, 4)))
    for k, eccentricity in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), start=1):
        about = f"An orbit of two bodies, eccentricity {eccentricity}."
        yield _named(f"D{k}", two_bodies, perihelion(eccentricity), about, ((0, 1),))
    root = math.sqrt(2.0 / math.pi)
    start = [root * math.sin(1.0), root * (math.cos(1.0) - 0.5 * math.sin(1.0))]
    yield _named("E1", bessel, start, "Bessel's equation of order 1/2.", ((0, 1),))
    yield _named("E2", van_der_pol_1, [2.0, 0.0], "Van der Pol's oscillator, mu = 1.", ((0, 1),))
    yield _named("E3", forced_duffing, [0.0, 0.0], "Duffing's oscillator with a force.", ((0, 1),))
    yield _named("E4", falling, [30.0, 0.0], "A body falling with drag.", ((0, 1),))
    yield _named("E5", pursuit, [0.0, 0.0], "A curve of pursuit.", ((0, 1),))
