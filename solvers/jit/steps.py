"""One Runge-Kutta step in machine code, on the rows [y, k_1, ..., k_s]; `job.py` says what the arrays are."""

from __future__ import annotations

import math

from ...engine.jit.functions import called, plus
from ...engine.jit.memory import load, pointer, run_kernel, shifted, store
from . import job

SMALL = (
    8  # states of fewer values are summed value by value: a loop over them costs more to start than to run
)


@called
def copy_row(source, target, size):
    """target = source."""
    for m in range(size):
        store(target, m, load(source, m))


@called
def add_row(source, target, size, factor):
    """target += factor * source."""
    for m in range(size):
        store(target, m, load(target, m) + factor * load(source, m))


@called
def add_slopes(rows, weights, count, h, target, size, real):
    """target += h sum_l weights[l] k_l over the first `count` slopes; `real` is any value of their type."""
    if size < SMALL:
        for m in range(size):
            total = load(target, m)
            for l in range(count):
                total += type(real)(h * load(weights, l)) * load(rows, (l + 1) * size + m)
            store(target, m, total)
        return
    for l in range(count):
        weight = load(weights, l)
        if weight != 0.0:
            add_row(shifted(rows, (l + 1) * size), target, size, type(real)(h * weight))


@called
def stage_time(nodes, i, t, t_next):
    """Time of stage i; a stage at the end of the step is at t_next exactly."""
    return t_next if load(nodes, i) == 1.0 else t + load(nodes, i) * (t_next - t)


@called
def evaluate(addresses, t, stage, slope):
    """slope = f(t, y) for the state in `stage`."""
    run_kernel(
        load(addresses, job.KERNEL), t, load(addresses, job.CONST), load(addresses, job.NUMBERS), stage, load(addresses, job.WORK),
        stage, slope, slope,
    )  # fmt: skip


@called
def make_stages(addresses, counts, t, t_next, stages, n_stages, real):
    """The stages 1 to n_stages - 1 of a step, given y and its slope."""
    size, width, s = load(counts, job.SIZE), load(counts, job.WIDTH), load(counts, job.N_STAGES)
    rows, nodes = pointer(load(addresses, job.ROWS), real), pointer(load(addresses, job.NODES), 0.0)
    weights = pointer(load(addresses, job.WEIGHTS), 0.0)
    for i in range(1, n_stages):
        stage = shifted(stages, i * width)
        copy_row(rows, stage, size)
        add_slopes(rows, shifted(weights, i * s), i, t_next - t, stage, size, real)
        evaluate(addresses, stage_time(nodes, i, t, t_next), stage, shifted(rows, (i + 1) * size))


@called
def scaled_norm(values, y, y_new, size, rtol, atol):
    """RMS of values / (atol + rtol max(|y|, |y_new|)), tolerances of their type;
    NaN where y_new has overflowed.
    """
    zero = rtol - rtol
    total, overflow = zero, zero
    for m in range(size):
        largest = max(abs(load(y, m)), abs(load(y_new, m)))
        ratio = load(values, m) / (atol + rtol * largest)
        total = plus(total, ratio * ratio)
        overflow = plus(overflow, load(y_new, m) * zero)
    return math.sqrt(float(total) / size) + float(overflow)


@called
def dense_weight(interpolant, degree, theta):
    """b_i(theta), from row i of the interpolant."""
    total = 0.0
    for power in range(degree - 1, -1, -1):
        total = (total + load(interpolant, power)) * theta
    return total
