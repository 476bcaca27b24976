"""float32 to bfloat16 and back, on the text of the kernels."""

import cuda_on_cpu
import numpy as np
import pytest
from odegrad.engine.cuda import bfloat16

pytestmark = cuda_on_cpu.needs_compiler
SIZES = [1, 3, 4, 5, 1023, 4099]


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    cuda_on_cpu.on_cpu(monkeypatch)


def nearest(x):
    """bfloat16 numbers nearest to x, ties to the even fraction, as float64: by integer arithmetic on exact fractions."""
    fraction, exponent = np.frexp(x.astype(np.float64))  # x = fraction * 2**exponent, |fraction| in [1/2, 1)
    return np.ldexp(np.rint(np.ldexp(fraction, 8)), exponent - 8)


@pytest.mark.parametrize("n", SIZES)
def test_narrowing_gives_the_nearest(rng, n):
    x = rng.standard_normal(n).astype(np.float32)
    got = bfloat16.widened(bfloat16.narrowed(x))
    assert (got == nearest(x)).all()


def test_ties_go_to_the_even_neighbour():
    x = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8], np.float32)
    assert bfloat16.widened(bfloat16.narrowed(x)).tolist() == [1.0, 1 + 2.0**-6, -1.0]


@pytest.mark.parametrize(
    "value, expected",
    [(0.0, 0.0), (-0.0, -0.0), (np.inf, np.inf), (-np.inf, -np.inf), (3.4e38, np.inf), (np.nan, np.nan)],
)
def test_special_numbers(value, expected):
    got = bfloat16.widened(bfloat16.narrowed(np.array([value], np.float32)))
    np.testing.assert_array_equal(got, np.float32([expected]))
    assert np.signbit(got[0]) == np.signbit(np.float32(expected))


def test_a_nan_of_low_bits_stays_one():
    x = np.array([0x7F800001], np.uint32).view(np.float32)  # its upper half alone would be infinite
    assert np.isnan(bfloat16.widened(bfloat16.narrowed(x))[0])


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("n", SIZES)
def test_nothing_is_written_past_an_end(rng, n, offset):
    x = rng.standard_normal(n).astype(np.float32)
    narrow, wide = cuda_on_cpu.Guarded((n,), np.uint16, offset), cuda_on_cpu.Guarded((n,), np.float32, offset)
    bfloat16._launch("narrow", x, narrow.array)
    bfloat16.widened(narrow.check(), wide.array)
    assert (wide.check() == nearest(x)).all()


def test_into_memory_with_gaps(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    out = np.full((3, 8), np.nan, np.float32)[:, ::2]
    assert bfloat16.widened(bfloat16.narrowed(x), out) is out
    assert (out == nearest(x)).all()
