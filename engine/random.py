"""Counter-based random numbers: Philox4x32-10, the same bits on NumPy and CuPy.

A key is an array of two uint32; keys are made on the host, and those that a program is given lie where its
arrays do. The draws of a key depend on nothing else: there is no hidden state, so a
checkpoint needs to save no more than seeds and counters, and the same key drawn twice gives the same numbers.
New streams come from `fold_in` (one per epoch, step, layer, ...), never from drawing further.

Source: Salmon, Moraes, Dror & Shaw (2011), Parallel random numbers: as easy as 1, 2, 3,
    SC'11 (Philox4x32-10).
"""

from __future__ import annotations

import math
import operator
from types import ModuleType
from typing import Any

import numpy as np

from .backend import Array, is_array, namespace_of, to_xp
from .errors import ArgumentError, ArgumentTypeError

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_DRAW, _FOLD = 0, 1  # last counter word: draws and derived keys never share a counter
_CHUNK = 1 << 13  # counters a pass on the host: the working set of a round stays in the L2 cache


def key(seed: int) -> np.ndarray:
    """The key of an integer seed, 0 <= seed < 2**64: uint32 (2,), low word first, always on the host."""
    return np.array(_words(seed, "seed"), dtype=np.uint32)


def fold_in(key: Array, integer: int) -> Array:
    """A key derived from `key`, where that is, and an integer, 0 <= integer < 2**64;
    different integers give unrelated streams.

    For a fixed key Philox is a bijection of its counters, of whose output half is kept: two of n derived keys
    coincide with the probability n**2 / 2**65.
    """
    low, high = _words(integer, "integer")
    counter = np.array([[low], [high], [0], [_FOLD]], dtype=np.uint32)
    xp = namespace_of(key) if is_array(key) else np
    return philox(xp, to_xp(xp, counter), key)[:2, 0]


def bits(key: np.ndarray, n: int, xp: ModuleType = np) -> Array:
    """`n` random words, uint32 (n,), of module `xp`. A shorter draw is a prefix of a longer one.

    Cost: about 60 elementwise passes over n / 2 integers of 64 bits, in cache on the host.
    """
    n_blocks = -(-_count(n) // 4)
    chunk = _CHUNK if xp is np else max(n_blocks, 1)
    words = xp.empty((n_blocks, 4), dtype=np.uint32)
    for start in range(0, n_blocks, chunk):
        stop = min(start + chunk, n_blocks)
        index = xp.arange(start, stop, dtype=np.uint64)
        counter = xp.zeros((4, stop - start), dtype=np.uint32)
        counter[0] = index & np.uint64(_MASK)
        counter[1] = index >> np.uint64(32)
        counter[3] = _DRAW
        words[start:stop] = philox(xp, counter, key).T
    return words.reshape(-1)[:n]


def uniform(key: np.ndarray, shape: tuple[int, ...], dtype: Any = np.float32, xp: ModuleType = np) -> Array:
    """Uniform numbers in [0, 1): float32 multiples of 2**-24 or float64 multiples of 2**-53, exact on any
    module.
    """
    n = _count(math.prod(shape))
    if _float_dtype(dtype) == np.float32:
        values = (bits(key, n, xp) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    else:
        values = (_wide(bits(key, 2 * n, xp)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return values.reshape(shape)


def normal(key: np.ndarray, shape: tuple[int, ...], dtype: Any = np.float32, xp: ModuleType = np) -> Array:
    """Standard normal numbers (Box-Muller), float32 or float64; |z| stays below 6.7 and 8.6 respectively.

    The arithmetic is float64 for both, so that modules whose log and cos differ in the last place agree to 2
    ulp.
    """
    n = _count(math.prod(shape))
    n_pairs = -(-n // 2)
    dtype = _float_dtype(dtype)
    if dtype == np.float32:
        draws, n_bits = bits(key, 2 * n_pairs, xp), 32
    else:
        draws, n_bits = _wide(bits(key, 4 * n_pairs, xp)) >> np.uint64(11), 53
    unit = draws.astype(np.float64) * 2.0**-n_bits
    radius = xp.sqrt(
        -2.0 * xp.log(1.0 - unit[0::2])
    )  # 1 - u is exact and in (0, 1], so the logarithm is finite
    angle = (2.0 * math.pi) * unit[1::2]
    values = xp.empty((n_pairs, 2), dtype=dtype)
    values[:, 0] = radius * xp.cos(angle)
    values[:, 1] = radius * xp.sin(angle)
    return values.reshape(-1)[:n].reshape(shape)


def permutation(key: np.ndarray, n: int) -> np.ndarray:
    """A random order of 0 .. n-1, int64 (n,), on the host: the stable argsort of n draws of 64 bits."""
    return np.argsort(_wide(bits(key, 2 * _count(n))), kind="stable").astype(np.int64, copy=False)


def philox(xp: ModuleType, counter: Array, key: np.ndarray) -> Array:
    """Philox4x32-10 of each column: counter uint32 (4, n), key uint32 (2,) anywhere -> uint32 (4, n).

    Words 0 and 2 are multiplied, words 1 and 3 are mixed in: `even` and `odd` hold the two pairs as rows, in
    64-bit integers, so that a round is one product whose halves change places.
    """
    mask, half = np.uint64(_MASK), np.uint64(32)
    multipliers = to_xp(xp, np.array(_MULTIPLIERS, dtype=np.uint64)[:, None])
    round_keys = to_xp(xp, _key_schedule(key))
    even, odd = counter[0::2].astype(np.uint64), counter[1::2].astype(np.uint64)
    for round_key in round_keys:
        product = (even * multipliers)[::-1]
        even = (product >> half) ^ odd ^ round_key
        odd = product & mask
    mixed = xp.empty(counter.shape, dtype=np.uint32)
    mixed[0::2] = even
    mixed[1::2] = odd
    return mixed


def _key_schedule(key: Array) -> Array:
    """uint64 (rounds, 2, 1): the key advanced by the Weyl increments, one row a round; where the key is."""
    if not is_array(key) or key.dtype != np.uint32 or key.shape != (2,):
        got = f"{key.dtype} {key.shape}" if is_array(key) else type(key).__name__
        raise ArgumentTypeError(
            f"`key` must be a uint32 array of shape (2,); got {got}. Make one with key(seed) or fold_in(key, i)"
        )
    xp = namespace_of(key)
    rounds = np.arange(_ROUNDS, dtype=np.uint64)[:, None]
    schedule = key.astype(np.uint64) + to_xp(xp, rounds * np.array(_KEY_INCREMENTS, dtype=np.uint64))
    return (schedule & np.uint64(_MASK))[:, :, None]


def _wide(words: Array) -> Array:
    """uint64 (n,) from uint32 (2 n,): the even words are the low halves."""
    pairs = words.reshape(-1, 2).astype(np.uint64)
    return pairs[:, 0] | (pairs[:, 1] << np.uint64(32))


def _words(integer: int, name: str) -> tuple[int, int]:
    """(low, high) words of an integer of 64 bits."""
    try:
        value = operator.index(integer)
    except TypeError:
        raise ArgumentTypeError(f"`{name}` must be an integer; got {type(integer).__name__}") from None
    if not 0 <= value < 1 << 64:
        raise ArgumentError(f"`{name}` must be in [0, 2**64); got {value}")
    return value & _MASK, value >> 32


def _count(n: int) -> int:
    value = operator.index(n)
    if value < 0:
        raise ArgumentError(f"the number of draws must not be negative; got {value}")
    return value


def _float_dtype(dtype: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ArgumentTypeError(f"`dtype` must be float32 or float64; got {dtype}")
    return dtype
