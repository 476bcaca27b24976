"""Products of small matrices: y (m, n) = a (m, k) @ b (k, n), of any strides, float32 or float64.

Where matrices are small a product costs its launch, and CuPy's calls of cuBLAS cannot be captured into a
graph (larger products: `cublaslt`). A block of 16 x 16 threads makes a tile of y; it walks along k with a
tile of each operand in shared memory, and adds up in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..primitive import Call
from .scalar_functions import KINDS, TYPES
from .source import module

TILE = 16
LONGEST = 1 << 10  # of k: a tile walks along it alone
MOST_PRODUCTS = 1 << 22  # beyond, cuBLAS should be faster: an estimate
MOST_ROWS = TILE * 65535  # CUDA's limit of a grid's second size

_KERNEL = """
extern "C" __global__ void __launch_bounds__(256) product_REAL(
    const REAL* __restrict__ a, const REAL* __restrict__ b, REAL* __restrict__ y, int m, int k, int n,
    long long a_row, long long a_column, long long b_row, long long b_column) {
  __shared__ REAL left[16][17], right[16][17];
  const int i = threadIdx.x / 16, j = threadIdx.x % 16;
  const int row = blockIdx.y * 16 + i, column = blockIdx.x * 16 + j;
  REAL total = 0;
  for (int start = 0; start < k; start += 16) {
    left[i][j] = row < m && start + j < k ? a[row * a_row + (start + j) * a_column] : REAL(0);
    right[i][j] = start + i < k && column < n ? b[(start + i) * b_row + column * b_column] : REAL(0);
    __syncthreads();
    for (int l = 0; l < 16; ++l) total += left[i][l] * right[l][j];
    __syncthreads();
  }
  if (row < m && column < n) y[(long long)row * n + column] = total;
}
"""
TEXT = TYPES + "".join(_KERNEL.replace("REAL", real) for real in KINDS.values())


def is_small(a: Array, b: Array) -> bool:
    """Whether a @ b, of two matrices, is a product for the kernel."""
    if a.ndim != 2 or b.ndim != 2 or a.dtype != b.dtype or a.dtype.name not in KINDS:
        return False
    (m, k), n = a.shape, b.shape[1]
    return 0 < k <= LONGEST and 0 < m * n * k <= MOST_PRODUCTS and m <= MOST_ROWS


def product_calls(y: Array, a: Array, b: Array) -> list[Call] | None:
    """The launch that writes a @ b into y (row-major); None for what is better left to cuBLAS."""
    if not is_small(a, b) or y.dtype != a.dtype:
        return None
    (m, k), n = a.shape, b.shape[1]
    steps = [stride // array.itemsize for array in (a, b) for stride in array.strides]
    arguments: tuple[Any, ...] = (a, b, y, *map(np.int32, (m, k, n)), *map(np.int64, steps))
    kernel = module(TEXT).get_function(f"product_{KINDS[y.dtype.name]}")
    return [(kernel, ((-(-n // TILE), -(-m // TILE)), (TILE * TILE,), arguments), {})]
