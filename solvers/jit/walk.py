"""The loop of one solve in machine code: `loop.Integrator`, and what `forward.py` writes down on the way."""

from __future__ import annotations

import math

import numpy as np

from ...engine.jit.functions import called
from ...engine.jit.memory import load, pointer, shifted, store
from . import job
from .control import accepted_factor, first_step, probe_step, rejected_factor
from .steps import add_row, add_slopes, copy_row, dense_weight, evaluate, make_stages, scaled_norm


@called
def count(counts, what, n):
    store(counts, what, load(counts, what) + n)


@called
def norm(values, y, y_new, counts, reals, real):
    """The scaled norm with the tolerances of the solve, in the precision of the state."""
    rtol, atol = type(real)(load(reals, job.RTOL)), type(real)(load(reals, job.ATOL))
    return scaled_norm(values, y, y_new, load(counts, job.SIZE), rtol, atol)


@called
def chosen_first_step(addresses, counts, reals, interval, real):
    """Hairer's first step: one probing evaluation of f."""
    t, size, width = load(reals, job.T), load(counts, job.SIZE), load(counts, job.WIDTH)
    y = pointer(load(addresses, job.ROWS), real)
    slope, probe = shifted(y, size), shifted(y, 2 * size)
    slope_norm = norm(slope, y, y, counts, reals, real)
    h = probe_step(norm(y, y, y, counts, reals, real), slope_norm, interval)
    stage = shifted(pointer(load(addresses, job.STAGES), real), width)
    copy_row(y, stage, size)
    add_row(slope, stage, size, type(real)(h))
    evaluate(addresses, t + h, stage, probe)
    count(counts, job.NFE, 1)
    add_row(slope, probe, size, type(real)(-1.0))
    change = norm(probe, y, y, counts, reals, real) / abs(h)
    return first_step(h, slope_norm, change, int(load(reals, job.ORDER)), interval)


@called
def begin(addresses, counts, reals, interval, real):
    """The size of the first step."""
    h = load(reals, job.FIRST_STEP)
    if h == 0.0:
        h = chosen_first_step(addresses, counts, reals, interval, real)
    store(reals, job.H, math.copysign(min(abs(h), abs(interval), load(reals, job.MAX_STEP)), interval))


@called
def is_too_short(t, t_next, stop):
    """Whether numbers near t are too coarse for the step; the last one may be as short as it is."""
    largest = max(abs(t), abs(t_next))
    spacing = np.nextafter(largest, math.inf) - largest
    return abs(t_next - t) < 10.0 * spacing and (t_next != stop or t_next == t)


@called
def attempt(addresses, counts, t, t_next, stages, real):
    """All stages of a step; returns the pointer to the state at its end."""
    s, size = load(counts, job.N_STAGES), load(counts, job.SIZE)
    make_stages(addresses, counts, t, t_next, stages, s, real)
    count(counts, job.NFE, s - 1)
    if load(counts, job.IS_FSAL):
        return shifted(stages, (s - 1) * load(counts, job.WIDTH))
    rows, end = pointer(load(addresses, job.ROWS), real), pointer(load(addresses, job.SCRATCH), real)
    weights = shifted(pointer(load(addresses, job.WEIGHTS), 0.0), s * s)
    copy_row(rows, end, size)
    add_slopes(rows, weights, s, t_next - t, end, size, real)
    return end


@called
def judge(addresses, counts, reals, h, end, real):
    """Whether the step of size h that ends in `end` is accepted; leaves the size of the next one."""
    s, size = load(counts, job.N_STAGES), load(counts, job.SIZE)
    rows = pointer(load(addresses, job.ROWS), real)
    error_row = shifted(pointer(load(addresses, job.SCRATCH), real), size)
    for m in range(size):
        store(error_row, m, real - real)
    weights = shifted(pointer(load(addresses, job.WEIGHTS), 0.0), (s + 1) * s)
    add_slopes(rows, weights, s, h, error_row, size, real)
    error = norm(error_row, rows, end, counts, reals, real)
    is_accepted = error <= 1.0
    if is_accepted:
        factor = accepted_factor(
            error, load(reals, job.REMEMBERED), load(counts, job.WAS_REJECTED) == 1, reals
        )
        store(reals, job.REMEMBERED, error)
    else:
        factor = rejected_factor(error, reals)
        count(counts, job.N_REJECTED, 1)
    store(counts, job.WAS_REJECTED, 0 if is_accepted else 1)
    store(reals, job.H, math.copysign(min(abs(h * factor), load(reals, job.MAX_STEP)), h))
    return is_accepted


@called
def is_finite(row, size):
    """Whether all values are."""
    for m in range(size):
        if not math.isfinite(load(row, m)):
            return False
    return True


@called
def make_step(addresses, counts, reals, stages, real):
    """One accepted step from t; returns the pointer to the state at its end,
    and its end (NaN: there is none).
    """
    t, n, size = load(reals, job.T), load(counts, job.N_ACCEPTED), load(counts, job.SIZE)
    stop = load(pointer(load(addresses, job.TS), 0.0), load(counts, job.N_TIMES) - 1)
    end = pointer(load(addresses, job.SCRATCH), real)
    if not load(counts, job.IS_ADAPTIVE):
        t_next = load(pointer(load(addresses, job.GIVEN), 0.0), n + 1)
        end = attempt(addresses, counts, t, t_next, stages, real)
        return end, (t_next if is_finite(end, size) else math.nan)
    while True:
        h = load(reals, job.H)
        t_next = t + h
        if math.copysign(1.0, h) * (stop - t_next) <= 1e-10 * abs(h):
            t_next = stop
        if is_too_short(t, t_next, stop) or n + load(counts, job.N_REJECTED) >= load(counts, job.MAX_STEPS):
            return end, math.nan
        end = attempt(addresses, counts, t, t_next, stages, real)
        if judge(addresses, counts, reals, t_next - t, end, real):
            return end, t_next


@called
def write_outputs(addresses, counts, t, t_next, end, real):
    """The states at the output times in (t, t_next]."""
    reached, size, degree = load(counts, job.REACHED), load(counts, job.SIZE), load(counts, job.DEGREE)
    ts, ys = pointer(load(addresses, job.TS), 0.0), pointer(load(addresses, job.YS), real)
    rows, interpolant = (
        pointer(load(addresses, job.ROWS), real),
        pointer(load(addresses, job.INTERPOLANT), 0.0),
    )
    h = t_next - t
    while reached < load(counts, job.N_TIMES) and (t_next - load(ts, reached)) * h > 0.0:
        theta, y = (load(ts, reached) - t) / h, shifted(ys, reached * size)
        copy_row(rows, y, size)
        for i in range(load(counts, job.N_STAGES)):
            weight = type(real)(h * dense_weight(shifted(interpolant, i * degree), degree, theta))
            add_row(shifted(rows, (i + 1) * size), y, size, weight)
        reached += 1
    if reached < load(counts, job.N_TIMES) and load(ts, reached) == t_next:
        copy_row(end, shifted(ys, reached * size), size)
        reached += 1
    store(counts, job.REACHED, reached)


@called
def write_step(addresses, counts, reals, end, t_next, real):
    """The accepted time, and the state there; the step's end becomes the start of the next one."""
    n, s, size = load(counts, job.N_ACCEPTED) + 1, load(counts, job.N_STAGES), load(counts, job.SIZE)
    rows = pointer(load(addresses, job.ROWS), real)
    store(pointer(load(addresses, job.GRID), 0.0), n, t_next)
    if load(counts, job.KEEPS_STATES):
        copy_row(end, shifted(pointer(load(addresses, job.STATES), real), n * size), size)
    copy_row(end, rows, size)
    if load(counts, job.IS_FSAL):
        copy_row(shifted(rows, s * size), shifted(rows, size), size)
    store(reals, job.T, t_next)
    store(counts, job.N_ACCEPTED, n)


def walk(addresses, counts, reals, real):
    """Walk on from t to ts[-1]; at the start y0 and its slope are in rows 0 and 1, and ys[0] is written.

    Returns DONE; FULL where `grid` (and `states`), or `kept`, has no room for the next step; FAILED where
    there is no next step, or where it is not finite: why, replay will find out.
    `real` is any value of the type of the state.
    """
    size, width, s = load(counts, job.SIZE), load(counts, job.WIDTH), load(counts, job.N_STAGES)
    last = load(pointer(load(addresses, job.TS), 0.0), load(counts, job.N_TIMES) - 1)
    rows, stages = pointer(load(addresses, job.ROWS), real), pointer(load(addresses, job.STAGES), real)
    if load(counts, job.N_ACCEPTED) == 0 and not is_finite(shifted(rows, size), size):
        return job.FAILED
    if load(counts, job.IS_ADAPTIVE) and load(reals, job.H) == 0.0:
        begin(addresses, counts, reals, last - load(reals, job.T), real)
    while load(reals, job.T) != last:
        t, n = load(reals, job.T), load(counts, job.N_ACCEPTED)
        if n + 1 >= load(counts, job.ROOM) or load(counts, job.KEPT_ROOM) <= n < load(counts, job.MAX_KEPT):
            return job.FULL
        here = stages
        if n < load(counts, job.MAX_KEPT):
            here = shifted(pointer(load(addresses, job.KEPT), real), n * s * width)
        if n > 0 and not load(counts, job.IS_FSAL):
            copy_row(rows, here, size)
            evaluate(addresses, t, here, shifted(rows, size))
            count(counts, job.NFE, 1)
        end, t_next = make_step(addresses, counts, reals, here, real)
        if math.isnan(t_next):
            return job.FAILED
        write_outputs(addresses, counts, t, t_next, end, real)
        write_step(addresses, counts, reals, end, t_next, real)
    return job.DONE
