"""What a comparison of gradients found, as plain objects that print as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

OK, KINK, UNCLEAR, WRONG = "ok", "kink", "unclear", "wrong"
VERDICTS = (OK, KINK, UNCLEAR, WRONG)  # from best to worst


@dataclass(frozen=True)
class WorstEntry:
    """The entry of a leaf with the largest error: its index, the gradient there, and what it should be."""

    index: tuple[int, ...]
    found: complex
    expected: complex

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.index))}] " if self.index else ""
        return f"{place}{_number(self.found)}, expected {_number(self.expected)}"


@dataclass(frozen=True)
class LeafReport:
    """The gradient of one leaf, compared.

    Attributes:
        name, shape: path and shape of the leaf.
        n_entries, n_directions: how many entries and random directions were compared.
        norm: Euclidean norm of the gradient of the leaf.
        error: |g - reference| over the compared entries, relative to the larger norm of both; where not all
            entries were compared, also |(g - reference) v| along the directions, whose entries are about 1 in
            size, if that is more. Kinks are left out.
        is_scaled_by_whole: the gradient of the leaf cannot be told from 0, so the error is relative to the
            whole gradient.
        cosine: of the angle between the compared entries and their reference; NaN if either is zero.
        worst: the entry with the largest error; None if no entry was compared.
        reference_error: estimated error of the reference, relative like `error`.
        method: where the reference comes from.
        verdict: "ok", "wrong", "unclear" (the reference is too inaccurate to tell) or "kink" (not
            differentiable there, and the gradient lies between the slopes from both sides).
        notes: explanations for a person.
    """

    name: str
    shape: tuple[int, ...]
    n_entries: int
    n_directions: int
    norm: float
    error: float
    is_scaled_by_whole: bool
    cosine: float
    worst: WorstEntry | None
    reference_error: float
    method: str
    verdict: str
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def checked(self) -> str:
        """How much was compared, in words."""
        entries = f"all {self.size}" if self.n_entries == self.size else f"{self.n_entries} of {self.size}"
        return f"{entries} + {self.n_directions} dir"


@dataclass(frozen=True)
class GradientReport:
    """A gradient, compared leaf by leaf; `print` it to see the table.

    Attributes:
        leaves: one LeafReport a leaf, in the order of the tree.
        value: the loss.
        tol: the relative error up to which a leaf is "ok".
        title: what was compared.
        notes: what concerns all leaves.
    """

    leaves: tuple[LeafReport, ...]
    value: float
    tol: float
    title: str = "gradient"
    notes: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> str:
        """The worst verdict among the leaves."""
        return max((leaf.verdict for leaf in self.leaves), key=VERDICTS.index)

    @property
    def ok(self) -> bool:
        """Whether no leaf is wrong or unclear. Kinks are no errors of a gradient; `kinks` lists them."""
        return self.verdict in (OK, KINK)

    @property
    def wrong(self) -> tuple[str, ...]:
        """Names of the leaves whose gradient is wrong."""
        return tuple(leaf.name for leaf in self.leaves if leaf.verdict == WRONG)

    @property
    def kinks(self) -> tuple[str, ...]:
        """Names of the leaves in which the function is not differentiable."""
        return tuple(leaf.name for leaf in self.leaves if leaf.verdict == KINK)

    @property
    def error(self) -> float:
        """The largest relative error of a leaf."""
        return max(leaf.error for leaf in self.leaves)

    def __getitem__(self, name: str) -> LeafReport:
        """The leaf of this path ("dense/0/w")."""
        for leaf in self.leaves:
            if leaf.name == name:
                return leaf
        raise KeyError(f"no leaf {name!r}; there are {', '.join(leaf.name for leaf in self.leaves)}")

    def assert_ok(self) -> None:
        """AssertionError with the table unless `ok`."""
        if not self.ok:
            raise AssertionError(f"\n{self}")

    def __str__(self) -> str:
        rows = [
            (
                leaf.name,
                "x".join(map(str, leaf.shape)) or "0-d",
                leaf.checked,
                f"{leaf.norm:.3e}",
                f"{leaf.error:.1e}" + ("*" if leaf.is_scaled_by_whole else " "),
                "-" if math.isnan(leaf.cosine) else f"{leaf.cosine:.6f}",
                leaf.verdict.upper() if leaf.verdict in (WRONG, UNCLEAR) else leaf.verdict,
                str(leaf.worst) if leaf.worst else "-",
            )
            for leaf in self.leaves
        ]
        head = ("leaf", "shape", "checked", "norm", "error ", "cosine", "verdict", "worst entry")
        lines = [
            f"{self.title}: {self.verdict.upper() if not self.ok else self.verdict}, tolerance {self.tol:.1e}, "
            f"value {self.value:.9g}",
            *aligned([head, *rows], right=(3, 4, 5)),
        ]
        if any(leaf.is_scaled_by_whole for leaf in self.leaves):
            lines.append("* relative to the whole gradient: that of the leaf cannot be told from zero")
        return "\n".join([*lines, *self._shared_notes(), *self.notes])

    def _shared_notes(self) -> list[str]:
        """The notes of the leaves, one that several have once."""
        names: dict[str, list[str]] = {}
        for leaf in self.leaves:
            for note in leaf.notes:
                names.setdefault(note, []).append(leaf.name)
        return [f"{', '.join(having)}: {note}" for note, having in names.items()]


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows of text as lines of columns; those numbered in `right` end, the others begin, below each other."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _number(value: complex) -> str:
    return f"{value.real:.9g}" if isinstance(value, float) else f"{value:.6g}"
