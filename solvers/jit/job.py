"""Names of the places in the three arrays through which Python and the loops in machine code share a solve.

addresses (int64): where the arrays are. n values in the state, s stages, T output times:
    rows (s + 1, n)      the state, then the slopes of the stages
    stages (s, width)    what each evaluation was given (n values) and left for its pull-back
    kept (room, s, width)  the same of the first accepted steps
    weights (s + 2, s)   rows 0 to s - 1 are a, then b and b - b_embedded; nodes (s,); interpolant (s, degree)
    ts (T,), ys (T, n)   output times and states there
    given (N + 1,)       the times to walk, unless steps are chosen
    grid (room,), states (room, n)   accepted times and, where they are kept, the states there
    slope0 (n,)          the slope at the start as the recording of f gave it
    scratch (2, n)       the end of a step that is not FSAL, and its error
    seeds (s, n)         cotangents of slopes
    bars (s + 1, n)      of lam and the states of stages
    dense (s + 1, n)     of [y, k_1, ...]
counts (int64) and reals (float64): sizes and settings, and how far the loop has come.
"""

from __future__ import annotations

(
    KERNEL, PULL_BACK, CONST, NUMBERS, WORK, ROWS, STAGES, KEPT, WEIGHTS, NODES, INTERPOLANT, TS, YS, GIVEN, GRID,
    STATES, SLOPE0, SCRATCH, YS_BAR, SEEDS, BARS, DENSE, PARAMS, N_ADDRESSES,
) = range(24)  # fmt: skip
(
    SIZE, WIDTH, N_STAGES, DEGREE, IS_FSAL, IS_ADAPTIVE, KEEPS_STATES, MAX_KEPT, KEPT_ROOM, ROOM, N_TIMES, MAX_STEPS,
    N_ACCEPTED, N_REJECTED, NFE, REACHED, WAS_REJECTED, NFE_BACKWARD, N_PULLS, N_COUNTS,
) = range(20)  # fmt: skip
(
    RTOL, ATOL, ORDER, SAFETY, MIN_FACTOR, MAX_FACTOR, BETA, MAX_STEP, FIRST_STEP, T, H, REMEMBERED, N_REALS,
) = range(13)  # fmt: skip
DONE, FAILED, FULL = range(3)  # what `walk` returns
