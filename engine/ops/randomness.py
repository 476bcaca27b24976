"""Random masks as operations: drawn from a key, so that every evaluation of one solve sees the same mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import random
from ..backend import namespace_of, to_xp
from ..errors import ArgumentError
from ..primitive import primitive
from ..trace import Var, base_value, dtype_of, shape_of


@primitive("keep_mask", is_flat=True)
def keep_mask(xp, key, *, rate, shape, dtype):
    """0 with probability `rate`, else 1 / (1 - rate), drawn from `key` (uint32 (2,)) and where that is;
    mean 1.
    """
    draws = random.uniform(key, shape, xp=xp)
    return (draws >= rate).astype(dtype) * np.dtype(dtype).type(1.0 / (1.0 - rate))


def dropout(x: Any, key: Any, rate: float) -> Any:
    """x with entries zeroed with probability `rate` and the others divided by 1 - rate; the same key,
    the same mask.
    """
    if not 0.0 <= rate < 1.0:
        raise ArgumentError(f"`rate` of dropout must lie in [0, 1); got {rate}")
    if rate == 0.0:
        return x
    if key is None:
        raise ArgumentError("dropout in training needs a `key`; got None")
    if not isinstance(key, Var):
        key = to_xp(namespace_of(base_value(x)), key)
    return x * keep_mask(key, rate=float(rate), shape=shape_of(x), dtype=dtype_of(x).name)
