"""Elementwise chains as CUDA kernels: their text compiled for cards, and run on the CPU beside the interpreted program."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from cuda_on_cpu import needs_compiler
from fake_cupy import FakeCupy
from nvrtc import ARCHITECTURES, compile_or_skip
from odegrad import ops
from odegrad.engine.cuda import chain_sums, chains, products, replay
from odegrad.engine.cuda.chain_sums import Axes, Sharing, common_axes
from odegrad.engine.cuda.chain_text import chain_of
from odegrad.engine.cuda.source import EXACT
from odegrad.engine.fusion import Run
from odegrad.engine.jit import Unsupported
from odegrad.engine.primitive import Primitive
from on_device import OnDevice, without_compiling
from oracles import EPS32, EPS64, assert_close, norm


def drawn(rng, shape, dtype=np.float64):
    """(y, ybar, params) for a state of this shape."""
    y, ybar = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    return y, ybar, [rng.standard_normal(s).astype(dtype) for s in (shape[1:], shape[-1:], shape[-1:])]


def normalised(t, y, w, gamma, b):
    """Sums to channels that feed back, an offset a position, ReLU."""
    x = y * (1.0 + np.sin(t)) + w
    mean, var = ops.moments(x)
    return ops.relu(ops.normalize(x, mean, var, 1e-5, gamma, b)) * 0.5 - y


def each_sample_normalised(t, y, w, gamma, b):
    """Sums a sample and channel, and all of them to channels."""
    x = y * (1.0 + np.sin(t)) + w
    return ops.relu(ops.group_normalize(x, 1, 1e-5) * gamma + b) - np.tanh(y)


def masked(t, y, w, gamma, b):
    """Truth values, between runs and inside of one; numbers that are truth values."""
    above = ops.logical_and(y > gamma, ops.logical_not(w < t))
    return above * y + np.where(y * 2.0 > b, y, w) + np.where(t > 0.5, y, 2.0 * y) * w


def reusing(t, y, w, gamma, b):
    """A result that is read by later steps and by views with gaps and negative steps, and sums to positions."""
    a = y * gamma + b
    rows = a.reshape(-1, a.shape[-1])
    turned = np.transpose(a, (*range(a.ndim - 2, -1, -1), a.ndim - 1)).reshape(-1)[: a.shape[-1]]
    return (rows * rows[::-1]).reshape(a.shape) + a * np.mean(a, axis=0) + w * turned


def summing(t, y, w, gamma, b):
    """Sums over first, middle, last and all axes of one array, which cannot all share their blocks."""
    x = y * w + b
    inner = tuple(range(1, x.ndim - 1))
    last = np.sum(x, axis=-1, keepdims=True)
    middle = np.sum(x * x, axis=inner, keepdims=True)
    return x * np.sum(x, axis=0) + last * gamma + middle * y + np.sum(x) * np.mean(x, axis=-1, keepdims=True)


def gathered(t, y, w, gamma, b):
    """Joins, padding, and indices with steps of both signs, whose transposes place values."""
    joined = np.concatenate([y[:, 1:3], y[:, ::-1], y[:, None, 0]], axis=1)
    padded = ops.pad(joined * gamma, ((0, 0), (1, 2), (0, 1), (0, 0)))
    picked = y[:, ::2, None, 1, ::-2]
    return (
        y
        + padded[:, 1:5, :3] * np.sum(picked * picked)
        + y[..., ::-1] * w
        + np.mean(y[:, -1:, :1, 3:], axis=-1)[..., None]
    )


CHAINS = {f.__name__: f for f in (normalised, each_sample_normalised, masked, reusing, summing, gathered)}
CASES = [
    ("normalised", (5, 4, 3, 65), np.float64),
    ("normalised", (3, 70), np.float32),
    ("each_sample_normalised", (3, 6, 5, 3), np.float64),
    ("masked", (5, 3, 7), np.float32),
    ("reusing", (4, 3, 2, 5), np.float64),
    ("summing", (6, 5, 4, 3), np.float64),
    ("summing", (7, 300, 1), np.float32),
    ("gathered", (5, 4, 3, 7), np.float64),
]


@needs_compiler
@pytest.mark.parametrize(("name", "shape", "dtype"), CASES, ids=str)
def test_kernels_give_the_values_of_the_interpreted_program(name, shape, dtype, cupy, rng):
    y, ybar, params = drawn(rng, shape, dtype)
    device = OnDevice(cupy, CHAINS[name], 0.4, y, params)
    device(1.3, ybar, y)  # other values first: nothing of them may stay
    found, eps = device(0.7, y, ybar), EPS64 if dtype is np.float64 else EPS32
    exact = OnDevice.plainly(device, 0.7, y, ybar)
    for result, expected in zip(found, exact, strict=True):
        assert result.dtype == expected.dtype
        assert_close(result, expected, scale=norm(*exact), tol=100 * eps)


def test_sums_of_a_chain_are_finished_by_one_kernel(texts_only, rng):
    """Two of channels, in pieces; the sums of each sample are done when the chain is."""

    def f(t, y):
        z = y * 2.0
        return [np.sum(z, axis=(0, 1)), np.sum(y * z, axis=(0, 1)), np.sum(z, axis=1)]

    device = OnDevice(texts_only, f, 0.4, rng.standard_normal((300, 2, 5)), [], pulls=False)
    (run,) = [piece for piece in device.workspace.schedules["F"] if isinstance(piece, Run)]
    kernel, chain = device.workspace.chain(run)
    assert chain.finish.grid == (1, 2)
    assert (kernel, device.workspace.finish(run)) == ("chain_0", "chain_1")


@needs_compiler
@pytest.mark.parametrize(("shape", "lines"), [((9, 7, 5), 1), ((900, 2), 2), ((3, 65), 3)], ids=str)
def test_sums_in_pieces(shape, lines, cupy, rng, monkeypatch):
    """Rows that are cut into pieces, and sums of which each is one thread's."""
    monkeypatch.setattr(chain_sums, "ROWS_A_THREAD", 1)
    monkeypatch.setattr(chain_sums, "THREADS", 32)
    if lines == 1:
        monkeypatch.setattr(chain_sums, "MANY", 1)
    y, ybar, params = drawn(rng, shape)
    device = OnDevice(cupy, summing, 0.4, y, params)
    plain = device.plainly(0.7, y, ybar)
    for result, expected in zip(device(0.7, y, ybar), plain, strict=True):
        assert_close(result, expected, scale=norm(*plain), tol=100 * EPS64)


@needs_compiler
def test_several_values_a_thread(cupy, rng, monkeypatch):
    """Blocks of 1,024 values: two whole ones and a part."""
    monkeypatch.setattr(chains, "LARGE", 1)
    y = rng.standard_normal((33, 65))
    device = OnDevice(cupy, lambda t, y: np.tanh(y) + t * y, 0.4, y, [], pulls=False)
    assert_close(device(0.7, y)[0], np.tanh(y) + 0.7 * y, scale=norm(y), tol=8 * EPS64)


def random_function(rng):
    """A function of (t, y, w, gamma, b) of some twenty steps, drawn: elementwise, sums that feed back, joins, products."""

    def unary(x):
        return [np.tanh, ops.sigmoid, np.square, ops.relu, np.sin, lambda x: x[:, ::-1], lambda x: -0.5 * x][
            rng.integers(7)
        ](x)

    def binary(x, z):
        kinds = [
            lambda: x + z, lambda: x * z, lambda: x - 0.3 * z, lambda: np.maximum(x, z), lambda: np.where(x > z, x, z),
            lambda: np.concatenate([x, z], axis=1)[:, 1 : 1 + x.shape[1]],
        ]  # fmt: skip
        return kinds[rng.integers(len(kinds))]()

    def reduced(x):
        axes = [0, -1, tuple(range(1, x.ndim)), tuple(range(x.ndim - 1)), None][rng.integers(5)]
        return np.mean(x, axis=axes, keepdims=True)

    seed = rng.integers(1 << 30)

    def f(t, y, w, gamma, b):
        nonlocal rng
        rng = np.random.default_rng(seed)  # the same whenever it is called
        values = [y, y * gamma, y + b * t]
        for _ in range(8):
            x, z = (values[k] for k in rng.integers(len(values), size=2))
            values.append(unary(binary(x, z)))
            if rng.random() < 0.4:
                values.append(values[-1] * reduced(x) + w)
        return sum(values[3:], values[0]) * 0.1

    return f


@needs_compiler
@pytest.mark.parametrize("seed", range(4))
def test_drawn_programs(seed, cupy):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 6, size=rng.integers(2, 5)))
    y, ybar, params = drawn(rng, shape)
    device = OnDevice(cupy, random_function(rng), 0.4, y, params)
    found, plain = device(0.7, y, ybar), device.plainly(0.7, y, ybar)
    for result, expected in zip(found, plain, strict=True):
        assert_close(result, expected, scale=norm(*plain), tol=200 * EPS64)


def everything(t, y, w):
    """Each operation that kernels know, y in (-2, 2) and w in (0.1, 2)."""
    u = ops.tanh(y)
    floats = [
        y + w, y - w, y * w, y / w, -y, ops.square(y), w**3, w**-2, w**2.5, ops.power_of(w, y), ops.exp(y), ops.expm1(y),
        ops.log(w), ops.log1p(w), ops.sqrt(w), ops.sin(y), ops.cos(y), ops.tan(u), ops.arctan(y), ops.sinh(y), ops.cosh(y),
        u, ops.sigmoid(y), ops.softplus(y), ops.absolute(y), ops.maximum(y, w), ops.minimum(y, w), ops.relu(y), ops.sign(y),
        ops.floor(y), ops.ceil(y), ops.rint(3.0 * y), ops.zeros_like(y), ops.ones_like(y), ops.conj(y), ops.real(y),
        ops.copy(y), ops.stop_gradient(y), ops.where(y > w, y, 2.0), y * (t + 1.0), ops.astype(y > 0, y.dtype),
    ]  # fmt: skip
    truths = [
        y > w, y >= w, y < w, y <= w, ops.equal(y, y), ops.not_equal(y, w), ops.isnan(y), ops.isfinite(y / 0.0),
        ops.logical_and(y > 0, w > 1), ops.logical_or(y > 0, w > 1), ops.logical_not(y > 0), ops.where(y > 0, w > 1, y > w),
        ops.zeros_like(y > 0), ops.ones_like(y > 0), ops.astype(y, np.bool_), ops.copy(y > t),
    ]  # fmt: skip
    wide = ops.astype(y, np.float64) * 1.5
    return [*floats, *truths, wide, ops.astype(wide, np.float32) + 1.0]


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_every_operation(dtype, cupy, rng):
    """At zeros, infinities and NaN as well."""
    y, w = rng.uniform(-2, 2, (7, 9)).astype(dtype), rng.uniform(0.1, 2, (7, 9)).astype(dtype)
    y[0, :6] = [0.0, -0.0, np.inf, -np.inf, np.nan, w[0, 5]]
    device = OnDevice(cupy, everything, 0.4, y, [w], pulls=False)
    assert not any(step.op.name == "tanh" for step in loose_steps(device))
    for step, result, expected in zip(
        device.program.outputs, device(0.7, y), device.plainly(0.7, y), strict=True
    ):
        assert result.dtype == expected.dtype, step
        eps = EPS32 if np.float32 in (dtype, result.dtype) else EPS64
        finite = np.isfinite(expected.astype(float))
        assert np.array_equal(np.isnan(result), np.isnan(expected)), step
        assert np.array_equal(result[~finite], expected[~finite], equal_nan=True), step
        error = np.abs(result[finite].astype(float) - expected[finite])
        assert (error <= 8 * eps * np.maximum(1e-300, np.abs(expected[finite]))).all(), device.program


def loose_steps(device):
    """The steps outside of chains, views excepted."""
    pieces = [piece for pieces in device.workspace.schedules.values() for piece in pieces]
    root = device.plan.root
    return [p for p in pieces if not isinstance(p, Run) and root[p.output] == p.output]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_generated_text_compiles_for_cards(architecture, dtype, rng):
    """Written with the stand-in in place, compiled with CuPy in its own."""
    y, _, params = drawn(rng, (300, 32, 32, 3), dtype)
    fake = FakeCupy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", fake)
        without_compiling(patch)
        patch.setattr(Primitive, "fits_cuda", lambda *_: False)
        devices = [OnDevice(fake, f, 0.4, y, params) for f in (normalised, summing, masked)]
    for device in devices:
        assert compile_or_skip(device.workspace.text, architecture, EXACT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("text", [replay.COMMON, products.TEXT], ids=["common", "products"])
def test_written_text_compiles_for_cards(text, architecture):
    assert compile_or_skip(text, architecture)


def kernels(device):
    return re.findall(r"chain_\d+", device.workspace.text)


def test_equal_chains_share_a_kernel(texts_only, rng):
    y, _, _ = drawn(rng, (6, 8))
    w1, w2 = rng.standard_normal((2, 8, 8))

    def f(t, y, w1, w2):
        return np.tanh(np.tanh(y @ w1) @ w2)

    device = OnDevice(texts_only, f, 0.4, y, [w1, w2], pulls=False)
    assert kernels(device) == ["chain_0"]


def test_a_result_that_nothing_else_reads_is_not_stored(texts_only, rng):
    y, _, params = drawn(rng, (6, 8))
    device = OnDevice(texts_only, lambda t, y, w, g, b: 3.0 * (y + w) * 2.0, 0.4, y, params, pulls=False)
    assert device.workspace.text.count("[e] = ") == 1


def test_steps_on_integers_and_complex_numbers_are_no_chains(texts_only, rng):
    y = rng.standard_normal((6, 8))

    def f(t, y, z):
        return [np.real(z * z) + 0.0, ops.astype(y, np.int64) + ops.astype(y, np.int64)]

    device = OnDevice(texts_only, f, 0.4, y, [y + 1j], pulls=False)
    names = [step.op.name for step in loose_steps(device)]
    assert "add" in names
    assert "astype_discrete" in names


def test_complex_numbers_have_no_replay(texts_only, rng):
    with pytest.raises(Unsupported, match="complex numbers"):
        OnDevice(texts_only, lambda t, y: np.real(y * 1j) + y, 0.4, rng.standard_normal(4), [], pulls=False)


AXES = [Axes(1, 1, 1), Axes(1, 5, 3), Axes(1, 65536 * 32, 64), Axes(256, 1024, 64), Axes(1, 1 << 20, 1), Axes(100000, 3, 1),
        Axes(7, 300, 1), Axes(1, 9, 5000), Axes(1, 256, 3 * 32 * 32), Axes(3, 17, 257)]  # fmt: skip


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_blocks_cover_rows_and_results_once(axes):
    sharing = Sharing.of(axes)
    assert 0 < sharing.threads <= 256
    assert (sharing.tiles - 1) * sharing.width < axes.results <= sharing.tiles * sharing.width
    assert (sharing.pieces - 1) * sharing.piece < axes.rows <= sharing.pieces * sharing.piece
    assert sharing.tiles * sharing.pieces <= max(chain_sums.BLOCKS, sharing.tiles)


@pytest.mark.parametrize(
    ("found", "common"),
    [
        ([Axes(1, 64, 5)], Axes(1, 64, 5)),
        ([Axes(1, 24, 5), Axes(4, 6, 5)], Axes(4, 6, 5)),
        ([Axes(1, 4, 30), Axes(1, 24, 5)], Axes(1, 4, 30)),
        ([Axes(1, 120, 1), Axes(4, 6, 5)], Axes(4, 6, 5)),
        ([Axes(1, 4, 30), Axes(4, 6, 5)], None),
        ([Axes(1, 24, 5), Axes(24, 5, 1)], None),
    ],
)
def test_sums_that_share_blocks(found, common):
    assert common_axes(found) == common


def test_positions_beyond_31_bits_are_wide(texts_only):
    shape = (1 << 16, 1 << 16)
    big = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), shape, (0, 0))
    plan = OnDevice(texts_only, lambda t, y: y * 2.0, 0.4, np.zeros((2, 3), np.float32), [], pulls=False).plan
    (step,) = plan.steps["F"]
    metas = tuple(meta._replace(shape=shape) if meta.shape == (2, 3) else meta for meta in plan.program.metas)
    object.__setattr__(plan.program, "metas", metas)
    chain = chain_of(plan, Run(big.shape, (step,), frozenset()), {}, lambda slot: "2.0")
    assert "typedef long long index" in chain.text
