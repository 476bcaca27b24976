"""Programs replayed as launches: the kernels run on the CPU, CuPy's arrays are those of the stand-in."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import Guarded, needs_compiler, on_cpu
from fake_graphs import install
from odegrad import ops
from odegrad.engine.cuda import source
from odegrad.engine.cuda.products import product_calls
from odegrad.engine.ops.normalization import hat_slopes
from on_device import OnDevice
from oracles import EPS32, EPS64, assert_close, norm

pytestmark = needs_compiler


@pytest.fixture
def stand_in(fake_cupy, monkeypatch):
    """The stand-in for CuPy, whatever the marker."""
    on_cpu(monkeypatch)
    install(fake_cupy, monkeypatch)
    return fake_cupy


def perceptron(t, y, w, b):
    """Products, a number that depends on time, a cube."""
    return np.tanh(y**3 @ w * np.cos(2.0 * t) + b) @ w.T


def interpolated(t, y, w, b):
    """A grid of times read with hat functions, on the device."""
    at_t = ops.hat_weights(t, np.linspace(0.0, 1.0, 6), dtype="float64")
    return y * (at_t @ w) + b


def moved(t, y, w, b):
    """Steps that only move values: joined, cut, padded, turned, taken by index."""
    joined = np.concatenate([y, ops.broadcast_to(b, y.shape), y * 0.5], axis=1)
    padded = ops.pad(joined[:, 2:8], ((0, 0), (1, 1)))
    turned = np.transpose(padded).reshape(padded.shape)
    return ops.take(turned, [0, 2, 2, 5], axis=1)[:, : y.shape[1]] @ w[: y.shape[1]] + np.max(y, axis=0)


def filled(t, y, w, b):
    """A number that becomes an array, and a step that wants its number on the host."""
    times = ops.broadcast_to(np.sin(t), y.shape)
    return y * times + ops.einsum("ij,jk->ik", y, w[: y.shape[1]]) * t + ops.concatenate([b * t, b])[: len(b)]


CASES = {
    "perceptron": (perceptron, (7, 2), [(2, 50), (50,)]),
    "interpolated": (interpolated, (5, 3), [(6, 3), (3,)]),
    "moved": (moved, (5, 4), [(6, 4), (4,)]),
    "filled": (filled, (5, 4), [(6, 4), (4,)]),
}


def case(name, rng, dtype=np.float64):
    f, shape, sizes = CASES[name]
    y, ybar, *params = (rng.standard_normal(s).astype(dtype) for s in (shape, shape, *sizes))
    return f, y, ybar, params


@pytest.mark.parametrize("name", CASES)
def test_launches_give_the_values_of_the_interpreted_program(name, cupy, rng):
    f, y, ybar, params = case(name, rng)
    device = OnDevice(cupy, f, 0.4, y, params)
    device(0.9, ybar, y)
    found, plain = device(0.31, y, ybar), device.plainly(0.31, y, ybar)
    for result, expected in zip(found, plain, strict=True):
        assert_close(result, expected, scale=norm(*plain), tol=100 * EPS64)


def test_groups_run_without_a_transfer(stand_in, rng):
    f, y, _, params = case("perceptron", rng)
    device = OnDevice(stand_in, f, 0.4, y, params)
    stand_in.reset()
    for run in device.set.run.values():
        run(0.7)
    assert (stand_in.reads, stand_in.writes) == (0, 0)


def test_a_time_on_the_device_is_as_good(cupy, rng):
    f, y, ybar, params = case("interpolated", rng)
    device = OnDevice(cupy, f, 0.4, y, params)
    expected = device(0.31, y, ybar)
    for found, value in zip(device(cupy.asarray(np.float64(0.31)), y, ybar), expected, strict=True):
        assert np.array_equal(found, value)


def test_a_group_is_one_launch_from_the_third_time_on(stand_in, rng):
    """Beside the one that fills in the numbers that depend on time."""
    f, y, _, params = case("perceptron", rng)
    device = OnDevice(stand_in, f, 0.4, y, params, pulls=False)
    happened = []
    for t in (0.1, 0.2, 0.3):
        stand_in.calls.clear()
        found = device(t, y)
        happened.append([call[0] for call in stand_in.calls if call[0] != "upload"])
        assert_close(found[0], device.plainly(t, y)[0], scale=norm(found[0]), tol=100 * EPS64)
    assert happened == [["after", "after"], ["capture", "captured", "launch"], ["launch"]]


def test_a_group_that_cannot_be_captured_is_launched_kernel_by_kernel(stand_in, rng):
    f, y, ybar, params = case("filled", rng)
    device = OnDevice(stand_in, f, 0.4, y, params)
    for t in (0.1, 0.2, 0.3):
        found, plain = device(t, y, ybar), device.plainly(t, y, ybar)
        for result, expected in zip(found, plain, strict=True):
            assert_close(result, expected, scale=norm(*plain), tol=100 * EPS64)
    assert device.workspace.recorder.refused["F"] == "`einsum` has no kernel that can be recorded"


def test_numbers_that_were_captured_are_loaded_anew(cupy, rng):
    factor = [2.0]
    y = rng.standard_normal((3, 4))
    device = OnDevice(cupy, lambda t, y: y * factor[0] * (factor[0] + t), 0.4, y, [], pulls=False)
    device(0.5, y)
    device.load([3.0 if value == 2.0 else value for value in device.recording.hidden])
    assert_close(device(0.5, y)[0], y * 3.0 * 3.5, scale=norm(y), tol=100 * EPS64)


def on_the_host(t, y, w, b):
    return y + ops.astype(ops.astype(y, np.int64) * t, y.dtype)


def with_a_number(t, y, w, b):
    return y + ops.astype(ops.astype(y, np.int64) * 2.5, y.dtype)


def running(t, y, w, b):
    return y + np.cumsum(y, axis=1)


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (perceptron, None),
        (interpolated, None),
        (moved, None),
        (on_the_host, "`mul` reads the time on the host"),
        (with_a_number, "`mul` reads a number on the host"),
        (running, "`cumsum` has no kernel that can be recorded"),
    ],
)
def test_whether_launches_can_be_recorded(f, reason, cupy, rng):
    _, y, _, params = case(
        {"perceptron": "perceptron", "moved": "moved"}.get(f.__name__, "interpolated"), rng
    )
    device = OnDevice(cupy, f, 0.4, y, params, pulls=False)
    assert device.workspace.unrecordable("F") == reason


def test_a_copy_in_the_place_of_a_view_is_noticed(stand_in, rng, monkeypatch):
    f, y, _, params = case("moved", rng)
    transpose = stand_in.transpose
    monkeypatch.setattr(stand_in, "transpose", lambda x, axes: transpose(x, axes).copy())
    with pytest.raises(AssertionError, match="`transpose` made a copy"):
        OnDevice(stand_in, f, 0.4, y, params, pulls=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 65, 3), (33, 16, 17), (1, 101, 64)], ids=str)
@pytest.mark.parametrize("turned", ["", "a", "b"])
def test_products(sizes, dtype, turned, rng, monkeypatch):
    on_cpu(monkeypatch)
    m, k, n = sizes
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    a, b = (np.asfortranarray(x) if name == turned else x for name, x in (("a", a), ("b", b)))
    y = Guarded((m, n), dtype)
    ((kernel, arguments, _),) = product_calls(y.array, a, b)
    kernel(*arguments)
    scale = norm(a) * norm(b)
    exact = a.astype(np.float64) @ b
    assert_close(y.check(), exact, scale=scale, tol=4 * (EPS64 if dtype is np.float64 else EPS32))


@pytest.mark.parametrize(
    "sizes", [(300, 2000, 2), (400, 500, 500), (0, 3, 3), (16 * 65535 + 1, 2, 1)], ids=str
)
def test_large_and_empty_products_are_left_to_cublas(sizes):
    m, k, n = sizes
    assert product_calls(np.empty((m, n)), np.empty((m, k)), np.empty((k, n))) is None


def test_slopes_of_hats(cupy, rng):
    """Through the derivative in time: the right one at a node, zero outside."""
    w = rng.standard_normal((6, 3))
    grid = np.linspace(0.0, 1.0, 6)

    def f(t, y):
        return hat_slopes(t, grid, dtype="float64") @ w + y

    device = OnDevice(cupy, f, 0.4, np.zeros((2, 3)), [], pulls=False)
    for t in (-0.1, 0.0, 0.27, grid[2], 1.0, 1.4):
        cell = np.searchsorted(grid, t, "right") - 1
        slope = (w[cell + 1] - w[cell]) / (grid[cell + 1] - grid[cell]) if 0 <= t < 1 else np.zeros(3)
        assert_close(device(t, np.zeros((2, 3)))[0][0], slope, scale=10.0, tol=10 * EPS64)


def test_kernels_are_compiled_once_a_text(cupy, rng, monkeypatch):
    f, y, _, params = case("perceptron", rng)
    OnDevice(cupy, f, 0.4, y, params)
    before = source.module.cache_info().misses
    OnDevice(cupy, f, 0.4, y, params)
    assert source.module.cache_info().misses == before
