"""Mean and variance at the end of a chain, in one read of its operands.

Each thread takes a few values at a time to (n, mean, s), with s the sum of squared deviations so far: for N
new values x_k and d_k = x_k - mean, with their mean D,
    s += sum_k (d_k - D)**2 + D**2 n N / (n + N),   mean += D N / (n + N),   n += N
The parts of threads and blocks are merged by the same formula, those of blocks in double precision. No sum of
squares of x itself is formed: nothing cancels where |mean| is large.

Source: Chan, Golub & LeVeque (1983), The American Statistician 37(3), 242-247.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..fusion import Run, local_results
from ..partition import Plan
from ..program import Step
from ..tiled import Piece
from .moments import MERGE

OBSERVE = (
    MERGE
    + """
template <typename T, int N> __device__ void observe(T n, T& mean, T& s, const T (&x)[N]) {
  T d[N], sum = 0, squares = 0;
  #pragma unroll
  for (int k = 0; k < N; ++k) { d[k] = x[k] - mean; sum += d[k]; }
  const T part = sum / N, share = N / (n + N);
  #pragma unroll
  for (int k = 0; k < N; ++k) squares += (d[k] - part) * (d[k] - part);
  s += squares + part * part * n * share;
  mean += part * share;
}

template <typename T, int LANES, int WIDTH> __device__ void fold_moments(T (*shared)[3], T n, T& mean, T& s) {
  const int lane = threadIdx.x / WIDTH;
  T* own = shared[threadIdx.x];
  int half = 1;
  while (half < LANES) half *= 2;
  own[0] = n; own[1] = mean; own[2] = s;
  __syncthreads();
  for (half /= 2; half > 0; half /= 2) {
    if (lane < half && lane + half < LANES) {
      const T* other = shared[threadIdx.x + half * WIDTH];
      merge(own[0], own[1], own[2], other[0], other[1], other[2]);
    }
    __syncthreads();
  }
  mean = own[1]; s = own[2];
  __syncthreads();
}
"""
)


def with_moments(plan: Plan, group: str, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces of a group, where a mean and the variance about it are sums of one run."""
    steps = {step.output: step for step in plan.steps[group]}
    n_readers = Counter(slot for step in plan.program.steps for slot in dict.fromkeys(step.inputs))
    n_readers.update(slot for slots in plan.outputs.values() for slot in slots)
    places = {s.output: k for k, piece in enumerate(pieces) if isinstance(piece, Run) for s in piece.steps}
    found = {k: list(piece.steps) for k, piece in enumerate(pieces) if isinstance(piece, Run)}
    for step in [step for run in list(found.values()) for step in run]:
        squares = variance_of(steps, step)
        if squares is None or n_readers[squares.output] > 1:
            continue
        mean, place = squares.inputs[1], places[step.output]
        if mean in places and places[squares.output] == place != places[mean] and n_readers[mean] > 1:
            found[place] = [other for other in found[place] if other not in (squares, step)]
            found[places[mean]] += [squares, step]
    return [
        Run(piece.shape, tuple(found[k]), local_results(plan, group, found[k]))
        if isinstance(piece, Run)
        else piece
        for k, piece in enumerate(pieces)
        if k not in found or found[k]
    ]


def variance_of(steps: Mapping[int, Step], step: Step) -> Step | None:
    """The squares about a mean that a step averages, if it averages such,
    and if the mean is one over the same rows.
    """
    squares = steps.get(step.inputs[0]) if step.op.name == "mean_leading" else None
    if squares is None or squares.op.name != "square_about_mean":
        return None
    x, mean = squares.inputs
    made = steps.get(mean)
    return squares if made is not None and made.op.name == "mean_leading" and made.inputs == (x,) else None
