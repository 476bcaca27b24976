"""Tolerances below what the arithmetic resolves are warned about, and what the warning claims holds."""

import warnings
from types import SimpleNamespace

import numpy as np
import odegrad
import pytest
from odegrad.engine import backend
from odegrad.engine.errors import PrecisionWarning
from odegrad.engine.product_precision import product_precision
from odegrad.solvers.methods import METHODS
from odegrad.solvers.resolution import warn_unresolved
from rounded_products import rounded_products


def decay(t, y):
    return -y


def solve(dtype, **tolerances):
    return odegrad.odeint(decay, np.ones(3, dtype), (0.0, 0.01), **tolerances)


def messages(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught if warning.category is PrecisionWarning]


@pytest.mark.parametrize("dtype, epsilon", [(np.float32, 2.0**-23), (np.float64, 2.0**-52)])
@pytest.mark.parametrize("factor, is_warned", [(1.01, False), (0.99, True)])
def test_the_machine_epsilon_of_the_state_is_the_limit(dtype, epsilon, factor, is_warned):
    found = messages(lambda: solve(dtype, rtol=factor * epsilon, atol=factor * epsilon))
    assert len(found) == is_warned


@pytest.mark.parametrize("tolerances", [{"rtol": 1e-9, "atol": 1e-3}, {"rtol": 1e-3, "atol": 1e-9}])
def test_one_tolerance_that_can_be_met_is_enough(tolerances):
    assert not messages(lambda: solve(np.float32, **tolerances))


def test_rows_with_steps_of_their_own_are_warned_about_too():
    y0 = np.ones((2, 3), np.float32)
    call = lambda: odegrad.odeint(decay, y0, (0.0, 0.01), rtol=1e-9, atol=1e-9, independent=True)  # noqa: E731
    assert len(messages(call)) == 1


def test_fixed_steps_have_no_tolerance():
    assert not messages(lambda: solve(np.float32, rtol=1e-9, atol=1e-9, method="rk4", step_size=0.01))


def test_the_warning_has_numbers_and_advice():
    [message] = messages(lambda: solve(np.float32, rtol=1e-9, atol=1e-8))
    assert "rtol=1e-09 and atol=1e-08" in message
    assert "1.2e-07" in message and "float64" in message


def test_it_points_to_the_caller():
    with pytest.warns(PrecisionWarning) as caught:
        solve(np.float32, rtol=1e-9, atol=1e-9)
    assert caught[0].filename == __file__


def test_it_comes_once_from_one_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            solve(np.float32, rtol=1e-9, atol=1e-9)
    assert len(caught) == 1


@pytest.fixture
def on_gpu(monkeypatch):
    """Dynamics of float32 arrays that are not NumPy's."""
    monkeypatch.setattr(backend, "matrix_products_in", lambda precision: warnings.catch_warnings())
    return lambda dtype: SimpleNamespace(xp=object(), layout=SimpleNamespace(dtype=np.dtype(dtype)))


def options(tolerance):
    return SimpleNamespace(method=METHODS["dopri5"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "precision, tolerance, is_warned",
    [
        ("tf32", 1e-3, False),
        ("tf32", 9e-4, True),
        ("bf16", 4e-3, False),
        ("bf16", 3e-3, True),
        ("fp32", 1e-6, False),
    ],
)
def test_rounded_operands_raise_the_limit(on_gpu, precision, tolerance, is_warned):
    with product_precision(precision):
        found = messages(lambda: warn_unresolved(options(tolerance), on_gpu("float32")))
    assert len(found) == is_warned


def test_products_of_float64_are_not_rounded(on_gpu):
    with product_precision("bf16"):
        assert not messages(lambda: warn_unresolved(options(1e-6), on_gpu("float64")))


def test_products_of_numpy_are_not_rounded(on_gpu):
    with product_precision("bf16"):
        assert not messages(lambda: solve(np.float32, rtol=1e-5, atol=1e-5))


def ring(rng, n=32):
    """A linear rotation y' = A y of n numbers, and its exact solution at t = 1."""
    a = rng.standard_normal((n, n)) / n**0.5
    values, vectors = np.linalg.eigh(1j * (a - a.T))
    y0 = rng.standard_normal(n)
    exact = (vectors @ (np.exp(-1j * values) * (vectors.conj().T @ y0))).real
    return (a - a.T).astype(np.float32), y0.astype(np.float32), exact


@pytest.mark.parametrize("precision, resolved", [("tf32", 2.0**-10), ("bf16", 2.0**-8)])
def test_below_the_limit_evaluations_buy_no_accuracy(rng, precision, resolved):
    a, y0, exact = ring(rng)

    def error_and_cost(tolerance):
        with rounded_products(precision):
            sol = odegrad.odeint(
                lambda t, y, a: a @ y, y0, (0.0, 1.0), a, rtol=tolerance, atol=tolerance, execution="eager"
            )
        return np.abs(sol.ys[-1] - exact).max(), sol.stats.nfe

    (error, cost), (finer, dearer) = error_and_cost(resolved / 10), error_and_cost(resolved / 1000)
    assert dearer > 2 * cost and finer > error / 3
