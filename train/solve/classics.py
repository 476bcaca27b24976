"""Problems beyond DETEST that every solver is shown on: chaos, close encounters, stiffness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .detest import perihelion, two_bodies
from .problem import Dynamics, Textbook

Y = Any  # (D,): an array, or a traced value


def lorenz(t: float, y: Y) -> Y:
    """Lorenz (1963), J. Atmos. Sci. 20, 130-141."""
    return np.stack([10.0 * (y[1] - y[0]), y[0] * (28.0 - y[2]) - y[1], y[0] * y[1] - (8.0 / 3.0) * y[2]])


_MASSES = np.arange(1.0, 8.0)
_PLEIADES_Y0 = [
    *(3.0, 3.0, -1.0, -3.0, 2.0, -2.0, 2.0),
    *(3.0, -3.0, 2.0, 0.0, 0.0, -4.0, 4.0),
    *(0.0, 0.0, 0.0, 0.0, 0.0, 1.75, -1.5),
    *(0.0, 0.0, 0.0, -1.25, 1.0, 0.0, 0.0),
]


def pleiades(t: float, y: Y) -> Y:
    """Seven stars in a plane, of masses 1 to 7: x (7), y (7), then their velocities.

    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, section II.10.
    """
    apart_x = np.expand_dims(y[:7], 0) - np.expand_dims(y[:7], 1)
    apart_y = np.expand_dims(y[7:14], 0) - np.expand_dims(y[7:14], 1)
    square = apart_x * apart_x + apart_y * apart_y + np.eye(7)  # 0 / 1 to itself
    pull = _MASSES / (square * np.sqrt(square))
    return np.concatenate([y[14:], np.sum(pull * apart_x, axis=1), np.sum(pull * apart_y, axis=1)])


def van_der_pol(mu: float) -> Dynamics:
    def f(t: float, y: Y) -> Y:
        return np.stack([y[1], mu * ((1.0 - y[0] * y[0]) * y[1]) - y[0]])

    return f


def robertson(t: float, y: Y) -> Y:
    """An autocatalytic reaction; Hairer & Wanner (1996), Solving ODEs II, section IV.1."""
    slow, fast, back = 0.04 * y[0], 3e7 * (y[1] * y[1]), 1e4 * (y[1] * y[2])
    return np.stack([back - slow, slow - back - fast, fast])


def hires(t: float, y: Y) -> Y:
    """How light and a photoreceptor shape a plant; Hairer & Wanner (1996), Solving ODEs II, section IV.10."""
    bound = 280.0 * (y[5] * y[7])
    return np.stack(
        [
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * (y[5] + y[6]),
            -bound + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
            bound - 1.81 * y[6],
            1.81 * y[6] - bound,
        ]
    )


def classics() -> Iterator[Textbook]:
    """lorenz, kepler, pleiades, van-der-pol-1, van-der-pol-1000, robertson, hires."""
    yield Textbook(
        "lorenz", lorenz, np.array([-8.0, 8.0, 27.0]), np.linspace(0.0, 10.0, 21), "Lorenz's chaotic convection.",
        portrait=((0, 2), (0, 1)),
    )  # fmt: skip
    yield Textbook(
        "kepler", two_bodies, np.array(perihelion(0.9)), np.linspace(0.0, 60.0, 21),
        "Nine and a half orbits of two bodies, eccentricity 0.9.", portrait=((0, 1), (2, 3)),
    )  # fmt: skip
    yield Textbook(
        "pleiades", pleiades, np.array(_PLEIADES_Y0), np.linspace(0.0, 3.0, 21), "Seven stars in a plane.",
        portrait=tuple((k, k + 7) for k in range(7)),
    )  # fmt: skip
    yield Textbook(
        "van-der-pol-1", van_der_pol(1.0), np.array([2.0, 0.0]), np.linspace(0.0, 40.0, 21),
        "Van der Pol's oscillator, mu = 1, six periods.", portrait=((0, 1),),
    )  # fmt: skip
    yield Textbook(
        "van-der-pol-1000", van_der_pol(1e3), np.array([2.0, 0.0]), np.linspace(0.0, 2000.0, 21),
        "Van der Pol's oscillator, mu = 1000: slow, with two jumps.", is_stiff=True, smallest=1e-3,
        portrait=((-1, 1),),
    )  # fmt: skip
    yield Textbook(
        "robertson", robertson, np.array([1.0, 0.0, 0.0]), np.append(0.0, 0.4 * 10.0 ** np.arange(7)),
        "Robertson's reaction, time scales from 1e-4 to 1e5.", is_stiff=True, smallest=1e-6,
        portrait=((-1, 1),),
    )  # fmt: skip
    yield Textbook(
        "hires", hires, np.array([1.0, 0, 0, 0, 0, 0, 0, 0.0057]), np.linspace(0.0, 321.8122, 21),
        "High irradiance responses of plants, eight substances.", is_stiff=True, smallest=1e-3,
        portrait=((-1, 7),),
    )  # fmt: skip
