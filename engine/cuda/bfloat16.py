"""float32 to bfloat16 and back: the operands of products in "bf16".

bfloat16 is the upper half of a float32 (sign, 8 bits of exponent, 7 of the fraction). Narrowing rounds to
nearest, ties to even; what lies beyond the largest number becomes infinite, NaN stays NaN. Widening is exact.
CuPy has no such dtype: the halves are kept as uint16.

Each thread takes a pack of 4 numbers at a time; the bytes are read and written once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backend
from ..backend import Array
from .source import Source, blocks_for, kernel

_THREADS = 256
_MOST_BLOCKS = 4096  # enough to keep any card busy; a block then takes several packs a thread

TEXT = r"""
typedef unsigned short half_bits;
struct alignas(2 * PACK) Halves { half_bits at[PACK]; };
union Bits { float value; unsigned bits; };

__device__ inline half_bits narrow_one(float value) {
  Bits x;
  x.value = value;
  if (value != value) return (half_bits)((x.bits >> 16) | 0x40u);
  return (half_bits)((x.bits + 0x7fffu + ((x.bits >> 16) & 1u)) >> 16);
}

__device__ inline float widen_one(half_bits half) {
  Bits x;
  x.bits = (unsigned)half << 16;
  return x.value;
}

extern "C" __global__ void __launch_bounds__(THREADS) narrow(const real* x, half_bits* y, number n) {
  for (number i = ((number)blockIdx.x * THREADS + threadIdx.x) * PACK; i < n; i += (number)gridDim.x * THREADS * PACK) {
    const Pack pack = load(x, i, n);
    Halves halves;
    for (int j = 0; j < PACK; ++j) halves.at[j] = narrow_one((float)pack.at[j]);
    if (i + PACK <= n && (unsigned long long)y % sizeof(Halves) == 0) {
      *reinterpret_cast<Halves*>(y + i) = halves;
    } else {
      for (int j = 0; j < PACK && i + j < n; ++j) y[i + j] = halves.at[j];
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) widen(const half_bits* x, real* y, number n) {
  for (number i = ((number)blockIdx.x * THREADS + threadIdx.x) * PACK; i < n; i += (number)gridDim.x * THREADS * PACK) {
    Pack pack;
    for (int j = 0; j < PACK; ++j) pack.at[j] = i + j < n ? widen_one(x[i + j]) : 0.0f;
    store(y, i, n, pack);
  }
}
"""
SOURCE = Source("bfloat16", TEXT, (("THREADS", _THREADS),))


def narrowed(x: Array) -> Array:
    """uint16 halves, of the shape of x (float32, C-contiguous), on its device."""
    halves = backend.namespace_of(x).empty(x.shape, dtype="uint16")
    _launch("narrow", x, halves)
    return halves


def widened(halves: Array, out: Array | None = None) -> Array:
    """The float32 numbers of `halves` (uint16, C-contiguous), in `out` if that is given."""
    is_direct = out is not None and out.flags.c_contiguous
    y = out if is_direct else backend.namespace_of(halves).empty(halves.shape, dtype="float32")
    _launch("widen", halves, y)
    if out is None or is_direct:
        return y
    out[...] = y
    return out


def _launch(name: str, x: Array, y: Array) -> None:
    blocks = blocks_for(x.size, 4 * _THREADS, _MOST_BLOCKS)
    arguments: tuple[Any, ...] = (x, y, np.int64(x.size))
    kernel(SOURCE, name, "float32", THREADS=_THREADS)((blocks,), (_THREADS,), arguments)
