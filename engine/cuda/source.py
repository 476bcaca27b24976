"""How CUDA C text becomes a kernel: written once for `real`, compiled once for each dtype and set of numbers.

Every text follows a common head with these names:
    real            float or double, the dtype of the arrays
    number          long long: sizes and positions
    Pack            16 bytes, `at[PACK]`: PACK = 4 floats or 2 doubles, which one instruction loads or stores
    load, store     a Pack at x + i. It is one instruction where x lies at a multiple of 16 bytes (i is a
                    multiple of PACK) and the whole pack lies before `end`; otherwise, and at the end, value
                    by value (0 past the end)
    each_pack       act(i, packs, n) for i = first, first + stride, ... below `end`, with the packs at i of N
                    arrays, of which n values lie before `end`. AHEAD passes are loaded before the first is
                    acted on, which is what keeps the memory busy; act may write where it was just given a
                    value from
    maximum         the larger of two values, NaN if either is

What a text asks for beyond that is a macro of whole numbers, THREADS in nearly all. Kernels have C linkage,
so that they are found by name. CuPy keeps machine code on disk; here modules are kept by text,
so that a launch costs one look-up.

CuPy compiles with -ftz=true: float32 results below 1.2e-38 become 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .. import backend
from ..backend import Array
from ..errors import ArgumentTypeError

OPTIONS = ("--std=c++17",)
EXACT = (*OPTIONS, "--fmad=false")  # a * b + c is rounded twice, as by NumPy, whatever kernel it is in
VECTOR_BYTES = 16
MOST_THREADS = 1024  # in a block, on every card

HEAD = r"""
typedef long long number;
#define PACK (16 / (int)sizeof(real))
#define AHEAD 4
struct alignas(16) Pack { real at[PACK]; };

__device__ inline bool is_aligned(const real* x) { return (unsigned long long)x % 16 == 0; }

__device__ inline Pack load(const real* x, number i, number end) {
  Pack pack;
  if (i + PACK <= end && is_aligned(x)) return *reinterpret_cast<const Pack*>(x + i);
  for (int j = 0; j < PACK; ++j) pack.at[j] = i + j < end ? x[i + j] : real(0);
  return pack;
}

__device__ inline void store(real* x, number i, number end, const Pack& pack) {
  if (i + PACK <= end && is_aligned(x)) { *reinterpret_cast<Pack*>(x + i) = pack; return; }
  for (int j = 0; j < PACK; ++j) if (i + j < end) x[i + j] = pack.at[j];
}

template <int N, typename Act>
__device__ __forceinline__ void each_pack(
    const real* const (&x)[N], number first, number stride, number end, Act act) {
  bool aligned = true;
  for (int n = 0; n < N; ++n) aligned = aligned && is_aligned(x[n]);
  number i = first;
  for (; aligned && i + (AHEAD - 1) * stride + PACK <= end; i += AHEAD * stride) {
    Pack ahead[AHEAD][N];
    #pragma unroll
    for (int k = 0; k < AHEAD; ++k)
      #pragma unroll
      for (int n = 0; n < N; ++n) ahead[k][n] = *reinterpret_cast<const Pack*>(x[n] + i + k * stride);
    #pragma unroll
    for (int k = 0; k < AHEAD; ++k) act(i + k * stride, ahead[k], PACK);
  }
  for (; i < end; i += stride) {
    Pack one[N];
    #pragma unroll
    for (int n = 0; n < N; ++n) one[n] = load(x[n], i, end);
    act(i, one, end - i < PACK ? int(end - i) : PACK);
  }
}

template <typename T> __device__ inline T maximum(T a, T b) { return a > b || a != a ? a : b; }
"""
TYPES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class Source:
    """The text of a family of kernels.

    Attributes:
        name: of the family, in messages.
        text: CUDA C, with the names of the head above.
        macros: the numbers it wants, each with an example that the tests compile it with.
    """

    name: str
    text: str
    macros: tuple[tuple[str, int], ...] = ()

    def complete(self, dtype: Any, **macros: int) -> str:
        """The whole text for float32 or float64.

        Raises: ArgumentTypeError for another dtype. Every macro, and no other, must be given.
        """
        real = TYPES.get(np.dtype(dtype).name)
        if real is None:
            raise ArgumentTypeError(f"the kernels `{self.name}` work on float32 or float64; got {dtype}")
        expected = {name for name, _ in self.macros}
        assert set(macros) == expected, f"{self.name}: macros {sorted(macros)}, expected {sorted(expected)}"
        lines = [f"#define {name} {value}" for name, value in macros.items()]
        return "\n".join([f"typedef {real} real;", *lines, HEAD, self.text])


def kernel(source: Source, name: str, dtype: Any, **macros: int) -> Any:
    """The kernel `name` of a source as what CuPy calls: kernel(grid, block, arguments).

    Arguments are arrays, or NumPy scalars of the very type in the text:
    a Python float would be passed as a double.
    """
    return _kernel(source, name, np.dtype(dtype).name, tuple(macros.items()))


@cache
def _kernel(source: Source, name: str, dtype: str, macros: tuple[tuple[str, int], ...]) -> Any:
    return module(source.complete(dtype, **dict(macros))).get_function(name)


@cache
def module(text: str, options: tuple[str, ...] = OPTIONS) -> Any:
    """The CuPy module of a complete text; `get_function(name)` gives its kernels."""
    return backend.raw_module(text, options)


def pack_size(dtype: Any) -> int:
    """Values in a Pack: 4 of float32, 2 of float64."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def pointer(array: Array | None) -> Any:
    """`array` as an argument; None becomes a null pointer."""
    return np.intp(0) if array is None else array


def is_plain(*arrays: Array) -> bool:
    """Whether all are float32, or all float64, and row-major without gaps: what the kernels take."""
    dtype = arrays[0].dtype
    return dtype.name in TYPES and all(a.dtype == dtype and a.flags.c_contiguous for a in arrays)


def blocks_for(n: int, each: int, most: int) -> int:
    """How many blocks share n values, `each` of them at a time: at least one, and no more than `most`."""
    return max(1, min(most, -(-n // each)))
