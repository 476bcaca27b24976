"""The adjoint of the steps taken, in machine code: `gradients/discrete.py`, whose formulas it has,
for y0 and parameters.
"""

from __future__ import annotations

from ...engine.jit.functions import called
from ...engine.jit.memory import load, pointer, run_kernel, shifted, store
from . import job
from .steps import add_row, copy_row, dense_weight, evaluate, make_stages, stage_time
from .walk import count


@called
def pull(addresses, counts, t, stage, seed, bar, real):
    """bar = (df/dy)^T seed, and params += (df/dparams)^T seed, at the evaluation in `stage`."""
    run_kernel(
        load(addresses, job.PULL_BACK), t, load(addresses, job.CONST), load(addresses, job.NUMBERS), stage,
        load(addresses, job.WORK), seed, bar, pointer(load(addresses, job.PARAMS), real),
    )  # fmt: skip
    count(counts, job.N_PULLS, 1)


@called
def collect(addresses, counts, n, output, real):
    """The outputs inside step n give cotangents to [y, k_1, ...], which are added up in `dense`.

    Goes through the outputs downwards from `output`. Returns: (the next one to look at, the one at the end of
    the step or 0, whether there are any inside).
    """
    size, degree, s = load(counts, job.SIZE), load(counts, job.DEGREE), load(counts, job.N_STAGES)
    ts, grid = pointer(load(addresses, job.TS), 0.0), pointer(load(addresses, job.GRID), 0.0)
    bars, dense = pointer(load(addresses, job.YS_BAR), real), pointer(load(addresses, job.DENSE), real)
    interpolant = pointer(load(addresses, job.INTERPOLANT), 0.0)
    t, t_next = load(grid, n), load(grid, n + 1)
    h, at_end, is_dense = t_next - t, 0, False
    if output > 0 and load(ts, output) == t_next:
        at_end, output = output, output - 1
    while output > 0 and (load(ts, output) - t) * h > 0.0:
        if not is_dense:
            for m in range((s + 1) * size):
                store(dense, m, type(real)(0.0))
            is_dense = True
        theta, bar = (load(ts, output) - t) / h, shifted(bars, output * size)
        add_row(bar, dense, size, type(real)(1.0))
        for i in range(s):
            weight = type(real)(h * dense_weight(shifted(interpolant, i * degree), degree, theta))
            add_row(bar, shifted(dense, (i + 1) * size), size, weight)
        output -= 1
    return output, at_end, is_dense


@called
def write_seed(addresses, counts, i, n_sums, h, is_dense, real):
    """seeds[i] = h (b_i lam + sum_{j > i} a_ji Ybar_j) + what the outputs inside the step give;
    returns its pointer.
    """
    size, s = load(counts, job.SIZE), load(counts, job.N_STAGES)
    bars, dense = pointer(load(addresses, job.BARS), real), pointer(load(addresses, job.DENSE), real)
    weights = pointer(load(addresses, job.WEIGHTS), 0.0)
    seed = shifted(pointer(load(addresses, job.SEEDS), real), i * size)
    b_i = type(real)(h * load(weights, s * s + i))
    for m in range(size):
        store(seed, m, b_i * load(bars, m))
    for j in range(i + 1, n_sums):
        weight = load(weights, j * s + i)
        if weight != 0.0:
            add_row(shifted(bars, (j + 1) * size), seed, size, type(real)(h * weight))
    if is_dense:
        add_row(shifted(dense, (i + 1) * size), seed, size, type(real)(1.0))
    return seed


@called
def evaluate_node(addresses, counts, n, real):
    """The slope at grid[n] again, as the first stage of the step that begins there;
    returns the pointer to the stage.
    """
    size, rows = load(counts, job.SIZE), pointer(load(addresses, job.ROWS), real)
    stages, states = pointer(load(addresses, job.STAGES), real), pointer(load(addresses, job.STATES), real)
    copy_row(shifted(states, n * size), stages, size)
    copy_row(stages, rows, size)
    evaluate(addresses, load(pointer(load(addresses, job.GRID), 0.0), n), stages, shifted(rows, size))
    count(counts, job.NFE_BACKWARD, 1)
    return stages


@called
def kept_stage(addresses, counts, n, i, real):
    """The pointer to stage i of step n, which was kept."""
    position = (n * load(counts, job.N_STAGES) + i) * load(counts, job.WIDTH)
    return shifted(pointer(load(addresses, job.KEPT), real), position)


@called
def pull_stages(addresses, counts, n, is_dense, real):
    """Pull the stages of step n but its first back, and add their cotangents to lam;
    the first one's seed is written.
    """
    size, width, s = load(counts, job.SIZE), load(counts, job.WIDTH), load(counts, job.N_STAGES)
    n_sums = s - load(counts, job.IS_FSAL)
    grid, nodes = pointer(load(addresses, job.GRID), 0.0), pointer(load(addresses, job.NODES), 0.0)
    bars, dense = pointer(load(addresses, job.BARS), real), pointer(load(addresses, job.DENSE), real)
    t, t_next = load(grid, n), load(grid, n + 1)
    stages = pointer(load(addresses, job.STAGES), real)
    if n < load(counts, job.MAX_KEPT):
        stages = kept_stage(addresses, counts, n, 0, real)
    else:
        evaluate_node(addresses, counts, n, real)
        if n == 0:  # the bits that the forward pass went on with
            copy_row(
                pointer(load(addresses, job.SLOPE0), real),
                shifted(pointer(load(addresses, job.ROWS), real), size),
                size,
            )
        make_stages(addresses, counts, t, t_next, stages, n_sums, real)
        count(counts, job.NFE_BACKWARD, n_sums - 1)
    for i in range(n_sums - 1, 0, -1):
        seed = write_seed(addresses, counts, i, n_sums, t_next - t, is_dense, real)
        stage, bar = shifted(stages, i * width), shifted(bars, (i + 1) * size)
        pull(addresses, counts, stage_time(nodes, i, t, t_next), stage, seed, bar, real)
    write_seed(addresses, counts, 0, n_sums, t_next - t, is_dense, real)
    for i in range(1, n_sums):
        add_row(shifted(bars, (i + 1) * size), bars, size, type(real)(1.0))
    if is_dense:
        add_row(dense, bars, size, type(real)(1.0))


@called
def pull_node(addresses, counts, n, seed, real):
    """lam += (df/dy)^T seed for the slope at grid[n], which the steps on both sides share."""
    size, s = load(counts, job.SIZE), load(counts, job.N_STAGES)
    is_fsal, n_kept, n_steps = (
        load(counts, job.IS_FSAL),
        load(counts, job.MAX_KEPT),
        load(counts, job.N_ACCEPTED),
    )
    bars = pointer(load(addresses, job.BARS), real)
    bar, stage = shifted(bars, size), pointer(load(addresses, job.STAGES), real)
    if is_fsal and 0 < n <= n_kept:
        stage = kept_stage(addresses, counts, n - 1, s - 1, real)
    elif not is_fsal and 0 < n < n_kept:
        stage = kept_stage(addresses, counts, n, 0, real)
    elif n < n_kept or n == n_steps:  # the slope at the start was that of the recording, which left nothing
        stage = evaluate_node(addresses, counts, n, real)
    pull(addresses, counts, load(pointer(load(addresses, job.GRID), 0.0), n), stage, seed, bar, real)
    add_row(bar, bars, size, type(real)(1.0))


def sweep(addresses, counts, reals, real):
    """Pull the cotangents ys_bar (T, n) back along the accepted steps.

    lam, in row 0 of `bars`, ends as the cotangent of y0; those of the parameters are added to `params`. The
    stages of the first MAX_KEPT steps were kept, the others are evaluated again.
    `real` is any value of the type of the state.
    """
    size, s, is_fsal = load(counts, job.SIZE), load(counts, job.N_STAGES), load(counts, job.IS_FSAL)
    lam, ys_bar = pointer(load(addresses, job.BARS), real), pointer(load(addresses, job.YS_BAR), real)
    seed, end_bar = (
        pointer(load(addresses, job.SEEDS), real),
        shifted(pointer(load(addresses, job.DENSE), real), s * size),
    )
    one = type(real)(1.0)
    n_steps = load(counts, job.N_ACCEPTED)
    output, at_end, is_dense = collect(addresses, counts, n_steps - 1, load(counts, job.N_TIMES) - 1, real)
    copy_row(shifted(ys_bar, at_end * size), lam, size)
    if is_dense and is_fsal:
        pull_node(addresses, counts, n_steps, end_bar, real)
    for n in range(n_steps - 1, -1, -1):
        pull_stages(addresses, counts, n, is_dense, real)
        at_end, is_dense = 0, False
        if n > 0:
            output, at_end, is_dense = collect(addresses, counts, n - 1, output, real)
            if is_dense and is_fsal:
                add_row(end_bar, seed, size, one)
        pull_node(addresses, counts, n, seed, real)
        if at_end > 0:
            add_row(shifted(ys_bar, at_end * size), lam, size, one)
    add_row(ys_bar, lam, size, one)
    return 0
