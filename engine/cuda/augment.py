"""Mirror, crop and erase each image of a batch, in one gather: what `train.data.augment` draws,
done on the device.

For each image a row of CHANGES whole numbers says (down, right, is_mirrored, top, left, height, width):
    y[h, w] = x[h + down, (W - 1 - w if is_mirrored else w) + right],  0 outside of x,
and 0 in the rectangle of height x width at (top, left).
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, namespace_of
from ..errors import ArgumentError
from .source import Source, blocks_for, is_plain, kernel

THREADS = 256
MOST_BLOCKS = 4096
MOST_VALUES = 1 << 30
CHANGES = 7

AUGMENT = Source(
    "augment",
    r"""
struct Change { int down, right, is_mirrored, top, left, height, width; };

extern "C" __global__ void __launch_bounds__(THREADS)
augment(const real* x, const Change* changes, int height, int width, int channels, real* y, int end) {
  for (int i = blockIdx.x * THREADS + threadIdx.x; i < end; i += gridDim.x * THREADS) {
    const int c = i % channels, w = i / channels % width, h = i / channels / width % height;
    const int image = i / channels / width / height;
    const Change change = changes[image];
    const int row = h + change.down, column = (change.is_mirrored ? width - 1 - w : w) + change.right;
    const bool is_inside = row >= 0 && row < height && column >= 0 && column < width;
    const bool is_erased = h >= change.top && h < change.top + change.height && w >= change.left &&
                           w < change.left + change.width;
    y[i] = is_inside && !is_erased ? x[((image * height + row) * width + column) * channels + c] : real(0);
  }
}
""",
    (("THREADS", THREADS),),
)


def fits_augment(images: Array) -> bool:
    """Whether the kernel takes images (N, H, W, C): float32 or float64, row-major,
    neither empty nor past 32 bits.
    """
    return images.ndim == 4 and 0 < images.size < MOST_VALUES and is_plain(images)


def augment(images: Array, changes: Array, *, out: Array | None = None) -> Array:
    """The changed images.

    Args:
        images: (N, H, W, C), for which `fits_augment` is true. Not written to.
        changes: int32 (N, CHANGES) on the device.
        out: where to write them; it must not be `images`.
    Raises: ArgumentError for another table.
    Cost: one launch; every value is read and written once.
    """
    if changes.shape != (len(images), CHANGES) or changes.dtype != np.int32 or not changes.flags.c_contiguous:
        raise ArgumentError(
            f"`changes` must be int32 {(len(images), CHANGES)}, row-major; got {changes.dtype} {changes.shape}"
        )
    out = namespace_of(images, changes).empty_like(images) if out is None else out
    call = kernel(AUGMENT, "augment", images.dtype, THREADS=THREADS)
    sizes = tuple(np.int32(n) for n in images.shape[1:])
    grid = (blocks_for(images.size, THREADS, MOST_BLOCKS),)
    call(grid, (THREADS,), (images, changes, *sizes, out, np.int32(images.size)))
    return out
