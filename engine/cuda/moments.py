"""Mean and variance of each channel, in one read of the tensor.

Each thread follows its channels by Welford's recurrence, with s the sum of squared deviations so far:
    n += 1;  d = x - mean;  mean += d / n;  s += d (x - mean)
Two parts (n, mean, s) and (n', mean', s') are one by Chan's formula, with d = mean' - mean and N = n + n':
    mean + d n' / N,   s + s' + d**2 n n' / N
No sum of squares of x itself is formed: nothing cancels where |mean| is large.

Sources: Welford (1962), Technometrics 4(3), 419-420;
    Chan, Golub & LeVeque (1983), The American Statistician 37(3), 242-247.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, is_array, namespace_of
from ..ops.reductions import mean_leading
from .channels import SIZES, finish_shares, fits_channels, shares_of
from .source import Source, kernel

MERGE = """
// (n, mean, s) and (n2, mean2, s2) become one, in the first
template <typename T> __device__ inline void merge(T& n, T& mean, T& s, T n2, T mean2, T s2) {
  if (n2 == T(0)) return;
  const T share = n2 / (n + n2), d = mean2 - mean;
  s += s2 + d * d * n * share;
  mean += d * share;
  n += n2;
}
"""

MOMENTS = Source(
    "moments",
    SIZES
    + MERGE
    + r"""
// partial (3, blocks, channels): n, mean and s of each block
extern "C" __global__ void __launch_bounds__(THREADS)
block_moments(const real* x, number rows, number channels, real* partial) {
  __shared__ real all_n[SLOTS], all_mean[SLOTS], all_s[SLOTS];
  const number end = rows * channels, stride = gridDim.x * (number)SLOTS;
  real n[PACK] = {}, mean[PACK] = {}, s[PACK] = {}, passes = 0;
  each_pack({x}, blockIdx.x * (number)SLOTS + threadIdx.x * PACK, stride, end, [&](number, const Pack* value, int count) {
    passes += 1;
    const real share = 1 / passes;
    #pragma unroll
    for (int j = 0; j < PACK; ++j)
      if (j < count) {
        const real d = value->at[j] - mean[j];
        n[j] = passes;
        mean[j] += d * share;
        s[j] += d * (value->at[j] - mean[j]);
      }
  });
  for (int j = 0; j < PACK; ++j) {
    const int slot = threadIdx.x * PACK + j;
    all_n[slot] = n[j]; all_mean[slot] = mean[j]; all_s[slot] = s[j];
  }
  for (int left = SLOTS / (int)channels; left > 1; ) {
    const int half = (left + 1) / 2, above = half * channels;
    __syncthreads();
    for (int a = threadIdx.x; a < (left - half) * channels; a += THREADS)
      merge(all_n[a], all_mean[a], all_s[a], all_n[a + above], all_mean[a + above], all_s[a + above]);
    left = half;
  }
  __syncthreads();
  const number all = gridDim.x * channels;
  for (int c = threadIdx.x; c < channels; c += THREADS) {
    real* mine = partial + blockIdx.x * channels + c;
    mine[0] = all_n[c]; mine[all] = all_mean[c]; mine[2 * all] = all_s[c];
  }
}

extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
all_moments(const real* partial, number blocks, number rows, number channels, real* mean, real* var) {
  __shared__ double all_n[FINISH_THREADS], all_mean[FINISH_THREADS], all_s[FINISH_THREADS];
  const int column = threadIdx.x % COLUMNS, lane = threadIdx.x / COLUMNS;
  const number c = blockIdx.x * (number)COLUMNS + column, all = blocks * channels;
  double n = 0, m = 0, s = 0;
  if (c < channels)
    for (number b = lane; b < blocks; b += FINISH_THREADS / COLUMNS) {
      const real* theirs = partial + b * channels + c;
      merge(n, m, s, (double)theirs[0], (double)theirs[all], (double)theirs[2 * all]);
    }
  const int a = threadIdx.x;
  all_n[a] = n; all_mean[a] = m; all_s[a] = s;
  for (int half = FINISH_THREADS / 2; half >= COLUMNS; half /= 2) {
    __syncthreads();
    if (a < half) merge(all_n[a], all_mean[a], all_s[a], all_n[a + half], all_mean[a + half], all_s[a + half]);
  }
  if (a < COLUMNS && c < channels) { mean[c] = all_mean[a]; var[c] = all_s[a] / rows; }
}
""",
    (("THREADS", 1024),),
)


def fits_moments(x: Any) -> bool:
    """Whether the kernels take x (..., C): float32 or float64, row-major, not empty,
    not too many channels.
    """
    return is_array(x) and fits_channels(x)


def moments(
    x: Array, *, mean: Array | None = None, var: Array | None = None, partial: Array | None = None
) -> tuple[Array, Array]:
    """Mean and biased variance (C,) over all axes of x but the last: what `ops.moments` gives.

    Args:
        x: (..., C), for which `fits_moments` is true.
        mean, var: where to write them, (C,) like x.
        partial: scratch, like x, of `partial_shape(x)`; it is free again after the launch.
    Returns: (mean, var). Repeatable: the same bits for the same x on every card.
    Cost: two launches and one read of x. A column with a value that is not finite gets a mean and variance
        that are not.
    """
    xp, (blocks, threads), channels = namespace_of(x), shares_of(x), x.shape[-1]
    rows = np.int64(x.size // channels)
    mean = xp.empty(channels, x.dtype) if mean is None else mean
    var = xp.empty(channels, x.dtype) if var is None else var
    partial = xp.empty(partial_shape(x), x.dtype) if partial is None else partial
    first = kernel(MOMENTS, "block_moments", x.dtype, THREADS=threads)
    first((blocks,), (threads,), (x, rows, np.int64(channels), partial))
    second = kernel(MOMENTS, "all_moments", x.dtype, THREADS=threads)
    grid, sizes = finish_shares(channels), (np.int64(blocks), rows, np.int64(channels))
    second((grid.blocks,), (grid.threads,), (partial, *sizes, mean, var))
    return mean, var


@mean_leading.on_cuda(fits_moments)
def mean_of_rows(x: Array, out: Array | None = None) -> Array:
    """The mean (C,) over all axes of x but the last; the variance, found on the way,
    costs no further read.
    """
    return moments(x, mean=out)[0]


def partial_shape(x: Array) -> tuple[int, int, int]:
    """(3, blocks, C): the scratch of `moments`."""
    return (3, shares_of(x).blocks, x.shape[-1])
