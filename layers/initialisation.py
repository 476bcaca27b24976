"""Fresh weights."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ..engine import random
from ..engine.backend import Array


def uniform_within(
    bound: float, shapes: dict[str, tuple[int, ...]], key: np.ndarray, dtype: Any, xp: ModuleType
) -> dict[str, Array]:
    """Arrays by name, uniform in [-bound, bound), each from a stream of its own."""
    return {
        name: (2.0 * random.uniform(random.fold_in(key, index), shape, dtype, xp) - 1.0) * bound
        for index, (name, shape) in enumerate(shapes.items())
    }
