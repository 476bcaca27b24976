"""Oracles that share no code with the engine: complex step, extrapolated differences, scaled comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

EPS64 = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)
STEP = 1e-20  # h**2 is far below the spacing of doubles, and nothing is subtracted


def host(value: Any) -> Any:
    """The value as a NumPy array (a copy from the device if it lives there)."""
    return value.get() if hasattr(value, "get") and not isinstance(value, dict) else np.asarray(value)


def norm(*arrays: Any) -> float:
    """The Euclidean norm of all entries."""
    return float(np.sqrt(sum(float(np.sum(np.abs(host(a)) ** 2)) for a in arrays)))


def inner(first: Any, second: Any) -> float:
    """The sum of products of corresponding entries, nothing conjugated."""
    return np.sum(host(first) * host(second)).item()


def inner_all(first: Sequence[Any], second: Sequence[Any]) -> float:
    """The sum of `inner` over two lists of arrays."""
    return sum(inner(a, b) for a, b in zip(first, second, strict=True))


def assert_close(actual: Any, expected: Any, *, scale: float, tol: float) -> None:
    """|actual - expected| <= tol * scale in every entry, shapes equal; a scale of 0 asks for equality."""
    actual, expected = host(actual), host(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if actual.size == 0:
        return
    if expected.dtype.kind == "b":
        actual, expected = actual.astype(int), expected.astype(int)
    assert np.all(np.isfinite(actual) == np.isfinite(expected)), f"got {actual}, expected {expected}"
    error = float(np.max(np.abs(actual - expected)))
    assert error <= tol * scale, f"error {error:.3e} > {tol:.1e} * scale {scale:.3e}"


def complex_step(f: Callable[..., Any], xs: Sequence[Any], directions: Sequence[Any]) -> np.ndarray:
    """The derivative of an analytic f at real xs in the given directions: Im f(x + i h xdot) / h, exact to round-off."""
    shifted = [np.asarray(x) + 1j * STEP * np.asarray(d) for x, d in zip(xs, directions, strict=True)]
    return np.imag(host(f(*shifted))) / STEP


def central_difference(
    f: Callable[..., Any], xs: Sequence[Any], directions: Sequence[Any], h: float = 2e-3
) -> Any:
    """Central differences at h, h/2, h/4, h/8, extrapolated to h = 0: an error of order h**8."""

    def difference(step: float) -> np.ndarray:
        forward = host(f(*[x + step * d for x, d in zip(xs, directions, strict=True)]))
        backward = host(f(*[x - step * d for x, d in zip(xs, directions, strict=True)]))
        return (forward - backward) / (2 * step)

    rows = [difference(h / 2**k) for k in range(4)]
    for order in range(1, 4):
        rows = [
            (4**order * fine - coarse) / (4**order - 1) for coarse, fine in zip(rows, rows[1:], strict=False)
        ]
    return rows[0]
