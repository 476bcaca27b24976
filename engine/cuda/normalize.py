"""Normalisation by moments, an affine map that is interpolated in time, and ReLU: forward in one pass, back in two.

For each channel, with gamma = sum_k hats_k gamma_k and likewise alpha (at most two neighbouring hats are not zero):
    r = 1 / sqrt(var + eps);   z = (x - mean) r gamma + alpha;   y = max(z, 0)
Backwards, with g = ybar where z > 0 and 0 elsewhere (at z = 0 too), sums over rows:
    alphabar = sum g                         gammabar = sum g (x - mean) r
    meanbar = -gamma r alphabar              varbar = -gamma r**2 gammabar / 2
and then, where mean and var are the moments of x itself over its n rows,
    xbar = g gamma r + meanbar / n + 2 (x - mean) varbar / n
while without meanbar and varbar they are constants. z is computed anew from x by the same instructions as before, so that
its sign is the same: nothing but x is kept. A forward pass moves two tensors, a backward one five.

Source: Ioffe & Szegedy (2015), Batch normalization, section 3; gamma(t) and alpha(t) as Zheng et al. (2024), equation 5.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, namespace_of
from .channels import MOST_BLOCKS_ELEMENTWISE, SIZES, Shares, finish_shares, fits_channels, shares_of
from .source import Source, is_plain, kernel, pointer

NORMALIZE = Source(
    "normalize",
    SIZES
    + r"""
#define GIVEN const real* mean, const real* var, double eps, const real* gamma, const real* alpha, const real* hats, \
  number nodes, number rows, number channels, int relu
#define FIRST (blockIdx.x * (number)SLOTS + threadIdx.x * PACK)

// the first of the hats that are not zero, found by all threads of a block together
static __device__ number cell_of(const real* hats, number nodes) {
  __shared__ number cell;
  if (!hats) return 0;
  if (threadIdx.x == 0) cell = 0;
  __syncthreads();
  for (number k = threadIdx.x; k < nodes; k += blockDim.x)
    if (hats[k] != 0 && (k == 0 || hats[k - 1] == 0)) cell = k;
  __syncthreads();
  return cell;
}

// a (nodes, channels) at one channel, between two nodes; without hats, a (channels)
__device__ inline real between(const real* a, const real* hats, number nodes, number cell, number channels, number c) {
  if (!hats) return a[c];
  const real below = hats[cell] * a[cell * channels + c];
  return cell + 1 < nodes ? fma(hats[cell + 1], a[(cell + 1) * channels + c], below) : below;
}

struct Channel { real mean, inverse, factor, shift; };

__device__ inline Channel channel_at(GIVEN, number cell, number c) {
  Channel at;
  at.mean = mean[c];
  at.inverse = 1 / sqrt(var[c] + real(eps));
  at.factor = gamma ? between(gamma, hats, nodes, cell, channels, c) * at.inverse : at.inverse;
  at.shift = alpha ? between(alpha, hats, nodes, cell, channels, c) : real(0);
  return at;
}

#define CHANNEL(cell, c) channel_at(mean, var, eps, gamma, alpha, hats, nodes, rows, channels, relu, cell, c)

// the channels that this thread meets, in registers
#define CHANNELS_OF_THREAD(at) \
  Channel at[PACK]; \
  { const number cell = cell_of(hats, nodes); \
    for (int j = 0; j < PACK; ++j) at[j] = CHANNEL(cell, (threadIdx.x * PACK + j) % (int)channels); }

__device__ inline real affine(real deviation, const Channel& at) { return fma(deviation, at.factor, at.shift); }

__device__ inline real gated(real ybar, real deviation, const Channel& at, int relu) {
  return !relu || affine(deviation, at) > 0 ? ybar : real(0);
}

extern "C" __global__ void __launch_bounds__(THREADS)
normalize(const real* x, GIVEN, real* y) {
  const number end = rows * channels, stride = gridDim.x * (number)SLOTS;
  CHANNELS_OF_THREAD(at)
  each_pack({x}, FIRST, stride, end, [&](number i, const Pack* value, int) {
    Pack result;
    #pragma unroll
    for (int j = 0; j < PACK; ++j) {
      const real z = affine(value->at[j] - at[j].mean, at[j]);
      result.at[j] = relu ? maximum(z, real(0)) : z;
    }
    store(y, i, end, result);
  });
}

// partial (2, blocks, channels): sum g and sum g (x - mean) of each block
extern "C" __global__ void __launch_bounds__(THREADS)
block_sums(const real* ybar, const real* x, GIVEN, real* partial) {
  __shared__ real plain[SLOTS], weighted[SLOTS];
  const number end = rows * channels, stride = gridDim.x * (number)SLOTS;
  CHANNELS_OF_THREAD(at)
  real sum[PACK] = {}, sum_weighted[PACK] = {};
  each_pack({ybar, x}, FIRST, stride, end, [&](number, const Pack* given, int) {
    #pragma unroll
    for (int j = 0; j < PACK; ++j) {  // past the end ybar is 0
      const real deviation = given[1].at[j] - at[j].mean, g = gated(given[0].at[j], deviation, at[j], relu);
      sum[j] += g;
      sum_weighted[j] = fma(g, deviation, sum_weighted[j]);
    }
  });
  for (int j = 0; j < PACK; ++j) {
    plain[threadIdx.x * PACK + j] = sum[j];
    weighted[threadIdx.x * PACK + j] = sum_weighted[j];
  }
  for (int left = SLOTS / (int)channels; left > 1; ) {
    const int half = (left + 1) / 2, above = half * channels;
    __syncthreads();
    for (int a = threadIdx.x; a < (left - half) * channels; a += THREADS) {
      plain[a] += plain[a + above];
      weighted[a] += weighted[a + above];
    }
    left = half;
  }
  __syncthreads();
  for (int c = threadIdx.x; c < channels; c += THREADS) {
    partial[blockIdx.x * channels + c] = plain[c];
    partial[(gridDim.x + blockIdx.x) * channels + c] = weighted[c];
  }
}

// bars (4, channels): gammabar, alphabar, meanbar, varbar
extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
channel_cotangents(const real* partial, number blocks, GIVEN, real* bars) {
  __shared__ double plain[FINISH_THREADS], weighted[FINISH_THREADS];
  const int column = threadIdx.x % COLUMNS, lane = threadIdx.x / COLUMNS, a = threadIdx.x;
  const number c = blockIdx.x * (number)COLUMNS + column, cell = cell_of(hats, nodes);
  double sum = 0, sum_weighted = 0;
  if (c < channels)
    for (number b = lane; b < blocks; b += FINISH_THREADS / COLUMNS) {
      sum += partial[b * channels + c];
      sum_weighted += partial[(blocks + b) * channels + c];
    }
  plain[a] = sum;
  weighted[a] = sum_weighted;
  for (int half = FINISH_THREADS / 2; half >= COLUMNS; half /= 2) {
    __syncthreads();
    if (a < half) { plain[a] += plain[a + half]; weighted[a] += weighted[a + half]; }
  }
  if (a >= COLUMNS || c >= channels) return;
  const Channel at = CHANNEL(cell, c);
  const double gamma_bar = weighted[a] * at.inverse;
  bars[c] = gamma_bar;
  bars[channels + c] = plain[a];
  bars[2 * channels + c] = -at.factor * plain[a];
  bars[3 * channels + c] = -0.5 * at.factor * at.inverse * gamma_bar;
}

extern "C" __global__ void __launch_bounds__(THREADS)
input_cotangent(const real* ybar, const real* x, GIVEN, const real* mean_bar, const real* var_bar, real* xbar) {
  const number end = rows * channels, stride = gridDim.x * (number)SLOTS;
  CHANNELS_OF_THREAD(at)
  real constant[PACK], slope[PACK];
  for (int j = 0; j < PACK; ++j) {
    const int c = (threadIdx.x * PACK + j) % (int)channels;
    constant[j] = mean_bar ? mean_bar[c] / rows : real(0);
    slope[j] = var_bar ? 2 * var_bar[c] / rows : real(0);
  }
  each_pack({ybar, x}, FIRST, stride, end, [&](number i, const Pack* given, int) {
    Pack bar;
    #pragma unroll
    for (int j = 0; j < PACK; ++j) {
      const real deviation = given[1].at[j] - at[j].mean, g = gated(given[0].at[j], deviation, at[j], relu);
      bar.at[j] = fma(g, at[j].factor, fma(deviation, slope[j], constant[j]));
    }
    store(xbar, i, end, bar);
  });
}
""",
    (("THREADS", 1024),),
)


class Normalization(NamedTuple):
    """What is done to each channel.

    Attributes:
        mean, var: (C,).
        eps: added to var.
        gamma, alpha: (C,), or (K, C) with hats; None is 1 and 0.
        hats: (K,), as `ops.hat_weights` gives them: not zero in at most two places, side by side.
        relu: whether max(., 0) follows.
    """

    mean: Array
    var: Array
    eps: float
    gamma: Array | None = None
    alpha: Array | None = None
    hats: Array | None = None
    relu: bool = False


class Cotangents(NamedTuple):
    """What `normalize_cotangents` returns, (C,) each; gamma and alpha at the time in question.

    Those of the nodes are the products hats_k gamma, that of a hat is the inner product of its row with gamma, plus
    likewise for alpha.
    """

    gamma: Array
    alpha: Array
    mean: Array
    var: Array


def fits_normalize(x: Array, how: Normalization) -> bool:
    """Whether the kernels take x (..., C) and these arrays: one dtype, row-major, not more channels than fit."""
    others = [a for a in (how.mean, how.var, how.gamma, how.alpha, how.hats) if a is not None]
    return fits_channels(x) and is_plain(x, *others)


def normalize(x: Array, how: Normalization, *, out: Array | None = None) -> Array:
    """y (..., C) of x (..., C): `ops.normalize`, the interpolation before it and `ops.relu` behind it.

    `out` may be x. Cost: one launch; x is read and y written.
    """
    out = namespace_of(x).empty_like(x) if out is None else out
    _launch("normalize", x, shares_of(x, MOST_BLOCKS_ELEMENTWISE), how, (x,), (out,))
    return out


def normalize_cotangents(
    ybar: Array, x: Array, how: Normalization, *, bars: Array | None = None, partial: Array | None = None
) -> Cotangents:
    """The cotangents of gamma, alpha, mean and var, summed over the rows of ybar and x (..., C).

    Args:
        bars: (4, C), where to write them. partial: scratch of `partial_sums_shape(x)`, free again after the launch.
    Cost: two launches; ybar and x are read. Repeatable: the same bits for the same values on every card.
    """
    xp, shares, channels = namespace_of(x), shares_of(x), x.shape[-1]
    partial = xp.empty(partial_sums_shape(x), x.dtype) if partial is None else partial
    bars = xp.empty((4, channels), x.dtype) if bars is None else bars
    _launch("block_sums", x, shares, how, (ybar, x), (partial,))
    _launch(
        "channel_cotangents", x, finish_shares(channels), how, (partial, np.int64(shares.blocks)), (bars,)
    )
    return Cotangents(*bars)


def normalize_input_grad(
    ybar: Array,
    x: Array,
    how: Normalization,
    *,
    mean_bar: Array | None = None,
    var_bar: Array | None = None,
    out: Array | None = None,
) -> Array:
    """xbar (..., C). With `mean_bar` and `var_bar` (C,) mean and var are the moments of x, and these their cotangents.

    Whatever else the moments were used for has been added to these cotangents; without them the moments are constants.
    `out` may be x or ybar. Cost: one launch; ybar and x are read and xbar written.
    """
    out = namespace_of(x).empty_like(x) if out is None else out
    last = (pointer(mean_bar), pointer(var_bar), out)
    _launch("input_cotangent", x, shares_of(x, MOST_BLOCKS_ELEMENTWISE), how, (ybar, x), last)
    return out


def partial_sums_shape(x: Array) -> tuple[int, int, int]:
    """(2, blocks, C): the scratch of `normalize_cotangents`."""
    return (2, shares_of(x).blocks, x.shape[-1])


def _launch(
    name: str, x: Array, shares: Shares, how: Normalization, first: tuple[Any, ...], last: tuple[Any, ...]
) -> None:
    """A kernel of this text with the arguments `first`, GIVEN, `last`."""
    channels, n_nodes = x.shape[-1], 1 if how.hats is None else len(how.hats)
    given = (
        how.mean, how.var, np.float64(how.eps), pointer(how.gamma), pointer(how.alpha), pointer(how.hats),
        np.int64(n_nodes), np.int64(x.size // channels), np.int64(channels), np.int32(how.relu),
    )  # fmt: skip
    call = kernel(NORMALIZE, name, x.dtype, THREADS=shares_of(x).threads)
    call((shares.blocks,), (shares.threads,), (*first, *given, *last))
