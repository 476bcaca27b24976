"""The weighted sums of a Runge-Kutta step: out = y + h sum_j a_j k_j, each array read once.

The same formula gives the state of a stage, the new state, the error estimate (without y), and the
accumulation of a quadrature or an adjoint (out = y). A slope whose weight is 0 is not read. h may be a number
or lie on the device, so that a recorded launch can be repeated with other steps.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, namespace_of
from ..errors import ArgumentError
from .source import Source, blocks_for, kernel, pack_size, pointer

MOST_STAGES = 16
THREADS = 256
MOST_BLOCKS = 4096

WEIGHTED_SUM = r"""
// h a_j, rounded once, of stages that count; the others are 0
__device__ inline void scale_weights(real* weight, const double* a, int stages, const double* h_device, double h_number) {
  const double h = h_device ? *h_device : h_number;
  #pragma unroll
  for (int j = 0; j < STAGES; ++j) weight[j] = j < stages ? real(h * a[j]) : real(0);
}

// sum_j weight_j k_j at the pack i of rows that lie `stride` values apart; all loads come before the first product
__device__ inline Pack weighted_sum(const real* weight, const real* slopes, number stride, number i, number end) {
  Pack slope[STAGES], sum = {};
  if (i + PACK <= end && stride % PACK == 0 && is_aligned(slopes)) {
    #pragma unroll
    for (int j = 0; j < STAGES; ++j)
      if (weight[j] != 0) slope[j] = *reinterpret_cast<const Pack*>(slopes + j * stride + i);
  } else {
    #pragma unroll
    for (int j = 0; j < STAGES; ++j)
      if (weight[j] != 0) slope[j] = load(slopes + j * stride, i, end);
  }
  #pragma unroll
  for (int j = 0; j < STAGES; ++j)
    if (weight[j] != 0)
      for (int m = 0; m < PACK; ++m) sum.at[m] = fma(weight[j], slope[j].at[m], sum.at[m]);
  return sum;
}
"""

STAGE_SUM = Source(
    "stage_sum",
    WEIGHTED_SUM
    + r"""
extern "C" __global__ void __launch_bounds__(THREADS)
stage_sum(const real* y, const real* slopes, number row_stride, const double* a, int stages,
          const double* h_device, double h_number, real* out, number end) {
  real weight[STAGES];
  scale_weights(weight, a, stages, h_device, h_number);
  const number stride = gridDim.x * (number)(THREADS * PACK);
  for (number i = (blockIdx.x * (number)THREADS + threadIdx.x) * PACK; i < end; i += stride) {
    Pack start = {};
    if (y) start = load(y, i, end);
    Pack sum = weighted_sum(weight, slopes, row_stride, i, end);
    for (int m = 0; m < PACK; ++m) sum.at[m] += start.at[m];
    store(out, i, end, sum);
  }
}
""",
    (("THREADS", THREADS), ("STAGES", MOST_STAGES)),
)


def fits_slopes(slopes: Array) -> bool:
    """Whether `slopes` (s, n) can be summed: float32 or float64, each row without gaps,
    at most MOST_STAGES rows.
    """
    return (
        slopes.ndim == 2
        and slopes.dtype.name in ("float32", "float64")
        and slopes.strides[1] == slopes.itemsize
        and slopes.strides[0] % slopes.itemsize == 0
        and 0 < slopes.shape[0] <= MOST_STAGES
        and slopes.shape[1] > 0
    )


def stage_sum(y: Array | None, slopes: Array, weights: Array, h: float | Array, *, out: Array) -> Array:
    """out = y + h sum_j weights_j slopes_j.

    Args:
        y: (n,), or None for 0. It may be `out`.
        slopes: (s, n), s <= MOST_STAGES, whose rows may lie apart; `out` must not be one of them.
        weights: float64 (s,) on the device, such as a row of a tableau. A slope of weight 0 is not read:
            it may be NaN.
        h: a number, or a float64 array of one value on the device, read when the kernel runs.
    Returns: out.
    Raises: ArgumentError for more rows or other layouts.
    Cost: one launch; every row with a weight is read once.
    """
    check_slopes(slopes, weights)
    grid = (blocks_for(out.size, THREADS * pack_size(out.dtype), MOST_BLOCKS),)
    call = kernel(STAGE_SUM, "stage_sum", out.dtype, THREADS=THREADS, STAGES=unrolled(len(slopes)))
    arguments = (pointer(y), slopes, *row_arguments(slopes), *weight_arguments(weights, h))
    call(grid, (THREADS,), (*arguments, out, np.int64(out.size)))
    return out


def check_slopes(slopes: Array, weights: Array) -> None:
    """ArgumentError unless `fits_slopes`, and there is a float64 weight on the same device for each."""
    namespace_of(slopes, weights)
    if not fits_slopes(slopes):
        raise ArgumentError(
            f"slopes must be float32 or float64 (s, n), s <= {MOST_STAGES}, with rows of neighbours; got {slopes.dtype} "
            f"{slopes.shape} with strides {slopes.strides}. Sum longer lists in parts, with y = out"
        )
    if weights.shape != slopes.shape[:1] or weights.dtype != np.float64 or not weights.flags.c_contiguous:
        raise ArgumentError(
            f"weights must be float64 {slopes.shape[:1]}, contiguous; got {weights.dtype} {weights.shape}"
        )


def row_arguments(slopes: Array) -> tuple[np.int64]:
    """How far apart the rows lie, in values."""
    return (np.int64(slopes.strides[0] // slopes.itemsize),)


def weight_arguments(weights: Array, h: float | Array) -> tuple[Array, np.int32, Array, np.float64]:
    """The weights, their number and h, on the device or as a number."""
    is_number = isinstance(h, (int, float))
    return (
        weights,
        np.int32(len(weights)),
        pointer(None if is_number else h),
        np.float64(h if is_number else 0),
    )


def unrolled(stages: int) -> int:
    """For how many stages a kernel is compiled that sums `stages` of them: a power of two,
    so that few are compiled.
    """
    return 1 << (stages - 1).bit_length()
