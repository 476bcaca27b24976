"""Matrix products of CuPy arrays by cublasLt, which a CUDA graph can hold.

float32 and float64, two matrices or stacks of them; float32 in the precision that `product_precision` says.
Arrays are taken where they lie, row by row or column by column, with gaps between the rows too, and an
operand that is broadcast along the stack is read where it is; what lies otherwise is copied first. All else
(complex numbers, no nvmath-python, a product without an algorithm) is CuPy's own, by cuBLAS,
and small products of few terms are a kernel of `products`.

In "bf16" operands are rounded to bfloat16 where the result has at least FEWEST_NARROWED rows and columns:
that reads both once and writes half their bytes, which smaller products do not win back.
Those are computed in TF32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .. import backend
from ..backend import Array
from ..kernels.products import on_device
from ..ops.linear import matmul_arrays
from ..product_precision import current_products
from .bfloat16 import narrowed
from .cublaslt_plans import WIDEST_ALIGNMENT, Matrix, Problem, plan_for, run
from .products import is_small, product_calls

# With n columns of the result a value of an operand is read for 2 n operations. Tensor cores do them in half
# the time in bfloat16, some 1e15 a second against 5e14. To round it moves 6 bytes and saves 2, of some 4e12 a
# second: n of 500 wins that back. (From data sheets.)
FEWEST_NARROWED = 512

# A block of the small kernel walks along k alone, some 0.6 us for 16 terms; cublasLt, which divides a long
# sum among blocks, takes some 8 us for a small product. (Estimates: the benchmark `gpu/products.py` measures
# both.)
MOST_TERMS = 256  # of a product for the small kernel

# By precision, in this order: the kinds that round no more. Cards before Ampere have neither TF32 nor
# bfloat16.
_KINDS = {"fp32": ("fp32",), "tf32": ("tf32", "fp32"), "bf16": ("bf16", "tf32", "fp32")}

Lie = tuple[tuple[int, ...], tuple[int, ...]]  # a shape, and strides that count values
Arrangement = tuple[int, tuple[Matrix, Matrix, Matrix], tuple[bool, bool], bool]


def fits(a: Any, b: Any) -> bool:
    """Whether these operands are for cublasLt: float32 or float64, matrices or stacks, not empty,
    not small.
    """
    return bool(
        a.dtype == b.dtype
        and a.dtype.name in ("float32", "float64")
        and min(a.ndim, b.ndim) >= 2
        and a.size
        and b.size
        and not (is_small(a, b) and a.shape[-1] <= MOST_TERMS)
        and backend.cublaslt_module()
    )


@matmul_arrays.on_cuda(fits)
def matmul_cublaslt(a: Array, b: Array, out: Array | None = None) -> Array:
    """`matmul_arrays`: a (..., m, k), b (..., k, n) -> (..., m, n), the leading axes broadcast."""
    xp = backend.namespace_of(a)
    if out is None:
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = xp.empty((*stack, a.shape[-2], b.shape[-1]), a.dtype)
    if not _multiplied(xp, a, b, out):
        _multiply_otherwise(a, b, out)
    return out


@on_device
def matmul_into(a: Array, b: Array, out: Array) -> None:
    """out = a @ b for the matrix products of `engine/kernels` on CuPy arrays,
    so that a graph can hold those too.
    """
    if out.dtype == a.dtype and fits(a, b):
        matmul_cublaslt(a, b, out)
    elif backend.cublaslt_module() is None:
        backend.namespace_of(a).matmul(a, b, out=out)
    else:
        _multiply_otherwise(a, b, out)


def _multiply_otherwise(a: Array, b: Array, out: Array) -> None:
    """out = a @ b by the kernel for small products, or else by CuPy."""
    calls = product_calls(out, a, b) if out.flags.c_contiguous else None
    if calls is None:
        backend.namespace_of(a).matmul(a, b, out=out)
    for kernel, arguments, settings in calls or ():
        kernel(*arguments, **settings)


def _multiplied(xp: Any, a: Array, b: Array, out: Array) -> bool:
    """Write a @ b into `out`; False, and nothing is done,
    if cublasLt has no algorithm of any kind that will do.
    """
    products = current_products()
    kinds = ("fp64",) if a.dtype.name == "float64" else _KINDS[products.precision]
    for kind in kinds:
        if kind == "bf16":
            if min(out.shape[-2:]) < FEWEST_NARROWED:
                continue
            done = _multiplied_as(kind, xp, _narrowed(xp, a), _narrowed(xp, b), out, products.deterministic)
        else:
            done = _multiplied_as(kind, xp, a, b, out, products.deterministic)
        if done:
            return True
    return False


def _multiplied_as(kind: str, xp: Any, a: Array, b: Array, out: Array, deterministic: bool) -> bool:
    """`_multiplied` by a kind of product; operands that cannot be read where they lie are copied."""
    found, target = _arranged(_lie(a), _lie(b), _lie(out)), out
    if found is None:
        stack = out.shape[:-2]
        a, b = (xp.ascontiguousarray(xp.broadcast_to(x, (*stack, *x.shape[-2:]))) for x in (a, b))
        target = out if out.flags.c_contiguous else xp.empty(out.shape, out.dtype)
        found = _arranged(_lie(a), _lie(b), _lie(target))
    assert found is not None
    n_matrices, matrices, turned, is_swapped = found
    first, second = (b, a) if is_swapped else (a, b)
    alignments = _alignment(first), _alignment(second), _alignment(target)
    plan = plan_for(Problem(kind, *matrices, turned, n_matrices, alignments, deterministic))
    if plan is None:
        return False
    run(plan, first, second, target)
    if target is not out:
        out[...] = target
    return True


def _narrowed(xp: Any, x: Array) -> Array:
    """The bfloat16 halves of float32 x, lying as x does where that is without gaps."""
    turned = x.swapaxes(-1, -2)
    if turned.flags.c_contiguous:
        return narrowed(turned).swapaxes(-1, -2)
    return narrowed(xp.ascontiguousarray(x))


def _lie(array: Array) -> Lie:
    return array.shape, tuple(step // array.itemsize for step in array.strides)


def _alignment(array: Array) -> int:
    """The largest power of 2 that divides the address, up to WIDEST_ALIGNMENT."""
    address = backend.device_address(array) | WIDEST_ALIGNMENT
    return address & -address


@lru_cache(maxsize=1 << 12)
def _arranged(a: Lie, b: Lie, out: Lie) -> Arrangement | None:
    """(count, matrices, turned, whether b comes first) for out = a @ b;
    None if an array cannot be taken where it lies.

    A matrix that lies row by row is, read column by column, its transpose. So a result that lies row by row
    is computed as out^T = b^T a^T, in which an operand that lies row by row is not turned.
    """
    stack = _stack(out[0][:-2], [_stack_steps(lie, len(out[0])) for lie in (a, b, out)])
    found = [_matrix(lie) for lie in (a, b, out)]
    if stack is None or None in found:
        return None
    count, steps = stack
    (left, left_by_columns), (right, right_by_columns), (result, is_by_columns) = (
        (matrix._replace(stack_step=step), by_columns)
        for (matrix, by_columns), step in zip((one for one in found if one), steps, strict=True)
    )
    if is_by_columns:
        return count, (left, right, result), (not left_by_columns, not right_by_columns), False
    return count, (right, left, result), (right_by_columns, left_by_columns), True


def _matrix(lie: Lie) -> tuple[Matrix, bool] | None:
    """The last two axes, and whether they lie column by column;
    None if they lie neither so nor row by row.
    """
    (*_, m, n), (*_, down, along) = lie
    for (n_inner, inner), (n_outer, outer), by_columns in (
        ((n, along), (m, down), False),
        ((m, down), (n, along), True),
    ):
        step = outer if n_outer > 1 else n_inner
        if (n_inner == 1 or inner == 1) and step >= n_inner:
            return Matrix(n_inner, n_outer, step), by_columns
    return None


def _stack_steps(lie: Lie, ndim: int) -> list[int]:
    """For each leading axis of the result the step of an operand; 0 where that is broadcast."""
    shape, strides = lie
    steps = [0 if size == 1 else step for size, step in zip(shape[:-2], strides[:-2], strict=True)]
    return [0] * (ndim - len(shape)) + steps


def _stack(shape: tuple[int, ...], steps: list[list[int]]) -> tuple[int, tuple[int, ...]] | None:
    """(count, a step an array) of leading axes joined into one; None if their steps do not allow that."""
    count, joined = 1, (0,) * len(steps)
    for size, *found in zip(shape, *steps, strict=True):
        if size == 1:
            continue
        if min(found) < 0 or (count > 1 and any(j != size * f for j, f in zip(joined, found, strict=True))):
            return None
        count, joined = count * size, tuple(found)
    return count, joined
