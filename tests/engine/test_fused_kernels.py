"""Runs as kernels: the texts interpreted and, where numba is installed, compiled, beside NumPy's chunk by chunk."""

from __future__ import annotations

import ctypes
import logging
import math
import re
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from kernel_texts import FUNCTIONS as NUMPYS
from machine_code import needs_numba
from odegrad import ops
from odegrad.engine import chunks, fused_kernels, fusion
from odegrad.engine.errors import ArgumentError
from odegrad.engine.fused_kernels import KernelBinder
from odegrad.engine.fusion import Run
from odegrad.engine.jit import Unsupported
from odegrad.engine.jit.choice import CHOICE
from odegrad.engine.jit.runs import SIZES
from odegrad.engine.ops import wide
from oracles import EPS32, EPS64, assert_close, norm
from replaying import Replayed, joint_program
from threadpoolctl import threadpool_limits

pytestmark = pytest.mark.usefixtures("kernel_folder")
SMALL = [(5, 4, 4, 8), (3, 6, 1, 40), (6, 1, 40), (2, 9, 5), (7, 70), (4, 8, 8, 1), (1, 4, 4, 8)]


@pytest.fixture
def small(monkeypatch):
    """Every size of a run in small: chunks of two samples, several rows, parts of them."""
    for module, name, value in (
        (fusion, "LARGE", 32), (chunks, "CHUNK", 256), (wide, "ROW", 64), (fused_kernels, "WIDTH", 32),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.fixture(params=["interpreted", pytest.param("compiled", marks=needs_numba)])
def kernels(request, monkeypatch):
    """The number of kernels that were bound, as a list that grows."""
    bound = []
    compiler = interpreter(monkeypatch) if request.param == "interpreted" else fused_kernels._numba()

    def compile_text(source, dtype):
        bound.append(source)
        return compiler(source, dtype)

    monkeypatch.setattr(fused_kernels, "_compiler", lambda: compile_text)
    return bound


def interpreter(monkeypatch):
    """Runs a kernel's text in Python; to read or write outside of an array is an error."""
    arrays = {}
    given = KernelBinder._array

    def remembered(self, *args):
        array = given(self, *args)
        arrays[array.ctypes.data] = array.reshape(-1)
        return array

    def at(pointer, position):
        array, offset = pointer
        assert 0 <= offset + position < array.size
        return array, offset + position

    def read(pointer, position, number=0):
        array, place = at(pointer, position)
        return array[place]

    def write(pointer, position, value, number):
        array, place = at(pointer, position)
        array[place] = value

    def compile_text(source, dtype):
        names = {f"d_{name}": function for name, function in NUMPYS.items()}
        names |= {"d": np.dtype(dtype).type, "u": np.uint8, "load": read, "read": read, "write": write}
        names |= {"pointer": lambda address, like: (arrays[int(address)], 0)}
        names |= {"shifted": lambda pointer, by: (pointer[0], pointer[1] + int(by))}
        exec(source, names)

        def entry(first, last, job):
            count = len(SIZES) + source.count("pointer(")
            names["kernel"](first, last, (np.array((ctypes.c_int64 * count).from_address(job)), 0))

        callback = fused_kernels._ENTRY(entry)
        address = ctypes.cast(callback, ctypes.c_void_p).value
        return SimpleNamespace(address=address, callback=callback)

    monkeypatch.setattr(KernelBinder, "_array", remembered)
    return compile_text


def normalised(t, y, w, gamma, b):
    """Sums to channels that feed back, an offset a position, ReLU."""
    x = y * (1.0 + np.sin(t)) + w
    mean, var = ops.moments(x)
    return ops.relu(ops.normalize(x, mean, var, 1e-5, gamma, b)) * 0.5 - y


def each_sample_normalised(t, y, w, gamma, b):
    """Sums a sample and channel."""
    x = y * (1.0 + np.sin(t)) + w
    return ops.relu(ops.group_normalize(x, 1, 1e-5) * gamma + b) - np.tanh(y)


def masked(t, y, w, gamma, b):
    """Truth values, between runs and inside of one."""
    above = ops.logical_and(y > gamma, ops.logical_not(w < t))
    return above * y + np.where(y * 2.0 > b, y, w)


def reusing(t, y, w, gamma, b):
    """A result that is read by later steps and by views, and sums to positions."""
    a = y * gamma + b
    rows = a.reshape(-1, a.shape[-1])
    return (rows * rows[::-1]).reshape(a.shape) + a * np.mean(a, axis=0) + w


CHAINS = {f.__name__: f for f in (normalised, each_sample_normalised, masked, reusing)}
ARITHMETIC = {
    "arithmetic": lambda t, y, w, g, b: (y + w) * g - b / (1.0 + np.square(-y)),
    "roots": lambda t, y, w, g, b: np.sqrt(np.abs(y)) * np.sign(w) + t * y,
    "extrema": lambda t, y, w, g, b: np.maximum(y, w) - np.minimum(y, g) * ops.relu(y),
    "rounding": lambda t, y, w, g, b: np.floor(y) + np.ceil(w * y) * np.rint(3.0 * y),
    "comparisons": lambda t, y, w, g, b: y * (y > g) + w * (y <= b) - (y == w) * y + (y < t) * (y != t) * w,
    "finite": lambda t, y, w, g, b: y * ops.isfinite(y + w) + w * ops.isnan(y * g),
    "samples": lambda t, y, w, g, b: ops.group_normalize(y * w, 2, 1e-5) * g + b,
    "sums": lambda t, y, w, g, b: y * np.sum(y * w, axis=tuple(range(y.ndim - 1))) + np.mean(y, axis=0),
}


def drawn(rng, shape, dtype=np.float64):
    """(y, ybar, params) for a state of this shape."""
    y, ybar = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    return y, ybar, [rng.standard_normal(s).astype(dtype) for s in (shape[1:], shape[-1:], shape[-1:])]


def by_numpy(monkeypatch, f, y, params):
    """The function replayed without kernels."""
    with monkeypatch.context() as patch:
        patch.setattr(fused_kernels, "_compiler", lambda: None)
        return Replayed(f, 0.4, y, params)


@pytest.mark.parametrize("shape", SMALL, ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_kernels_give_the_values_of_the_interpreted_program(name, shape, small, kernels, rng):
    y, ybar, params = drawn(rng, shape)
    replayed = Replayed(CHAINS[name], 0.4, y, params)
    replayed(1.3, ybar, y)  # other values first: nothing of them may stay
    found = replayed(0.7, y, ybar)
    assert kernels
    plain = joint_program(replayed.recording.program).run([0.7, y, *params, ybar], replayed.recording.hidden)
    for result, expected in zip(found, plain, strict=True):
        assert_close(result, expected, scale=norm(*plain), tol=100 * EPS64)


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_and_sums_have_numpys_bits(name, small, kernels, rng, monkeypatch):
    """Also where a value is zero, infinite or not a number."""
    y, ybar, params = drawn(rng, (5, 4, 4, 8), np.float32)
    if name not in ("samples", "sums"):
        y[0, 0, 0, :5] = [0.0, -0.0, math.inf, -math.inf, math.nan]
    with np.errstate(all="ignore"):
        replayed = Replayed(ARITHMETIC[name], 0.4, y, params)
        plain = by_numpy(monkeypatch, ARITHMETIC[name], y, params)
        assert kernels
        for found, expected in zip(replayed(0.7, y, ybar), plain(0.7, y, ybar), strict=True):
            assert np.array_equal(found, expected, equal_nan=True)


def test_layers_and_batches_of_all_sizes_share_kernels(small, kernels, rng):
    for shape in SMALL[:1] + [(9, 4, 4, 8), (6, 8, 2, 16)]:
        y, _, params = drawn(rng, shape)
        Replayed(normalised, 0.4, y, params)
    assert len(set(kernels)) == len(kernels) // 3


def test_a_result_that_nothing_else_reads_is_not_stored(small, kernels, rng):
    y, _, params = drawn(rng, SMALL[0])
    Replayed(lambda t, y, w, g, b: 3.0 * (y + w) * 2.0, 0.4, y, params)
    assert kernels[0].count("write(") == 1


@needs_numba
@pytest.mark.parametrize("name", ["normalised", "reusing"])
def test_the_bits_do_not_depend_on_the_number_of_threads(name, rng, monkeypatch):
    monkeypatch.setenv(CHOICE, "numba")
    y, ybar, params = drawn(rng, (37, 14, 13, 11), np.float32)
    replayed, by_threads = Replayed(CHAINS[name], 0.4, y, params), []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            by_threads.append(replayed(0.7, y, ybar))
    for first, second in zip(*by_threads, strict=True):
        assert np.array_equal(first, second)


@needs_numba
def test_long_sums_of_singles_lose_few_digits(rng, monkeypatch):
    """Two million values a channel, all of one sign: added up one after the other they would lose three digits."""
    monkeypatch.setenv(CHOICE, "numba")
    y = rng.uniform(0.5, 1.5, (64, 128, 128, 2)).astype(np.float32)
    params = [np.zeros(s, np.float32) for s in (y.shape[1:], (2,), (2,))]
    replayed = Replayed(lambda t, y, w, g, b: y * 0.0 + np.sum(y * 2.0, axis=(0, 1, 2)), 0.4, y, params)
    replayed.y[...] = y
    replayed.set.run["F"](0.7)
    exact = 2.0 * np.sum(y, axis=(0, 1, 2), dtype=np.float64)
    assert_close(replayed.slope[0, 0, 0], exact, scale=float(exact.max()), tol=16 * EPS32)


@needs_numba
def test_the_innermost_loop_works_on_vectors_however_many_arrays_there_are(small, rng, monkeypatch):
    from odegrad.engine.jit import machine_code, streams

    texts = []
    compiler = streams.run_kernel.__wrapped__
    monkeypatch.setattr(machine_code, "file_with", lambda text, name: None)  # numba shows no code from disk
    monkeypatch.setattr(
        fused_kernels, "_compiler", lambda: lambda *text: texts.append(text) or compiler(*text)
    )
    y, _, params = drawn(rng, SMALL[0], np.float32)

    def f(t, y, w, g, b):
        factors = np.tanh(y * w) * np.exp(y + g) * np.sqrt(y * y + b * b) * np.tanh(y - b) * np.exp(g - y)
        return factors / (1.0 + y * y) / (1.0 + w * w * y)

    Replayed(f, 0.4, y, params)
    largest = max(texts, key=lambda text: text[0].count("write("))
    assert largest[0].count("write(") > 8
    assert re.search(r"store <\d+ x float>", compiler(*largest).inspect_llvm())


@needs_numba
def test_running_allocates_no_array_memory(rng, monkeypatch):
    monkeypatch.setenv(CHOICE, "numba")
    y, ybar, params = drawn(rng, (70, 8, 8, 16))
    replayed = Replayed(normalised, 0.4, y, params)
    replayed.set.run["F"](0.7)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for group in ("F", "S"):
            replayed.set.run[group](0.7)
        assert tracemalloc.get_traced_memory()[1] - before < 8000  # one row of channel values is 16 kB
    finally:
        tracemalloc.stop()


UNKNOWN = {
    "operation `sin`": lambda t, y, w, g, b: np.sin(y * 2.0) * g,
    "truth values": lambda t, y, w, g, b: y * np.where(ops.logical_or(y > w, t > 0.5), 1.0, 2.0),
    "rows of 1 values": lambda t, y, w, g, b: y * 2.0 + 1.0,
}


@pytest.mark.parametrize("reason", UNKNOWN)
def test_what_kernels_do_not_know_is_left_to_numpy(reason, small, kernels, rng, caplog):
    shape = (40, 67, 1) if reason.startswith("rows") else SMALL[0]
    y, ybar, params = drawn(rng, shape)
    with caplog.at_level(logging.DEBUG, "odegrad"):
        replayed = Replayed(UNKNOWN[reason], 0.4, y, params)
    assert reason in caplog.text
    expected = UNKNOWN[reason](0.7, y, *params)
    assert_close(replayed(0.7, y, ybar)[0], expected, scale=norm(expected), tol=10 * EPS64)


def test_results_that_overlap_operands_are_left_to_numpy(small, rng):
    y, _, params = drawn(rng, SMALL[0])
    replayed = Replayed(lambda t, y, w, g, b: y * 2.0 + w, 0.4, y, params)
    (run,) = (s for s in replayed.workspace.schedules["F"] if isinstance(s, Run))
    slots = {slot for step in run.steps for slot in (*step.inputs, step.output)}
    arrays = {slot: replayed.y for slot in slots}
    binder = KernelBinder(run, arrays, replayed.joint, replayed.workspace.scratch)
    with pytest.raises(Unsupported, match="on top of operands"):
        binder.kernel_calls(lambda slot, step: np.zeros(()), lambda source, dtype: None)


def test_the_environment_chooses_numpy(small, rng, monkeypatch):
    def refuse():
        raise AssertionError("numba was asked for")

    monkeypatch.setattr(fused_kernels, "_numba", refuse)
    monkeypatch.setenv(CHOICE, "numpy")
    y, _, params = drawn(rng, SMALL[0])
    Replayed(normalised, 0.4, y, params)


@pytest.mark.parametrize(("choice", "message"), [("numba", "cannot be imported"), ("cupy", "got 'cupy'")])
def test_a_choice_that_cannot_be_made_is_an_error(choice, message, small, rng, monkeypatch):
    monkeypatch.setattr(fused_kernels, "_numba", lambda: None)
    monkeypatch.setenv(CHOICE, choice)
    y, _, params = drawn(rng, SMALL[0])
    with pytest.raises(ArgumentError, match=message):
        Replayed(normalised, 0.4, y, params)


def test_without_numba_runs_are_left_to_numpy(small, rng, monkeypatch):
    monkeypatch.setattr(fused_kernels, "_numba", lambda: None)
    monkeypatch.setattr(KernelBinder, "kernel_calls", None)
    monkeypatch.delenv(CHOICE, raising=False)
    y, _, params = drawn(rng, SMALL[0])
    Replayed(normalised, 0.4, y, params)
