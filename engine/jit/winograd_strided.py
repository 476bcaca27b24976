"""The transforms of `kernels/winograd_strided.py` as machine code.

As in `winograd.py` a transform is one of columns and then one of rows, in runs over values that lie side by
side. Entries of a spectrum are ordered by what their two axes are, *paired* (5 of them) or *single* (4): 25
of both paired, 20 of paired rows and single columns, 20 of single rows and paired columns, 16 of both single.
Where one axis is paired it is the outer one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .functions import called
from .memory import shifted
from .winograd import Entry, c_function, clear, row_of
from .winograd_strided_runs import (
    copy_run,
    cotangent_run,
    interleaving_run,
    kernel_run,
    output_run,
    pair_run,
    sum_run,
    tap_run,
)


@called
def block_run(seen, p0, p1, p2, p3, p4, s0, s1, s2, s3, paired, step, single, step_s, n):
    """`pair_run` of blocks that see 5 paired values, `cotangent_run` of those that see 4."""
    if seen == 5:
        pair_run(p0, p1, p2, p3, p4, s0, s1, s2, s3, paired, step, single, step_s, n)
    else:
        cotangent_run(p0, p1, p2, p3, paired, step, single, step_s, n)


@called
def columns_to_planes(seen, images, gap, offset, image_rows, row_step, column, top, planes, size, n, zeros):
    """A row of blocks after the transform of its columns: 9 planes of `size`, n values from `planes` on."""
    block_run(
        seen,
        row_of(images, top, image_rows, row_step, column, zeros),
        row_of(images, top + gap, image_rows, row_step, column, zeros),
        row_of(images, top + 2 * gap, image_rows, row_step, column, zeros),
        row_of(images, top + 3 * gap, image_rows, row_step, column, zeros),
        row_of(images, top + 4 * gap, image_rows, row_step, column, zeros),
        row_of(images, top + offset, image_rows, row_step, column, zeros),
        row_of(images, top + gap + offset, image_rows, row_step, column, zeros),
        row_of(images, top + 2 * gap + offset, image_rows, row_step, column, zeros),
        row_of(images, top + 3 * gap + offset, image_rows, row_step, column, zeros),
        planes,
        size,
        shifted(planes, 5 * size),
        size,
        n,
    )


@called
def plane_to_entries(seen, start, far, offset, paired, step, single, step_s, n):
    """The transform of a row of a block in a plane: pixels `far` apart, single ones from `offset` on."""
    alone = shifted(start, offset)
    block_run(
        seen,
        start,
        shifted(start, far),
        shifted(start, 2 * far),
        shifted(start, 3 * far),
        shifted(start, 4 * far),
        alone,
        shifted(alone, far),
        shifted(alone, 2 * far),
        shifted(alone, 3 * far),
        paired,
        step,
        single,
        step_s,
        n,
    )


def spectra(
    images,
    out,
    work,
    seen,
    gap,
    offset,
    image_step,
    row_step,
    height,
    width,
    channels,
    top,
    left,
    n,
    down,
    across,
    entry,
):
    """out[k entry + ...] (81, n * down * across, C) = the transforms of blocks, and zeros behind.

    A block sees 5 paired values, `gap` pixels apart, or in cotangents of a weight gradient 4, and 4 single
    ones, as far apart, from the pixel `offset` on. top, left: the first pixel of the first block.
    work: 10 * (4 * gap * across + 1) * channels values.
    """
    n_columns, far = 4 * gap * across + 1, gap * channels
    size = n_columns * channels
    first, last = min(max(-left, 0), n_columns) * channels, max(min(width - left, n_columns), 0) * channels
    clear(work, 10 * size)
    zeros, planes = shifted(work, 9 * size + first), shifted(work, first)
    for k in range(81):
        clear(shifted(out, k * entry + n * down * across * channels), channels)
    for image in range(n):
        pixels = shifted(images, image * image_step)
        for i in range(down):
            row, column = top + 4 * gap * i, left * channels + first
            columns_to_planes(
                seen, pixels, gap, offset, height, row_step, column, row, planes, size, last - first, zeros
            )
            for j in range(across):
                block = shifted(out, ((image * down + i) * across + j) * channels)
                for u in range(9):
                    paired, step, single = (5 * u, 1, 25 + 4 * u) if u < 5 else (40 + u, 4, 45 + 4 * u)
                    plane_to_entries(
                        seen,
                        shifted(work, u * size + 4 * j * far),
                        far,
                        offset * channels,
                        shifted(block, paired * entry),
                        step * entry,
                        shifted(block, single * entry),
                        entry,
                        channels,
                    )


@called
def pixel_at(row, column, columns, column_step, unread):
    """The pixel of a row at a column, or memory that nobody reads outside of it."""
    if column < columns:
        return shifted(row, column * column_step)
    return unread


def sums(
    products, target, work, image_step, row_step, column_step, rows, columns, channels, n, down, across, entry
):
    """target (n, rows, columns, channels) = the sums A^T m A of products m (81, blocks, channels), cropped.

    work: (36 * across + 4) * channels values.
    """
    width = across * channels
    unread = shifted(work, 36 * width)
    for image in range(n):
        for i in range(down):
            block = shifted(products, (image * down + i) * width)
            for v in range(9):
                paired, step, single, step_s = (v, 5, 45 + 4 * v, 1) if v < 5 else (20 + v, 4, 60 + v, 4)
                to = shifted(work, v * width)
                sum_run(
                    shifted(block, paired * entry),
                    step * entry,
                    shifted(block, single * entry),
                    step_s * entry,
                    to,
                    shifted(to, 9 * width),
                    shifted(to, 18 * width),
                    shifted(to, 27 * width),
                    width,
                )
            for k in range(min(4, rows - 4 * i)):
                row = shifted(target, image * image_step + (4 * i + k) * row_step)
                for j in range(across):
                    start = shifted(work, 9 * k * width + j * channels)
                    sum_run(
                        start,
                        width,
                        shifted(start, 5 * width),
                        width,
                        pixel_at(row, 4 * j, columns, column_step, unread),
                        pixel_at(row, 4 * j + 1, columns, column_step, shifted(unread, channels)),
                        pixel_at(row, 4 * j + 2, columns, column_step, shifted(unread, 2 * channels)),
                        pixel_at(row, 4 * j + 3, columns, column_step, shifted(unread, 3 * channels)),
                        channels,
                    )


def interleaved(
    products,
    target,
    work,
    image_step,
    row_step,
    column_step,
    rows,
    columns,
    channels,
    lead,
    n,
    down,
    across,
    entry,
):
    """target (n, rows, columns, channels) = A^T m A of products m (81, blocks, channels), cropped.

    Paired values belong to every second row and column from `lead` on, 0 or 1, single ones to the others.

    work: (36 * across + 8) * channels values.
    """
    width = across * channels
    unread = shifted(work, 36 * width)
    for image in range(n):
        for i in range(down):
            block = shifted(products, (image * down + i) * width)
            for v in range(9):
                paired, step = (v, 5) if v < 5 else (20 + v, 4)
                to = shifted(work, v * width)
                output_run(
                    shifted(block, paired * entry),
                    step * entry,
                    to,
                    shifted(to, 9 * width),
                    shifted(to, 18 * width),
                    shifted(to, 27 * width),
                    width,
                )
            for k in range(min(8, rows - 8 * i)):
                row = shifted(target, image * image_step + (8 * i + k) * row_step)
                half = k // 2
                if k % 2 == lead:
                    paired_at, step = shifted(work, 9 * half * width), width
                    single_at, step_s = shifted(paired_at, 5 * width), width
                else:
                    paired_at, step = shifted(block, (45 + half) * entry), 4 * entry
                    single_at, step_s = shifted(block, (65 + 4 * half) * entry), entry
                for j in range(across):
                    column, other = 8 * j + lead, 8 * j + 1 - lead
                    interleaving_run(
                        shifted(paired_at, j * channels),
                        step,
                        shifted(single_at, j * channels),
                        step_s,
                        pixel_at(row, column, columns, column_step, unread),
                        pixel_at(row, other, columns, column_step, shifted(unread, channels)),
                        pixel_at(row, column + 2, columns, column_step, shifted(unread, 2 * channels)),
                        pixel_at(row, other + 2, columns, column_step, shifted(unread, 3 * channels)),
                        pixel_at(row, column + 4, columns, column_step, shifted(unread, 4 * channels)),
                        pixel_at(row, other + 4, columns, column_step, shifted(unread, 5 * channels)),
                        pixel_at(row, column + 6, columns, column_step, shifted(unread, 6 * channels)),
                        pixel_at(row, other + 6, columns, column_step, shifted(unread, 7 * channels)),
                        channels,
                    )


def kernel(w, out, work, size, width):
    """out (36, size): the transforms of a kernel (3, 3, size), `width` values at a time.

    Its outer taps are paired, five entries, its middle one is single, one entry, in the order of the 81.
    work: 18 * width values.
    """
    for start in range(0, size, width):
        n = min(width, size - start)
        for k in range(3):
            tap = shifted(w, k * size + start)
            kernel_run(tap, shifted(tap, 6 * size), shifted(work, k * width), 3 * width, n)
            copy_run(shifted(tap, 3 * size), shifted(work, (15 + k) * width), n)
        for u in range(6):
            row, to = shifted(work, 3 * u * width), shifted(out, start)
            kernel_run(row, shifted(row, 2 * width), shifted(to, (5 * u if u < 5 else 30) * size), size, n)
            copy_run(shifted(row, width), shifted(to, (25 + u if u < 5 else 35) * size), n)


def taps(total, out, work, size, width):
    """out (3, 3, size) = A^T m A of sums m (36, size), `width` values at a time; work: 18 * width values."""
    for start in range(0, size, width):
        n = min(width, size - start)
        for u in range(6):
            entry, row = shifted(total, start), shifted(work, 3 * u * width)
            tap_run(shifted(entry, (5 * u if u < 5 else 30) * size), size, row, shifted(row, 2 * width), n)
            copy_run(shifted(entry, (25 + u if u < 5 else 35) * size), shifted(row, width), n)
        for k in range(3):
            to = shifted(out, k * size + start)
            tap_run(shifted(work, k * width), 3 * width, to, shifted(to, 6 * size), n)
            copy_run(shifted(work, (15 + k) * width), shifted(to, 3 * size), n)


TRANSFORMS = {
    f.__name__: (f, n) for f, n in ((spectra, 14), (sums, 10), (interleaved, 11), (kernel, 2), (taps, 2))
}


@cache
def transform(name: str, dtype: Any) -> Entry:
    """One of TRANSFORMS for float32 or float64, at the cost of those in `winograd.py`."""
    return c_function(*TRANSFORMS[name], dtype)
