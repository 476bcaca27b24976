"""A primitive: a forward on arrays of one module, its VJP rule, and (optionally)
a kernel that writes into a buffer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from .trace import Static, apply, shape_of

# (*arrays, **static): whether their dtypes, shapes and layouts are those of a kernel
Fits = Callable[..., bool]
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Primitive:
    """One operation. Calling it records it where a traced value is among the arguments,
    and computes it otherwise.

    Attributes:
        forward: (xp, *arrays, **static) -> array.
        rule: (ybar, *saved, **static) -> one cotangent (or None) an input; written with ops,
            so that it can be traced.
        is_flat: the derivative is zero wherever it exists (comparisons, sign, rounding); needs no rule.
        may_view: the result can be a view of the first input's memory.
        into: (out, *arrays, **static) -> calls that compute the result into `out` without allocating,
            or None.
        chunk_calls: for elementwise operations without settings, the ufunc calls they consist of, as (ufunc,
            names of what it reads, name of what it writes): "x0", "x1", ... are the inputs, "out" the result,
            "zero" a row of zeros, "mask" a scratch array of truth values.
        is_mixed: the inputs may be of several modules (times on the host, states on a device); the forward is
            given NumPy and looks for itself.
        is_shared: there is one of its name, and it holds no data: programs of such operations are remembered.
        cuda: the kernel for CuPy arrays, (*arrays, out=None, **static) -> array, or None; see `on_cuda`.
    """

    def __init__(self, name: str, forward: Callable[..., Any], *, is_flat: bool, may_view: bool) -> None:
        self.name = name
        self.forward = forward
        self.is_flat = is_flat
        self.may_view = may_view
        self.rule: Callable[..., Any] | None = None
        self.into: Callable[..., Iterable[Call] | None] | None = None
        self.chunk_calls: tuple[tuple[Any, tuple[str, ...], str], ...] = ()
        self.is_mixed = False
        self.is_shared = False
        self.cuda: Callable[..., Any] | None = None
        self._fits_cuda: Fits | None = None
        self.rule_wants_needs = False
        self._keepers: tuple[tuple[str, int, bool], ...] = ()
        self.__doc__ = forward.__doc__

    def __call__(self, *args: Any, **static: Any) -> Any:
        return apply(self, args, static)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def vjp(self, saves: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the rule. It receives what it names: an input `a`, the output `y`,
        or only their shape `a.shape`.

        Variadic inputs are saved together, as one tuple. A rule with a parameter `needs` is told which inputs
        are differentiated, and may return None for the others.
        """
        names = [p for p in inspect.signature(self.forward).parameters.values() if p.kind != p.KEYWORD_ONLY]
        positions = {p.name: i - 1 for i, p in enumerate(names)}
        variadic = next((p.name for p in names if p.kind == p.VAR_POSITIONAL), None)
        keepers = []
        for save in saves:
            name, _, attribute = save.partition(".")
            place = (
                "output" if name == "y" and "y" not in positions else "all" if name == variadic else "input"
            )
            keepers.append((place, positions.get(name, 0), attribute == "shape"))

        def register(rule: Callable[..., Any]) -> Callable[..., Any]:
            self.rule = rule
            self.rule_wants_needs = "needs" in inspect.signature(rule).parameters
            self._keepers = tuple(keepers)
            return rule

        return register

    def writes_into(self, into: Callable[..., Iterable[Call] | None]) -> Callable[..., Iterable[Call] | None]:
        """Register the kernel that replay uses instead of `out[...] = forward(...)`."""
        self.into = into
        return into

    def on_cuda(self, fits: Fits) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the kernel that computes this primitive on CuPy arrays where `fits(*arrays, **static)`.

        The kernel is called as kernel(*arrays, out=None, **static). It returns `out`, written whole, or a new
        array of the shape and dtype that `forward` gives. `fits` looks at dtypes, shapes and layouts, never
        at values: a replay asks once and keeps the answer. Everything else, numbers in the place of arrays
        too, is left to `forward`. What a rule computes has a kernel in the same way:
        the rule calls a primitive that has one.
        """

        def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
            assert self.cuda is None, f"two CUDA kernels for {self.name}"
            self.cuda, self._fits_cuda = kernel, fits
            return kernel

        return register

    def fits_cuda(self, args: tuple[Any, ...], static: Static) -> bool:
        """Whether there is a CUDA kernel, and it takes these CuPy arrays."""
        return self._fits_cuda is not None and self._fits_cuda(*args, **static)

    def keep(self, args: tuple[Any, ...], output: Any) -> tuple[Any, ...]:
        """What the rule needs of one evaluation."""
        kept = []
        for place, position, only_shape in self._keepers:
            if place == "all":
                group = args[position:]
                kept.append(tuple(shape_of(a) for a in group) if only_shape else group)
            else:
                value = output if place == "output" else args[position]
                kept.append(shape_of(value) if only_shape else value)
        return tuple(kept)

    def forget(self) -> None:
        """Drop what a call left with the operation; only those that are made for one call leave anything."""

    def pull_back(
        self, ybar: Any, saved: tuple[Any, ...], static: Static, needs: tuple[bool, ...]
    ) -> Iterable[Any]:
        """The cotangents of the inputs."""
        assert self.rule is not None
        if self.rule_wants_needs:
            return self.rule(ybar, *saved, needs=needs, **static)
        return self.rule(ybar, *saved, **static)


PRIMITIVES: dict[str, Primitive] = {}


def primitive(
    name: str, *, is_flat: bool = False, may_view: bool = False
) -> Callable[[Callable[..., Any]], Primitive]:
    """Make a Primitive of a forward function and enter it in PRIMITIVES."""

    def register(forward: Callable[..., Any]) -> Primitive:
        assert name not in PRIMITIVES, f"two primitives named {name}"
        PRIMITIVES[name] = Primitive(name, forward, is_flat=is_flat, may_view=may_view)
        PRIMITIVES[name].is_shared = True
        return PRIMITIVES[name]

    return register
