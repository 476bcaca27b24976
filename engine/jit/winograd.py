"""The transforms of Winograd's F(4x4, 3x3) as machine code:
`kernels/winograd.py` has what they are for and their source.

A transform of blocks is one of their columns and then one of their rows. Each is a *run*: a small matrix
times some streams of values, all of them side by side in memory, which is vector instructions throughout.
What lies outside of an image is read from a row of zeros and written to a row that nobody reads, so that no
run has a case in it. Addresses and steps count values, not bytes; blocks are numbered image by image,
row by row.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from .disk import compiled_loop
from .functions import called, inlined
from .memory import shifted, store
from .streams import read, write

Entry = Callable[..., None]


@intrinsic
def scaled(typing_context, value, factor):
    """value * factor, in the type of value."""

    def build(context, builder, signature, args):
        number = context.cast(builder, args[1], signature.args[1], signature.args[0])
        return builder.fmul(args[0], number)

    return value(value, factor), build


@inlined
def source_line(d0, d1, d2, d3, d4, d5):
    """B^T d."""
    even, odd = d4 - scaled(d2, 4.0), d3 - scaled(d1, 4.0)
    far, near = d4 - d2, scaled(d3 - d1, 2.0)
    first = scaled(d0, 4.0) - scaled(d2, 5.0) + d4
    last = scaled(d1, 4.0) - scaled(d3, 5.0) + d5
    return first, even + odd, even - odd, far + near, far - near, last


@inlined
def cotangent_line(b0, b1, b2, b3):
    """G b, for a block as a kernel of 4 taps."""
    even, odd = scaled(b0 + b2, -1 / 6), scaled(b1 + b3, -1 / 6)
    far = scaled(b0, 1 / 24) + scaled(b2, 1 / 6)
    near = scaled(b1, 1 / 12) + scaled(b3, 1 / 3)
    return scaled(b0, 1 / 4), even + odd, even - odd, far + near, far - near, b3


@inlined
def kernel_line(w0, w1, w2):
    """G w."""
    even, odd = scaled(w0 + w2, -1 / 6), scaled(w1, -1 / 6)
    far, near = scaled(w0, 1 / 24) + scaled(w2, 1 / 6), scaled(w1, 1 / 12)
    return scaled(w0, 1 / 4), even + odd, even - odd, far + near, far - near, w2


@called
def source_run(p0, p1, p2, p3, p4, p5, out, step, n):
    """out[k step + i] = (B^T d_i)_k for i < n, with d_i of the values at p0[i] to p5[i]."""
    for i in range(n):
        d0, d1, d2 = read(p0, i, 0), read(p1, i, 0), read(p2, i, 0)
        d3, d4, d5 = read(p3, i, 0), read(p4, i, 0), read(p5, i, 0)
        t0, t1, t2, t3, t4, t5 = source_line(d0, d1, d2, d3, d4, d5)
        write(out, i, t0, 1)
        write(out, step + i, t1, 2)
        write(out, 2 * step + i, t2, 3)
        write(out, 3 * step + i, t3, 4)
        write(out, 4 * step + i, t4, 5)
        write(out, 5 * step + i, t5, 6)


@called
def cotangent_run(p0, p1, p2, p3, out, step, n):
    """Like `source_run` for blocks of cotangents, which have four rows and columns only."""
    for i in range(n):
        b0, b1, b2, b3 = read(p0, i, 0), read(p1, i, 0), read(p2, i, 0), read(p3, i, 0)
        t0, t1, t2, t3, t4, t5 = cotangent_line(b0, b1, b2, b3)
        write(out, i, t0, 1)
        write(out, step + i, t1, 2)
        write(out, 2 * step + i, t2, 3)
        write(out, 3 * step + i, t3, 4)
        write(out, 4 * step + i, t4, 5)
        write(out, 5 * step + i, t5, 6)


@called
def kernel_run(w, step_in, out, step, n):
    """out[k step + i] = (G w_i)_k for i < n, with w_i of the values at w[k step_in + i]."""
    for i in range(n):
        w0, w1, w2 = read(w, i, 0), read(w, step_in + i, 0), read(w, 2 * step_in + i, 0)
        t0, t1, t2, t3, t4, t5 = kernel_line(w0, w1, w2)
        write(out, i, t0, 1)
        write(out, step + i, t1, 2)
        write(out, 2 * step + i, t2, 3)
        write(out, 3 * step + i, t3, 4)
        write(out, 4 * step + i, t4, 5)
        write(out, 5 * step + i, t5, 6)


@called
def output_run(m, step, q0, q1, q2, q3, n):
    """q0[i] to q3[i] = A^T m_i for i < n, with m_i of the values at m[k step + i]."""
    for i in range(n):
        m0, m1, m2 = read(m, i, 0), read(m, step + i, 0), read(m, 2 * step + i, 0)
        m3, m4, m5 = read(m, 3 * step + i, 0), read(m, 4 * step + i, 0), read(m, 5 * step + i, 0)
        near, odd, far, odd_far = m1 + m2, m1 - m2, m3 + m4, m3 - m4
        write(q0, i, m0 + near + far, 1)
        write(q1, i, odd + scaled(odd_far, 2.0), 2)
        write(q2, i, near + scaled(far, 4.0), 3)
        write(q3, i, odd + scaled(odd_far, 8.0) + m5, 4)


@called
def tap_run(m, step, out, step_out, n):
    """out[k step_out + i] = (A^T m_i)_k for i < n and the three taps k,
    with m_i of the values at m[k step + i].
    """
    for i in range(n):
        m0, m1, m2 = read(m, i, 0), read(m, step + i, 0), read(m, 2 * step + i, 0)
        m3, m4, m5 = read(m, 3 * step + i, 0), read(m, 4 * step + i, 0), read(m, 5 * step + i, 0)
        near, far = m1 + m2, m3 + m4
        write(out, i, m0 + near + far, 1)
        write(out, step_out + i, m1 - m2 + scaled(m3 - m4, 2.0), 2)
        write(out, 2 * step_out + i, near + scaled(far, 4.0) + m5, 3)


@called
def clear(start, n):
    for i in range(n):
        store(start, i, 0.0)


@called
def row_of(images, row, height, row_step, column, zeros):
    """The row of an image from a column on, or zeros outside of it."""
    if 0 <= row < height:
        return shifted(images, row * row_step + column)
    return zeros


@called
def block_run(seen, p0, p1, p2, p3, p4, p5, out, step, n):
    """`source_run` of blocks that see 6 rows and columns, `cotangent_run` of those that see 4."""
    if seen == 6:
        source_run(p0, p1, p2, p3, p4, p5, out, step, n)
    else:
        cotangent_run(p0, p1, p2, p3, out, step, n)


def spectra(
    images, out, work, seen, image_step, row_step, height, width, channels, top, left, n, down, across, entry
):
    """out[k entry + ...] (36, n * down * across, C) = the transforms of all blocks of images.

    seen: 6 for B^T d B, 4 for G b G^T. top, left: the first pixel of the first block.
    work: 7 * (4 * across + 2) * channels values.
    """
    n_columns = 4 * across + 2
    size = n_columns * channels
    first, last = min(max(-left, 0), n_columns) * channels, max(min(width - left, n_columns), 0) * channels
    clear(work, 7 * size)
    zeros = shifted(work, 6 * size + first)
    for image in range(n):
        pixels = shifted(images, image * image_step)
        for i in range(down):
            row, column = top + 4 * i, left * channels + first
            block_run(
                seen,
                row_of(pixels, row, height, row_step, column, zeros),
                row_of(pixels, row + 1, height, row_step, column, zeros),
                row_of(pixels, row + 2, height, row_step, column, zeros),
                row_of(pixels, row + 3, height, row_step, column, zeros),
                row_of(pixels, row + 4, height, row_step, column, zeros),
                row_of(pixels, row + 5, height, row_step, column, zeros),
                shifted(work, first),
                size,
                last - first,
            )
            for j in range(across):
                block = ((image * down + i) * across + j) * channels
                for k in range(6):
                    start = shifted(work, k * size + 4 * j * channels)
                    block_run(
                        seen,
                        start,
                        shifted(start, channels),
                        shifted(start, 2 * channels),
                        shifted(start, 3 * channels),
                        shifted(start, 4 * channels),
                        shifted(start, 5 * channels),
                        shifted(out, 6 * k * entry + block),
                        entry,
                        channels,
                    )


def outputs(
    products, target, work, image_step, row_step, column_step, rows, columns, channels, n, down, across, entry
):
    """target (n, rows, columns, channels) = A^T m A of the products m (36, n * down * across, channels),
    cropped.

    work: (24 * across + 4) * channels values.
    """
    width = across * channels
    unread = shifted(work, 24 * width)
    for image in range(n):
        for i in range(down):
            block = shifted(products, (image * down + i) * width)
            for k in range(6):
                to = shifted(work, k * width)
                output_run(
                    shifted(block, k * entry),
                    6 * entry,
                    to,
                    shifted(to, 6 * width),
                    shifted(to, 12 * width),
                    shifted(to, 18 * width),
                    width,
                )
            for k in range(min(4, rows - 4 * i)):
                row = shifted(target, image * image_step + (4 * i + k) * row_step)
                for j in range(across):
                    pixel, left = shifted(row, 4 * j * column_step), columns - 4 * j
                    output_run(
                        shifted(work, 6 * k * width + j * channels),
                        width,
                        pixel,
                        shifted(pixel, column_step) if left > 1 else unread,
                        shifted(pixel, 2 * column_step) if left > 2 else shifted(unread, channels),
                        shifted(pixel, 3 * column_step) if left > 3 else shifted(unread, 2 * channels),
                        channels,
                    )


def kernel(w, out, work, size, width):
    """out (36, size) = G w G^T of a kernel (3, 3, size), `width` values of it at a time; work:
    18 * width values.
    """
    for start in range(0, size, width):
        n = min(width, size - start)
        for k in range(3):
            kernel_run(shifted(w, k * size + start), 3 * size, shifted(work, k * width), 3 * width, n)
        for k in range(6):
            kernel_run(shifted(work, 3 * k * width), width, shifted(out, 6 * k * size + start), size, n)


def taps(total, out, work, size, width):
    """out (3, 3, size) = A^T m A of sums m (36, size), `width` values at a time; work: 18 * width values."""
    for start in range(0, size, width):
        n = min(width, size - start)
        for k in range(6):
            tap_run(shifted(total, k * size + start), 6 * size, shifted(work, k * width), 6 * width, n)
        for k in range(3):
            tap_run(shifted(work, 6 * k * width), width, shifted(out, 3 * k * size + start), size, n)


TRANSFORMS = {f.__name__: (f, n) for f, n in ((spectra, 12), (outputs, 10), (kernel, 2), (taps, 2))}


@cache
def transform(name: str, dtype: Any) -> Entry:
    """One of TRANSFORMS for float32 or float64.

    Cost: some tenths of a second, milliseconds where the machine code is on disk.
    """
    return c_function(*TRANSFORMS[name], dtype)


def c_function(function: Callable[..., None], n_sizes: int, dtype: Any) -> Entry:
    """A function of three addresses and of sizes, compiled; it releases the interpreter's lock."""
    values = types.CPointer(types.float32 if dtype == np.float32 else types.float64)
    compiled = compiled_loop(function, types.void(values, values, values, *[types.int64] * n_sizes))
    arguments = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * n_sizes
    entry = ctypes.CFUNCTYPE(None, *arguments)(compiled.address)
    entry.compiled = compiled  # type: ignore[attr-defined]  # the machine code lives as long as the function
    return entry
