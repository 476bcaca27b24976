"""Tiles: parts of the batch that a thread takes through a whole segment of a program before it begins the
next one.

A step at a time, every product and every chain goes over the whole batch, and BLAS hands each product to
threads of its own, which wait for each other. A tile instead goes through all steps of a row-wise segment
(`row_wise`) on one thread, with BLAS at one thread: what it makes is still in cache when it is read, and
threads meet once a segment. Results that nothing outside of the segment reads exist for one tile at a time.
That gains where rows are short and many. Wide layers spend their time in products,
which BLAS divides better than tiles, each of which packs the matrix for itself.

Products with a transposed array, the parameter gradients, are sums over the batch: small ones are summed tile
by tile, large ones are cut into rows of the result, which need no sum at all.

Convolutions divide themselves among threads, but between two of them so does every chain, and each meeting
of the threads costs some 50 microseconds. Where convolutions take long enough, a tile is one thread's part
of the images, which goes through convolutions, norms of each image and gradients of kernels. The threads
are then in Python at once and wait for each other at every call, which small convolutions do not outweigh.

Tiles depend on the sizes and on the number of threads when buffers are bound; which thread takes which tile
changes no bit. Measured by `benchmarks/tiled.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .fusion import Run, schedule
from .kernels.threads import blas_threads, one_blas_thread, run_shares
from .partition import Plan
from .primitive import Call
from .program import Program, Step
from .row_cuts import Cut
from .row_wise import Segment, batch_size, part_of, rows_in, split_off

CACHE_BYTES = 1 << 19  # of the arrays of one tile: half of an L2 cache, the other half for the matrices
FEWEST_ROWS = 128  # of a tile: BLAS packs the whole matrix anew for each
FEWEST_OUTPUTS = 64  # rows of the result of a product that is divided on its own
FEWEST_FLOPS = 1.5e7  # of the products of a segment, 0.15 ms: below, waking a thread costs what it saves
MOST_FLOPS_A_VALUE = 64.0  # of products, for each value made: above, chains in cache gain too little
SMALL_SUM = 1 << 14  # values: larger sums over tiles cost more than the products that they add
FLOPS_A_CALL = 2e7  # of convolutions, for each step of a tile: 0.1 to 0.2 ms beside what two threads wait
LANES_A_THREAD = 2  # a thread that is held up leaves lanes to the others


@dataclass(frozen=True)
class Tiled:
    """A segment and the rows of its tiles; `parts` has the plan and the pieces of a tile for each number of
    rows.

    The tiles are divided among `n_lanes` lanes, one behind the other.
    """

    segment: Segment
    bounds: tuple[tuple[int, int], ...]
    n_lanes: int
    parts: dict[int, tuple[Plan, list[Step | Run]]]

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.segment.steps

    @property
    def local(self) -> frozenset[int]:
        return self.segment.locals

    def rows_of(self, array: np.ndarray, slot: int, bounds: tuple[int, int]) -> np.ndarray:
        """The part of an array that belongs to the rows `bounds`: all of it where it is not cut."""
        axis = self.segment.axes.get(slot)
        if axis is None:
            return array
        entries = array.shape[axis] // self.segment.n
        window = slice(bounds[0] * entries, bounds[1] * entries)
        return array[(slice(None),) * axis + (window,)]


Piece = Step | Run | Tiled


def tiled_schedule(plan: Plan, group: str) -> list[Piece]:
    """The steps of a group, those that gain from it gathered into tiled segments,
    and what remains into fused runs.
    """
    if not may_have_tiles(plan):
        return list(schedule(plan, group))
    n, n_threads, slope = batch_size(plan), blas_threads(), plan.steps[plan.order[1]]
    of_images = are_worth_images(plan.program, slope, n_threads)
    if not of_images and not (is_worth_tiles(plan.program, slope) and has_rows_for_all(n)):
        return list(schedule(plan, group))

    def wants(step: Step, cut: Cut) -> bool:
        return _wants(plan, step, cut, of_images=of_images)

    rows = rows_in(plan, n)
    pending: Sequence[Step] = plan.steps[group]
    ordered: list[Piece] = []
    waiting: list[Step] = []
    while pending:
        segment, before, pending = split_off(plan, group, pending, n, rows, wants)
        waiting += before
        tiled = _tiled(plan, group, segment, n_threads, FEWEST_ROWS) if segment is not None else None
        if tiled is not None:
            ordered += [*schedule(plan, group, steps=waiting), tiled]
            waiting = []
        elif segment is not None:
            waiting += segment.steps
    ordered += schedule(plan, group, steps=waiting)
    return [_dealt(plan, group, piece, n_threads) for piece in ordered]


def may_have_tiles(plan: Plan) -> bool:
    """Whether any group may be bound tile by tile: the first one, which computes the function,
    decides for all.
    """
    slope = plan.steps[plan.order[1]]
    return is_worth_tiles(plan.program, slope) or are_worth_images(plan.program, slope, 2)


def is_worth_tiles(program: Program, steps: Iterable[Step]) -> bool:
    """Whether a function has enough to divide, and enough beside its products for tiles to gain from the
    cache.
    """
    flops = values = 0
    for step in steps:
        flops += _flops(program, step)
        values += math.prod(program.metas[step.output].shape)
    return FEWEST_FLOPS <= flops <= MOST_FLOPS_A_VALUE * values


def are_worth_images(program: Program, steps: Iterable[Step], n_threads: int) -> bool:
    """Whether convolutions take so long that a thread should take its images through all of these steps."""
    flops = [_convolution_flops(program, step) for step in steps]
    return any(flops) and sum(flops) >= FLOPS_A_CALL * len(flops) * n_threads


def has_rows_for_all(n: int) -> bool:
    """Whether n rows are enough for tiles on all threads: if not, products are BLAS's,
    which divides columns as well.
    """
    return n // FEWEST_ROWS >= blas_threads()


def replaces_blas_threads(program: Program, n: int) -> bool:
    """Whether tiles divide what is large in a replay of this function of n rows,
    so that BLAS needs one thread only.

    BLAS's threads wait for the next product by spinning, on the cores that the threads of tiles need.
    """
    return n >= FEWEST_ROWS and is_worth_tiles(program, program.steps) and has_rows_for_all(n)


def _wants(plan: Plan, step: Step, cut: Cut, *, of_images: bool) -> bool:
    """In tiles of images all that can be cut: of a sum each thread makes one part. Else no large sums, and no
    convolutions, which divide themselves.
    """
    if of_images:
        return True
    is_small = not cut.is_sum or math.prod(plan.program.metas[step.output].shape) <= SMALL_SUM
    return is_small and step.op.name not in _CONVOLUTIONS


def _flops(program: Program, step: Step) -> int:
    """Of a product of matrices; everything else counts as nothing."""
    if step.op.name != "matmul":
        return 0
    metas = program.metas
    return 2 * math.prod(metas[step.output].shape) * metas[step.inputs[0]].shape[-1]


def _convolution_flops(program: Program, step: Step) -> int:
    """Of a convolution or one of its gradients: each entry of the kernel meets each pixel of the result of
    the convolution once.
    """
    if step.op.name not in _CONVOLUTIONS:
        return 0
    pixels, kernel = _CONVOLUTIONS[step.op.name]
    shapes = [program.metas[slot].shape for slot in (*step.inputs, step.output)]
    return 2 * math.prod(shapes[pixels][:3]) * math.prod(shapes[kernel])


# Which of (first input, second input, result) has the pixels that are counted, and which is the kernel.
_CONVOLUTIONS = {"conv2d": (2, 1), "conv2d_input_grad": (0, 1), "conv2d_weight_grad": (1, 2)}


def _tiled(plan: Plan, group: str, segment: Segment, n_threads: int, fewest_rows: int) -> Tiled | None:
    """The segment in tiles, None where it gains nothing: without large products, or as a single tile."""
    if any(step.op.name in _CONVOLUTIONS for step in segment.steps):
        n_tiles = n_threads if are_worth_images(plan.program, segment.steps, n_threads) else 1
        n_tiles = min(n_tiles, segment.n)
    elif sum(_flops(plan.program, step) for step in segment.steps) >= FEWEST_FLOPS:
        n_tiles = min(_tiles_for(plan, segment, n_threads), segment.n // fewest_rows)
    else:
        n_tiles = 1
    if n_tiles < 2:
        return None
    edges = [segment.n * k // n_tiles for k in range(n_tiles + 1)]
    bounds = tuple(zip(edges, edges[1:], strict=False))
    plans = {rows: _plan_of_part(plan, group, segment, rows) for rows in {z - a for a, z in bounds}}
    parts = {rows: (part, schedule(part, group)) for rows, part in plans.items()}
    return Tiled(segment, bounds, min(n_tiles, LANES_A_THREAD * n_threads), parts)


def _tiles_for(plan: Plan, segment: Segment, n_threads: int) -> int:
    """One a thread, or a multiple for the cache: as long as the matrices, which come anew with each tile,
    fit as well.
    """
    arrays = [(plan.root[slot], axis) for slot, axis in segment.axes.items() if slot not in plan.weak]
    whole = _nbytes(plan, {root for root, axis in arrays if axis is None})
    cut = _nbytes(plan, {root for root, axis in arrays if axis is not None})
    a_thread = 1 if whole > CACHE_BYTES else -(-cut // (CACHE_BYTES * n_threads))
    return max(a_thread, 1) * n_threads


def _nbytes(plan: Plan, slots: Iterable[int]) -> int:
    metas = (plan.program.metas[slot] for slot in slots)
    return sum(math.prod(meta.shape) * meta.dtype.itemsize for meta in metas if meta.dtype is not None)


def _dealt(plan: Plan, group: str, piece: Piece, n_threads: int) -> Piece:
    """A large product that is on its own, as a segment over the rows of its result."""
    if not isinstance(piece, Step) or piece.op.name != "matmul" or n_threads < 2:
        return piece
    shape, (left, right) = plan.program.metas[piece.output].shape, piece.inputs
    if len(shape) != 2 or left == right:
        return piece
    cut, axes = Cut((0, None), 0), {left: 0, right: None, piece.output: 0}
    segment = Segment(shape[0], (piece,), (cut,), axes, (piece.output,))
    return _tiled(plan, group, segment, n_threads, FEWEST_OUTPUTS) or piece


def _plan_of_part(plan: Plan, group: str, segment: Segment, rows: int) -> Plan:
    """The plan of one tile: the steps of the segment are its only group."""
    program = part_of(plan.program, segment, rows)
    return replace(
        plan,
        program=program,
        order=(group,),
        steps={group: program.steps},
        outputs={group: segment.results},
        residuals=frozenset(),
    )


def sum_of_parts(tiled: Tiled, step: Step, parts: np.ndarray, out: np.ndarray) -> Call:
    """out = what the tiles' parts (T, ...) of a sum add up to; of a mean,
    each part is weighted by its rows.
    """
    if step.op.name != "mean_leading":
        return np.add.reduce, (parts,), {"axis": 0, "out": out}
    weights = np.array([(z - a) / tiled.segment.n for a, z in tiled.bounds], out.dtype)
    return np.dot, (weights, parts), {"out": out}


class TileLoop:
    """Runs tiles, lane by lane: the tiles of a lane share buffers,
    so that one thread at a time works on it.
    """

    __name__ = "tile_loop"

    def __init__(self, lanes: list[list[Callable[[Any], None]]]) -> None:
        self._lanes = lanes

    def __call__(self, t: Any) -> None:
        remaining = iter(self._lanes)

        def work(_: int) -> None:
            for lane in remaining:
                for run in lane:
                    run(t)

        with one_blas_thread() as n_threads:
            run_shares(work, min(n_threads, len(self._lanes)))
