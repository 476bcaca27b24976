"""The solution as a function of time, as `odeint(..., dense=True)` returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..engine.backend import Array, host_numbers, to_host, to_xp
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.tree import Tree
from .dense_output import CubicHermite, DenseOutput, StepPolynomials
from .dynamics import StateLayout
from .storage import described, rebuilt


class Dense:
    """y(t) for every t of a solve: sol.dense(t) is the state there, sol.dense.derivative(t)
    its time derivative.

    It reads the interpolant of the method within the accepted steps, whose error is that of the steps or one
    order lower. Nothing of it is differentiated.

    Args:
        paths: what was written down, one for each piece of the solve; a piece ends at the next of the
            `knots`, the times at which f or the state jumps. At a knot the piece before it answers.
        layout: how the state lies in it.

    Attributes:
        t0, t1: where it begins and ends; t1 < t0 when time runs backwards.
        grid: the accepted times (N + 1,) between which it is one polynomial.
    """

    def __init__(
        self, paths: Sequence[DenseOutput], layout: StateLayout, knots: Sequence[float] = ()
    ) -> None:
        assert len(knots) == len(paths) - 1
        self.paths, self.layout, self.knots = tuple(paths), layout, tuple(knots)

    @property
    def t0(self) -> float:
        return self.paths[0].times[0]

    @property
    def t1(self) -> float:
        return self.paths[-1].times[-1]

    @property
    def grid(self) -> np.ndarray:
        inner = [path.times[1:-1] for path in self.paths]
        knots = [*self.knots, self.t1]
        joined = [self.t0]
        for times, knot in zip(inner, knots, strict=True):
            joined += [*times, knot]
        return np.array(joined)

    def __call__(self, t: Any) -> Tree:
        """The state at a time, or at times (m,), then with a leading axis m: a tree like y0,
        on arrays of its own.

        At an accepted time it is the state there up to round-off. ArgumentError outside of the solve.
        """
        return self._read(t, derivative=False)

    def derivative(self, t: Any) -> Tree:
        """dy/dt of the interpolant, as `__call__` gives y;
        at an accepted time that of the step which ends there.
        """
        return self._read(t, derivative=True)

    def _read(self, t: Any, *, derivative: bool) -> Tree:
        times = self._checked(t)
        flat = times.reshape(-1)
        if len(self.paths) == 1:
            rows = self.paths[0].read_many(flat, derivative=derivative)
        else:
            rows = self._read_pieces(flat, derivative)
        return self.layout.unflatten(rows if times.ndim else rows[0], times.shape)

    def _read_pieces(self, times: np.ndarray, derivative: bool) -> Array:
        direction = 1.0 if self.t1 > self.t0 else -1.0
        pieces = np.searchsorted(direction * np.array(self.knots), direction * times, side="left")
        first = self.paths[0]
        rows = first.xp.empty((len(times), self.layout.size), first.dtype)
        for k in np.unique(pieces).tolist():
            chosen, path = np.flatnonzero(pieces == k), self.paths[k]
            low, high = sorted(
                (path.times[0], path.times[-1])
            )  # the last float before a jump, the first after it
            found = path.read_many(np.clip(times[chosen], low, high), derivative=derivative)
            rows[to_xp(first.xp, chosen)] = found
        return rows

    def _checked(self, t: Any) -> np.ndarray:
        """The times as float64, () or (m,), all within the solve."""
        try:
            times = host_numbers(t).astype(np.float64, casting="same_kind")
        except (TypeError, ValueError) as error:
            raise ArgumentTypeError(f"`t` must be a time or an array of times (m,); got {t!r}") from error
        if times.ndim > 1:
            raise ArgumentError(f"`t` must be a time or an array of times (m,); got shape {times.shape}")
        low, high = sorted((self.t0, self.t1))
        outside = ~((times >= low) & (times <= high))
        if outside.any():
            raise ArgumentError(
                f"`t` must lie in the interval of the solve, [{low:g}, {high:g}]; got {times[outside].flat[0]!s}, and a "
                "polynomial is worth nothing beyond its step. Solve as far as you read"
            )
        return times

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What a file holds of it: arrays by name, and what JSON can hold."""
        arrays = {}
        for k, path in enumerate(self.paths):
            arrays[f"{k}/times"] = np.array(path.times)
            arrays[f"{k}/blocks"] = np.concatenate([to_host(block) for block in path.blocks])
            arrays[f"{k}/rows"] = np.array([len(block) for block in path.blocks])
        header = {
            "kinds": [type(path).__name__ for path in self.paths],
            "tree": described(self.layout.like),
            "shapes": [list(shape) for shape in self.layout.shapes],
            "dtype": self.layout.dtype.name,
            "knots": list(self.knots),
        }
        return arrays, header

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> Dense:
        """What `to_arrays` was made of, on NumPy arrays."""
        shapes = tuple(map(tuple, header["shapes"]))
        like = rebuilt(header["tree"], [0] * len(shapes))
        layout = StateLayout(like, shapes, np.dtype(header["dtype"]))
        kinds = {kind.__name__: kind for kind in (StepPolynomials, CubicHermite)}
        paths = []
        for k, name in enumerate(header["kinds"]):
            times, ends = arrays[f"{k}/times"].tolist(), np.cumsum(arrays[f"{k}/rows"])
            blocks = np.split(arrays[f"{k}/blocks"], ends[:-1])
            path = kinds[name](np, layout.dtype, times[0], 1.0 if times[-1] > times[0] else -1.0)
            for t in times[1:]:
                path.add_blocks(t, [])
            path.blocks = blocks
            paths.append(path)
        return cls(paths, layout, header["knots"])

    def __repr__(self) -> str:
        return f"Dense([{self.t0:g}, {self.t1:g}], {len(self.grid) - 1} steps)"
