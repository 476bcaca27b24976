"""Maximum pooling of channels-last images, its pull-back and the transpose of that;
windows of any size and step.

y[b, i, j, c] = max over the taps (k, l) inside the image of x[b, i s - p + k, j s' - p' + l, c], NaN if one
of them is. The maximum lies at the first tap, in row-major order, whose x equals y; a window whose maximum is
NaN has none. Each value of xbar is gathered from the windows that it lies in, so that it is written once and
needs neither atomics nor a first fill. Windows side by side, as 2x2 with step 2, leave one window to look at.
"""

from __future__ import annotations

from typing import Any, Required, TypedDict, Unpack

import numpy as np

from .. import backend
from ..backend import Array, is_array, namespace_of
from ..kernels import pool_output_shape
from ..kernels.geometry import Pair, as_pair
from ..ops.convolution import max_pool_grad as pool_grad
from ..ops.convolution import max_pool_pick as pool_pick
from ..ops.convolution import max_pool_windows
from .source import VECTOR_BYTES, Source, blocks_for, is_plain, kernel, pack_size

THREADS = 256
MOST_BLOCKS = 4096
MOST_VALUES = 1 << 30
Size = int | Pair


class Window(TypedDict, total=False):
    """Of a pooling, as of `kernels.max_pool`."""

    size: Required[Size]
    stride: Size | None
    padding: Size


MAX_POOL = Source(
    "max_pool",
    r"""
struct Windows { int height, width, rows, columns, size_h, size_w, stride_h, stride_w, pad_h, pad_w, channels; };

// WIDTH neighbouring channels: PACK where they lie at multiples of 16 bytes, otherwise 1
struct alignas(WIDTH == PACK ? 16 : (int)sizeof(real)) Few { real at[WIDTH]; };

__device__ inline Few few(const real* x, int i) { return *reinterpret_cast<const Few*>(x + i); }
__device__ inline void put(real* x, int i, const Few& value) { *reinterpret_cast<Few*>(x + i) = value; }

// the place in x of a tap of a window of image b, or -1 outside
__device__ inline int tap_at(const Windows& w, int b, int row, int column, int k, int l, int c) {
  const int h = row * w.stride_h - w.pad_h + k, v = column * w.stride_w - w.pad_w + l;
  if (h < 0 || h >= w.height || v < 0 || v >= w.width) return -1;
  return ((b * w.height + h) * w.width + v) * w.channels + c;
}

#define WINDOWS int height, int width, int rows, int columns, int size_h, int size_w, int stride_h, int stride_w, \
  int pad_h, int pad_w, int channels
#define W Windows w = {height, width, rows, columns, size_h, size_w, stride_h, stride_w, pad_h, pad_w, channels}
#define EACH(n) for (int i = (blockIdx.x * THREADS + threadIdx.x) * WIDTH; i < n; i += gridDim.x * THREADS * WIDTH)

extern "C" __global__ void __launch_bounds__(THREADS)
max_pool(const real* x, WINDOWS, real* y, int end) {
  W;
  EACH(end) {
    const int c = i % channels, column = i / channels % columns, row = i / channels / columns % rows;
    const int b = i / channels / columns / rows;
    Few best;
    bool seen = false;
    for (int k = 0; k < size_h; ++k)
      for (int l = 0; l < size_w; ++l) {
        const int place = tap_at(w, b, row, column, k, l, c);
        if (place < 0) continue;
        const Few value = few(x, place);
        for (int m = 0; m < WIDTH; ++m) best.at[m] = seen ? maximum(value.at[m], best.at[m]) : value.at[m];
        seen = true;
      }
    put(y, i, best);
  }
}

// z where x has the maximum of each window
extern "C" __global__ void __launch_bounds__(THREADS)
max_pool_pick(const real* z, const real* x, const real* y, WINDOWS, real* picked, int end) {
  W;
  EACH(end) {
    const int c = i % channels, column = i / channels % columns, row = i / channels / columns % rows;
    const int b = i / channels / columns / rows;
    const Few best = few(y, i);
    Few result = {};
    bool found[WIDTH] = {};
    for (int k = 0; k < size_h; ++k)
      for (int l = 0; l < size_w; ++l) {
        const int place = tap_at(w, b, row, column, k, l, c);
        if (place < 0) continue;
        const Few value = few(x, place), other = few(z, place);
        for (int m = 0; m < WIDTH; ++m)
          if (!found[m] && value.at[m] == best.at[m]) { found[m] = true; result.at[m] = other.at[m]; }
      }
    put(picked, i, result);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
max_pool_grad(const real* ybar, const real* x, const real* y, WINDOWS, real* xbar, int end) {
  W;
  EACH(end) {
    const int c = i % channels, v = i / channels % width, h = i / channels / width % height;
    const int b = i / channels / width / height;
    const Few mine = few(x, i);
    Few result = {};
    // the windows that reach row h: row * stride <= h + pad < row * stride + size
    const int last_row = min((h + pad_h) / stride_h, rows - 1), last_column = min((v + pad_w) / stride_w, columns - 1);
    const int first_row = max(0, (h + pad_h - size_h + stride_h) / stride_h);
    const int first_column = max(0, (v + pad_w - size_w + stride_w) / stride_w);
    for (int row = first_row; row <= last_row; ++row)
      for (int column = first_column; column <= last_column; ++column) {
        const int window = ((b * rows + row) * columns + column) * channels + c;
        const Few best = few(y, window);
        bool is_first[WIDTH];
        for (int m = 0; m < WIDTH; ++m) is_first[m] = mine.at[m] == best.at[m];
        const int my_tap = (h + pad_h - row * stride_h) * size_w + v + pad_w - column * stride_w;
        for (int tap = 0; tap < my_tap; ++tap) {
          const int place = tap_at(w, b, row, column, tap / size_w, tap % size_w, c);
          if (place < 0) continue;
          const Few earlier = few(x, place);
          for (int m = 0; m < WIDTH; ++m) is_first[m] = is_first[m] && earlier.at[m] != best.at[m];
        }
        const Few bar = few(ybar, window);
        for (int m = 0; m < WIDTH; ++m) if (is_first[m]) result.at[m] += bar.at[m];
      }
    put(xbar, i, result);
  }
}
""",
    (("THREADS", THREADS), ("WIDTH", 1)),
)


def fits_max_pool(*arrays: Any, **static: Any) -> bool:
    """Whether the kernels take these arrays (B, ., ., C): one dtype, float32 or float64, without gaps,
    not empty.

    They count in 32 bits, in which a division takes a fraction of the time.
    """
    return all(is_array(a) and a.ndim == 4 and 0 < a.size < MOST_VALUES for a in arrays) and is_plain(*arrays)


@max_pool_windows.on_cuda(fits_max_pool)
def max_pool(x: Array, out: Array | None = None, **window: Unpack[Window]) -> Array:
    """`kernels.max_pool`: x (B, H, W, C) -> (B, Ho, Wo, C).

    Cost: one launch; for windows side by side x is read and y written once.
    """
    if out is None:
        out = namespace_of(x).empty(pool_output_shape(x.shape, **window), x.dtype)
    return _launch("max_pool", (x,), x, out, out, **window)


@pool_grad.on_cuda(fits_max_pool)
def max_pool_grad(
    ybar: Array, x: Array, y: Array, out: Array | None = None, **window: Unpack[Window]
) -> Array:
    """`kernels.max_pool_grad`: ybar (B, Ho, Wo, C), x and its pooling y -> xbar (B, H, W, C).

    Cost: one launch; a value looks at the earlier taps of its windows, which lie in cache.
    """
    out = namespace_of(x).empty_like(x) if out is None else out
    return _launch("max_pool_grad", (ybar, x, y), x, y, out, **window)


@pool_pick.on_cuda(fits_max_pool)
def max_pool_pick(z: Array, x: Array, y: Array, out: Array | None = None, **window: Unpack[Window]) -> Array:
    """`kernels.max_pool_pick`: z (B, H, W, C) at the maxima of x -> (B, Ho, Wo, C). Cost: one launch."""
    out = namespace_of(y).empty_like(y) if out is None else out
    return _launch("max_pool_pick", (z, x, y), x, y, out, **window)


def _launch(
    name: str,
    arrays: tuple[Array, ...],
    x: Array,
    y: Array,
    out: Array,
    *,
    size: Size,
    stride: Size | None = None,
    padding: Size = 0,
) -> Array:
    """One thread for some channels of each position of `out`."""
    dtype, channels = x.dtype, x.shape[3]
    width = _width(channels, dtype, (*arrays, out))
    taps, border = as_pair(size, "size", 1), as_pair(padding, "padding", 0)
    steps = taps if stride is None else as_pair(stride, "stride", 1)
    windows = (*x.shape[1:3], *y.shape[1:3], *taps, *steps, *border, channels)
    call = kernel(MAX_POOL, name, dtype, THREADS=THREADS, WIDTH=width)
    grid = (blocks_for(out.size, THREADS * width, MOST_BLOCKS),)
    call(grid, (THREADS,), (*arrays, *(np.int32(n) for n in windows), out, np.int32(out.size)))
    return out


def _width(channels: int, dtype: Any, arrays: tuple[Array, ...]) -> int:
    """Channels of a thread: a pack if every pixel of every array begins where vector instructions can."""
    pack = pack_size(dtype)
    are_aligned = all(backend.device_address(a) % VECTOR_BYTES == 0 for a in arrays)
    return pack if channels % pack == 0 and are_aligned else 1
