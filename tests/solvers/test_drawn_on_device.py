"""Drawn networks, shapes, output times, directions and methods: a device gives the gradients of NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from odegrad import value_and_grad
from odegrad.engine import backend
from odegrad.engine.tree import leaves, tree_map
from oracles import assert_close, norm
from solving import cases

with_a_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def moved(case, xp):
    """The case with its arrays on a device; the times stay on the host."""
    there = {name: tree_map(xp.asarray, getattr(case, name)) for name in ("y0", "params", "weights")}
    return replace(case, **there)


def gradients(case, **options):
    def loss(y0, params, ts):
        return case.loss(y0, params, ts, **options)

    return value_and_grad(loss, argnums=(0, 1, 2))(case.y0, case.params, case.ts)


@pytest.mark.parametrize("gradient", ["tape", "discrete", "backsolve", "interpolated"])
@given(case=cases(rtols=(1e-3, 1e-6)))
@with_a_fixture
def test_gradients_are_those_of_the_host(device_xp, gradient, case):
    """On given steps, so that round-off chooses none; where it does, the results differ by what it moves."""
    options = {"gradient": gradient, "grid": case.grid(), "step_size": None}
    if gradient in ("backsolve", "interpolated"):  # which choose steps of their own all the same
        options = {"gradient": gradient, "drift_limit": np.inf}
    found, expected = leaves(gradients(moved(case, device_xp), **options)), leaves(gradients(case, **options))
    for x, y in zip(found, expected, strict=True):
        tol = 1e-10 if "grid" in options else 1e-6
        assert_close(backend.to_host(x), y, scale=norm(*map(np.asarray, expected)), tol=tol)


@pytest.mark.parametrize("keep", ["all", "none"])
@given(case=cases(rtols=(1e-4,)))
@with_a_fixture
def test_recomputed_steps_are_the_same_on_the_device(device_xp, keep, case):
    """Bit for bit those that were kept, as on the host."""
    case = moved(case, device_xp)
    _, first = gradients(case, keep=keep)
    _, again = gradients(case, keep="auto")
    for x, y in zip(leaves(first), leaves(again), strict=True):
        np.testing.assert_array_equal(backend.to_host(x), backend.to_host(y))
