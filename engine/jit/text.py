"""Lines of source text, and loops over places in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

UNROLLED = 4  # loops of up to this many rounds are written out in products


class Text:
    """Lines with indentation, and names that are used once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 0
        self._n_names = 0

    def line(self, text: str) -> None:
        self.lines.append("    " * self._depth + text)

    def name(self) -> str:
        """A variable that nothing else is called."""
        self._n_names += 1
        return f"i{self._n_names}"

    @contextmanager
    def loop(self, n: int) -> Iterator[str]:
        """for name in range(n); a loop of one round is none. Gives the index, as text."""
        if n == 1:
            yield "0"
            return
        index = self.name()
        with self.loop_over(index, str(n)):
            yield index

    @contextmanager
    def loop_over(self, index: str, bounds: str) -> Iterator[None]:
        """for index in range(bounds)."""
        self.line(f"for {index} in range({bounds}):")
        self._depth += 1
        yield
        self._depth -= 1


def index(terms: Sequence[tuple[str, int]]) -> str:
    """The text of sum_k name_k * stride_k; a name may be a number."""
    fixed = sum(int(name) * stride for name, stride in terms if name.isdigit())
    parts = [
        name if stride == 1 else f"{name} * {stride}"
        for name, stride in terms
        if stride and not name.isdigit()
    ]
    return " + ".join([*parts, str(fixed)] if fixed or not parts else parts)


@contextmanager
def nest(text: Text, shape: Sequence[int], strides: Sequence[Sequence[int]]) -> Iterator[list[str]]:
    """Nested loops over `shape`; gives the position in each of several arrays with these strides, as text.

    Axes that lie behind each other in all arrays are one loop.
    """
    axes = [(n, [s[k] for s in strides]) for k, n in enumerate(shape) if n != 1]
    merged: list[tuple[int, list[int]]] = []
    for n, steps in axes:
        if merged and all(outer == n * inner for outer, inner in zip(merged[-1][1], steps, strict=True)):
            merged[-1] = (merged[-1][0] * n, steps)
        else:
            merged.append((n, steps))
    with _loops(text, [n for n, _ in merged]) as names:
        yield [
            index([(name, steps[k]) for name, (_, steps) in zip(names, merged, strict=True)])
            for k in range(len(strides))
        ]


@contextmanager
def _loops(text: Text, lengths: Sequence[int]) -> Iterator[list[str]]:
    if not lengths:
        yield []
        return
    with text.loop(lengths[0]) as name, _loops(text, lengths[1:]) as names:
        yield [name, *names]
