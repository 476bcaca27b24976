"""Philox4x32-10 against its published vectors; ranges, moments and independence of what is made from it."""

import math

import numpy as np
import pytest
from odegrad.engine import random
from odegrad.engine.errors import ArgumentError, ArgumentTypeError

# Known-answer vectors of the authors' reference library Random123 (kat_vectors, philox4x32, 10 rounds).
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
FLOATS = [np.float32, np.float64]
N = 200_000


def words(text):
    return np.array([int(word, 16) for word in text.split()], dtype=np.uint32)


@pytest.mark.parametrize("counter, key, expected", KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    mixed = random.philox(np, words(counter)[:, None], words(key))
    np.testing.assert_array_equal(mixed[:, 0], words(expected))


def test_columns_of_counters_are_independent_of_each_other():
    counters = np.stack([words(counter) for counter, _, _ in KNOWN_ANSWERS], axis=1)
    together = random.philox(np, counters, words("a4093822 299f31d0"))
    np.testing.assert_array_equal(together[:, 2], words(KNOWN_ANSWERS[2][2]))


def test_bits_begin_with_the_block_of_counter_zero():
    np.testing.assert_array_equal(random.bits(random.key(0), 4), words(KNOWN_ANSWERS[0][2]))


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 1000])
def test_a_shorter_draw_is_a_prefix(n):
    key = random.key(3)
    np.testing.assert_array_equal(random.bits(key, n), random.bits(key, 40_000)[:n])


def test_chunks_do_not_repeat():
    draws = random.bits(random.key(3), 200_000)
    assert len(np.unique(draws[0::2].astype(np.uint64) << np.uint64(32) | draws[1::2])) == 100_000


def test_seed_words_are_low_then_high():
    np.testing.assert_array_equal(random.key(0x0123456789ABCDEF), words("89abcdef 01234567"))


@pytest.mark.parametrize("dtype, step", [(np.float32, 2.0**-24), (np.float64, 2.0**-53)])
def test_uniform_stays_in_range_on_its_lattice(dtype, step):
    values = random.uniform(random.key(1), (N,), dtype)
    assert values.dtype == dtype and values.min() >= 0 and values.max() <= 1 - step
    assert np.all(np.mod(values / dtype(step), 1) == 0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform_moments(dtype):
    values = random.uniform(random.key(1), (N,), dtype).astype(np.float64)
    for power in (1, 2, 3):
        spread = math.sqrt(1 / (2 * power + 1) - 1 / (power + 1) ** 2) / math.sqrt(N)
        assert abs(np.mean(values**power) - 1 / (power + 1)) < 4 * spread


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal_moments(dtype):
    values = random.normal(random.key(2), (N,), dtype).astype(np.float64)
    assert np.isfinite(values).all()
    for power, expected, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs(np.mean(values**power) - expected) < 4 * math.sqrt(variance / N)


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal_distribution_function(dtype):
    values = np.sort(random.normal(random.key(2), (N,), dtype).astype(np.float64))
    exact = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in values[::50]])
    distance = np.abs(exact - np.arange(0, N, 50) / N).max()
    assert distance < 1.95 / math.sqrt(N)  # Kolmogorov-Smirnov at 0.1 %


def test_neighbours_of_a_normal_draw_are_uncorrelated():
    values = random.normal(random.key(5), (N,), np.float64)
    assert abs(np.mean(values[:-1] * values[1:])) < 4 / math.sqrt(N)


@pytest.mark.parametrize("draw", [random.uniform, random.normal])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 5)])
def test_shape_and_dtype(draw, dtype, shape):
    values = draw(random.key(0), shape, dtype)
    assert values.shape == shape and values.dtype == dtype


def test_fold_in_gives_unrelated_streams():
    base = random.key(11)
    streams = np.stack([random.normal(random.fold_in(base, i), (4096,), np.float64) for i in range(16)])
    correlation = np.corrcoef(np.vstack([streams, random.normal(base, (4096,), np.float64)]))
    off_diagonal = correlation - np.eye(len(correlation))
    assert np.abs(off_diagonal).max() < 5 / math.sqrt(4096)


def test_fold_in_depends_on_key_integer_and_order():
    derived = [
        random.fold_in(random.key(0), 0),
        random.fold_in(random.key(0), 1),
        random.fold_in(random.key(0), 1 << 32),
        random.fold_in(random.key(1), 0),
        random.fold_in(random.fold_in(random.key(0), 1), 2),
        random.fold_in(random.fold_in(random.key(0), 2), 1),
    ]
    assert len({tuple(key) for key in derived}) == len(derived)


def test_fold_in_is_not_a_draw():
    key = random.key(0)
    assert tuple(random.fold_in(key, 0)) != tuple(random.bits(key, 2))


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation_is_one(n):
    order = random.permutation(random.key(4), n)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_permutation_visits_every_order_equally():
    base, n_draws = random.key(9), 6000
    orders = [tuple(random.permutation(random.fold_in(base, i), 3)) for i in range(n_draws)]
    counts = np.array([orders.count(order) for order in set(orders)])
    assert len(counts) == 6
    assert np.sum((counts - 1000) ** 2) / 1000 < 20.5  # chi-square of 5 degrees of freedom at 0.1 %


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_seed_out_of_range(seed):
    with pytest.raises(ArgumentError, match=r"`seed` must be in \[0, 2\*\*64\)"):
        random.key(seed)


def test_seed_must_be_an_integer():
    with pytest.raises(ArgumentTypeError, match="`seed` must be an integer; got float"):
        random.key(1.5)


@pytest.mark.parametrize("key", [7, np.zeros(2, np.int64), np.zeros(3, np.uint32)])
def test_a_key_of_another_kind_is_refused(key):
    with pytest.raises(ArgumentTypeError, match=r"`key` must be a uint32 array of shape \(2,\)"):
        random.bits(key, 1)


def test_dtype_other_than_real_floats_is_refused():
    with pytest.raises(ArgumentTypeError, match="`dtype` must be float32 or float64; got complex128"):
        random.uniform(random.key(0), (2,), np.complex128)
