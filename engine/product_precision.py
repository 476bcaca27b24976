"""How the operands of matrix products and convolutions are rounded on a GPU: not at all, to TF32,
or to bfloat16.

Tensor cores multiply numbers of few bits several times faster than float32, and add the products in float32.
What is rounded is the operands of products alone: states, error norms, moments, the sums of an adjoint and
the optimiser stay in float32. The choice holds for float32 arrays on a GPU;
NumPy's products and those of float64 are never rounded.

| name | bits of an operand | largest relative error of rounding one |
|---|---|---|
| fp32 | 24 | none: the operands are float32 |
| tf32 | 11 | 2**-10, where a kernel cuts the other bits off (2**-11 where it rounds) |
| bf16 | 8 | 2**-8, rounded to nearest |

In "bf16" that holds for convolutions, and for large matrix products where cublasLt computes them
(`cuda/cublaslt`); other matrix products are those of "tf32", since CuPy has none in bfloat16. Small ones that
a kernel of the package computes (`cuda/products`) are never rounded.

Source: IEEE 754 for the errors; NVIDIA, "TensorFloat-32 in the A100 GPU" (2020), for the format.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from . import backend
from .errors import ArgumentError

OPERAND_ERRORS = {"fp32": 0.0, "tf32": 2.0**-10, "bf16": 2.0**-8}  # relative, of rounding one operand


@dataclass(frozen=True)
class Products:
    """How products are computed.

    Attributes:
        precision: "fp32", "tf32" or "bf16".
        deterministic: whether only algorithms are used that repeat their bits (a weight gradient may
            otherwise be summed in the order in which the blocks of a GPU happen to finish).
    """

    precision: str = "fp32"
    deterministic: bool = False


_PLAIN = Products()
_local = threading.local()


@contextmanager
def product_precision(precision: str, *, deterministic: bool = False) -> Iterator[None]:
    """Inside the block, on this thread, products of float32 arrays on a GPU are computed in `precision`.

    CuPy keeps the setting of its matrix products for the whole process:
    do not use two precisions on two threads.
    Args:
        precision: "fp32", "tf32" or "bf16".
        deterministic: whether only algorithms may be used that repeat their bits.
    Raises: ArgumentError for another name; ArgumentTypeError for "tf32" and "bf16" where CuPy is not
        installed.
    """
    if precision not in OPERAND_ERRORS:
        raise ArgumentError(f"`precision` must be one of {', '.join(OPERAND_ERRORS)}; got {precision!r}")
    before = current_products()
    changes = precision != before.precision
    with backend.matrix_products_in(precision) if changes else nullcontext():
        _local.products = Products(precision, deterministic)
        try:
            yield
        finally:
            _local.products = before


def current_products() -> Products:
    """What the innermost `product_precision` on this thread said; plain float32 outside of any."""
    return getattr(_local, "products", _PLAIN)


def plain_dot(xp: ModuleType) -> Callable[..., Any]:
    """`xp.dot` for the weighted sums of a solver, whose operands are states, slopes and cotangents:
    never rounded.

    CuPy has cuBLAS compute them as products of matrices, which do follow `product_precision`.
    """
    return np.dot if xp is np else partial(_plain_dot, xp)


def _plain_dot(xp: ModuleType, a: backend.Array, b: backend.Array, out: backend.Array | None = None) -> Any:
    if current_products().precision == _PLAIN.precision:
        return xp.dot(a, b, out=out)
    with product_precision(_PLAIN.precision):
        return xp.dot(a, b, out=out)
