"""Complex states: the bilinear (holomorphic) derivative of y' = i p y against its closed form and `tape`."""

from __future__ import annotations

import numpy as np
import pytest
from odegrad import odeint, vjp
from odegrad.solvers.options import GRADIENTS
from solving import distance

Y0 = np.array([1.0 + 0.5j, -0.3 + 2.0j])
TS = np.array([0.0, 0.4, 1.0])
RATES = {"complex": np.array([0.8 - 0.3j, 1.5 + 0.2j]), "real": np.array([0.8, 1.5])}
YS_BAR = np.array([[0.3, 1j], [1.0 - 1j, 0.5], [0.7j, -0.2 + 0.1j]])
EXECUTIONS = ("replay", "eager")


def turn(t, y, p):
    return 1j * p * y


def gradients(rates, **options):
    """Cotangents of (y0, p), given `YS_BAR`."""
    tight = {"rtol": 1e-10, "atol": 1e-12, **options}
    _, pull_back = vjp(lambda y, p: odeint(turn, y, TS, p, **tight).ys, Y0, rates)
    return pull_back(YS_BAR)


def closed_form(rates):
    """y = exp(i p t) y0, dy/dp = i t y; of a real parameter the cotangent is the real part."""
    growth = np.exp(1j * np.outer(TS, rates))
    p_bar = np.sum(YS_BAR * 1j * TS[:, None] * growth * Y0, axis=0)
    return np.sum(YS_BAR * growth, axis=0), p_bar if np.iscomplexobj(rates) else p_bar.real


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_gradient_is_that_of_the_closed_form(gradient, execution, rates):
    found = gradients(RATES[rates], gradient=gradient, execution=execution)
    assert distance(found, closed_form(RATES[rates])) <= 1e-8


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_discrete_is_tape(execution, rates):
    options = {"rtol": 1e-3, "execution": execution}
    found = gradients(RATES[rates], gradient="discrete", **options)
    assert distance(found, gradients(RATES[rates], gradient="tape", **options)) <= 1e-12
