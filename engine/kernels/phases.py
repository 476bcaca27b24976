"""The phases of a convolution: what of a source each position of the result sees, and through which taps.

A forward has one. In an input gradient at stride s the positions that are the same modulo s see the same taps
of the kernel, and each such phase is a correlation at stride 1 of the cotangent with these taps, flipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

from ..backend import Array
from .gather import Phase
from .geometry import Geometry, Pair


class Place(NamedTuple):
    """Where a phase lies: xbar[first + step * q] = sum over j < taps of what w[reaching][-1 - j] gives at
    q + offset + j.
    """

    reaching: tuple[slice, slice]
    taps: Pair
    offset: Pair
    first: Pair
    step: Pair
    counts: Pair


def forward_phase(xp: ModuleType, w: Array, geometry: Geometry, dtype: Any) -> Phase:
    """All windows of x, through all taps of w (kh, kw, Cin, Cout)."""
    kernel = xp.ascontiguousarray(w, dtype=dtype)
    return Phase(
        matrix=kernel.reshape(-1, geometry.w_shape[3]),
        taps=geometry.w_shape[:2],
        offset=(-geometry.padding[0], -geometry.padding[1]),
        first=(0, 0),
        step=(1, 1),
        counts=geometry.y_shape[1:3],
    )


def reversed_kernel(xp: ModuleType, w: Array, dtype: Any) -> Array:
    """(kh, kw, Cout, Cin) without gaps: what takes ybar to xbar, of w (kh, kw, Cin, Cout) or of some taps."""
    return xp.ascontiguousarray(w[::-1, ::-1].transpose(0, 1, 3, 2), dtype=dtype)


def input_grad_phases(xp: ModuleType, w: Array, places: Sequence[Place], dtype: Any) -> list[Phase]:
    """The phases at these places, each with its taps of w as a matrix."""
    n_in = w.shape[2]
    phases = []
    for reaching, *place in places:
        phases.append(Phase(reversed_kernel(xp, w[reaching], dtype).reshape(-1, n_in), *place))
    return phases


@lru_cache(maxsize=512)
def phase_places(geometry: Geometry) -> tuple[Place, ...]:
    """Every phase that at least one tap reaches.

    x position i = first + s q meets tap k at the output position (i + p - k) / s. Those taps are k = k0 + s j
    with k0 = (first + p) mod s, and the output position is q + (first + p) // s - j:
    a correlation with reversed taps.
    """
    (stride_h, stride_w), (padding_h, padding_w) = geometry.stride, geometry.padding
    _, height, width, _ = geometry.x_shape
    kernel_h, kernel_w = geometry.w_shape[:2]
    places = []
    for first_h in range(min(stride_h, height)):
        base_h, k_h = divmod(first_h + padding_h, stride_h)
        for first_w in range(min(stride_w, width)):
            base_w, k_w = divmod(first_w + padding_w, stride_w)
            reaching = (slice(k_h, None, stride_h), slice(k_w, None, stride_w))
            taps = (len(range(k_h, kernel_h, stride_h)), len(range(k_w, kernel_w, stride_w)))
            if 0 in taps:
                continue
            offset = (base_h - taps[0] + 1, base_w - taps[1] + 1)
            count = (-((first_h - height) // stride_h), -((first_w - width) // stride_w))
            places.append(Place(reaching, taps, offset, (first_h, first_w), geometry.stride, count))
    return tuple(places)
