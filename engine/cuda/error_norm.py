"""The scaled norm of an error, one number on the device.

With the error e = h sum_j b_j k_j of a step, or e given as an array:
    r_i = e_i / (atol_i + rtol_i max(|y_i|, |y_new_i|)),      sqrt(sum_i r_i**2 / n)   or   max_i |r_i|
The quotients are rounded as the state is; squares are summed in double precision, first in each block, then
over the blocks in their order: the norm comes out the same each time. It is NaN where an error is,
or where y_new has overflowed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, namespace_of
from ..errors import ArgumentError
from .source import Source, blocks_for, kernel, pack_size, pointer
from .stage_sum import WEIGHTED_SUM, check_slopes, row_arguments, unrolled, weight_arguments

THREADS = 256
MOST_BLOCKS = 512  # the bits of the norm depend on it: the same on every card
NORMS = ("rms", "max")

ERROR_NORM = Source(
    "error_norm",
    WEIGHTED_SUM
    + r"""
__device__ inline double join(double a, double b) { return LARGEST ? maximum(a, b) : a + b; }

// the values of all threads of a block become one, in thread 0
static __device__ double over_block(double mine) {
  __shared__ double part[THREADS];
  part[threadIdx.x] = mine;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) part[threadIdx.x] = join(part[threadIdx.x], part[threadIdx.x + half]);
  }
  return part[0];
}

// partial (blocks,). Without weights the error itself is the first row
extern "C" __global__ void __launch_bounds__(THREADS)
block_norms(const real* slopes, number row_stride, const double* b, int stages, const double* h_device, double h_number,
            const real* y, const real* y_new, const real* rtols, double rtol, const real* atols, double atol,
            double* partial, number end) {
  real weight[STAGES];
  if (b) scale_weights(weight, b, stages, h_device, h_number);
  else weight[0] = 1;
  const number stride = gridDim.x * (number)(THREADS * PACK);
  double total = 0;
  for (number i = (blockIdx.x * (number)THREADS + threadIdx.x) * PACK; i < end; i += stride) {
    const Pack before = load(y, i, end), after = load(y_new, i, end);
    const Pack error = weighted_sum(weight, slopes, row_stride, i, end);
    Pack relative, absolute;
    if (rtols) relative = load(rtols, i, end);
    if (atols) absolute = load(atols, i, end);
    for (int m = 0; m < PACK; ++m) {
      const real size = maximum(fabs(before.at[m]), fabs(after.at[m]));
      const real unit = (atols ? absolute.at[m] : real(atol)) + (rtols ? relative.at[m] : real(rtol)) * size;
      const real ratio = (error.at[m] + 0 * after.at[m]) / unit;
      if (i + m < end) total = join(total, LARGEST ? (double)fabs(ratio) : (double)ratio * ratio);
    }
  }
  total = over_block(total);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(THREADS)
whole_norm(const double* partial, number blocks, number size, double* norm) {
  double total = 0;
  for (number b = threadIdx.x; b < blocks; b += THREADS) total = join(total, partial[b]);
  total = over_block(total);
  if (threadIdx.x == 0) *norm = LARGEST ? total : sqrt(total / size);
}
""",
    (("THREADS", THREADS), ("STAGES", 8), ("LARGEST", 0)),
)


def error_norm(
    error: Array, y: Array, y_new: Array, rtol: Any, atol: Any, *, norm: str = "rms", out: Array | None = None
) -> Array:
    """The norm of `error` (n,) in units of the tolerances, as `solvers.norms.scaled_norm` has it.

    Args:
        error, y, y_new: (n,), n > 0, float32 or float64, without gaps.
        rtol, atol: numbers, or arrays (n,) like y.
        norm: "rms" or "max".
        out: float64 (1,) on the device, where to write it.
    Returns: float64 (1,) on the device; reading it is the one transfer of a step.
    Cost: two launches; each array is read once.
    """
    return _norm(error[None], None, 0.0, y, y_new, rtol, atol, norm, out)


def step_error_norm(
    slopes: Array,
    weights: Array,
    h: float | Array,
    y: Array,
    y_new: Array,
    rtol: Any,
    atol: Any,
    *,
    norm: str = "rms",
    out: Array | None = None,
) -> Array:
    """The norm of h sum_j weights_j slopes_j, which is never written: `stage_sum` without y,
    and `error_norm` of it.

    Arguments as of these two. Cost: two launches; each slope whose weight is not 0,
    y and y_new are read once.
    """
    check_slopes(slopes, weights)
    return _norm(slopes, weights, h, y, y_new, rtol, atol, norm, out)


def _norm(
    slopes: Array,
    weights: Array | None,
    h: float | Array,
    y: Array,
    y_new: Array,
    rtol: Any,
    atol: Any,
    norm: str,
    out: Array | None,
) -> Array:
    if norm not in NORMS:
        raise ArgumentError(f"`norm` must be one of {', '.join(NORMS)}; got {norm!r}")
    xp, blocks = namespace_of(y), blocks_for(y.size, THREADS * pack_size(y.dtype), MOST_BLOCKS)
    partial = xp.empty(blocks, np.float64)
    out = xp.empty(1, np.float64) if out is None else out
    macros = {"STAGES": unrolled(len(slopes)), "LARGEST": int(norm == "max")}
    first = kernel(ERROR_NORM, "block_norms", y.dtype, THREADS=THREADS, **macros)
    given = (
        (pointer(None), np.int32(1), pointer(None), np.float64(0))
        if weights is None
        else weight_arguments(weights, h)
    )
    tolerances = (*_tolerance(rtol), *_tolerance(atol))
    size = np.int64(y.size)
    first(
        (blocks,),
        (THREADS,),
        (slopes, *row_arguments(slopes), *given, y, y_new, *tolerances, partial, size),
    )
    second = kernel(ERROR_NORM, "whole_norm", y.dtype, THREADS=THREADS, **macros)
    second((1,), (THREADS,), (partial, np.int64(blocks), size, out))
    return out


def _tolerance(value: Any) -> tuple[Any, np.float64]:
    """(array or null, number)."""
    if isinstance(value, (int, float)):
        return pointer(None), np.float64(value)
    return value, np.float64(0)
