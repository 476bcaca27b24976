"""Hypothesis strategies shared by the tests: shapes, pairs that broadcast, seeds, dtypes."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

FLOATS = (np.float32, np.float64)

seeds = st.integers(0, 2**32 - 1)
float_dtypes = st.sampled_from(FLOATS)


def shapes(min_ndim: int = 0, max_ndim: int = 3, min_side: int = 1, max_side: int = 4) -> st.SearchStrategy:
    """Shapes as tuples; `min_side=0` lets arrays be empty."""
    sides = st.integers(min_side, max_side)
    return st.lists(sides, min_size=min_ndim, max_size=max_ndim).map(tuple)


@st.composite
def broadcasting_pairs(draw: st.DrawFn, max_ndim: int = 3, min_side: int = 1) -> tuple[tuple, tuple]:
    """Two shapes that broadcast: each misses leading axes of a common shape and has some axes of length one."""
    full = draw(shapes(0, max_ndim, min_side))

    def reduced() -> tuple[int, ...]:
        start = draw(st.integers(0, len(full)))
        return tuple(1 if draw(st.booleans()) else n for n in full[start:])

    return reduced(), reduced()


@st.composite
def arrays(draw: st.DrawFn, shape: st.SearchStrategy | None = None, dtype: object = np.float64) -> np.ndarray:
    """Standard normal entries from a drawn seed, in a drawn shape."""
    rng = np.random.default_rng(draw(seeds))
    return rng.standard_normal(draw(shapes() if shape is None else shape)).astype(dtype)
