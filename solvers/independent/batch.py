"""A batch of rows as one matrix, and the dynamics as a function of as many of its rows as are left."""

from __future__ import annotations

import numpy as np

from ...engine.backend import Array, to_xp
from ...engine.errors import ArgumentError
from ...engine.tree import Tree, leaves, leaves_with_paths, path_name, unflatten
from ..dynamics import Dynamics, StateLayout


class Batch:
    """Rows of all leaves joined to matrices (A, n); A is the number of rows left, B of those at the start.

    Attributes:
        size: B; width: n; dtype: that of the state.
        row_layout: how the leaves of one row lie in it.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        """ArgumentError unless all leaves of y0 have as many axes,
        and the first of them has the same length.
        """
        self.dynamics, self.xp = dynamics, dynamics.xp
        layout = dynamics.layout
        shapes = layout.shapes
        if min(map(len, shapes)) == 0 or len({(shape[0], len(shape)) for shape in shapes}) > 1:
            paths = [path_name(path) for path, _ in leaves_with_paths(layout.like)]
            found = ", ".join(f"{path}: {list(shape)}" for path, shape in zip(paths, shapes, strict=True))
            raise ArgumentError(
                "independent=True needs a batch: every array of `y0` (B, ...), with the same B and the same number of "
                f"axes; got {found}"
            )
        self.size = shapes[0][0]
        self.dtype = layout.dtype
        self.row_layout = StateLayout(layout.like, tuple(shape[1:] for shape in shapes), layout.dtype)
        self._row_shapes = self.row_layout.shapes
        self._bounds = np.cumsum([0, *self.row_layout.sizes]).tolist()
        self.width = self.row_layout.size
        self._time_shape = (-1, *(1,) * (len(shapes[0]) - 1))
        self._time_dtype = np.zeros((), self.dtype).real.dtype
        self._params = unflatten(dynamics.params_like, dynamics.param_values)

    def join(self, parts: list[Array]) -> Array:
        """(A, n) from leaves (A, *shape)."""
        flat = [
            part.reshape(len(part), size) for part, size in zip(parts, self.row_layout.sizes, strict=True)
        ]
        return flat[0] if len(flat) == 1 else self.xp.concatenate(flat, axis=1)

    def tree(self, rows: Array) -> Tree:
        """A matrix (*leading, A, n) as a tree like y0, its leaves (*leading, A, *shape)."""
        parts = [
            rows[..., a:b].reshape(*rows.shape[:-1], *shape)
            for a, b, shape in zip(self._bounds, self._bounds[1:], self._row_shapes, strict=False)
        ]
        return self.dynamics.layout.tree(parts)

    def slope(self, times: np.ndarray, rows: Array) -> Array:
        """f of the rows (A, n), each at its own time (A,) on the host: (A, n).
        Their structure and dtype are known.
        """
        dynamics = self.dynamics
        t = to_xp(self.xp, times.astype(self._time_dtype).reshape(self._time_shape))
        arguments = (t, self.tree(rows), self._params) if dynamics.has_params else (t, self.tree(rows))
        result = dynamics.f(*arguments)
        parts = leaves(result)
        for part, shape in zip(parts, self._row_shapes, strict=True):
            if part.shape != (len(rows), *shape):
                raise ArgumentError(
                    f"with independent=True f must return a slope of the shape of y for any number of rows, and t is an "
                    f"array {[len(rows), *self._time_shape[1:]]}; got shape {list(part.shape)}, expected "
                    f"{[len(rows), *shape]}"
                )
        return self.join(parts)
