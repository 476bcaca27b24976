"""Products of matrices and tensors as loops whose innermost one runs along contiguous values where there are
such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..program import Step
from .layout import Place, Unsupported
from .text import UNROLLED, Text, index, nest

LARGE = 1 << 18  # multiplications from which BLAS is faster (64 x 64 x 64 takes as long)
PRODUCTS = frozenset(("matmul", "einsum"))


def emit_product(text: Text, step: Step, places: Sequence[Place], out: Place, *, adds: bool) -> None:
    """out = the product of the inputs, or with `adds` out += it."""
    if step.op.name == "einsum":
        _einsum(text, step.static["subscripts"], places, out, adds=adds)
        return
    a, b = places
    if a.shape[-2] * a.shape[-1] * b.shape[-1] > LARGE:
        raise Unsupported(f"a product of {a.shape} and {b.shape}, which BLAS computes faster,")
    batch = out.shape[:-2]
    strides = [p.broadcast_strides((*batch, *p.shape[-2:]))[:-2] for p in (a, b)] + [out.strides[:-2]]
    with nest(text, batch, strides) as (at_a, at_b, at_out):
        _Matmul(text, a, b, out, (at_a, at_b, at_out), adds=adds).emit()


Position = list[tuple[str, int]]  # an index as a sum of names times factors


class _Matmul:
    """One product (M, K) @ (K, N)."""

    def __init__(
        self, text: Text, a: Place, b: Place, out: Place, starts: tuple[str, str, str], *, adds: bool
    ) -> None:
        self.text, self.a, self.b, self.out, self.starts, self.adds = text, a, b, out, starts, adds
        (self.m, self.k), self.n = a.shape[-2:], b.shape[-1]

    def emit(self) -> None:
        sums_are_contiguous = self.a.strides[-1] == 1 and self.b.strides[-2] == 1
        if self.k > UNROLLED and (self.n <= UNROLLED or self.b.strides[-1] != 1) and sums_are_contiguous:
            self._along_sums()
        elif self.n > UNROLLED or self.n >= max(self.m, self.k):
            self._along_rows()
        elif self.k > UNROLLED and (self.a.strides[-1] == 1 or self.m <= UNROLLED):
            self._along_sums()
        else:
            self._along_columns()

    def _a(self, i: Position, k: Position) -> str:
        return self.a.at(_index(self.starts[0], (i, self.a.strides[-2]), (k, self.a.strides[-1])))

    def _b(self, k: Position, j: Position) -> str:
        return self.b.at(_index(self.starts[1], (k, self.b.strides[-2]), (j, self.b.strides[-1])))

    def _add(self, i: Position, j: Position, value: str, *, adds: bool) -> None:
        at = _index(self.starts[2], (i, self.out.strides[-2]), (j, self.out.strides[-1]))
        self.text.line(self.out.to(at, f"{self.out.at(at)} + {value}" if adds else value))

    @contextmanager
    def _loop(self, n: int) -> Iterator[Position]:
        with self.text.loop(n) as name:
            yield [(name, 1)]

    def _blocks(self, n: int) -> Iterator[list[Position]]:
        """The positions 0 to n - 1 in blocks of up to UNROLLED, written out; the full ones in a loop."""
        full, rest = divmod(n, UNROLLED)
        if full:
            with self.text.loop(full) as name:
                yield [[(name, UNROLLED), (str(l), 1)] for l in range(UNROLLED)]
        if rest:
            yield [[(str(full * UNROLLED + l), 1)] for l in range(rest)]

    def _along_rows(self) -> None:
        """The innermost loop runs over j, with a block of the sum's terms at a time."""
        text, adds = self.text, self.adds
        with self._loop(self.m) as i:
            if self.k > UNROLLED and not adds:
                with self._loop(self.n) as j:
                    self._add(i, j, "d(0.0)", adds=False)
                adds = True
            for block in self._blocks(self.k):
                for l, k in enumerate(block):
                    text.line(f"a{l} = {self._a(i, k)}")
                with self._loop(self.n) as j:
                    terms = " + ".join(f"a{l} * {self._b(k, j)}" for l, k in enumerate(block))
                    self._add(i, j, f"({terms})", adds=adds)

    def _along_sums(self) -> None:
        """The innermost loop runs over k, for a block of columns with a sum each."""
        text = self.text
        with self._loop(self.m) as i:
            for block in self._blocks(self.n):
                for l in range(len(block)):
                    text.line(f"s{l} = d(0.0)")
                with self._loop(self.k) as k:
                    text.line(f"a0 = {self._a(i, k)}")
                    for l, j in enumerate(block):
                        text.line(f"s{l} = plus(s{l}, a0 * {self._b(k, j)})")
                for l, j in enumerate(block):
                    self._add(i, j, f"s{l}", adds=self.adds)

    def _along_columns(self) -> None:
        """The innermost loop runs over i: tall matrices with few columns."""
        text = self.text
        columns: list[Position] = [[(str(j), 1)] for j in range(self.n)]
        if not self.adds:
            with self._loop(self.m) as i:
                for j in columns:
                    self._add(i, j, "d(0.0)", adds=False)
        with self._loop(self.k) as k:
            for l, j in enumerate(columns):
                text.line(f"b{l} = {self._b(k, j)}")
            with self._loop(self.m) as i:
                text.line(f"a0 = {self._a(i, k)}")
                for l, j in enumerate(columns):
                    self._add(i, j, f"a0 * b{l}", adds=True)


def _index(start: str, *positions: tuple[Position, int]) -> str:
    """The text of start + sum of positions times strides."""
    terms = [(name, factor * stride) for position, stride in positions for name, factor in position]
    return index([(start, 1), *terms])


def _einsum(text: Text, subscripts: str, places: Sequence[Place], out: Place, *, adds: bool) -> None:
    """Outer loops over the indices of the result, inner ones over those that are summed."""
    inputs, _, output = subscripts.partition("->")
    names = inputs.split(",")
    sizes = {
        i: n
        for name, place in zip(names, places, strict=True)
        for i, n in zip(name, place.shape, strict=True)
    }
    summed = [i for i in sizes if i not in output]

    def strides(name: str, place: Place, over: Sequence[str]) -> list[int]:
        return [place.strides[name.index(i)] if i in name else 0 for i in over]

    both = [*zip(names, places, strict=True)]
    outer = [strides(name, place, output) for name, place in both]
    with nest(text, [sizes[i] for i in output], [*outer, out.strides]) as (*starts, at_out):
        text.line("total = d(0.0)")
        inner = [strides(name, place, summed) for name, place in both]
        with nest(text, [sizes[i] for i in summed], inner) as offsets:
            factors = [
                place.at(f"{start} + {offset}")
                for place, start, offset in zip(places, starts, offsets, strict=True)
            ]
            text.line(f"total = plus(total, {' * '.join(factors)})")
        text.line(out.to(at_out, f"{out.at(at_out)} + total" if adds else "total"))
