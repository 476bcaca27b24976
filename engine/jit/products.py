"""Products of matrices and tensors as loops whose innermost one runs along contiguous values where there are such."""

from __future__ import annotations

from collections.abc import Sequence

from ..program import Step
from .layout import Place
from .text import UNROLLED, Text, index, nest

PRODUCTS = frozenset(("matmul", "einsum"))


def emit_product(text: Text, step: Step, places: Sequence[Place], out: Place, *, adds: bool) -> None:
    """out = the product of the inputs, or with `adds` out += it."""
    if step.op.name == "einsum":
        _einsum(text, step.static["subscripts"], places, out, adds=adds)
        return
    a, b = places
    batch = out.shape[:-2]
    strides = [p.broadcast_strides((*batch, *p.shape[-2:]))[:-2] for p in (a, b)] + [out.strides[:-2]]
    with nest(text, batch, strides) as (at_a, at_b, at_out):
        _Matmul(text, a, b, out, (at_a, at_b, at_out), adds=adds).emit()


class _Matmul:
    """One product (M, K) @ (K, N)."""

    def __init__(
        self, text: Text, a: Place, b: Place, out: Place, starts: tuple[str, str, str], *, adds: bool
    ) -> None:
        self.text, self.a, self.b, self.out, self.starts, self.adds = text, a, b, out, starts, adds
        (self.m, self.k), self.n = a.shape[-2:], b.shape[-1]

    def emit(self) -> None:
        if self.n > UNROLLED or self.n >= max(self.m, self.k):
            self._along_rows()
        elif self.k > UNROLLED and (self.a.strides[-1] == 1 or self.m <= UNROLLED):
            self._along_sums()
        else:
            self._along_columns()

    def _a(self, i: str, k: str) -> str:
        return self.a.at(index([(self.starts[0], 1), (i, self.a.strides[-2]), (k, self.a.strides[-1])]))

    def _b(self, k: str, j: str) -> str:
        return self.b.at(index([(self.starts[1], 1), (k, self.b.strides[-2]), (j, self.b.strides[-1])]))

    def _out(self, i: str, j: str) -> str:
        return index([(self.starts[2], 1), (i, self.out.strides[-2]), (j, self.out.strides[-1])])

    def _add(self, i: str, j: str, value: str, *, adds: bool) -> None:
        at = self._out(i, j)
        self.text.line(self.out.to(at, f"{self.out.at(at)} + {value}" if adds else value))

    def _along_rows(self) -> None:
        """The innermost loop runs over j; a short sum is one expression, a long one passes over the row for each term."""
        text = self.text
        with text.loop(self.m) as i:
            if self.k <= UNROLLED:
                for l in range(self.k):
                    text.line(f"a{l} = {self._a(i, _n(l))}")
                with text.loop(self.n) as j:
                    terms = " + ".join(f"a{l} * {self._b(_n(l), j)}" for l in range(self.k))
                    self._add(i, j, terms, adds=self.adds)
                return
            if not self.adds:
                with text.loop(self.n) as j:
                    self._add(i, j, "d(0.0)", adds=False)
            with text.loop(self.k) as k:
                text.line(f"a0 = {self._a(i, k)}")
                with text.loop(self.n) as j:
                    self._add(i, j, f"a0 * {self._b(k, j)}", adds=True)

    def _along_sums(self) -> None:
        """The innermost loop runs over k; there are few columns, each with a sum of its own."""
        text = self.text
        with text.loop(self.m) as i:
            for j in range(self.n):
                text.line(f"s{j} = d(0.0)")
            with text.loop(self.k) as k:
                text.line(f"a0 = {self._a(i, k)}")
                for j in range(self.n):
                    text.line(f"s{j} = plus(s{j}, a0 * {self._b(k, _n(j))})")
            for j in range(self.n):
                self._add(i, _n(j), f"s{j}", adds=self.adds)

    def _along_columns(self) -> None:
        """The innermost loop runs over i: tall matrices with few columns."""
        text = self.text
        if not self.adds:
            with text.loop(self.m) as i:
                for j in range(self.n):
                    self._add(i, _n(j), "d(0.0)", adds=False)
        with text.loop(self.k) as k:
            for j in range(self.n):
                text.line(f"b{j} = {self._b(k, _n(j))}")
            with text.loop(self.m) as i:
                text.line(f"a0 = {self._a(i, k)}")
                for j in range(self.n):
                    self._add(i, _n(j), f"a0 * b{j}", adds=True)


def _n(k: int) -> str:
    return str(k)


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
