"""Adam and AdamW over all leaves of a parameter tree in one launch.

For each value, at step t, with c1 = 1 - beta1**t and c2 = sqrt(1 - beta2**t):
    g *= scale;   AdamW: p *= 1 - lr decay;   Adam: g += decay p
    m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g**2;   p -= (lr / c1) m / (sqrt(v) / c2 + eps)
A table on the device says where each leaf lies (`tables`).

Sources: Kingma & Ba (2015), algorithm 1; Loshchilov & Hutter (2019), algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import backend
from ..backend import Array, namespace_of
from .source import VECTOR_BYTES, Source, is_plain, kernel
from .tables import CHUNK, ROW_OF_BLOCK, sent

THREADS = 256
LEAF = np.dtype(
    [(name, np.int64) for name in ("p", "g", "m", "v", "p_new", "m_new", "v_new", "size", "first_block")]
    + [("shrink", np.float64), ("pull", np.float64), ("scale", np.float64)]
)

ADAMW = Source(
    "adamw",
    ROW_OF_BLOCK
    + r"""
struct Leaf {
  const real *p, *g, *m, *v;
  real *p_new, *m_new, *v_new;
  number size, first_block;
  double shrink, pull, scale;  // factor of p; share of p that is added to g; factor of g
};

extern "C" __global__ void __launch_bounds__(THREADS)
adamw(const Leaf* leaves, int count, double beta1, double beta2, double eps, double rate, double correction) {
  const Leaf leaf = row_of_block(leaves, count);
  const number first = (blockIdx.x - leaf.first_block) * CHUNK;
  const number end = first + CHUNK < leaf.size ? first + CHUNK : leaf.size;
  const real keep1 = beta1, take1 = 1 - beta1, keep2 = beta2, take2 = 1 - beta2;
  const real shrink = leaf.shrink, pull = leaf.pull, scale = leaf.scale;
  const real step = -rate, root = correction, small = eps;
  each_pack({leaf.p, leaf.g, leaf.m, leaf.v}, first + threadIdx.x * PACK, THREADS * PACK, end,
            [&](number i, const Pack* given, int) {
    Pack p, m, v;
    #pragma unroll
    for (int j = 0; j < PACK; ++j) {
      const real g = scale * given[1].at[j] + pull * given[0].at[j];
      m.at[j] = keep1 * given[2].at[j] + take1 * g;
      v.at[j] = keep2 * given[3].at[j] + take2 * (g * g);
      p.at[j] = shrink * given[0].at[j] + step * (m.at[j] / (sqrt(v.at[j]) / root + small));
    }
    store(leaf.p_new, i, end, p);
    store(leaf.m_new, i, end, m);
    store(leaf.v_new, i, end, v);
  });
}
""",
    (("THREADS", THREADS), ("CHUNK", CHUNK)),
)


class AdamNumbers(NamedTuple):
    """The numbers of one step.

    Attributes:
        lr, beta1, beta2, eps: as of `train.optimizers.Adam`.
        step: which one this is, from 1.
        decoupled: AdamW's decay of the parameter itself; False adds it to the gradient.
    """

    lr: float
    beta1: float
    beta2: float
    eps: float
    step: int
    decoupled: bool


def fits_adamw(*columns: Sequence[Array]) -> bool:
    """Whether all leaves of all columns are of one dtype, float32 or float64, and without gaps."""
    arrays = [leaf for column in columns for leaf in column]
    return bool(arrays) and is_plain(*arrays)


def adamw(
    params: Sequence[Array],
    grads: Sequence[Array],
    m: Sequence[Array],
    v: Sequence[Array],
    decays: Sequence[float],
    scales: Sequence[float],
    numbers: AdamNumbers,
) -> tuple[list[Array], list[Array], list[Array]]:
    """(params, m, v) after one step; nothing given is written to.

    Args:
        params, grads, m, v: the leaves, for which `fits_adamw` is true, in one order.
        decays, scales: the weight decay and the factor of the gradient of each leaf.
    Returns: new arrays, parts of one block of memory for each of the three.
    Cost: one launch, three allocations, and the table's way to the device: 96 bytes a leaf.
    """
    xp, dtype = namespace_of(*params), params[0].dtype
    results = [_apart(xp, params) for _ in range(3)]
    table = np.zeros(len(params), LEAF)
    for name, column in zip(("p", "g", "m", "v"), (params, grads, m, v), strict=True):
        table[name] = [backend.device_address(leaf) for leaf in column]
    for name, column in zip(("p_new", "m_new", "v_new"), results, strict=True):
        table[name] = [backend.device_address(leaf) for leaf in column]
    table["size"] = [leaf.size for leaf in params]
    decay = np.array(decays, np.float64)
    table["shrink"] = 1.0 - numbers.lr * decay if numbers.decoupled else 1.0
    table["pull"] = 0.0 if numbers.decoupled else decay
    table["scale"] = scales
    used = table[table["size"] > 0]
    if len(used):
        on_device, blocks = sent(xp, used)
        call = kernel(ADAMW, "adamw", dtype, THREADS=THREADS, CHUNK=CHUNK)
        call((blocks,), (THREADS,), (on_device, np.int32(len(used)), *_scalars(numbers)))
    return results[0], results[1], results[2]


def _scalars(numbers: AdamNumbers) -> tuple[np.float64, ...]:
    """beta1, beta2, eps, lr / c1 and c2."""
    rate = numbers.lr / (1.0 - numbers.beta1**numbers.step)
    correction = math.sqrt(1.0 - numbers.beta2**numbers.step)
    return tuple(np.float64(x) for x in (numbers.beta1, numbers.beta2, numbers.eps, rate, correction))


def _apart(xp: Any, like: Sequence[Array]) -> list[Array]:
    """An array like each of `like`, all in one block of memory, each where vector instructions can begin."""
    step = VECTOR_BYTES // like[0].itemsize
    ends = np.cumsum([-(-leaf.size // step) * step for leaf in like]).tolist()
    block = xp.empty(ends[-1], like[0].dtype)
    return [
        block[start : start + leaf.size].reshape(leaf.shape)
        for start, leaf in zip([0, *ends[:-1]], like, strict=True)
    ]
