"""Tables in Markdown, and numbers as their cells."""

from __future__ import annotations

import math
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, each row on a line of its own."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def short(number: float) -> str:
    """Two digits with an exponent; a dash for NaN, which stands for "not given"."""
    return "-" if math.isnan(number) else f"{number:.1e}"


def in_bytes(n: int | None) -> str:
    """With a unit; a dash where it is not known."""
    if n is None:
        return "-"
    if n < 1024:
        return f"{n} B"
    power = min(int(math.log2(n) // 10), 3)
    return f"{n / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
