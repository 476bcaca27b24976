"""What a solve returns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine.backend import to_host
from ..engine.errors import ArgumentTypeError, SolutionFileError
from ..engine.trace import Var
from ..engine.tree import Tree, leaves
from .dense import Dense
from .events import Occurrences
from .stats import RowStats, Stats
from .storage import described, read, rebuilt, write


@dataclass(frozen=True)
class Aux:
    """What f returned beside the slope, from evaluations that belong to accepted steps,
    in the order of integration.

    Attributes:
        ts: times (N,), float64, monotone in the direction of the solve.
        values: tree that f returned, each leaf with a leading axis N. Not differentiated.
    """

    ts: np.ndarray
    values: Tree


@dataclass
class Solution:
    """The solution at the output times.

    Attributes:
        ts: output times (T,), float64; with save="steps" the accepted times.
        ys: state at these times: a tree shaped like y0, each leaf (T, *shape).
        grid: the accepted times (N + 1,); odeint(..., grid=sol.grid) walks exactly these again.
        stats: counts; a backward pass adds to them.
        aux: with has_aux=True what f returned beside the slope.
        status: "finished", "event" after a terminal one,
            or the name of the error that ended a partial solution.
        dense: with dense=True the solution as a function of time.
        events: with events=[...] where each of them happened, in the order given.
    """

    ts: np.ndarray
    ys: Tree
    grid: np.ndarray
    stats: Stats = field(default_factory=Stats)
    aux: Aux | None = None
    status: str = "finished"
    dense: Dense | None = None
    events: list[Occurrences] = field(default_factory=list)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to an HDF5 file, or leave the one at `path` as it is.

        A derivative cannot be taken of what is read back; arrays come back on the host,
        a named tuple as a tuple.
        Raises: ArgumentTypeError for traced values and for keys of a state that are no text; OSError.
        """
        arrays = {"ts": self.ts, "grid": self.grid, **_named("ys", self.ys)}
        header: dict[str, Any] = {"ys": described(self.ys), "status": self.status}
        header["stats"], of_rows = self.stats.to_arrays()
        arrays.update({f"stats/{name}": array for name, array in of_rows.items()})
        if self.aux is not None:
            arrays.update({"aux/ts": self.aux.ts, **_named("aux", self.aux.values)})
            header["aux"] = described(self.aux.values)
        for event in self.events:
            arrays[f"events/{event.which}/ts"] = np.asarray(event.ts)
            arrays.update(_named(f"events/{event.which}/ys", event.ys))
        header["events"] = [event.name for event in self.events]
        if self.dense is not None:
            dense, header["dense"] = self.dense.to_arrays()
            arrays.update({f"dense/{name}": array for name, array in dense.items()})
        write(path, arrays, header)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Solution:
        """What `save` wrote. SolutionFileError for a file that is missing, truncated, damaged,
        or something else.
        """
        arrays, header = read(path)
        try:
            aux = dense = None
            if "aux" in header:
                aux = Aux(arrays["aux/ts"], rebuilt(header["aux"], _leaves("aux", arrays)))
            if "dense" in header:
                dense = Dense.from_arrays(_below("dense", arrays), header["dense"])
            ys = rebuilt(header["ys"], _leaves("ys", arrays))
            counts: dict[str, Any] = {**header["stats"], **_below("stats", arrays)}
            stats = (RowStats if "nfe_of_rows" in counts else Stats)(**counts)
            events = [
                Occurrences(
                    k,
                    name,
                    arrays[f"events/{k}/ts"],
                    rebuilt(header["ys"], _leaves(f"events/{k}/ys", arrays)),
                )
                for k, name in enumerate(header.get("events", []))
            ]
            return Solution(
                arrays["ts"], ys, arrays["grid"], stats, aux, str(header["status"]), dense, events
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SolutionFileError(
                f"{os.fspath(path)}: its header does not fit its arrays: {error!r}", path=os.fspath(path)
            ) from error

    def __repr__(self) -> str:
        return f"Solution({self.status}, {len(self.ts)} times in [{self.ts[0]:g}, {self.ts[-1]:g}], {self.stats})"


def _named(prefix: str, tree: Tree) -> dict[str, np.ndarray]:
    """The leaves of a tree on the host, prefix/0, prefix/1, ..."""
    values = leaves(tree)
    if any(type(value) is Var for value in values):
        raise ArgumentTypeError(
            "a solution of traced values cannot be saved; save it outside of the transform"
        )
    return {f"{prefix}/{i}": np.asarray(to_host(value)) for i, value in enumerate(values)}


def _below(group: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a group, by their names in it."""
    return {name.removeprefix(f"{group}/"): a for name, a in arrays.items() if name.startswith(f"{group}/")}


def _leaves(prefix: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """prefix/0, prefix/1, ... as far as they go."""
    found: list[np.ndarray] = []
    while f"{prefix}/{len(found)}" in arrays:
        found.append(arrays[f"{prefix}/{len(found)}"])
    return found


@dataclass(frozen=True)
class StepInfo:
    """One attempted step, as a callback sees it: from t to t + h with this error norm; y is a copy,
    a tree like y0.
    """

    t: float
    h: float
    error_norm: float
    is_accepted: bool
    y: Any
