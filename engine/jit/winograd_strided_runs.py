"""Runs of `winograd_strided.py`: small matrices times streams of values, as vector instructions take them.

`kernels/winograd_strided.py` has the matrices. What a run reads lies apart from what it writes.
"""

from __future__ import annotations

from .functions import called
from .streams import read, write
from .winograd import scaled


@called
def pair_run(p0, p1, p2, p3, p4, s0, s1, s2, s3, paired, step, single, step_s, n):
    """paired[k step + i] = (B^T d_i)_k for i < n, with d_i of p0[i] to p4[i]; s0[i] to s3[i] go to single."""
    for i in range(n):
        d0, d1, d2, d3, d4 = read(p0, i, 0), read(p1, i, 0), read(p2, i, 0), read(p3, i, 0), read(p4, i, 0)
        rise = d3 - d1
        write(paired, i, scaled(d0 - d2, 2.0) + rise, 1)
        write(paired, step + i, rise - d1 - d2, 2)
        write(paired, 2 * step + i, d3 - scaled(d2, 3.0) + scaled(d1, 2.0), 3)
        write(paired, 3 * step + i, rise, 4)
        write(paired, 4 * step + i, d4 - d2 - scaled(rise, 2.0), 5)
        write(single, i, read(s0, i, 0), 6)
        write(single, step_s + i, read(s1, i, 0), 7)
        write(single, 2 * step_s + i, read(s2, i, 0), 8)
        write(single, 3 * step_s + i, read(s3, i, 0), 9)


@called
def cotangent_run(p0, p1, p2, p3, paired, step, single, step_s, n):
    """paired[k step + i] = (G b_i)_k for i < n, with b_i of p0[i] to p3[i]; these go to single too."""
    for i in range(n):
        b0, b1, b2, b3 = read(p0, i, 0), read(p1, i, 0), read(p2, i, 0), read(p3, i, 0)
        even, odd = b0 + b2, b1 + b3
        write(paired, i, scaled(b0, 1 / 2), 1)
        write(paired, step + i, scaled(even + odd, -1 / 2), 2)
        write(paired, 2 * step + i, scaled(odd - even, 1 / 6), 3)
        write(
            paired, 3 * step + i, scaled(b0 + scaled(b1, 2.0) + scaled(b2, 4.0) + scaled(b3, 8.0), 1 / 6), 4
        )
        write(paired, 4 * step + i, b3, 5)
        write(single, i, b0, 6)
        write(single, step_s + i, b1, 7)
        write(single, 2 * step_s + i, b2, 8)
        write(single, 3 * step_s + i, b3, 9)


@called
def kernel_run(w0, w1, out, step, n):
    """out[k step + i] = (G w_i)_k for i < n, with w_i of the values at w0[i] and w1[i]."""
    for i in range(n):
        a, b = read(w0, i, 0), read(w1, i, 0)
        write(out, i, scaled(a, 1 / 2), 1)
        write(out, step + i, scaled(a + b, -1 / 2), 2)
        write(out, 2 * step + i, scaled(b - a, 1 / 6), 3)
        write(out, 3 * step + i, scaled(a, 1 / 6) + scaled(b, 1 / 3), 4)
        write(out, 4 * step + i, b, 5)


@called
def output_run(m, step, q0, q1, q2, q3, n):
    """q0[i] to q3[i] = A^T m_i for i < n, with m_i of the values at m[k step + i]."""
    for i in range(n):
        m0, m1, m2 = read(m, i, 0), read(m, step + i, 0), read(m, 2 * step + i, 0)
        m3, m4 = read(m, 3 * step + i, 0), read(m, 4 * step + i, 0)
        even, odd = m1 + m2, m1 - m2
        write(q0, i, m0 + even + m3, 1)
        write(q1, i, odd + scaled(m3, 2.0), 2)
        write(q2, i, even + scaled(m3, 4.0), 3)
        write(q3, i, odd + scaled(m3, 8.0) + m4, 4)


@called
def sum_run(m, step, s, step_s, q0, q1, q2, q3, n):
    """`output_run`, plus the four values at s[k step_s + i]."""
    for i in range(n):
        m0, m1, m2 = read(m, i, 0), read(m, step + i, 0), read(m, 2 * step + i, 0)
        m3, m4 = read(m, 3 * step + i, 0), read(m, 4 * step + i, 0)
        even, odd = m1 + m2, m1 - m2
        write(q0, i, m0 + even + m3 + read(s, i, 0), 1)
        write(q1, i, odd + scaled(m3, 2.0) + read(s, step_s + i, 0), 2)
        write(q2, i, even + scaled(m3, 4.0) + read(s, 2 * step_s + i, 0), 3)
        write(q3, i, odd + scaled(m3, 8.0) + m4 + read(s, 3 * step_s + i, 0), 4)


@called
def tap_run(m, step, q0, q1, n):
    """q0[i] and q1[i] = A^T m_i for i < n, with m_i of the values at m[k step + i]."""
    for i in range(n):
        m0, m1, m2 = read(m, i, 0), read(m, step + i, 0), read(m, 2 * step + i, 0)
        m3, m4 = read(m, 3 * step + i, 0), read(m, 4 * step + i, 0)
        write(q0, i, m0 + m1 + m2 + m3, 1)
        write(q1, i, m1 - m2 + scaled(m3, 2.0) + m4, 2)


@called
def copy_run(p, out, n):
    for i in range(n):
        write(out, i, read(p, i, 0), 1)


@called
def interleaving_run(m, step, s, step_s, q0, r0, q1, r1, q2, r2, q3, r3, n):
    """`output_run`, and the four values at s[k step_s + i] go to r0[i] to r3[i]."""
    for i in range(n):
        m0, m1, m2 = read(m, i, 0), read(m, step + i, 0), read(m, 2 * step + i, 0)
        m3, m4 = read(m, 3 * step + i, 0), read(m, 4 * step + i, 0)
        even, odd = m1 + m2, m1 - m2
        write(q0, i, m0 + even + m3, 1)
        write(q1, i, odd + scaled(m3, 2.0), 2)
        write(q2, i, even + scaled(m3, 4.0), 3)
        write(q3, i, odd + scaled(m3, 8.0) + m4, 4)
        write(r0, i, read(s, i, 0), 5)
        write(r1, i, read(s, step_s + i, 0), 6)
        write(r2, i, read(s, 2 * step_s + i, 0), 7)
        write(r3, i, read(s, 3 * step_s + i, 0), 8)
