"""Results of a group brought to where they are wanted, all of them in one launch: copied, or added there.

    target = value,   target += value,   target += weight value
A pull-back adds a cotangent to each parameter, many of them a few values long: a launch for each takes longer
than its work. A table on the device says where they lie (`tables`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import backend
from ..backend import Array, namespace_of
from ..primitive import Call
from .source import Source, is_plain, kernel, pointer
from .tables import CHUNK, ROW_OF_BLOCK, sent

THREADS = 256
PARCEL = np.dtype([(name, np.int64) for name in ("value", "target", "size", "first_block", "adds")])
Pair = tuple[Array, Array]  # (target, value)

DELIVER = Source(
    "deliver",
    ROW_OF_BLOCK
    + r"""
struct Parcel {
  const real* value;
  real* target;
  number size, first_block, adds;
};

extern "C" __global__ void __launch_bounds__(THREADS)
deliver(const Parcel* parcels, int count, const real* weight) {
  const Parcel parcel = row_of_block(parcels, count);
  const number first = (blockIdx.x - parcel.first_block) * CHUNK;
  const number end = first + CHUNK < parcel.size ? first + CHUNK : parcel.size;
  const real factor = weight ? *weight : real(1);
  for (number i = first + threadIdx.x * PACK; i < end; i += THREADS * PACK) {
    Pack value = load(parcel.value, i, end), before = {};
    if (parcel.adds) before = load(parcel.target, i, end);
    for (int j = 0; j < PACK; ++j)
      value.at[j] = parcel.adds ? before.at[j] + factor * value.at[j] : value.at[j];
    store(parcel.target, i, end, value);
  }
}
""",
    (("THREADS", THREADS), ("CHUNK", CHUNK)),
)


def fits_delivery(pair: Pair, weight: Array | None) -> bool:
    """Whether the kernel takes a pair: float32 or float64, row-major, of one shape, a weight of its dtype."""
    target, value = pair
    others = [] if weight is None else [weight]
    return is_plain(target, value, *others) and target.shape == value.shape and target.size > 0


def delivery_calls(copies: Sequence[Pair], sums: Sequence[Pair], weight: Array | None) -> list[Call]:
    """One launch a dtype, which copies and adds all values of these pairs, for which `fits_delivery` is true.

    Args:
        sums: the pairs that are added.
        weight: (), on the device: factor of what is added, as it is when the launch is carried out.
    The launch holds addresses: targets and values must live as long as it is used.
    Cost: 40 bytes a pair are brought to the device now; the launch reads nothing of the host.
    """
    found: dict[str, list[tuple[Pair, int]]] = {}
    for adds, pairs in enumerate((copies, sums)):
        for pair in pairs:
            found.setdefault(pair[0].dtype.name, []).append((pair, adds))
    return [_call(parcels, weight) for parcels in found.values()]


def _call(parcels: Sequence[tuple[Pair, int]], weight: Array | None) -> Call:
    table, (target, _) = np.zeros(len(parcels), PARCEL), parcels[0][0]
    for row, ((to, value), adds) in zip(table, parcels, strict=True):
        row["value"], row["target"] = backend.device_address(value), backend.device_address(to)
        row["size"], row["adds"] = to.size, adds
    on_device, blocks = sent(namespace_of(target), table)
    call = kernel(DELIVER, "deliver", target.dtype, THREADS=THREADS, CHUNK=CHUNK)
    return call, ((blocks,), (THREADS,), (on_device, np.int32(len(parcels)), pointer(weight))), {}
