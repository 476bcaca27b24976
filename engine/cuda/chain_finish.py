"""The second pass of a chain's sums: what its blocks have found becomes one value each, in one launch.

Parts are added in double precision, in an order that depends on the sizes alone. Each sum has a row of the
grid; a block makes FINISHED_A_BLOCK results of it, each by the 8 threads of a column of the block.

Parts lie as (outer, pieces, columns) of all sums together. A sum whose results are fewer columns has `across`
parts of each piece, side by side; a mean has to know which piece a part is of, since the last one is shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .chain_sums import Axes, Sharing

FINISH = """
template <typename T> __device__ void finished(
    double* shared, const T* __restrict__ partial, T* __restrict__ out, long long n, long long columns,
    long long terms, double divisor) {
  const long long result = (long long)blockIdx.x * 32 + threadIdx.x % 32;
  const T* own = partial + result / columns * terms * columns + result % columns;
  double total = 0.0;
  if (result < n) for (long long j = threadIdx.x / 32; j < terms; j += 8) total += (double)own[j * columns];
  total = folded<double, 8, 32>(shared, total);
  if (threadIdx.x < 32 && result < n) out[result] = T(total / divisor);
}

template <typename T> __device__ void finished_moments(
    double (*shared)[3], const T* partial_mean, const T* partial_s, T* mean, T* var, long long results,
    long long columns, long long terms, long long across, long long pieces, long long piece, long long rows) {
  const long long result = (long long)blockIdx.x * 32 + threadIdx.x % 32;
  const long long first = result / columns * terms * columns + result % columns;
  double n = 0.0, m = 0.0, s = 0.0;
  if (result < results)
    for (long long j = threadIdx.x / 32; j < terms; j += 8) {
      const long long before = j / across % pieces * piece;
      const long long own = rows - before < piece ? rows - before : piece;
      const long long place = first + j * columns;
      merge(n, m, s, (double)own, (double)partial_mean[place], (double)partial_s[place]);
    }
  fold_moments<double, 8, 32>(shared, n, m, s);
  if (threadIdx.x < 32 && result < results) {
    mean[result] = T(m);
    var[result] = T(s / (rows * (terms / pieces)));
  }
}
"""
FINISHED_A_BLOCK = 32  # results
FINISH_THREADS = 256


@dataclass(frozen=True)
class Part:
    """A sum of which blocks have found parts; with `has_variance`, a mean and the variance about it."""

    kind: str
    axes: Axes
    divisor: int
    has_variance: bool


@dataclass(frozen=True)
class Finish:
    """The kernel of the second pass, whose name is @, and its grid.

    Its arguments are, for each part, the arrays with what was found and those of the results, one each or two
    each with a variance, and the numbers in `numbers`. Chains whose sums are of one kind share the kernel.
    """

    text: str
    grid: tuple[int, int]
    numbers: tuple[tuple[Any, ...], ...]


def finish_of(sharing: Sharing, parts: Sequence[Part]) -> Finish | None:
    """None where nothing is left to do."""
    if not parts:
        return None
    arguments, cases = [], []
    for k, part in enumerate(parts):
        names = ("p", "q") if part.has_variance else ("p",)
        results = [f"{name}{k}_out" for name in names]
        integers = [f"{name}{k}" for name in ("n", "columns", "terms")]
        if part.has_variance:
            integers += [f"{name}{k}" for name in ("across", "pieces", "piece", "rows")]
        arguments += [f"const {part.kind}* __restrict__ {name}{k}" for name in names]
        arguments += [f"{part.kind}* __restrict__ {name}" for name in results]
        arguments += [f"long long {name}" for name in integers]
        arguments += [] if part.has_variance else [f"double divisor{k}"]
        given = [*(f"{name}{k}" for name in names), *results, *integers]
        call = "finished_moments(shared, " if part.has_variance else "finished(&shared[0][0], "
        given += [] if part.has_variance else [f"divisor{k}"]
        cases.append(f"    case {k}: {call}{', '.join(given)}); break;")
    lines = [
        f'extern "C" __global__ void __launch_bounds__({FINISH_THREADS}) @({", ".join(arguments)}) {{',
        f"  __shared__ double shared[{FINISH_THREADS}][3];",
        "  switch (blockIdx.y) {",
        *cases,
        "  }",
        "}",
    ]
    most = max(part.axes.results for part in parts)
    grid = (-(-most // FINISHED_A_BLOCK), len(parts))
    return Finish("\n".join(lines), grid, tuple(_numbers(sharing, part) for part in parts))


def _numbers(sharing: Sharing, part: Part) -> tuple[Any, ...]:
    """The sizes, and what a sum is divided by."""
    axes = part.axes
    sizes = [axes.results, axes.columns, sharing.terms(axes)]
    if part.has_variance:
        across = sharing.axes.columns // axes.columns
        return tuple(map(np.int64, [*sizes, across, sharing.pieces, sharing.piece, sharing.axes.rows]))
    return (*map(np.int64, sizes), np.float64(part.divisor))
