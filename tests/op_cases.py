"""The table of cases that every primitive must have an entry in, shared by the tests of operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from odegrad.engine import ops  # noqa: F401 - registers the primitives
from odegrad.engine.backend import namespace_of
from odegrad.engine.primitive import PRIMITIVES, Primitive
from odegrad.engine.tree import leaves

Draw = Callable[[np.random.Generator], Any]


@dataclass(frozen=True)
class Real:
    """A differentiated float64 argument with entries in [low, high], no two closer than what differences need."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        n = int(np.prod(self.shape))
        spread = (rng.permutation(n) + rng.uniform(0.3, 0.7, n)) / max(1, n)  # distinct: no accidental ties
        return (self.low + (self.high - self.low) * spread).reshape(self.shape)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) or "0d"


@dataclass(frozen=True)
class Fixed:
    """An argument that is not differentiated."""

    make: Draw

    def __call__(self, rng: np.random.Generator) -> Any:
        return self.make(rng)

    def __str__(self) -> str:
        return "fixed"


def number(value: Any) -> Fixed:
    return Fixed(lambda rng: value)


def integers(shape: tuple[int, ...], n: int) -> Fixed:
    return Fixed(lambda rng: rng.integers(0, n, shape))


def mask(shape: tuple[int, ...]) -> Fixed:
    return Fixed(lambda rng: rng.uniform(size=shape) < 0.5)


@dataclass(frozen=True)
class Case:
    """One primitive on arguments of given shapes.

    Attributes:
        oracle: "complex" (complex step), "difference", or "flat" (no derivative).
        derived: appended arguments computed from the drawn ones (the output that a gradient kernel is given).
        keeps_dtype: whether the result has the dtype of the arguments.
    """

    name: str
    args: tuple[Any, ...]
    static: dict[str, Any] = field(default_factory=dict)
    oracle: str = "complex"
    derived: Callable[..., tuple[Any, ...]] | None = None
    keeps_dtype: bool = True

    @property
    def op(self) -> Primitive:
        return PRIMITIVES[self.name]

    @property
    def wrt(self) -> list[int]:
        """Positions of the differentiated arguments."""
        return [k for k, arg in enumerate(self.args) if isinstance(arg, Real)]

    def draw(self, rng: np.random.Generator, dtype: Any = np.float64) -> list[Any]:
        """The arguments in `dtype`; if it is complex, those that are differentiated get an imaginary part."""
        values = [arg(rng) for arg in self.args]
        is_complex = np.dtype(dtype).kind == "c"
        for k, value in enumerate(values):
            if is_complex and k in self.wrt:
                values[k] = value + 0.1j * rng.standard_normal(value.shape)
            elif not is_complex and getattr(value, "dtype", None) == np.float64:
                values[k] = value.astype(dtype)
        return [*values, *self.derived(*values)] if self.derived else values

    def forward(self, values: Sequence[Any]) -> Any:
        """The plain forward on arrays, of the module that they belong to."""
        return self.op.forward(namespace_of(*leaves(values)), *values, **self.static)

    def with_wrt(self, values: Sequence[Any], chosen: Sequence[Any]) -> list[Any]:
        """`values` with the differentiated ones replaced."""
        full = list(values)
        for k, value in zip(self.wrt, chosen, strict=True):
            full[k] = value
        return full

    def function(self, values: Sequence[Any]) -> Callable[..., Any]:
        """The primitive as a function of the differentiated arguments."""
        return lambda *chosen: self.op(*self.with_wrt(values, chosen), **self.static)

    def plain(self, values: Sequence[Any]) -> Callable[..., Any]:
        """The plain forward as a function of the differentiated arguments."""
        return lambda *chosen: self.forward(self.with_wrt(values, chosen))

    def __str__(self) -> str:
        static = ",".join(f"{key}={value}" for key, value in self.static.items())
        return f"{self.name}({' '.join(map(str, self.args))}{' ' + static if static else ''})"


PAIRS = [
    ((2, 3), (2, 3)),
    ((3, 1), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((), (3,)),
    ((2, 1), (1, 3)),
    ((), ()),
    ((0, 3), (1, 3)),
]
SHAPES: list[tuple[int, ...]] = [(), (7,), (2, 3, 5), (0, 3)]


def unary(name: str, low: float = -2.0, high: float = 2.0, **options: Any) -> list[Case]:
    return [Case(name, (Real(shape, low, high),), **options) for shape in SHAPES]


def binary(name: str, low: float = -2.0, high: float = 2.0, **options: Any) -> list[Case]:
    found = [Case(name, (Real(a, low, high), Real(b, low, high)), **options) for a, b in PAIRS]
    weak = [(Real((2, 3), low, high), number(1.5)), (number(1.5), Real((2, 3), low, high))]
    return [*found, *(Case(name, pair, **options) for pair in weak)]


def flat(name: str, *args: Any, **static: Any) -> Case:
    return Case(name, args, static, oracle="flat", keeps_dtype=False)


CONV = {"stride": 2, "padding": 1}
POOL = {"size": 2, "stride": 2, "padding": 0}
OVERLAP = {"size": 3, "stride": 2, "padding": 1}
IMAGES = Real((2, 5, 6, 3))
GRID = Fixed(lambda rng: np.linspace(0.0, 1.0, 6))


def with_maxima(static: dict[str, Any]) -> Callable[..., tuple[Any, ...]]:
    """(..., x) -> the pooled maxima of x, which the kernels of max pooling's derivative are given."""
    return lambda *values: (PRIMITIVES["max_pool"].forward(np, values[1], **static),)


def pooled(static: dict[str, Any]) -> tuple[int, ...]:
    return PRIMITIVES["max_pool"].forward(np, np.zeros(IMAGES.shape), **static).shape


def distinct(shape: tuple[int, ...]) -> Fixed:
    return Fixed(Real(shape))


ELEMENTWISE = [
    *binary("add"),
    *binary("sub"),
    *binary("mul"),
    *binary("div", 0.5, 2.0),
    *binary("power_of", 0.5, 2.0),
    *binary("maximum"),
    *binary("minimum"),
    *unary("neg"),
    *unary("square"),
    *[case for n in (-2, -1, 3, 4, 5, 1.5) for case in unary("power", 0.5, 2.0, static={"exponent": n})],
    *unary("power", -2.0, -0.5, static={"exponent": -3}),
    *unary("exp"),
    *unary("expm1"),
    *unary("log", 0.2, 3.0),
    *unary("log1p", -0.5, 3.0),
    *unary("sqrt", 0.2, 3.0),
    *unary("sin"),
    *unary("cos"),
    *unary("tan", -1.0, 1.0),
    *unary("arctan", -0.9, 0.9),
    *unary("sinh"),
    *unary("cosh"),
    *unary("tanh"),
    *unary("sigmoid", -4.0, 4.0),
    *unary("softplus", -4.0, 4.0),
    *unary("abs", oracle="difference"),
    *unary("relu"),
    Case("relu_gate", (Real((2, 3)), distinct((2, 3)))),
    Case("relu_gate", (Real((0, 3)), distinct((0, 3)))),
    Case("where", (mask((2, 3)), Real((2, 3)), Real((2, 3)))),
    Case("where", (mask((3, 1)), Real((2, 1, 4)), Real((4,)))),
    Case("where", (mask((2, 3)), Real((2, 3)), number(0.0))),
    Case("where", (mask((2, 3)), number(1.0), Real(()))),
    *unary("real", oracle="difference"),
    *unary("conj", oracle="difference"),
    *[
        flat(name, Real(shape))
        for name in ("sign", "floor", "ceil", "rint", "isnan", "isfinite")
        for shape in SHAPES
    ],
    *[flat(name, Real(shape)) for name in ("zeros_like", "ones_like", "stop_gradient") for shape in SHAPES],
    *[
        flat(name, Real(a), Real(b))
        for name in ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal")
        for a, b in PAIRS
    ],
    flat("equal", integers((6,), 3), number(1)),
    flat("logical_and", mask((2, 3)), mask((3,))),
    flat("logical_or", mask((2, 3)), mask((3,))),
    flat("logical_not", mask((2, 3))),
]

SHAPING = [
    Case("reshape", (Real((2, 6)),), {"shape": (3, 4)}),
    Case("reshape", (Real(()),), {"shape": (1, 1)}),
    Case("reshape", (Real((0, 3)),), {"shape": (3, 0, 2)}),
    Case("transpose", (Real((2, 3, 4)),), {"axes": (2, 0, 1)}),
    Case("transpose", (Real((3, 3, 3)),), {"axes": (2, 0, 1)}),  # a wrong permutation fits
    Case("broadcast_to", (Real((3, 1)),), {"shape": (2, 3, 4)}),
    Case("broadcast_to", (Real(()),), {"shape": (2, 3)}),
    *[
        Case("unbroadcast", (Real(given),), {"shape": shape})
        for given, shape in [
            ((5, 3), (3,)),
            ((2, 3, 4), (3, 1)),
            ((2, 3), ()),
            ((4, 2, 3), (1, 3)),
            ((0, 3), (3,)),
            ((6,), (1,)),
        ]
    ],
    Case("concatenate", (Real((2, 3)), Real((2, 1)), Real((2, 0))), {"axis": 1}),
    Case("concatenate", (Real((2, 3)), distinct((1, 3))), {"axis": 0}),
    Case("getitem", (Real((4, 5, 2)),), {"index": (("slice", None, None, -2), 1, Ellipsis)}),
    Case("getitem", (Real((4, 5)),), {"index": (2, -1)}),
    Case("getitem", (Real((4, 5)),), {"index": (Ellipsis, None, ("slice", 1, 3, None))}),
    Case("place", (Real((2, 2)),), {"shape": (4, 5, 2), "index": (("slice", None, None, -2), 1, Ellipsis)}),
    Case("place", (Real(()),), {"shape": (3,), "index": (-1,)}),
    Case("take", (Real((4, 3)), integers((5,), 4)), {"axis": 0}),
    Case("take", (Real((2, 4, 3)), integers((2, 2), 4)), {"axis": 1}),
    Case("place_at", (Real((5, 3)), integers((5,), 4)), {"length": 4, "axis": 0}),
    Case("place_at", (Real((2, 2, 2, 3)), integers((2, 2), 4)), {"length": 4, "axis": 1}),
    Case("pad", (Real((2, 3)),), {"widths": ((1, 0), (2, 1))}),
    Case("astype", (Real((2, 3)),), {"dtype": "float64"}, oracle="difference", keeps_dtype=False),
    Case("astype", (Real((2, 3)),), {"dtype": "complex128"}, keeps_dtype=False),
    flat("astype_discrete", Real((2, 3)), dtype="int64"),
    flat("astype_discrete", Real((2, 3)), dtype="bool"),
    *unary("copy"),
    Case("as_number", (Real(()),), keeps_dtype=False),
    Case("on_device", (Real((2, 3)),), {"device": "cpu"}),
]

REDUCTIONS = [
    *[
        Case(name, (Real((2, 3, 4)),), {"axes": axes})
        for name in ("sum", "max", "min")
        for axes in [(0,), (1, 2), (0, 1, 2)]
    ],
    Case("sum", (Real((0, 3)),), {"axes": (0,)}),
    Case("cumsum", (Real((3, 4)),), {"axis": 1}),
    Case("reverse_cumsum", (Real((3, 4)),), {"axis": 0}),
    Case("mean_leading", (Real((2, 5, 3)),)),
    Case("mean_leading", (Real((4, 1)),)),
    Case("square_about_mean", (Real((2, 5, 3)), distinct((3,)))),
    Case("square_about_mean", (Real((2, 4, 3)), distinct((2, 1, 3)))),
    flat("argmax", Real((3, 4)), axis=0),
]

PRODUCTS = [
    Case("matmul", (Real((3, 4)), Real((4, 2)))),
    Case("matmul", (Real((3, 3)), Real((3, 3)))),  # a missing transposition fits
    Case("matmul", (Real((5, 1, 3, 4)), Real((2, 4, 2)))),
    Case("matmul", (Real((0, 4)), Real((4, 2)))),
    Case("matmul", (Real((3, 0)), Real((0, 2)))),
    Case("einsum", (Real((2, 3)), Real((3, 4))), {"subscripts": "ij,jk->ik"}),
    Case("einsum", (Real((2, 3)), Real((4,))), {"subscripts": "ij,k->kj"}),
    Case("einsum", (Real((2, 3)),), {"subscripts": "ij->"}),
    Case("einsum", (Real((5, 2, 3)), Real((5, 3)), Real((2,))), {"subscripts": "bij,bj,i->b"}),
    Case("pick", (Real((4, 3)), integers((4,), 3))),
    Case("place_picked", (Real((4,)), integers((4,), 3)), {"width": 3}),
]

IMAGE = [
    Case("conv2d", (IMAGES, Real((3, 3, 3, 2))), CONV),
    Case("conv2d_input_grad", (Real((2, 3, 3, 2)), Real((3, 3, 3, 2))), {"size": (5, 6), **CONV}),
    Case("conv2d_weight_grad", (IMAGES, Real((2, 3, 3, 2))), {"kernel": (3, 3), **CONV}),
    *[
        case
        for static in (POOL, OVERLAP)
        for case in (
            Case("max_pool", (IMAGES,), static),
            Case(
                "max_pool_grad",
                (Real(pooled(static)), distinct(IMAGES.shape)),
                static,
                derived=with_maxima(static),
            ),
            Case("max_pool_pick", (IMAGES, distinct(IMAGES.shape)), static, derived=with_maxima(static)),
            Case("avg_pool", (IMAGES,), static),
            Case("avg_pool_grad", (Real(pooled(static)),), {**static, "input_shape": IMAGES.shape[1:3]}),
        )
    ],
]

TIME = [
    *[
        Case("hat_weights", (Real((), low, high), GRID), {"dtype": "float64"}, keeps_dtype=False)
        for low, high in [(0.21, 0.39), (-1.0, -0.1), (1.1, 2.0), (0.81, 0.99)]
    ],
    flat("hat_slopes", Real((), 0.21, 0.39), GRID, dtype="float64"),
    flat(
        "keep_mask",
        Fixed(lambda rng: np.array([3, 4], np.uint32)),
        rate=0.5,
        shape=(3, 4),
        dtype="float64",
    ),
]

CASES = [*ELEMENTWISE, *SHAPING, *REDUCTIONS, *PRODUCTS, *IMAGE, *TIME]
DIFFERENTIABLE = [case for case in CASES if case.oracle != "flat"]
ANALYTIC = [case for case in CASES if case.oracle == "complex"]
FLAT = [case for case in CASES if case.oracle == "flat"]
